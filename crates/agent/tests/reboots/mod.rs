//! The host restarts: by a power cut, and by a shutdown that gives guests their time.

use std::time::{Duration, Instant};

use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::run_end::Cause;

use crate::common::Cloud;

/// A cloud with an agent and instances that run. The guest of an instance with 33 MiB does not obey its power button.
async fn running(patience: u64, arguments: &[&str], instances: &[(&str, u64)]) -> Cloud {
    let mut cloud = Cloud::new().await;
    cloud.patience = patience;
    cloud.arguments = arguments.iter().map(ToString::to_string).collect();
    cloud.start_agent();
    for (id, memory_mib) in instances {
        let intent = cloud.intent(id, *memory_mib);
        cloud.want(|all| all.push(intent));
    }
    for (id, _) in instances {
        cloud.until_phase(id, Phase::Running, 1).await;
    }
    cloud
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_cut_what_ran_runs_again_a_few_at_a_time_and_without_a_control_plane() {
    let instances = [("i-1", 64), ("i-2", 64), ("i-3", 64), ("i-4", 64)];
    let mut cloud = running(60, &["--recovery-starts", "2"], &instances).await;
    cloud.power_cut();
    cloud.control_plane_dies().await;
    let spawned = |cloud: &Cloud| -> usize { instances.iter().map(|(id, _)| cloud.spawned(id).len()).sum() };
    assert_eq!(spawned(&cloud), 4);
    cloud.start_agent();
    let mut times = Vec::new();
    let began = Instant::now();
    while times.len() < 4 {
        assert!(began.elapsed() < Duration::from_secs(60), "{times:?}");
        for _ in times.len() + 4..spawned(&cloud) {
            times.push(Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (second, third) = (times[1] - times[0], times[2] - times[0]);
    assert!(
        second < Duration::from_secs(4) && third > Duration::from_secs(4),
        "not two at a time: {second:?}, {third:?}"
    );
    cloud.control_plane_returns().await;
    for (id, _) in instances {
        let seen = cloud.until_phase(id, Phase::Running, 1).await;
        assert_eq!(seen.recoveries, 1);
        assert_eq!(cloud.living(id).len(), 1);
        assert_eq!(cloud.spawned(id).len(), 2);
    }
    // The same boot of the host: an end is the monitor's own.
    let pid = rustix::process::Pid::from_raw(cloud.living("i-1")[0]).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let seen = cloud.until_phase("i-1", Phase::Ended, 1).await;
    assert_eq!(seen.end.unwrap().cause(), Cause::MonitorDied);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_automatic_recovery_an_instance_ends_with_its_host() {
    let mut cloud = running(60, &[], &[("i-1", 64), ("i-2", 64)]).await;
    cloud.want(|all| all[0].auto_recovery_disabled = true);
    let sequence = cloud.intents.borrow().sequence;
    let heard = cloud.seen.wait_for(|seen| seen.intents_sequence == sequence);
    tokio::time::timeout(crate::common::PATIENCE, heard)
        .await
        .unwrap()
        .unwrap();
    cloud.power_cut();
    cloud.start_agent();
    let end = cloud.until_phase("i-1", Phase::Ended, 1).await.end.unwrap();
    assert_eq!(end.cause(), Cause::HostRebooted);
    assert_eq!(end.message, "automatic recovery is disabled for the instance");
    cloud
        .until("i-2", |seen| {
            seen.phase() == Phase::Running && seen.recoveries == 1
        })
        .await;
    assert_eq!(cloud.spawned("i-1").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_whose_host_restarts_again_and_again_is_left_ended() {
    let mut cloud = running(60, &[], &[("i-1", 64)]).await;
    for recoveries in 1..=3 {
        cloud.power_cut();
        cloud.start_agent();
        cloud
            .until("i-1", |seen| {
                seen.phase() == Phase::Running && seen.recoveries == recoveries
            })
            .await;
        cloud.until_spawned("i-1", recoveries as usize + 1).await;
    }
    cloud.power_cut();
    cloud.start_agent();
    let end = cloud.until_phase("i-1", Phase::Ended, 1).await.end.unwrap();
    assert_eq!(end.cause(), Cause::HostRebooted);
    assert_eq!(cloud.spawned("i-1").len(), 4);
    // Started by its user, it begins anew.
    cloud.want(|all| all[0].run = 2);
    let seen = cloud.until_phase("i-1", Phase::Running, 2).await;
    assert_eq!(seen.recoveries, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_of_the_host_presses_power_buttons_and_the_guests_come_back() {
    let mut cloud = running(2, &[], &[("i-1", 64), ("i-deaf", 33)]).await;
    // While the agent works, nothing is ended.
    assert!(!cloud.shutdown_guests(&[]).success());
    assert!(cloud.logged().contains("another hearth-agent works in"));
    assert_eq!(cloud.living("i-1").len(), 1);

    cloud.kill_agent();
    let began = Instant::now();
    assert!(cloud.shutdown_guests(&[]).success());
    let took = began.elapsed();
    assert!(
        took > Duration::from_secs(2),
        "the deaf guest had no time: {took:?}"
    );
    let outcome = |id: &str| {
        std::fs::read_to_string(
            cloud
                .data_dir()
                .join("instances")
                .join(id)
                .join("launch-1/outcome"),
        )
        .unwrap()
    };
    assert!(outcome("i-1").contains("guest_power_off"), "{}", outcome("i-1"));
    assert!(outcome("i-deaf").contains("stopped"), "{}", outcome("i-deaf"));
    assert!(cloud.logged().contains("it is stopped without its consent"));
    assert!(cloud.living("i-1").is_empty() && cloud.living("i-deaf").is_empty());
    assert!(cloud.shutdown_guests(&[]).success(), "again, with nothing to end");

    cloud.power_cut();
    cloud.start_agent();
    for id in ["i-1", "i-deaf"] {
        cloud
            .until(id, |seen| seen.phase() == Phase::Running && seen.recoveries == 1)
            .await;
        cloud.until_spawned(id, 2).await;
    }
}

/// Whatever an agent asks again and again about, a shutdown does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_of_the_host_ends_in_time_when_nobody_knows_whether_a_guest_lives() {
    let mut cloud = running(0, &[], &[("i-1", 64)]).await;
    cloud.kill_agent();
    let socket = cloud.data_dir().join("instances/i-1/launch-1/control.sock");
    std::fs::remove_file(&socket).unwrap();
    std::os::unix::fs::symlink("control.sock", &socket).unwrap();
    let began = Instant::now();
    assert!(!cloud.shutdown_guests(&[]).success());
    let took = began.elapsed();
    assert!(took < Duration::from_secs(60), "it took {took:?}");
    assert!(cloud.logged().contains("adopting"));
    assert!(cloud.logged().contains("have not ended within 30 s"));
}

/// The power goes while guests are being shut down: that they obeyed the button is not taken for their own wish.
#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_that_is_cut_short_loses_no_guest() {
    for point in ["monitor-ended", "pressed"] {
        let mut cloud = running(60, &[], &[("i-1", 64)]).await;
        cloud.kill_agent();
        assert!(
            !cloud
                .shutdown_guests(&[("HEARTH_AGENT_CRASH_AT", point)])
                .success()
        );
        cloud.power_cut();
        cloud.start_agent();
        cloud
            .until("i-1", |seen| {
                seen.phase() == Phase::Running && seen.recoveries == 1
            })
            .await;
        cloud.until_spawned("i-1", 2).await;
    }
}
