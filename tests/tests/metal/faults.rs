//! The daemons end and come back, by SIGKILL and by systemd's hand; the guest does not notice.

use hearth_tests::metal::Rack;

use crate::site::{LONG, Site};

#[test]
#[ignore = "long: scripts/test --metal"]
fn a_guest_outlives_its_daemons_under_systemd() {
    let Some(rack) = Rack::new("a_guest_outlives_its_daemons_under_systemd").unwrap() else {
        return;
    };
    let (mut site, instance) = Site::up(&rack, "alpha").unwrap();
    let monitors = site.monitors().unwrap();
    assert_eq!(monitors.lines().count(), 1, "{monitors}");
    let boot = site
        .ssh(&instance, "cat /proc/sys/kernel/random/boot_id")
        .unwrap();

    let main_pid = |site: &mut Site, unit: &str| {
        site.run(&format!("systemctl show --property MainPID --value {unit}"))
            .unwrap()
    };
    for blow in [
        "systemctl kill --signal KILL hearth-agent",
        "systemctl kill --signal KILL hearthd",
        "systemctl kill --signal KILL hearthd hearth-agent",
        "systemctl restart hearth-agent",
        "systemctl restart hearthd",
    ] {
        let struck: Vec<&str> = ["hearthd", "hearth-agent"]
            .into_iter()
            .filter(|unit| blow.split(' ').any(|word| word == *unit))
            .collect();
        let before: Vec<String> = struck.iter().map(|unit| main_pid(&mut site, unit)).collect();
        site.run(blow).unwrap();
        for (unit, before) in struck.iter().zip(&before) {
            site.machine
                .wait_for(
                    "the unit to be another process",
                    LONG,
                    &format!(
                        "systemctl is-active {unit} && p=$(systemctl show --property MainPID --value {unit}) && \
                         [ $p != 0 ] && [ $p != {before} ]"
                    ),
                )
                .unwrap();
        }
        site.connected().unwrap();
        assert_eq!(site.monitors().unwrap(), monitors, "after {blow}");
        assert_eq!(
            site.field(&instance, "State.Name").unwrap(),
            "running",
            "after {blow}"
        );
        let now = site
            .ssh(&instance, "cat /proc/sys/kernel/random/boot_id")
            .unwrap();
        assert_eq!(now, boot, "after {blow}");
    }

    // However often it fails to start, systemd does not give it up.
    site.run(
        "cd /usr/local/lib/hearth; mv hearthd away; systemctl kill --signal KILL hearthd; sleep 20; mv away hearthd",
    )
    .unwrap();
    site.connected().unwrap();
    assert_eq!(site.monitors().unwrap(), monitors);

    // What was adopted still obeys.
    site.run(&format!("hearth stop-instances --instance-ids {instance} --wait"))
        .unwrap();
    assert_eq!(
        site.field(&instance, "StateReason.Code").unwrap(),
        "Client.UserInitiatedShutdown"
    );
    assert_eq!(site.monitors().unwrap(), "");
}
