//! Cost of a rule update, by the number of rules that are loaded. Prints figures; run it alone:
//! `cargo nextest run --release -p hearth-network --test cost --run-ignored only --no-capture`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use common::{TestHost, cannot_run, eni, group, tcp};
use hearth_network::spec::{Peer, VpcSpec};
use ipnet::Ipv4Net;

const ROUNDS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures; takes a minute"]
async fn cost_of_an_update() {
    if cannot_run("cost_of_an_update") {
        return;
    }
    println!("rules   first load   membership change   replacement   nothing new   (median of {ROUNDS})");
    for rules in [10_u32, 1_000, 10_000] {
        let mut host = TestHost::new().await;
        let mut spec = host.vpc();
        let (mut one, mut two) = (eni(10), eni(11));
        let peer = |n: u32| Peer::Cidr(Ipv4Net::from(Ipv4Addr::from_bits(0xc633_6400 + n)));
        let ingress = (0..rules)
            .map(|n| tcp(1000 + (n % 100) as u16, peer(n)))
            .collect();
        let web = group(1, &[one.private_ip, two.private_ip], ingress);
        one.security_group_ids = vec![web.group_id.clone()];
        two.security_group_ids = vec![web.group_id.clone()];
        spec.enis = vec![one, two];
        spec.security_groups = vec![web];
        let first = timed(&host, &spec).await;
        let (mut members, mut replacements, mut nothing) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let address = Ipv4Addr::new(172, 31, 1, round as u8);
            spec.security_groups[0].members.push(address);
            members.push(timed(&host, &spec).await);
            spec.security_groups[0].ingress[0] = tcp(2000 + round as u16, peer(rules + 1));
            replacements.push(timed(&host, &spec).await);
            nothing.push(timed(&host, &spec).await);
        }
        println!(
            "{rules:>5}   {first:>10.1?}   {:>17.1?}   {:>11.1?}   {:>11.1?}",
            median(members),
            median(replacements),
            median(nothing)
        );
    }
}

async fn timed(host: &TestHost, spec: &VpcSpec) -> Duration {
    let start = Instant::now();
    host.network.apply_vpc(spec).await.unwrap();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
