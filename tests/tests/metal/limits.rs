//! cgroup v2 with all of its controllers: each limit holds.

use std::path::PathBuf;
use std::time::SystemTime;

use hearth_tests::binary;
use hearth_tests::metal::Rack;
use hearth_tests::skipped;

use crate::site::{LONG, Site};

/// The newest test binary of this name.
pub fn test_binary(name: &str) -> Option<PathBuf> {
    let deps = binary("hearthd").ok()?.parent()?.join("deps");
    let mut found: Vec<(SystemTime, PathBuf)> = std::fs::read_dir(deps)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let file = path.file_name().and_then(|f| f.to_str()).unwrap_or_default();
            path.extension().is_none() && file.rsplit_once('-').is_some_and(|(stem, _)| stem == name)
        })
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .collect();
    found.sort();
    found.pop().map(|(_, path)| path)
}

#[test]
fn the_jail_holds_on_cgroup_v2() {
    const TEST: &str = "the_jail_holds_on_cgroup_v2";
    let Some(rack) = Rack::new(TEST).unwrap() else {
        return;
    };
    let Some(jail) = test_binary("jail") else {
        skipped(
            TEST,
            "hearth-agent's test `jail` is not built (scripts/test builds it)",
        );
        return;
    };
    let mut machine = rack.machine("alpha").unwrap();
    // Outside of the service that runs these commands.
    let ended = machine
        .try_run(
            LONG,
            &format!(
                "systemd-run --quiet --pipe --wait --collect '{}' --test-threads=1 2>&1",
                jail.display()
            ),
        )
        .unwrap();
    println!("{ended}");
    assert!(ended.status.success());
    assert!(!ended.stdout.contains("SKIPPED"), "every controller is there");
    assert_eq!(
        machine.run("find /sys/fs/cgroup -name '*hearth*'").unwrap(),
        "",
        "no cgroup is left"
    );
}

#[test]
#[ignore = "long: scripts/test --metal"]
fn an_instance_has_its_share_and_no_more() {
    let Some(rack) = Rack::new("an_instance_has_its_share_and_no_more").unwrap() else {
        return;
    };
    let (mut site, instance) = Site::up(&rack, "alpha").unwrap();
    let group = site
        .run(&format!("find /sys/fs/cgroup -type d -name {instance}"))
        .unwrap();
    let mut read = |file: &str| site.run(&format!("cat {group}/{file}")).unwrap();
    // t2.micro: 1 GiB and one vCPU; above them what the monitor itself needs.
    let memory: u64 = read("memory.max").parse().unwrap();
    assert!((1 << 30..(1 << 30) + (256 << 20)).contains(&memory), "{memory}");
    assert_eq!(read("cpu.max"), "200000 100000");
    assert_eq!(read("pids.max"), "512");
    assert!(read("io.weight").starts_with("default "), "a share of the disks");

    // A monitor that its guest had taken over could not fork past its limit, and takes no CPU that others need.
    let ended = site
        .try_run(&format!(
            "bash -c 'echo $$ >{group}/cgroup.procs; for i in $(seq 600); do sleep 600 & done' 2>&1; \
             grep -h max {group}/pids.events; pkill -x -9 sleep"
        ))
        .unwrap();
    assert!(
        ended.stdout.contains("Resource temporarily unavailable"),
        "{ended}"
    );
    assert!(!ended.stdout.contains("max 0"), "{ended}");
    let used = "sed -n 's/^usage_usec //p'";
    let usage = site
        .run(&format!(
            "a=$({used} {group}/cpu.stat); \
             for i in 1 2 3 4; do bash -c 'echo $$ >{group}/cgroup.procs; exec timeout 10 sh -c \"while :; do :; done\"' & done; wait; \
             b=$({used} {group}/cpu.stat); echo $(((b - a) / 1000))"
        ))
        .unwrap();
    let usage: u64 = usage.parse().unwrap();
    assert!(usage < 23_000, "{usage} ms of CPU time in 10 s, with two CPUs");
    site.ssh(&instance, "true").unwrap();
}

/// How many bytes each of two cgroups reads from a disk within 20 seconds.
fn read_by(site: &mut Site, groups: [&str; 2], device: &str) -> [u64; 2] {
    let said = site
        .run(&format!(
            "n=$(cat /sys/class/block/{device}/dev)
             r() {{ sed -n \"s/^$n .*rbytes=\\([0-9]*\\) .*/\\1/p\" $1/io.stat; }}
             a=$(r {0}); b=$(r {1}); sleep 20; echo $(($(r {0}) - a)) $(($(r {1}) - b))",
            groups[0], groups[1]
        ))
        .unwrap();
    let bytes: Vec<u64> = said.split(' ').map(|n| n.parse().unwrap()).collect();
    bytes.try_into().unwrap()
}

#[test]
#[ignore = "long: scripts/test --metal"]
fn instances_that_keep_requests_waiting_share_a_bfq_disk_by_their_vcpus() {
    /// Of the disk, while it is measured.
    const BYTES_PER_SECOND: u64 = 8 << 20;
    let Some(rack) =
        Rack::new("instances_that_keep_requests_waiting_share_a_bfq_disk_by_their_vcpus").unwrap()
    else {
        return;
    };
    let mut machine = rack.machine("alpha").unwrap();
    let disk = machine.plug_disk("volumes", 4 << 30).unwrap();
    let device = disk.rsplit('/').next().unwrap().to_owned();
    machine
        .run(&format!(
            "set -e; modprobe bfq; echo bfq >/sys/block/{device}/queue/scheduler; mkfs.ext4 -q {disk}; \
             mkdir -p /var/lib/hearth/agent; mount {disk} /var/lib/hearth/agent"
        ))
        .unwrap();
    let mut site = Site::new(&rack, machine).unwrap();
    site.script("up").unwrap();
    let one_vcpu = site.named("hello", "InstanceId").unwrap();
    let image = site.field(&one_vcpu, "ImageId").unwrap();
    let two_vcpus = site
        .run(&format!(
            "hearth run-instances --image-id {image} --instance-type t3.nano --key-name hearth --security-groups ssh \
             --wait --query 'Instances[0].InstanceId' --output text"
        ))
        .unwrap();
    for instance in [&one_vcpu, &two_vcpus] {
        site.ssh(instance, "dd if=/dev/zero of=noise bs=1M count=64; sync")
            .unwrap();
        site.run(&format!(
            "systemd-run --quiet --collect --setenv HOME=/root --setenv PATH=$PATH \
             -- hearth ssh {instance} -- 'for i in 1 2 3 4 5 6; do \
             while :; do dd if=noise of=/dev/null bs=1M iflag=direct 2>/dev/null; done & done; wait'"
        ))
        .unwrap();
    }
    site.machine.throttle_disk("volumes", BYTES_PER_SECOND).unwrap();
    let groups = [&one_vcpu, &two_vcpus].map(|instance| {
        site.run(&format!("find /sys/fs/cgroup -type d -name {instance}"))
            .unwrap()
    });
    let groups = [groups[0].as_str(), groups[1].as_str()];
    site.run("sleep 5").unwrap();
    let by_vcpus = read_by(&mut site, groups, &device);
    site.run(&format!(
        "echo 100 | tee {}/io.bfq.weight {}/io.bfq.weight",
        groups[0], groups[1]
    ))
    .unwrap();
    let alike = read_by(&mut site, groups, &device);
    println!("one vCPU and two vCPUs: {by_vcpus:?} bytes in 20 s; with weights alike: {alike:?}");
    // The disk is what they wait for.
    for bytes in [by_vcpus, alike] {
        let share = (bytes[0] + bytes[1]) as f64 / (20 * BYTES_PER_SECOND) as f64;
        assert!((0.7..1.3).contains(&share), "{share} of the disk's speed");
    }
    // Instances are not equally quick to ask for the next piece: what the weights do is the difference to weights alike.
    let ratio = |[a, b]: [u64; 2]| b as f64 / a as f64;
    let effect = ratio(by_vcpus) / ratio(alike);
    println!("their weights make it {effect:.2} times as much");
    assert!((1.5..2.7).contains(&effect), "{effect}");
}
