//! The host restarts, in order and not: instances run again, and have what they had flushed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hearth_tests::metal::Rack;

use crate::ledger::Ledger;
use crate::site::{LONG, ROUNDS, Site};

/// Commits of each round before the blow.
const COMMITS: u64 = 25;

/// Rounds that one run of the instance goes through: its host starts a run again three times within ten minutes, and then
/// leaves it stopped.
const RUN: u32 = 3;

/// How long an orderly shutdown may take on a host under load. A guest that hears its power button ends within seconds; for one
/// that does not, it takes 90 s longer.
const SHUTDOWN: Duration = Duration::from_secs(80);

/// An instance whose automatic recovery is disabled.
fn without_recovery(site: &mut Site) -> Result<String> {
    let image = site.named("hello", "ImageId")?;
    let instance = site.run(&format!(
        "hearth run-instances --image-id {image} --instance-type t2.nano --key-name hearth --security-groups ssh --wait \
         --query 'Instances[0].InstanceId' --output text"
    ))?;
    site.run(&format!(
        "hearth modify-instance-maintenance-options --instance-id {instance} --auto-recovery disabled; sync"
    ))?;
    Ok(instance)
}

/// What the machine's restart has to leave: the ledger's instance runs without having been asked to, and the other one
/// does not.
fn restarted(site: &mut Site, ledger: &Ledger, other: &str) -> Result<u64> {
    let last = ledger.check(site)?;
    let state = site.field(&ledger.instance, "State.Name")?;
    ensure!(state == "running", "{} is {state}", ledger.instance);
    let state = site.field(other, "[State.Name,StateReason.Message]")?;
    ensure!(
        state.starts_with("stopped") && state.contains("automatic recovery is disabled"),
        "{other} is {state}"
    );
    Ok(last)
}

/// Ten rounds: commits, a blow in the middle of them, and what is there afterwards. `blow` answers what it has measured.
fn rounds(site: &mut Site, instance: &str, blow: impl Fn(&mut Site) -> Result<String>) -> Result<()> {
    let ledger = Ledger::open(site, instance)?;
    let other = without_recovery(site)?;
    for round in 1..=ROUNDS {
        let began = Instant::now();
        let mode = if round % 2 == 1 { "wal" } else { "delete" };
        ledger.write(site, mode, COMMITS)?;
        std::thread::sleep(Duration::from_millis(rand::random_range(0..1000)));
        let struck = Instant::now();
        let measured = blow(site).with_context(|| format!("round {round}"))?;
        let acknowledged = ledger.acknowledged(site)?;
        let last =
            restarted(site, &ledger, &other).with_context(|| format!("round {round}, journal {mode}"))?;
        println!(
            "round {round}, journal {mode}: {acknowledged} acknowledged, {last} found; {measured}, checked after {:.1} s, \
             the round {:.1} s",
            struck.elapsed().as_secs_f32(),
            began.elapsed().as_secs_f32()
        );
        if round.is_multiple_of(RUN) {
            for command in ["stop", "start"] {
                let began = Instant::now();
                site.run(&format!(
                    "hearth {command}-instances --instance-ids {instance} --wait"
                ))?;
                println!(
                    "a new run: {command} after {:.1} s",
                    began.elapsed().as_secs_f32()
                );
            }
        }
        site.run(&format!(
            "hearth start-instances --instance-ids {other} --wait; sync"
        ))?;
    }
    ledger.write(site, "wal", COMMITS)
}

#[test]
#[ignore = "long: scripts/test --metal"]
fn a_database_survives_ten_power_cuts() {
    let Some(rack) = Rack::new("a_database_survives_ten_power_cuts").unwrap() else {
        return;
    };
    let (mut site, instance) = Site::up(&rack, "alpha").unwrap();
    rounds(&mut site, &instance, |site| {
        site.machine.cut_power()?;
        let start = Instant::now();
        site.machine.boot()?;
        let booted = start.elapsed();
        site.connected()?;
        Ok(format!("booted in {:.1} s", booted.as_secs_f32()))
    })
    .unwrap();
}

#[test]
#[ignore = "long: scripts/test --metal"]
fn a_database_survives_ten_reboots_of_its_host() {
    let Some(rack) = Rack::new("a_database_survives_ten_reboots_of_its_host").unwrap() else {
        return;
    };
    let (mut site, instance) = Site::up(&rack, "alpha").unwrap();
    // A shutdown that hangs can be read of when the machine has been cut off.
    site.run(
        "mkdir -p /etc/systemd/journald.conf.d; \
         printf '[Journal]\\nSyncIntervalSec=1s\\n' >/etc/systemd/journald.conf.d/sync.conf; \
         systemctl restart systemd-journald; sync",
    )
    .unwrap();
    rounds(&mut site, &instance, |site| {
        let (down, up) = site.machine.reboot()?;
        site.connected()?;
        // The guest has ended by itself: there is nothing to recover in its file system.
        let recovered = site.ssh(&instance, "dmesg | grep -c recovery || true")?;
        ensure!(recovered == "0", "the guest's file system needed a recovery");
        if down > SHUTDOWN {
            let said = site.run("journalctl --boot -1 --no-pager --output short-precise | tail -n 150")?;
            let guest = site.run(&format!("hearth console {instance} | tail -n 60"))?;
            anyhow::bail!("the shutdown took {down:?}: {said}\n{guest}");
        }
        Ok(format!(
            "down in {:.1} s, up after {:.1} s",
            down.as_secs_f32(),
            up.as_secs_f32()
        ))
    })
    .unwrap();
}

#[test]
#[ignore = "long: scripts/test --metal"]
fn a_guest_that_ignores_its_power_button_does_not_hold_up_the_reboot() {
    const PATIENCE: u64 = 10;
    let Some(rack) = Rack::new("a_guest_that_ignores_its_power_button_does_not_hold_up_the_reboot").unwrap()
    else {
        return;
    };
    let (mut site, instance) = Site::up(&rack, "alpha").unwrap();
    site.run(&format!(
        "mkdir -p /etc/hearth; echo HEARTH_AGENT_SHUTDOWN_PATIENCE={PATIENCE} >>/etc/hearth/agent.env; sync"
    ))
    .unwrap();
    site.run(&format!(
        "hearth ssh root@{instance} --wait 300 -- 'killall hearth-guest; ! pidof hearth-guest; echo flushed >data; sync'"
    ))
    .unwrap();
    let boot = "cat /proc/sys/kernel/random/boot_id";
    let before = site.ssh(&instance, boot).unwrap();
    let (down, up) = site.machine.reboot().unwrap();
    println!(
        "down in {:.1} s, up after {:.1} s",
        down.as_secs_f32(),
        up.as_secs_f32()
    );
    assert!(
        down > Duration::from_secs(PATIENCE),
        "the guest was given its time"
    );
    assert!(
        down < Duration::from_secs(PATIENCE + 40),
        "it held up the shutdown"
    );
    site.connected().unwrap();
    let there = site
        .run(&format!("hearth ssh root@{instance} --wait 300 -- cat data"))
        .unwrap();
    assert_eq!(there, "flushed");
    assert_ne!(site.ssh(&instance, boot).unwrap(), before);
    let state = site.field(&instance, "[State.Name,StateReason]").unwrap();
    assert_eq!(state, "running\tNone");
    site.machine
        .wait_for(
            "systemd to have started all",
            LONG,
            "systemctl is-system-running --wait",
        )
        .unwrap();
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
}
