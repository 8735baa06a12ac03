//! A host that falls silent, comes back, is lost, is forgotten and comes back once more: with a real agent and a guest.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use hearth_api::v1;
use hearth_tests::{Cloud, Daemon, can_run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// 30 s until the connection is noticed to be dead, 30 s of silence, and a machine that is busy.
const LOST: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);

async fn host(cloud: &Cloud) -> v1::Host {
    let mut hosts = cloud.hosts().await.unwrap();
    let answer = hosts.list_hosts(v1::ListHostsRequest {}).await.unwrap();
    answer.into_inner().hosts.remove(0)
}

async fn until_state(cloud: &Cloud, state: &str, limit: Duration) -> Duration {
    let begin = Instant::now();
    while host(cloud).await.state != state {
        assert!(
            begin.elapsed() < limit,
            "not {state}: {:?}\n{}",
            host(cloud).await,
            cloud.logs()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    begin.elapsed()
}

async fn system_status(cloud: &Cloud, id: &str) -> String {
    let request = v1::DescribeInstanceStatusRequest {
        instance_ids: vec![id.into()],
        include_all_instances: true,
        ..Default::default()
    };
    let answer = cloud
        .instances()
        .await
        .unwrap()
        .describe_instance_status(request)
        .await;
    let status = answer.unwrap().into_inner().instance_statuses.remove(0);
    status.system_status.unwrap().status
}

fn state(instance: &v1::Instance) -> &str {
    &instance.state.as_ref().unwrap().name
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_host_is_unknown_and_a_forgotten_one_ends_its_guests_when_it_is_back() {
    if !can_run("a_lost_host_is_unknown_and_a_forgotten_one_ends_its_guests_when_it_is_back") {
        return;
    }
    let mut cloud = Cloud::start().await.unwrap();
    let id = cloud.launch(|_| {}).await.unwrap();
    cloud.wait_for_state(&id, "running").await.unwrap();
    assert_eq!(system_status(&cloud, &id).await, "ok");

    // Cut off: its connection is there, and nothing comes of it.
    let agent = Pid::from_raw(cloud.pid(Daemon::Agent).unwrap().cast_signed());
    kill(agent, Signal::SIGSTOP).unwrap();
    let cut_off = until_state(&cloud, "unknown", LOST).await;
    eprintln!("FIGURE a host that is cut off is unknown after {cut_off:.1?}");
    assert_eq!(system_status(&cloud, &id).await, "impaired");
    assert_eq!(state(&cloud.describe(&id).await.unwrap()), "running");
    kill(agent, Signal::SIGCONT).unwrap();
    let back = until_state(&cloud, "connected", SOON).await;
    eprintln!("FIGURE it is connected {back:.1?} after it is back");
    assert_eq!(system_status(&cloud, &id).await, "ok");
    assert_eq!(state(&cloud.describe(&id).await.unwrap()), "running");

    // Killed: its connection ends at once.
    cloud.kill(Daemon::Agent).unwrap();
    let killed = until_state(&cloud, "unknown", LOST).await;
    eprintln!("FIGURE a host whose agent was killed is unknown after {killed:.1?}");
    assert_eq!(system_status(&cloud, &id).await, "impaired");
    let terminate = v1::TerminateInstancesRequest {
        instance_ids: vec![id.clone()],
        dry_run: false,
    };
    let mut instances = cloud.instances().await.unwrap();
    instances.terminate_instances(terminate).await.unwrap();
    assert_eq!(state(&cloud.describe(&id).await.unwrap()), "shutting-down");
    let forget = v1::ForgetHostRequest {
        host_id: host(&cloud).await.host_id,
        ..Default::default()
    };
    cloud.hosts().await.unwrap().forget_host(forget).await.unwrap();
    assert_eq!(state(&cloud.describe(&id).await.unwrap()), "terminated");
    assert_eq!(cloud.monitors().unwrap().len(), 1, "nobody was there to end it");

    // The host comes back, and is fenced: the guest ends, its volume stays.
    cloud.start_agent().await.unwrap();
    let begin = Instant::now();
    cloud
        .wait_for("the guest to end", SOON, || {
            cloud.monitors().unwrap().is_empty().then_some(())
        })
        .await
        .unwrap();
    eprintln!(
        "FIGURE the guests of a forgotten host have ended {:.1?} after its agent's start",
        begin.elapsed()
    );
    let volumes = std::fs::read_dir(cloud.path("agent/volumes")).unwrap().count();
    assert_eq!(volumes, 1);

    // It joins anew, and runs instances again.
    cloud.kill(Daemon::Agent).unwrap();
    std::fs::remove_dir_all(cloud.path("agent/pki")).unwrap();
    cloud.join().unwrap();
    cloud.start_agent().await.unwrap();
    until_state(&cloud, "connected", SOON).await;
    let again = cloud.launch(|_| {}).await.unwrap();
    cloud.wait_for_state(&again, "running").await.unwrap();
}
