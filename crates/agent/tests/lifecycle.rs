//! The agent as a real process, a control plane that the test plays, and monitors without machines.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod bases;
mod common;
mod identity;
mod machines;
mod reboots;
mod versions;
mod volumes;

use common::{Cloud, PATIENCE};
use hearth_api::agent::InstanceStoreDisk;
use hearth_api::agent::instance_intent::{BootMode, Desired};
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::run_end::Cause;
use tokio::sync::oneshot;

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_started_stopped_started_rebooted_and_terminated() {
    let mut cloud = Cloud::new().await;
    cloud.start_agent();
    cloud.want(|all| all.clear());
    let intent = cloud.intent("i-1", 64);
    cloud.want(|all| all.push(intent));
    let seen = cloud.until_phase("i-1", Phase::Running, 1).await;
    assert!(seen.start_micros > 0);
    eprintln!("intent arrival to first entry: {} µs", seen.start_micros);

    cloud.want(|all| all[0].set_desired(Desired::Stopped));
    let seen = cloud.until_phase("i-1", Phase::Ended, 1).await;
    assert_eq!(seen.end.unwrap().cause(), Cause::Requested);
    assert!(cloud.living("i-1").is_empty());
    assert!(cloud.data_dir().join("volumes/vol-of-i-1/data").exists());

    cloud.want(|all| {
        all[0].run = 2;
        all[0].set_desired(Desired::Running);
    });
    let seen = cloud.until_phase("i-1", Phase::Running, 2).await;
    eprintln!("intent arrival to first entry, again: {} µs", seen.start_micros);

    cloud.want(|all| all[0].reboot = 1);
    cloud
        .until("i-1", |seen| seen.reboot == 1 && seen.phase() == Phase::Running)
        .await;
    // The run goes on between the two launches of a reboot.
    cloud.until_spawned("i-1", 3).await;
    assert_eq!(cloud.living("i-1").len(), 1);

    let (asker, answer) = oneshot::channel();
    cloud.consoles.send(("i-1".to_owned(), asker)).await.unwrap();
    let console = answer.await.unwrap();
    assert_eq!(console.error, "");

    let pid = cloud.living("i-1")[0];
    cloud.want(|all| all[0].set_desired(Desired::Terminated));
    cloud.until_phase("i-1", Phase::Gone, 2).await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!cloud.data_dir().join("volumes/vol-of-i-1").exists());
    assert!(!cloud.data_dir().join("instances/i-1").exists());
    cloud.want(|all| all.clear());
    cloud.until_unknown_to_agent("i-1").await;
    // What it said last can still be read.
    let (asker, answer) = oneshot::channel();
    cloud.consoles.send(("i-1".to_owned(), asker)).await.unwrap();
    let kept = answer.await.unwrap();
    assert_eq!((kept.error.as_str(), &kept.output), ("", &console.output));
    assert!(kept.written_at >= console.written_at && kept.written_at > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_boot_mode_decides_by_which_road_the_machine_boots() {
    let mut cloud = Cloud::new().await;
    let firmware = cloud.dir.path().join("firmware.fd");
    cloud
        .arguments
        .extend(["--firmware".into(), firmware.display().to_string()]);
    cloud.start_agent();
    cloud.want(|all| all.clear());
    let modes = [
        (BootMode::LegacyBios, "Disk"),
        (BootMode::Uefi, "Firmware"),
        (BootMode::UefiPreferred, "Automatic"),
        (BootMode::Unspecified, "Automatic"),
    ];
    for present in [false, true] {
        if present {
            std::fs::write(&firmware, "firmware").unwrap();
        }
        for (mode, road) in modes {
            let id = format!(
                "i-{}-{present}",
                mode.as_str_name().replace('_', "-").to_lowercase()
            );
            let mut intent = cloud.intent(&id, 64);
            intent.set_boot_mode(mode);
            cloud.want(|all| all.push(intent));
            if !present && mode == BootMode::Uefi {
                let seen = cloud.until_phase(&id, Phase::Ended, 1).await;
                let end = seen.end.unwrap();
                assert_eq!(end.cause(), Cause::StartFailed);
                let expected = format!(
                    "opening the UEFI firmware {}, by which images of the boot mode uefi boot: ",
                    firmware.display()
                );
                assert!(end.message.starts_with(&expected), "{}", end.message);
                continue;
            }
            let seen = cloud.until_phase(&id, Phase::Running, 1).await;
            let log = cloud.data_dir().join("instances").join(&id).join("monitor.log");
            let log = std::fs::read_to_string(log).unwrap();
            let road = if present { road } else { "Disk" };
            assert!(log.starts_with(&format!("boots {road}")), "{mode:?}: {log}");
            let booted = if road == "Firmware" {
                BootMode::Uefi
            } else {
                BootMode::LegacyBios
            };
            assert_eq!(seen.boot_mode(), booted);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_falls_over_to_firmware_is_told_to_be_booted_by_it() {
    let mut cloud = Cloud::new().await;
    let firmware = cloud.dir.path().join("firmware.fd");
    std::fs::write(&firmware, "firmware").unwrap();
    cloud
        .arguments
        .extend(["--firmware".into(), firmware.display().to_string()]);
    cloud.start_agent();
    let mut intent = cloud.intent("i-1", 39);
    intent.set_boot_mode(BootMode::UefiPreferred);
    cloud.want(|all| all.push(intent));
    let seen = cloud.until_phase("i-1", Phase::Running, 1).await;
    assert_eq!(seen.boot_mode(), BootMode::Uefi);
    // Also by an agent that has not seen it start, and when there is no monitor to ask any more.
    cloud.kill_agent();
    cloud.start_agent();
    let seen = cloud.until_phase("i-1", Phase::Running, 1).await;
    assert_eq!(seen.boot_mode(), BootMode::Uefi);
    cloud.want(|all| all[0].set_desired(Desired::Stopped));
    let seen = cloud.until_phase("i-1", Phase::Ended, 1).await;
    assert_eq!(seen.boot_mode(), BootMode::Uefi);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_adopts_and_misses_nothing() {
    let mut cloud = Cloud::new().await;
    cloud.start_agent();
    for id in ["i-stays", "i-dies", "i-stops"] {
        let intent = cloud.intent(id, 64);
        cloud.want(|all| all.push(intent));
    }
    for id in ["i-stays", "i-dies", "i-stops"] {
        cloud.until_phase(id, Phase::Running, 1).await;
    }
    let before = cloud.living("i-stays");
    cloud.kill_agent();
    let pid = rustix::process::Pid::from_raw(cloud.living("i-dies")[0]).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    cloud.want(|all| all[2].set_desired(Desired::Stopped));
    cloud.start_agent();
    let seen = cloud.until_phase("i-dies", Phase::Ended, 1).await;
    assert_eq!(seen.end.unwrap().cause(), Cause::MonitorDied);
    cloud.until_phase("i-stops", Phase::Ended, 1).await;
    cloud.until_phase("i-stays", Phase::Running, 1).await;
    assert_eq!(cloud.living("i-stays"), before, "adopted, not replaced");
    assert_eq!(cloud.spawned("i-dies").len(), 1, "an ended run stays ended");

    // What no intent names any more is reported and kept.
    cloud.want(|all| all.retain(|intent| intent.instance_id != "i-stays"));
    cloud.until_phase("i-stays", Phase::Unknown, 1).await;
    assert_eq!(cloud.living("i-stays"), before);
}

/// Dies at each point of a launch, and of an end; ends as one instance each time.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_the_launch_ends_as_one_instance() {
    for point in [
        "intents-heard",
        "intents-stored",
        "image-present",
        "prepared",
        "recorded",
        "before-spawn",
        "after-spawn",
        "entered",
    ] {
        let mut cloud = Cloud::new().await;
        cloud.start_agent_with(&[("HEARTH_AGENT_CRASH_AT", point)]);
        let intent = cloud.intent("i-1", 64);
        cloud.want(|all| all.push(intent));
        cloud.agent_died().await;
        cloud.start_agent();
        cloud.until_phase("i-1", Phase::Running, 1).await;
        assert_eq!(cloud.living("i-1").len(), 1, "{point}");
        assert_eq!(cloud.spawned("i-1").len(), 1, "{point}");
        let volumes = std::fs::read_dir(cloud.data_dir().join("volumes")).unwrap();
        assert_eq!(volumes.count(), 1, "{point}: half-made volumes");
        let images = std::fs::read_dir(cloud.data_dir().join("images")).unwrap();
        assert_eq!(images.count(), 1, "{point}: half-made images");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_ends_or_reboots_an_instance_it_finishes() {
    for point in ["monitor-ended", "erasing"] {
        let mut cloud = Cloud::new().await;
        cloud.start_agent_with(&[("HEARTH_AGENT_CRASH_AT", point)]);
        let intent = cloud.intent("i-1", 64);
        cloud.want(|all| all.push(intent));
        cloud.until_phase("i-1", Phase::Running, 1).await;
        cloud.want(|all| all[0].set_desired(Desired::Terminated));
        cloud.agent_died().await;
        cloud.start_agent();
        cloud.until_phase("i-1", Phase::Gone, 1).await;
        assert!(!cloud.data_dir().join("volumes/vol-of-i-1").exists(), "{point}");
    }
    let mut cloud = Cloud::new().await;
    cloud.start_agent_with(&[("HEARTH_AGENT_CRASH_AT", "monitor-ended")]);
    let intent = cloud.intent("i-1", 64);
    cloud.want(|all| all.push(intent));
    cloud.until_phase("i-1", Phase::Running, 1).await;
    cloud.want(|all| all[0].reboot = 1);
    cloud.agent_died().await;
    cloud.start_agent();
    cloud
        .until("i-1", |seen| seen.reboot == 1 && seen.phase() == Phase::Running)
        .await;
    cloud.until_spawned("i-1", 2).await;
    assert_eq!(cloud.living("i-1").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn deaf_guests_are_stopped_and_reset_without_their_consent() {
    let mut cloud = Cloud::new().await;
    cloud.patience = 1;
    cloud.start_agent();
    let intent = cloud.intent("i-deaf", 33);
    cloud.want(|all| all.push(intent));
    cloud.until_phase("i-deaf", Phase::Running, 1).await;
    cloud.want(|all| all[0].reboot = 1);
    cloud.until("i-deaf", |seen| seen.reboot == 1).await;
    assert_eq!(cloud.spawned("i-deaf").len(), 1, "reset, not respawned");
    cloud.want(|all| all[0].set_desired(Desired::Stopped));
    let seen = cloud.until_phase("i-deaf", Phase::Ended, 1).await;
    assert_eq!(seen.end.unwrap().cause(), Cause::Requested);
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_that_nobody_asked_for_are_told_with_their_cause() {
    let mut cloud = Cloud::new().await;
    cloud.start_agent();
    let (off, unbuildable) = (cloud.intent("i-off", 34), cloud.intent("i-unbuildable", 35));
    cloud.want(|all| all.extend([off, unbuildable]));
    let seen = cloud.until_phase("i-off", Phase::Ended, 1).await;
    assert_eq!(seen.end.unwrap().cause(), Cause::GuestPowerOff);
    let seen = cloud.until_phase("i-unbuildable", Phase::Ended, 1).await;
    let end = seen.end.unwrap();
    assert_eq!(end.cause(), Cause::StartFailed);
    assert_eq!(end.message, "this machine cannot be built");
}

/// A monitor is not trusted: it may be its guest's.
#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_babbles_neither_fills_the_agent_nor_outlives_its_end() {
    const CUT_OFF: usize = 5;
    /// More than the agent takes of a line, with what sockets hold.
    const MOST_HEARD: u64 = 4 << 20;
    let mut cloud = Cloud::new().await;
    cloud.patience = 1;
    cloud.start_agent();
    let babbler = cloud.intent("i-babbles", 36);
    cloud.want(|all| all.push(babbler));
    cloud.until_phase("i-babbles", Phase::Running, 1).await;
    let heard = cloud.heard("i-babbles", CUT_OFF).await;
    assert!(heard.iter().all(|&bytes| bytes < MOST_HEARD), "{heard:?}");
    // An honest one's agent is there for it meanwhile.
    let honest = cloud.intent("i-honest", 64);
    cloud.want(|all| all.push(honest));
    cloud.until_phase("i-honest", Phase::Running, 1).await;
    cloud.want(|all| {
        all.iter_mut()
            .for_each(|intent| intent.set_desired(Desired::Stopped))
    });
    for id in ["i-honest", "i-babbles"] {
        let seen = cloud.until_phase(id, Phase::Ended, 1).await;
        assert_eq!(seen.end.unwrap().cause(), Cause::Requested);
        assert!(cloud.living(id).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_without_end_is_none_and_a_long_one_is_cut() {
    let mut cloud = Cloud::new().await;
    cloud.start_agent();
    let (endless, wordy) = (cloud.intent("i-endless", 37), cloud.intent("i-wordy", 38));
    cloud.want(|all| all.extend([endless, wordy]));
    let end = cloud.until_phase("i-endless", Phase::Ended, 1).await.end.unwrap();
    assert_eq!(end.cause(), Cause::MonitorDied);
    assert!(end.message.contains("without a word"), "{}", end.message);
    let end = cloud.until_phase("i-wordy", Phase::Ended, 1).await.end.unwrap();
    assert_eq!(end.cause(), Cause::GuestCrashed);
    assert!(end.message.starts_with("words words"));
    assert!(end.message.len() < 2000, "{} bytes", end.message.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_works_on_while_the_control_plane_is_away() {
    let mut cloud = Cloud::new().await;
    cloud.start_agent();
    let intent = cloud.intent("i-1", 64);
    cloud.want(|all| all.push(intent));
    cloud.until_phase("i-1", Phase::Running, 1).await;
    // It hears of a stop and of a second instance, stores that, and dies before it acts.
    cloud.kill_agent();
    let second = cloud.intent("i-2", 64);
    cloud.want(|all| {
        all[0].set_desired(Desired::Stopped);
        all.push(second);
    });
    cloud.start_agent_with(&[("HEARTH_AGENT_CRASH_AT", "intents-stored")]);
    cloud.agent_died().await;
    assert_eq!((cloud.living("i-1").len(), cloud.spawned("i-2").len()), (1, 0));
    cloud.control_plane_dies().await;
    // Alone, from its own memory: the image is there.
    cloud.start_agent();
    cloud.until_spawned("i-2", 1).await;
    let begin = std::time::Instant::now();
    while !cloud.living("i-1").is_empty() {
        assert!(begin.elapsed() < common::PATIENCE, "i-1 was not stopped");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    cloud.control_plane_returns().await;
    cloud.until_phase("i-1", Phase::Ended, 1).await;
    cloud.until_phase("i-2", Phase::Running, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn intents_that_cannot_be_stored_are_stored_later() {
    let mut cloud = Cloud::new().await;
    std::fs::create_dir(cloud.data_dir()).unwrap();
    let Some(_small) = common::SmallDisk::mount(&cloud.data_dir(), "64m") else {
        eprintln!("SKIPPED: intents_that_cannot_be_stored_are_stored_later: mounting a tmpfs needs root");
        return;
    };
    cloud.start_agent();
    let intent = cloud.intent("i-1", 64);
    cloud.want(|all| all.push(intent));
    cloud.until_phase("i-1", Phase::Running, 1).await;
    // The disk is full when it hears of a stop, with more than the store has room for.
    let filler = cloud.data_dir().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    cloud.want(|all| {
        all[0].set_desired(Desired::Stopped);
        all[0].metadata.as_mut().unwrap().user_data = vec![1; 4 << 20];
    });
    let begin = std::time::Instant::now();
    while !cloud.logged().contains("storing intents") {
        assert!(begin.elapsed() < common::PATIENCE, "{}", cloud.logged());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(cloud.living("i-1").len(), 1, "it acted upon what it may forget");
    std::fs::remove_file(&filler).unwrap();
    drop(file);
    // Nobody tells it again.
    cloud.until_phase("i-1", Phase::Ended, 1).await;
    cloud.kill_agent();
}

#[tokio::test(flavor = "multi_thread")]
async fn intents_of_another_epoch_are_taken_whatever_their_sequence() {
    let mut cloud = Cloud::new().await;
    cloud.start_agent();
    let intent = cloud.intent("i-1", 64);
    cloud.want(|all| all.push(intent));
    cloud.until_phase("i-1", Phase::Running, 1).await;
    let set_back = |intents: &mut hearth_api::agent::Intents, epoch: &str| {
        intents.sequence = 0;
        intents.epoch = epoch.into();
        intents.instances[0].set_desired(Desired::Stopped);
    };
    // Of the same epoch: an old message.
    let before = cloud.intents.borrow().clone();
    cloud
        .intents
        .send_modify(|intents| set_back(intents, &before.epoch));
    let begin = std::time::Instant::now();
    while !cloud.logged().contains("ignoring intents older") {
        assert!(begin.elapsed() < common::PATIENCE, "{}", cloud.logged());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(cloud.living("i-1").len(), 1);
    // Of a store that was set back.
    cloud.intents.send_modify(|intents| set_back(intents, "restored"));
    let seen = cloud.until_phase("i-1", Phase::Ended, 1).await;
    assert_eq!(seen.end.unwrap().cause(), Cause::Requested);
    let observed = cloud.seen.borrow().clone();
    assert_eq!(
        (observed.intents_epoch.as_str(), observed.intents_sequence),
        ("restored", 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_told_by_the_agent_that_runs_and_to_its_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut cloud = Cloud::new().await;
    let ask = |dir: &std::path::Path| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hearth-agent"));
        command
            .arg("counters")
            .arg("--data-dir")
            .arg(dir)
            .output()
            .unwrap()
    };
    let refused = ask(&cloud.data_dir());
    assert!(!refused.status.success());
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("no agent answers in"), "{message}");

    // An agent that died leaves its socket behind; the next one answers.
    for _ in 0..2 {
        cloud.start_agent();
        let end = std::time::Instant::now() + PATIENCE;
        let told = loop {
            let told = ask(&cloud.data_dir());
            if told.status.success() {
                break told;
            }
            let message = String::from_utf8_lossy(&told.stderr).into_owned();
            assert!(std::time::Instant::now() < end, "{message}");
        };
        assert!(String::from_utf8_lossy(&told.stdout).contains("Over rate"));
        let mode = |name: &str| {
            let path = cloud.data_dir().join(name);
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777
        };
        assert_eq!((mode("counters.sock"), mode("")), (0o600, 0o700));
        cloud.kill_agent();
    }
    assert!(!ask(&cloud.data_dir()).status.success());
}

/// The images of the agent's data directory.
fn images(cloud: &Cloud) -> Vec<String> {
    let entries = std::fs::read_dir(cloud.data_dir().join("images")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_no_volume_uses_leave_a_full_cache_and_bases_stay() {
    let mut cloud = Cloud::new().await;
    cloud.arguments = vec!["--image-cache-percent".to_owned(), "0".to_owned()];
    cloud.start_agent();
    for (id, image, deletes) in [
        ("i-1", "ami-1", true),
        ("i-2", "ami-2", false),
        ("i-3", "ami-3", true),
    ] {
        let mut intent = cloud.intent(id, 64);
        let root = &mut intent.volumes[0];
        root.image_id = image.to_owned();
        root.delete_on_termination = deletes;
        cloud.want(|all| all.push(intent));
        cloud.until_phase(id, Phase::Running, 1).await;
    }
    assert_eq!(images(&cloud), ["ami-1", "ami-2", "ami-3"]);
    cloud.want(|all| {
        all[0].set_desired(Desired::Terminated);
        all[1].set_desired(Desired::Terminated);
    });
    for id in ["i-1", "i-2"] {
        cloud.until_phase(id, Phase::Gone, 1).await;
    }
    // The volume of i-2 outlives it, and no intent names it any more.
    cloud.want(|all| all.retain(|intent| intent.instance_id == "i-3"));
    cloud.until_unknown_to_agent("i-1").await;
    cloud.until_unknown_to_agent("i-2").await;
    assert_eq!(images(&cloud), ["ami-2", "ami-3"]);
    cloud.kill_agent();
    cloud.start_agent();
    cloud.until_phase("i-3", Phase::Running, 1).await;
    assert_eq!(images(&cloud), ["ami-2", "ami-3"]);

    // A volume that an older agent laid: its image is noted from the intent, and stays.
    cloud.kill_agent();
    let note = cloud.data_dir().join("volumes/vol-of-i-3/image");
    std::fs::remove_file(&note).unwrap();
    cloud.start_agent();
    cloud.until_phase("i-3", Phase::Running, 1).await;
    assert_eq!(std::fs::read_to_string(&note).unwrap(), "ami-3");
    assert_eq!(images(&cloud), ["ami-2", "ami-3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_erased_when_intents_want_it_and_kept_otherwise() {
    use hearth_api::agent::VolumeIntent;
    use hearth_api::agent::volume_intent::Desired as Wanted;
    let mut cloud = Cloud::new().await;
    cloud.start_agent();
    for id in ["i-1", "i-2", "i-3"] {
        let mut intent = cloud.intent(id, 64);
        intent.volumes[0].delete_on_termination = false;
        cloud.want(|all| all.push(intent));
        cloud.until_phase(id, Phase::Running, 1).await;
    }
    cloud.want(|all| {
        all[0].set_desired(Desired::Terminated);
        all[1].set_desired(Desired::Terminated);
    });
    for id in ["i-1", "i-2"] {
        cloud.until_phase(id, Phase::Gone, 1).await;
    }
    cloud.want(|all| all.retain(|intent| intent.instance_id == "i-3"));
    let volume = |cloud: &Cloud, id: &str| cloud.data_dir().join("volumes").join(id).exists();
    let want = |id: &str, desired: Wanted| VolumeIntent {
        volume_id: id.into(),
        desired: desired.into(),
        epoch: 1,
    };
    cloud.want_volumes(vec![
        want("vol-of-i-1", Wanted::Kept),
        want("vol-of-i-2", Wanted::Kept),
    ]);
    cloud.until_erased(&[]).await;
    assert!(volume(&cloud, "vol-of-i-1") && volume(&cloud, "vol-of-i-2"));
    // The one of a running instance is none to erase, whatever is said, and nor is what is no name.
    let wanted = vec![
        want("../volumes/vol-of-i-2", Wanted::Erased),
        want("vol-of-i-1", Wanted::Erased),
        want("vol-of-i-2", Wanted::Kept),
        want("vol-of-i-3", Wanted::Erased),
        want("vol-that-never-was", Wanted::Erased),
    ];
    cloud.want_volumes(wanted);
    cloud.until_erased(&["vol-of-i-1", "vol-that-never-was"]).await;
    assert!(!volume(&cloud, "vol-of-i-1"));
    assert!(volume(&cloud, "vol-of-i-2") && volume(&cloud, "vol-of-i-3"));
    // It is said again after a restart, and not for longer than it is asked for.
    cloud.kill_agent();
    cloud.start_agent();
    cloud.until_erased(&["vol-of-i-1", "vol-that-never-was"]).await;
    cloud.want_volumes(vec![want("vol-of-i-2", Wanted::Kept)]);
    cloud.until_erased(&[]).await;
    // A process that still holds the volume comes first.
    let data = cloud.data_dir().join("volumes/vol-of-i-2/data");
    let held = std::fs::File::open(data).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockShared).unwrap();
    cloud.want_volumes(vec![want("vol-of-i-2", Wanted::Erased)]);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(volume(&cloud, "vol-of-i-2"));
    drop(held);
    cloud.until_erased(&["vol-of-i-2"]).await;
    assert!(!volume(&cloud, "vol-of-i-2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_has_all_its_volumes_and_interfaces() {
    let mut cloud = Cloud::new().await;
    cloud.start_agent();
    let mut intent = cloud.intent("i-1", 64);
    let mut data = intent.volumes[0].clone();
    data.volume_id = "vol-of-data".into();
    data.delete_on_termination = false;
    intent.volumes.push(data);
    let mut second = intent.network_interfaces[0].clone();
    second.network_interface_id = "eni-2".into();
    second.private_ip = "172.31.0.11".into();
    second.mac_address = "02:00:00:00:00:02".into();
    intent.network_interfaces.push(second);
    cloud.want(|all| all.push(intent));
    cloud.until_phase("i-1", Phase::Running, 1).await;
    let log = std::fs::read_to_string(cloud.data_dir().join("instances/i-1/monitor.log")).unwrap();
    assert!(
        log.contains("has vol-of-i-1 vol-of-data and eni-1 eni-2\n"),
        "{log}"
    );
    // Both are the monitor's: nobody else gets them.
    for volume in ["vol-of-i-1", "vol-of-data"] {
        let data = std::fs::File::open(cloud.data_dir().join("volumes").join(volume).join("data")).unwrap();
        let held = rustix::fs::flock(&data, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        assert_eq!(held.unwrap_err(), rustix::io::Errno::WOULDBLOCK, "{volume}");
    }
    cloud.want(|all| all[0].set_desired(Desired::Terminated));
    cloud.until_phase("i-1", Phase::Gone, 1).await;
    assert!(!cloud.data_dir().join("volumes/vol-of-i-1").exists());
    assert!(cloud.data_dir().join("volumes/vol-of-data").exists());

    // The host has lost one of them.
    let mut intent = cloud.intent("i-2", 64);
    let mut lost = intent.volumes[0].clone();
    lost.volume_id = "vol-that-is-lost".into();
    lost.has_run = true;
    intent.volumes.push(lost);
    cloud.want(|all| all.push(intent));
    let seen = cloud.until_phase("i-2", Phase::Ended, 1).await;
    let end = seen.end.unwrap();
    assert!(
        end.cause() == Cause::StartFailed && end.message.contains("vol-that-is-lost"),
        "{end:?}"
    );
    // None at all.
    let mut intent = cloud.intent("i-3", 64);
    intent.volumes.clear();
    cloud.want(|all| all.push(intent));
    let seen = cloud.until_phase("i-3", Phase::Ended, 1).await;
    assert!(seen.end.unwrap().message.contains("no usable volumes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_instance_store_lives_as_long_as_its_run_also_where_agents_are_killed() {
    let mut cloud = Cloud::new().await;
    cloud.start_agent();
    let mut intent = cloud.intent("i-1", 64);
    intent.store_run = 1;
    intent.store_disks = vec![InstanceStoreDisk {
        number: 0,
        size_bytes: 1 << 30,
        device_name: String::new(),
    }];
    cloud.want(|all| all.push(intent));
    cloud.until_phase("i-1", Phase::Running, 1).await;
    let home = cloud.data_dir().join("stores/i-1");
    let disk = |run: u64| home.join(format!("{run}/ephemeral0"));
    let is_ours = |run: u64| {
        use std::os::unix::fs::FileExt as _;
        let mut found = [0; 4];
        let file = std::fs::File::open(disk(run)).unwrap();
        file.read_exact_at(&mut found, 4096).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1 << 30);
        found == *b"mine"
    };
    assert!(!is_ours(1));
    let file = std::fs::File::options().write(true).open(disk(1)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"mine", 4096).unwrap();

    // A reboot is another launch of the run, also by another agent.
    cloud.kill_agent();
    cloud.want(|all| all[0].reboot = 1);
    cloud.start_agent();
    cloud
        .until("i-1", |seen| seen.reboot == 1 && seen.phase() == Phase::Running)
        .await;
    cloud.until_spawned("i-1", 2).await;
    assert!(is_ours(1));

    // Shut down for an image: the next run goes on with the disks.
    cloud.want(|all| {
        all[0].keep_store = true;
        all[0].set_desired(Desired::Stopped);
    });
    cloud.until_phase("i-1", Phase::Ended, 1).await;
    assert!(is_ours(1));
    cloud.want(|all| {
        all[0].keep_store = false;
        all[0].run = 2;
        all[0].set_desired(Desired::Running);
    });
    cloud.until_phase("i-1", Phase::Running, 2).await;
    assert!(is_ours(1));

    // Shut down for an image that comes to nothing: it stays stopped, and has no disks.
    cloud.want(|all| {
        all[0].keep_store = true;
        all[0].set_desired(Desired::Stopped);
    });
    cloud.until_phase("i-1", Phase::Ended, 2).await;
    assert!(is_ours(1));
    cloud.want(|all| all[0].keep_store = false);
    let begin = std::time::Instant::now();
    while home.exists() {
        assert!(begin.elapsed() < PATIENCE, "{}", cloud.logged());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }

    // Another run begins with zeros. Its end is the disks' end, also where the agent dies of it.
    cloud.want(|all| {
        (all[0].run, all[0].store_run) = (3, 3);
        all[0].set_desired(Desired::Running);
    });
    cloud.until_phase("i-1", Phase::Running, 3).await;
    assert!(!is_ours(3) && !disk(1).exists());
    cloud.kill_agent();
    cloud.start_agent_with(&[("HEARTH_AGENT_CRASH_AT", "monitor-ended")]);
    cloud.want(|all| all[0].set_desired(Desired::Stopped));
    cloud.agent_died().await;
    assert!(disk(3).exists());
    cloud.start_agent();
    cloud.until_phase("i-1", Phase::Ended, 3).await;
    assert!(!home.exists());

    cloud.want(|all| {
        (all[0].run, all[0].store_run) = (4, 4);
        all[0].set_desired(Desired::Running);
    });
    cloud.until_phase("i-1", Phase::Running, 4).await;
    cloud.want(|all| all[0].set_desired(Desired::Terminated));
    cloud.until_phase("i-1", Phase::Gone, 4).await;
    assert!(!home.exists());
}
