//! The host of a running guest restarts.
#![allow(clippy::unwrap_used)]

use hearth_tests::{Cloud, can_run};

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_comes_back_after_its_hosts_shutdown_and_after_a_power_cut() {
    if !can_run("a_guest_comes_back_after_its_hosts_shutdown_and_after_a_power_cut") {
        return;
    }
    let mut cloud = Cloud::start().await.unwrap();
    let guest = cloud.launch_guest(|_| {}).await.unwrap();
    // Not synced: the guest's own shutdown writes it back.
    guest.ssh("echo written >/root/shutdown").await.unwrap();
    let began = std::time::Instant::now();
    cloud.shut_down_host().unwrap();
    eprintln!("shutdown-guests: {:?}", began.elapsed());
    assert!(cloud.monitors().unwrap().is_empty());
    let instance = cloud.path(&format!("agent/instances/{}", guest.id()));
    let outcome = std::fs::read_to_string(instance.join("launch-1/outcome")).unwrap();
    assert!(outcome.contains("guest_power_off"), "{outcome}");
    // To its user it runs: nobody has asked it to stop.
    let seen = cloud.describe(guest.id()).await.unwrap();
    assert_eq!(seen.state.unwrap().name, "running");

    cloud.start_agent().await.unwrap();
    let guest = cloud.guest_after(guest.id(), 2).await.unwrap();
    assert_eq!(guest.ssh("cat /root/shutdown").await.unwrap(), "written");

    guest.ssh("echo flushed >/root/power; sync").await.unwrap();
    cloud.cut_power().unwrap();
    cloud.start_agent().await.unwrap();
    let again = cloud.guest_after(guest.id(), 3).await.unwrap();
    assert_eq!(
        again.ssh("cat /root/power /root/shutdown").await.unwrap(),
        "flushed\nwritten"
    );
    let seen = cloud.describe(guest.id()).await.unwrap();
    assert!(seen.state_reason.is_none(), "{:?}", seen.state_reason);
}
