//! The Debian packages: a cloud of two hosts as docs/homelab.md makes it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hearth_tests::binary;
use hearth_tests::metal::{Machine, Rack};
use hearth_tests::skipped;

use crate::site::LONG;

/// Makes a host the first of its cloud, once both packages are installed.
pub const JOIN: &str = "hearthd join-token | hearth-agent join @/dev/stdin && systemctl start hearth-agent && \
     hearth wait-until-up --zones 1 --timeout 300";

/// A key pair `mine`, and a security group `ssh` that admits ssh.
pub const ACCESS: &str = "hearth create-key-pair --key-name mine --key-type ed25519 --save >/dev/null && \
     hearth create-security-group --group-name ssh --description ssh >/dev/null && \
     hearth authorize-security-group-ingress --group-name ssh --protocol tcp --port 22 --cidr 0.0.0.0/0 >/dev/null";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// Builds the packages from the programs under test; the directory that they are in.
pub fn build() -> PathBuf {
    let root = root();
    let hearth = binary("hearth").unwrap();
    // A release build's programs stay what they are.
    let release = || {
        let program = std::fs::metadata(root.join("target/release/hearthd"));
        program.and_then(|program| program.modified()).ok()
    };
    let before = release();
    let built = Command::new(root.join("scripts/package"))
        .arg("--fast")
        .env("HEARTH_BIN", hearth.parent().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(built.status.success(), "{said}");
    assert_eq!(release(), before);
    root.join("target/debian")
}

/// The package of this name in a directory.
pub fn package(dir: &Path, name: &str) -> PathBuf {
    let prefix = format!("{name}_");
    let mut files = std::fs::read_dir(dir).unwrap().flatten();
    let found = files.find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    found.unwrap().path()
}

/// Installs packages, named by their files, with what they depend on.
pub fn install(files: &str) -> String {
    format!("DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends {files}")
}

/// The seconds that a script takes on a machine.
fn timed(machine: &mut Machine, script: &str) -> Duration {
    let start = Instant::now();
    machine.run_for(LONG, script).unwrap();
    start.elapsed()
}

fn monitors(machine: &mut Machine) -> String {
    machine.try_run(LONG, "pgrep -x hearth-vmm").unwrap().stdout
}

/// What of Hearth is left, the journal aside.
const LEFT: &str = r"
find / -xdev \( -path /var/log -o -path /tmp -o -path /var/tmp -o -path /root/.hearth -o -path /var/lib/dpkg \
    -o -path /var/lib/apt -o -path /var/cache \) -prune -o -iname '*hearth*' -print
find /run /sys/fs/cgroup -iname '*hearth*' || true
getent passwd hearth || getent group hearth || true
ip netns; ip -o link | grep -o ' hv[^:]*' || true; nft list tables
pgrep -a hearth || true
";

/// One disk by both roads, as its AMI's boot mode says: it prints its command line and powers off.
fn boot_modes(machine: &mut Machine, disk: &Path) {
    for mode in ["legacy-bios", "uefi"] {
        let start = Instant::now();
        let instance = machine
            .run_for(
                LONG,
                &format!(
                    "hearth upload-image --name {mode} --boot-mode {mode} --disk-image {} --query ImageId \
                     --output text >/root/{mode} &&
                     hearth run-instances --image-id $(cat /root/{mode}) --instance-type t2.nano \
                     --query 'Instances[0].InstanceId' --output text",
                    disk.display()
                ),
            )
            .unwrap();
        let described = format!("hearth describe-instances --instance-ids {instance} --output text --query");
        machine
            .wait_for(
                "the guest to power itself off",
                LONG,
                &format!("[ $({described} 'Reservations[0].Instances[0].State.Name') = stopped ]"),
            )
            .unwrap();
        println!("{mode}: powered off {:.1} s later", start.elapsed().as_secs_f32());
        let current = format!("{described} 'Reservations[0].Instances[0].CurrentInstanceBootMode'");
        assert_eq!(machine.run(&current).unwrap(), mode);
        let console = machine.run(&format!("hearth console {instance}")).unwrap();
        assert!(
            console.contains("cmdline: BOOT_IMAGE=/boot/vmlinuz-2 console=ttyS0 quiet entry=one-line"),
            "{console}"
        );
        assert_eq!(
            console.contains("BdsDxe: starting Boot"),
            mode == "uefi",
            "{console}"
        );
    }
}

#[test]
#[ignore = "long: scripts/test --metal"]
fn two_packages_are_a_cloud_and_a_second_host_joins_by_two_commands() {
    const TEST: &str = "two_packages_are_a_cloud_and_a_second_host_joins_by_two_commands";
    let Some(mut rack) = Rack::new(TEST).unwrap() else {
        return;
    };
    let Some(disks) = std::env::var_os("HEARTH_GRUB_DISKS").map(PathBuf::from) else {
        skipped(
            TEST,
            "HEARTH_GRUB_DISKS is not set (scripts/test --metal sets it)",
        );
        return;
    };
    rack.share(&disks);
    let packages = build();
    let packages = packages.display();
    let mut first = rack.machine("first").unwrap();
    let mut second = rack.machine("second").unwrap();
    first.connect("lan", true, "10.99.0.1/24").unwrap();
    second.connect("lan", false, "10.99.0.2/24").unwrap();
    second.run("ping -c 1 -W 5 10.99.0.1").unwrap();
    let untouched = [first.run(LEFT).unwrap(), second.run(LEFT).unwrap()];

    let all = install(&format!(
        "{packages}/hearth_*.deb {packages}/hearth-agent_*.deb {packages}/hearth-firmware_*.deb"
    ));
    let took = timed(&mut first, &all);
    println!("apt install of all packages {:.1} s", took.as_secs_f32());
    let took = timed(
        &mut first,
        &format!(
            "echo HEARTH_AGENT_LISTEN=0.0.0.0:7601 >>/etc/hearth/hearthd.env && systemctl restart hearthd && {JOIN}"
        ),
    );
    println!("the first host is in its cloud {:.1} s later", took.as_secs_f32());

    let up = first
        .try_run(
            LONG,
            &format!("HEARTH_BIN=/usr/bin {}", root().join("scripts/up").display()),
        )
        .unwrap();
    assert!(
        up.stderr.contains("a Debian package of Hearth runs hearthd here"),
        "{up}"
    );

    let ami = rack.ami().display();
    first
        .run_for(
            LONG,
            &format!(
                "hearth upload-image --name tiny --disk-image {ami} --query ImageId --output text >/root/image && {ACCESS}"
            ),
        )
        .unwrap();
    let run = |zone: &str| {
        format!(
            "hearth run-instances --image-id $(cat /root/image) --instance-type t2.nano --key-name mine \
             --security-groups ssh --placement AvailabilityZone={zone} --wait --query 'Instances[0].InstanceId' --output text"
        )
    };
    let start = Instant::now();
    let zone = first
        .run("hearth list-hosts --query 'Hosts[0].AvailabilityZone' --output text")
        .unwrap();
    let instance = first.run_for(LONG, &run(&zone)).unwrap();
    first
        .run_for(LONG, &format!("hearth ssh {instance} --wait 300 -- true"))
        .unwrap();
    println!(
        "an instance answers ssh after {:.1} s",
        start.elapsed().as_secs_f32()
    );

    boot_modes(&mut first, &disks.join("one-line.raw"));

    // The second host: one command here, one there.
    let took = timed(&mut second, &install(&format!("{packages}/hearth-agent_*.deb")));
    println!("apt install of the agent alone {:.1} s", took.as_secs_f32());
    let start = Instant::now();
    let token = first.run("hearthd join-token --endpoint 10.99.0.1:7601").unwrap();
    second
        .run(&format!(
            "hearth-agent join {token} --availability-zone local-1b && systemctl start hearth-agent"
        ))
        .unwrap();
    first
        .run_for(LONG, "hearth wait-until-up --zones 2 --timeout 300")
        .unwrap();
    println!("the second host joined in {:.1} s", start.elapsed().as_secs_f32());
    let there = first.run_for(LONG, &run("local-1b")).unwrap();
    assert_eq!(monitors(&mut second).lines().count(), 1);
    println!(
        "an instance runs there after {:.1} s",
        start.elapsed().as_secs_f32()
    );
    first
        .wait_for(
            "the guest to be ready",
            LONG,
            &format!("hearth console {there} | grep 'hearth-tiny: ready'"),
        )
        .unwrap();
    println!("it is ready after {:.1} s", start.elapsed().as_secs_f32());
    // It has no firmware.
    let refused = first
        .try_run(LONG, &run("local-1b").replace("/root/image)", "/root/uefi)"))
        .unwrap();
    assert!(refused.stderr.contains("has no UEFI firmware"), "{refused}");
    // A token of one use.
    let refused = second
        .try_run(
            LONG,
            &format!("rm -rf /root/again; hearth-agent join --data-dir /root/again {token}"),
        )
        .unwrap();
    assert!(!refused.status.success(), "{refused}");

    // An upgrade, for which the same version stands, disturbs no guest.
    let guests = [monitors(&mut first), monitors(&mut second)];
    let took = timed(&mut first, &all.replace("--yes", "--yes --reinstall"));
    println!("an upgrade of all packages {:.1} s", took.as_secs_f32());
    first
        .run_for(LONG, "hearth wait-until-up --zones 2 --timeout 300")
        .unwrap();
    assert_eq!([monitors(&mut first), monitors(&mut second)], guests);
    first
        .run_for(LONG, &format!("hearth ssh {instance} --wait 300 -- true"))
        .unwrap();

    // Nothing is left of either, guests included.
    let purge = "DEBIAN_FRONTEND=noninteractive apt-get purge --quiet --yes";
    second.run_for(LONG, &format!("{purge} hearth-agent")).unwrap();
    let took = timed(
        &mut first,
        &format!(
            "{purge} hearth-agent hearth-firmware hearth && rm /root/image /root/uefi /root/legacy-bios"
        ),
    );
    println!("apt purge with a guest {:.1} s", took.as_secs_f32());
    assert_eq!([first.run(LEFT).unwrap(), second.run(LEFT).unwrap()], untouched);
}
