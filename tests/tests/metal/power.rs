//! The machine loses its power: what a guest had flushed is there afterwards.

use std::time::Instant;

use anyhow::{Context, Result};
use hearth_tests::metal::Rack;

use crate::site::{LONG, Site};

/// Numbers, one a line, each said only when it is on the disk.
const WRITER: &str =
    "i=$(cat log 2>/dev/null | wc -l); while :; do i=$((i+1)); echo $i >>log; sync; echo $i; done";

/// Starts writing in the instance, and cuts the machine's power in the middle; the last number that was flushed.
fn cut_while_writing(site: &mut Site, instance: &str) -> Result<u64> {
    site.run(&format!(
        "rm -f /run/flushed; nohup setsid hearth ssh {instance} -- '{WRITER}' >/run/flushed 2>/dev/null </dev/null &"
    ))?;
    site.machine
        .wait_for("some writes", LONG, "[ $(wc -l </run/flushed) -gt 20 ]")?;
    let last = site.run("tail -n 2 /run/flushed | head -n 1")?;
    site.machine.cut_power()?;
    last.parse().with_context(|| format!("a number: {last:?}"))
}

#[test]
#[ignore = "long: scripts/test --metal"]
fn what_a_guest_flushed_survives_power_cuts() {
    let Some(rack) = Rack::new("what_a_guest_flushed_survives_power_cuts").unwrap() else {
        return;
    };
    let (mut site, instance) = Site::up(&rack, "alpha").unwrap();
    for round in 1..=cuts() {
        let flushed = cut_while_writing(&mut site, &instance).unwrap();
        let start = Instant::now();
        site.machine.boot().unwrap();
        let booted = start.elapsed();
        site.connected().unwrap();
        site.machine
            .wait_for(
                "systemd to have started all",
                LONG,
                "systemctl is-system-running --wait",
            )
            .unwrap();
        if site.field(&instance, "State.Name").unwrap() != "running" {
            site.run(&format!(
                "hearth start-instances --instance-ids {instance} --wait"
            ))
            .unwrap();
        }
        let log = site.ssh(&instance, "cat log").unwrap();
        println!(
            "cut {round}: {flushed} lines flushed, {} there; booted in {:.1} s, ssh after {:.1} s",
            log.lines().count(),
            booted.as_secs_f32(),
            start.elapsed().as_secs_f32()
        );
        for (index, line) in log.lines().enumerate() {
            assert_eq!(line, (index + 1).to_string(), "{log}");
        }
        assert!(
            log.lines().count() as u64 >= flushed,
            "{flushed} lines were flushed: {log}"
        );
    }
}

/// How often the power is cut; `HEARTH_POWER_CUTS` says another number.
fn cuts() -> u32 {
    std::env::var("HEARTH_POWER_CUTS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(2)
}

#[test]
#[ignore = "long: scripts/test --metal"]
fn a_machine_forgets_what_it_had_not_written() {
    let Some(rack) = Rack::new("a_machine_forgets_what_it_had_not_written").unwrap() else {
        return;
    };
    let mut machine = rack.machine("alpha").unwrap();
    machine
        .run("echo kept >/root/a; sync; echo lost >/root/b")
        .unwrap();
    machine.cut_power().unwrap();
    machine.boot().unwrap();
    assert_eq!(
        machine
            .run("cat /root/a; ls /root/b 2>/dev/null || true")
            .unwrap(),
        "kept"
    );
    let (down, up) = machine.reboot().unwrap();
    println!(
        "rebooted in {:.1} s, of which {:.1} s are its end",
        up.as_secs_f32(),
        down.as_secs_f32()
    );
}
