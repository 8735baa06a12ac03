//! Two machines are two hosts of one cloud.

use std::time::Instant;

use hearth_tests::metal::Rack;

use crate::site::Site;

#[test]
#[ignore = "long: scripts/test --metal"]
fn a_second_host_joins_by_a_token_and_runs_an_instance() {
    let Some(rack) = Rack::new("a_second_host_joins_by_a_token_and_runs_an_instance").unwrap() else {
        return;
    };
    let mut first = Site::new(&rack, rack.machine("first").unwrap()).unwrap();
    let mut second = Site::new(&rack, rack.machine("second").unwrap()).unwrap();
    first.machine.connect("lan", true, "10.99.0.1/24").unwrap();
    second.machine.connect("lan", false, "10.99.0.2/24").unwrap();
    second.run("ping -c 1 -W 5 10.99.0.1").unwrap();

    // Agents of other machines dial in where the administrator of this one lets them.
    first
        .run(
            "mkdir -p /etc/systemd/system/hearthd.service.d; \
             printf '[Service]\\nEnvironment=HEARTH_AGENT_LISTEN=10.99.0.1:7601\\n' \
             >/etc/systemd/system/hearthd.service.d/lan.conf",
        )
        .unwrap();
    first.script("up").unwrap();
    let start = Instant::now();
    let token = first
        .run("hearthd join-token --data-dir /var/lib/hearth/controller")
        .unwrap();
    second
        .run(&format!(
            "systemd-run --quiet --unit hearth-agent --property KillMode=process \
             $HEARTH_BIN/hearth-agent --availability-zone local-1b --join-token {token}"
        ))
        .unwrap();
    first.run("hearth wait-until-up --zones 2 --timeout 300").unwrap();
    println!("joined after {:.1} s", start.elapsed().as_secs_f32());

    let image = first.named("hello", "ImageId").unwrap();
    let instance = first
        .run(&format!(
            "hearth run-instances --image-id {image} --instance-type t2.nano --key-name hearth --security-groups ssh \
             --placement AvailabilityZone=local-1b --wait --query 'Instances[0].InstanceId' --output text"
        ))
        .unwrap();
    let pids = second.monitors().unwrap();
    assert_eq!(pids.lines().count(), 1, "it runs on the second host: {pids}");
    println!(
        "an instance runs there after {:.1} s",
        start.elapsed().as_secs_f32()
    );
    first
        .machine
        .wait_for(
            "the guest to be ready",
            crate::site::LONG,
            &format!(
                "{}hearth console {instance} | grep 'hearth-tiny: ready'",
                first.environment()
            ),
        )
        .unwrap();
    println!("it is ready after {:.1} s", start.elapsed().as_secs_f32());
    first
        .run(&format!(
            "hearth terminate-instances --instance-ids {instance} --wait"
        ))
        .unwrap();
    assert_eq!(second.monitors().unwrap(), "");
    second
        .run("systemctl stop hearth-agent; hearth-agent cleanup; pgrep hearth && exit 1; ip netns")
        .unwrap();
}
