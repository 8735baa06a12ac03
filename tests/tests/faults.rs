//! SIGKILL of each daemon and of a monitor, at any moment.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use hearth_api::v1;
use hearth_tests::{Cloud, Daemon, can_run};

/// Rounds of the launch that is disturbed.
const ROUNDS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_survives_kills_at_random_points() {
    if !can_run("a_launch_survives_kills_at_random_points") {
        return;
    }
    let mut cloud = Cloud::start().await.unwrap();
    for round in 0..ROUNDS {
        let token = format!("round-{round}");
        // The launch takes tens of milliseconds; so do the points at which it is cut.
        let first = Duration::from_micros(rand::random_range(0..150_000));
        let both = round % 2 == 0;
        let mut request = cloud.launch_request();
        request.client_token = token.clone();

        let mut api = cloud.instances().await.unwrap();
        let sent = request.clone();
        let launch = tokio::spawn(async move { api.run_instances(sent).await });
        tokio::time::sleep(first).await;
        cloud.kill(Daemon::Agent).unwrap();
        if both {
            cloud.kill(Daemon::Hearthd).unwrap();
            cloud.start_hearthd().await.unwrap();
        }
        cloud.start_agent().await.unwrap();
        // The first call may have been cut off before or after it was recorded; the token makes asking again safe.
        // While the host is away there is no capacity: that is asked again too.
        let _ = launch.await.unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let reservation = loop {
            match cloud
                .instances()
                .await
                .unwrap()
                .run_instances(request.clone())
                .await
            {
                Ok(answer) => break answer.into_inner(),
                Err(status) => {
                    assert!(
                        tokio::time::Instant::now() < deadline,
                        "{status:?}\n{}",
                        cloud.logs()
                    );
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        };
        assert_eq!(reservation.instances.len(), 1);
        let id = reservation.instances[0].instance_id.clone();
        cloud.wait_for_state(&id, "running").await.unwrap();

        // One instance, one monitor, one volume, one TAP.
        let request = v1::DescribeInstancesRequest {
            filters: vec![v1::Filter {
                name: "instance-state-name".into(),
                values: vec!["pending".into(), "running".into()],
            }],
            ..Default::default()
        };
        let answer = cloud
            .instances()
            .await
            .unwrap()
            .describe_instances(request)
            .await
            .unwrap()
            .into_inner();
        let alive: Vec<_> = answer.reservations.iter().flat_map(|r| &r.instances).collect();
        assert_eq!(alive.len(), 1, "round {round}: {alive:?}");
        assert_eq!(cloud.monitors().unwrap().len(), 1, "round {round}");
        let vpc = &alive[0].vpc_id;
        let links = std::process::Command::new("ip")
            .args(["-n", vpc, "-o", "link", "show", "type", "tun"])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&links.stdout).lines().count(),
            1,
            "round {round}: {links:?}"
        );

        let request = v1::TerminateInstancesRequest {
            instance_ids: vec![id.clone()],
            dry_run: false,
        };
        // Asked twice, it does not wait for a guest that is still booting and deaf to the power button.
        let mut api = cloud.instances().await.unwrap();
        api.terminate_instances(request.clone()).await.unwrap();
        api.terminate_instances(request).await.unwrap();
        cloud.wait_for_state(&id, "terminated").await.unwrap();
        assert!(
            cloud.monitors().unwrap().is_empty(),
            "round {round}: a monitor is left"
        );
        let volumes = std::fs::read_dir(cloud.path("agent/volumes")).map_or(0, Iterator::count);
        assert_eq!(volumes, 0, "round {round}: a volume is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_does_not_notice_that_the_daemons_die() {
    if !can_run("a_guest_does_not_notice_that_the_daemons_die") {
        return;
    }
    let mut cloud = Cloud::start().await.unwrap();
    let guest = cloud.launch_guest(|_| {}).await.unwrap();
    let monitors = cloud.monitors().unwrap();

    // An open session says a number a second, through both deaths and returns.
    let mut session = guest
        .ssh_command("i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo tick $i; sleep 1; done")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(session.stdout.take().unwrap()).lines();
    let mut tick = || lines.next().unwrap().unwrap();
    assert_eq!(tick(), "tick 1");
    cloud.kill(Daemon::Agent).unwrap();
    cloud.kill(Daemon::Hearthd).unwrap();
    assert_eq!(tick(), "tick 2");
    assert_eq!(tick(), "tick 3");
    cloud.start_hearthd().await.unwrap();
    cloud.start_agent().await.unwrap();
    let seen = cloud.wait_for_state(guest.id(), "running").await.unwrap();
    assert_eq!(seen.state.unwrap().code, 16);
    assert_eq!(tick(), "tick 4");
    session.kill().unwrap();
    session.wait().unwrap();
    assert_eq!(cloud.monitors().unwrap(), monitors, "the same monitor, adopted");

    // The adopted instance obeys as before.
    let request = v1::StopInstancesRequest {
        instance_ids: vec![guest.id().into()],
        ..Default::default()
    };
    cloud
        .instances()
        .await
        .unwrap()
        .stop_instances(request)
        .await
        .unwrap();
    cloud.wait_for_state(guest.id(), "stopped").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_monitor_leaves_a_stopped_instance_with_its_flushed_data() {
    if !can_run("a_killed_monitor_leaves_a_stopped_instance_with_its_flushed_data") {
        return;
    }
    let cloud = Cloud::start().await.unwrap();
    let guest = cloud.launch_guest(|_| {}).await.unwrap();
    guest.ssh("echo flushed >/root/data; sync").await.unwrap();
    let monitors = cloud.monitors().unwrap();
    assert_eq!(monitors.len(), 1);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(monitors[0]),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    let stopped = cloud.wait_for_state(guest.id(), "stopped").await.unwrap();
    assert!(
        stopped.state_reason.unwrap().code.starts_with("Server."),
        "the reason is ours"
    );

    let request = v1::StartInstancesRequest {
        instance_ids: vec![guest.id().into()],
        dry_run: false,
    };
    cloud
        .instances()
        .await
        .unwrap()
        .start_instances(request)
        .await
        .unwrap();
    let guest = cloud.guest_after(guest.id(), 2).await.unwrap();
    assert_eq!(guest.ssh("cat /root/data").await.unwrap(), "flushed");
}
