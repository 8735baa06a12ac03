//! From nothing to a cloud, and back to nothing.

use std::time::Instant;

use hearth_tests::metal::{Machine, Rack};

use crate::site::Site;

/// Everything that an installation could leave on a machine, one thing a line. The directory of named network
/// namespaces is everybody's: whoever makes the first one makes it, and nobody takes it away. So are apt's caches, which
/// whoever asks apt makes.
const FOOTPRINT: &str = r"
find / -xdev \( -path /var/log -o -path /var/tmp -o -path /tmp -o -path /root/.hearth/keys/mine.pem \
    -o -path '/var/cache/apt/*.bin' \) -prune -o -print
find /run | grep -iE 'hearth|vpc' || true
find /sys/fs/cgroup -type d | grep -i hearth || true
getent passwd; getent group
ip -o link | cut -d: -f2; ip -o address; ip route; ip netns; ip rule
nft list ruleset
cat /proc/sys/net/ipv4/ip_forward
cut -d' ' -f2,3 /proc/mounts | grep -v '^/run/netns '
pgrep -a hearth || true
systemctl list-unit-files --no-legend | awk '{ print $1, $2 }'
systemctl list-units --no-legend --plain --all 'hearth*'
";

fn footprint(machine: &mut Machine) -> Vec<String> {
    let text = machine.run(FOOTPRINT).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert!(lines.len() > 1000, "{text}");
    lines.sort();
    lines
}

#[test]
fn a_cloud_is_installed_used_and_removed_without_a_trace() {
    let Some(rack) = Rack::new("a_cloud_is_installed_used_and_removed_without_a_trace").unwrap() else {
        return;
    };
    let start = Instant::now();
    let mut site = Site::new(&rack, rack.machine("alpha").unwrap()).unwrap();
    println!("a machine after {:.1} s", start.elapsed().as_secs_f32());
    assert_eq!(site.run("cat /proc/1/comm").unwrap(), "systemd");
    assert_eq!(site.run("stat -f -c %T /sys/fs/cgroup").unwrap(), "cgroup2fs");
    let before = footprint(&mut site.machine);

    let installing = Instant::now();
    site.script("up").unwrap();
    println!(
        "a cloud and an instance that answers ssh {:.1} s later",
        installing.elapsed().as_secs_f32()
    );
    let instance = site.named("hello", "InstanceId").unwrap();
    let console = site
        .run(&format!("hearth console {instance} | grep 'ready in'"))
        .unwrap();
    println!("{}", console.trim());
    for unit in ["hearthd", "hearth-agent"] {
        assert_eq!(
            site.run(&format!("systemctl is-active {unit}")).unwrap(),
            "active"
        );
        assert_eq!(
            site.run(&format!("systemctl is-enabled {unit}")).unwrap(),
            "enabled"
        );
        println!(
            "{}",
            site.run(&format!("systemd-analyze --no-pager security {unit} | tail -n1"))
                .unwrap()
        );
    }
    assert_eq!(site.run("ps -o user= -C hearthd").unwrap(), "hearth");

    // Running it again changes nothing.
    let monitors = site.monitors().unwrap();
    site.script("up").unwrap();
    assert_eq!(site.monitors().unwrap(), monitors);
    assert_eq!(site.named("hello", "InstanceId").unwrap(), instance);

    // The security group filters.
    let address = site.field(&instance, "PublicIpAddress").unwrap();
    let opens = format!("timeout 5 bash -c 'exec 3<>/dev/tcp/{address}/22'");
    site.run(&opens).unwrap();
    let rule = "--group-name ssh --protocol tcp --port 22 --cidr 0.0.0.0/0";
    site.run(&format!("hearth revoke-security-group-ingress {rule}"))
        .unwrap();
    site.machine
        .wait_for("the port to close", crate::site::LONG, &format!("! {opens}"))
        .unwrap();
    site.run(&format!("hearth authorize-security-group-ingress {rule}"))
        .unwrap();
    site.machine
        .wait_for("the port to open", crate::site::LONG, &opens)
        .unwrap();

    // Stop and start: the disk stays.
    site.ssh(&instance, "sudo -n true 2>/dev/null; echo kept >data; sync")
        .unwrap();
    let stopping = Instant::now();
    site.run(&format!("hearth stop-instances --instance-ids {instance} --wait"))
        .unwrap();
    println!("stopped in {:.1} s", stopping.elapsed().as_secs_f32());
    assert_eq!(site.field(&instance, "State.Name").unwrap(), "stopped");
    assert_eq!(site.monitors().unwrap(), "");
    let starting = Instant::now();
    site.run(&format!(
        "hearth start-instances --instance-ids {instance} --wait"
    ))
    .unwrap();
    assert_eq!(site.ssh(&instance, "cat data").unwrap(), "kept");
    println!(
        "started, and ssh answered, in {:.1} s",
        starting.elapsed().as_secs_f32()
    );

    // An instance runs, and all goes.
    let removing = Instant::now();
    site.script("down --purge").unwrap();
    println!("removed in {:.1} s", removing.elapsed().as_secs_f32());
    let after = footprint(&mut site.machine);
    let left: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
    let lost: Vec<&String> = before.iter().filter(|line| !after.contains(line)).collect();
    assert!(
        left.is_empty() && lost.is_empty(),
        "left: {left:#?}\nlost: {lost:#?}"
    );
    println!("in all {:.1} s", start.elapsed().as_secs_f32());
}
