//! Damage by hand to the network of a running instance: the agent mends it by itself, and an ssh session goes on.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant};

use hearth_api::v1::ListHostsRequest;
use hearth_tests::{Cloud, can_run};

/// Within which everything is mended.
const LIMIT: Duration = Duration::from_secs(30);

fn succeeds(command: &str) -> bool {
    let status = Command::new("sh")
        .args(["-c", command])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    status.unwrap().success()
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_by_hand_is_mended_in_time_and_a_connection_goes_on() {
    if !can_run("damage_by_hand_is_mended_in_time_and_a_connection_goes_on") {
        return;
    }
    let cloud = Cloud::start().await.unwrap();
    let guest = cloud.launch_guest(|_| {}).await.unwrap();
    let interface = &guest.instance.network_interfaces[0];
    let (vpc, root) = (guest.instance.vpc_id.clone(), cloud.host.name.clone());
    // As the agent names them.
    let tap = format!("tap{}", &interface.network_interface_id["eni-".len()..][..12]);
    let outer = format!("hv{}", &vpc["vpc-".len()..][..11]);
    let (private, public) = (guest.private_ip().to_owned(), guest.public_ip().to_owned());
    let mark = cloud.path("agent/network").join(&vpc).display().to_string();
    let said = cloud.path("said");
    let mut session = guest
        .ssh_command("n=0; while true; do n=$((n+1)); echo $n; sleep 1; done")
        .stdout(File::create(&said).unwrap())
        .spawn()
        .unwrap();
    let lines = || std::fs::read_to_string(&said).unwrap().lines().count();
    cloud
        .wait_for("the session", Duration::from_secs(120), || {
            (lines() > 0).then_some(())
        })
        .await
        .unwrap();

    let inside = format!("ip netns exec {vpc}");
    // What is done at the same time, how, and what is so when it is mended.
    let rounds = [
        vec![
            (
                "the VPC's ruleset is flushed",
                format!("{inside} nft flush ruleset"),
                format!("{inside} nft list ruleset | grep -q antispoof"),
            ),
            (
                "the host's ruleset is flushed",
                format!("ip netns exec {root} nft flush ruleset"),
                format!("ip netns exec {root} nft list ruleset | grep -q hearth-{vpc}"),
            ),
            (
                "the guest's route is deleted",
                format!("ip -n {vpc} route del {private}/32"),
                format!("ip -n {vpc} route show {private} | grep -q {tap}"),
            ),
            (
                "the guest's neighbour is deleted",
                format!("ip -n {vpc} neigh del {private} dev {tap}"),
                format!("ip -n {vpc} neigh show {private} | grep -q PERMANENT"),
            ),
            (
                "proxy ARP is switched off",
                format!("{inside} sysctl -qw net.ipv4.conf.{tap}.proxy_arp=0"),
                format!("{inside} cat /proc/sys/net/ipv4/conf/{tap}/proxy_arp | grep -q 1"),
            ),
            (
                "the agent's mark of the VPC is deleted",
                format!("rm {mark}"),
                format!("test -e {mark}"),
            ),
        ],
        vec![
            (
                "the public address's route is deleted",
                format!("ip -n {root} route del {public}"),
                format!("ip -n {root} route show {public} | grep -q {outer}"),
            ),
            (
                "the TAP is set down",
                format!("ip -n {vpc} link set {tap} down"),
                format!("ip -n {vpc} link show {tap} | grep -q ,UP"),
            ),
            (
                "the router's address is deleted",
                format!("ip -n {vpc} addr flush dev lo"),
                format!("ip -n {vpc} addr show dev lo | grep -q 169.254.169.254"),
            ),
            (
                "forwarding is switched off in the VPC",
                format!("{inside} sysctl -qw net.ipv4.ip_forward=0"),
                format!("{inside} cat /proc/sys/net/ipv4/ip_forward | grep -q 1"),
            ),
            (
                "forwarding is switched off on the host",
                format!("ip netns exec {root} sysctl -qw net.ipv4.ip_forward=0"),
                format!("ip netns exec {root} cat /proc/sys/net/ipv4/ip_forward | grep -q 1"),
            ),
        ],
        vec![
            (
                "the TAP is deleted",
                format!("ip -n {vpc} link del {tap}"),
                format!("ip -n {vpc} link show {tap} | grep -q ,UP"),
            ),
            (
                "the uplink is deleted",
                format!("ip -n {root} link del {outer}"),
                format!(
                    "ip -n {root} route show {public} | grep -q {outer} && ip -n {vpc} route | grep -q default"
                ),
            ),
        ],
        vec![(
            "the namespace's name is deleted",
            format!("ip netns del {vpc}"),
            format!("ip -n {vpc} link show {tap}"),
        )],
    ];
    for damages in &rounds {
        for (what, damage, mended) in damages {
            assert!(succeeds(damage), "{what}: {damage}");
            assert!(!succeeds(mended), "{what}: not damaged");
        }
        let begin = Instant::now();
        for (what, _, mended) in damages {
            let left = LIMIT.saturating_sub(begin.elapsed());
            cloud
                .wait_for(what, left, || succeeds(mended).then_some(()))
                .await
                .unwrap();
            let took = begin.elapsed().as_secs_f64();
            eprintln!("FIGURE drift: {what}: mended after at most {took:.1} s");
        }
        let before = lines();
        cloud
            .wait_for("the session to go on", Duration::from_secs(60), || {
                (lines() > before).then_some(())
            })
            .await
            .unwrap();
    }
    assert!(session.try_wait().unwrap().is_none(), "the session has ended");
    session.kill().unwrap();
    session.wait().unwrap();
    let hosts = cloud.hosts().await.unwrap().list_hosts(ListHostsRequest {}).await;
    let repairs = hosts.unwrap().into_inner().hosts.remove(0).repairs;
    let told = |what: &str| repairs.iter().any(|repair| repair.description.contains(what));
    assert!(repairs.len() == 8 && told("its mark is gone"), "{repairs:?}");
    let log = std::fs::read_to_string(cloud.path("agent.log")).unwrap();
    let reported = log.matches("was changed by somebody else").count()
        + log.matches("were changed by somebody else").count()
        + log.matches("was deleted by somebody else").count();
    assert!(reported >= 2 * rounds.len(), "{reported} reported\n{log}");
}
