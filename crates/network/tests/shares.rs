//! What one guest asks of its servers costs its neighbours nothing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::dns::{ask, question, resolver};
use common::wire::WiredGuest;
use common::{TestHost, cannot_run, eni, inside};
use hearth_network::spec::VpcSpec;
use hearth_network::{DESCRIPTORS_PER_INTERFACE, InterfaceCounters};

const ROUTER: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);
const DNS: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 2);
const QUESTIONS: usize = 9;
/// A question's patience: less than a stub resolver's.
const PATIENCE: Duration = Duration::from_secs(4);

/// So many guests of one VPC with a resolver on the host that is silent about names that begin with `hold`.
async fn guests(host: &mut TestHost, count: u8) -> (VpcSpec, Vec<WiredGuest>) {
    host.config.resolvers = vec![resolver(&host.root)];
    host.network = host.restarted().await;
    let mut spec = host.vpc();
    spec.enis = (10..10 + count).map(eni).collect();
    host.network.apply_vpc(&spec).await.unwrap();
    let mut guests = Vec::new();
    for index in 0..usize::from(count) {
        guests.push(WiredGuest::new(host.guest(&spec, index).await, ROUTER));
    }
    (spec, guests)
}

/// How many of [`QUESTIONS`] the guest's resolver answers.
fn answered(guest: &WiredGuest) -> usize {
    inside(&guest.netns, || {
        (0..QUESTIONS)
            .filter(|n| ask(DNS, &format!("name{n}.example."), PATIENCE).is_some())
            .count()
    })
}

/// Asks for names that take the resolver for ever, so often a second, until it is dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Flood {
    fn of(guest: &WiredGuest, per_second: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let socket = inside(&guest.netns, || UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.connect((DNS, 53)).unwrap();
        let thread = std::thread::spawn(move || {
            let message = question("hold.example.");
            while !stopped.load(Ordering::Relaxed) {
                for _ in 0..per_second / 100 {
                    let _ = socket.send(&message);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Connections to the resolver that are held open and say nothing.
fn held(guest: &WiredGuest, count: usize) -> Vec<TcpStream> {
    inside(&guest.netns, move || {
        let address = SocketAddr::from((DNS, 53));
        (0..count)
            .filter_map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok())
            .collect()
    })
}

async fn counters(host: &TestHost, index: usize, spec: &VpcSpec) -> InterfaceCounters {
    let counters = host.network.counters().await;
    let eni_id = &spec.enis[index].eni_id;
    counters.into_iter().find(|c| c.interface_id == *eni_id).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_costs_the_neighbour_no_answer() {
    if cannot_run("a_flood_costs_the_neighbour_no_answer") {
        return;
    }
    let mut host = TestHost::new().await;
    let (spec, guests) = guests(&mut host, 2).await;
    let [attacker, neighbour] = guests.as_slice() else {
        unreachable!()
    };
    assert_eq!(answered(neighbour), QUESTIONS, "before");

    let connections = held(attacker, 300);
    let under_connections = answered(neighbour);
    eprintln!(
        "{} held connections: {under_connections} of {QUESTIONS} answered",
        connections.len()
    );
    assert_eq!(under_connections, QUESTIONS);
    drop(connections);

    let flood = Flood::of(attacker, 20_000);
    std::thread::sleep(Duration::from_secs(1));
    let under_flood = answered(neighbour);
    eprintln!("a flood of datagrams: {under_flood} of {QUESTIONS} answered");
    drop(flood);
    assert_eq!(under_flood, QUESTIONS);

    let attacker = counters(&host, 0, &spec).await;
    eprintln!("{attacker:?}");
    assert!(
        attacker.dns.over_rate > 1000,
        "the flood is counted: {attacker:?}"
    );
    assert!(
        attacker.dns.over_concurrency > 100,
        "the connections are counted: {attacker:?}"
    );
    let neighbour = counters(&host, 1, &spec).await;
    assert_eq!((neighbour.dns.over_rate, neighbour.dns.over_concurrency), (0, 0));
    // Each question once over UDP.
    assert_eq!(neighbour.dns.admitted, 3 * QUESTIONS as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_attackers_do_not_starve_the_eleventh() {
    if cannot_run("ten_attackers_do_not_starve_the_eleventh") {
        return;
    }
    let mut host = TestHost::new().await;
    let (_spec, mut guests) = guests(&mut host, 11).await;
    let eleventh = guests.pop().unwrap();
    let before = descriptors();
    let attacks: Vec<_> = guests
        .iter()
        .map(|guest| (held(guest, 40), Flood::of(guest, 2_500)))
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    let answered = answered(&eleventh);
    // The attackers' own ends are in this process, too.
    let own: usize = attacks.iter().map(|(held, _)| held.len()).sum();
    let more = descriptors().saturating_sub(before + own + attacks.len());
    eprintln!("ten attackers: {answered} of {QUESTIONS} answered, {more} more descriptors");
    drop(attacks);
    assert_eq!(answered, QUESTIONS);
    assert!(more <= 10 * DESCRIPTORS_PER_INTERFACE, "{more} descriptors");
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
