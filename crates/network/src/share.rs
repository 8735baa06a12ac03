//! What one interface may ask of its namespace's servers, and what it was refused.
//!
//! Every limit belongs to an interface. An interface that exceeds its share loses its own packets and nobody else's.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests a second to DNS and IMDS together, also the burst. EC2's limit for services at link-local addresses
/// (user guide, "Access instance metadata for an EC2 instance": 1024 packets per second).
const LINK_LOCAL_PER_SECOND: NonZeroU32 = NonZeroU32::new(1024).unwrap();
/// A DHCP client sends two messages for a lease, and repeats them after seconds (RFC 2131, 4.1).
const DHCP_PER_SECOND: NonZeroU32 = NonZeroU32::new(16).unwrap();
/// DNS questions that wait for the host's resolvers. Each holds a descriptor.
const DNS_QUESTIONS: usize = 64;
/// DNS connections over TCP. Each holds a descriptor.
const DNS_CONNECTIONS: usize = 16;
/// IMDS connections. Each holds two descriptors.
const IMDS_CONNECTIONS: usize = 32;
/// Sockets that listen: DHCP, IMDS, and DNS at two addresses over two protocols.
const LISTENERS: usize = 6;

/// The most descriptors that the servers of one interface hold at once.
pub const DESCRIPTORS_PER_INTERFACE: usize =
    LISTENERS + DNS_QUESTIONS + DNS_CONNECTIONS + 2 * IMDS_CONNECTIONS;

/// An interface that stays over its share is logged this often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A server of the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Dns,
    Imds,
    Dhcp,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Dns => "DNS",
            Self::Imds => "IMDS",
            Self::Dhcp => "DHCP",
        }
    }
}

/// One interface's limits and counters. They outlive its TAP and its servers.
pub(crate) struct Share {
    vpc_id: String,
    eni_id: String,
    address: Ipv4Addr,
    link_local: DefaultDirectRateLimiter,
    dhcp_rate: DefaultDirectRateLimiter,
    questions: Arc<Semaphore>,
    dns_connections: Arc<Semaphore>,
    imds_connections: Arc<Semaphore>,
    dns: Counters,
    imds: Counters,
    dhcp: Counters,
}

#[derive(Default)]
struct Counters {
    admitted: AtomicU64,
    over_rate: AtomicU64,
    over_concurrency: AtomicU64,
    told: Mutex<Option<Instant>>,
}

impl Share {
    pub(crate) fn new(vpc_id: &str, eni_id: &str, address: Ipv4Addr) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            vpc_id: vpc_id.to_owned(),
            eni_id: eni_id.to_owned(),
            address,
            link_local: RateLimiter::direct(Quota::per_second(LINK_LOCAL_PER_SECOND)),
            dhcp_rate: RateLimiter::direct(Quota::per_second(DHCP_PER_SECOND)),
            questions: semaphore(DNS_QUESTIONS),
            dns_connections: semaphore(DNS_CONNECTIONS),
            imds_connections: semaphore(IMDS_CONNECTIONS),
            dns: Counters::default(),
            imds: Counters::default(),
            dhcp: Counters::default(),
        }
    }

    /// Whether one more request is within the rate. Counts it either way.
    pub(crate) fn admit(&self, service: Service) -> bool {
        let rate = match service {
            Service::Dns | Service::Imds => &self.link_local,
            Service::Dhcp => &self.dhcp_rate,
        };
        if rate.check().is_ok() {
            self.counters(service).admitted.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        self.refuse(service, 1);
        false
    }

    /// Counts requests that were over the rate and were dropped unread.
    pub(crate) fn refuse(&self, service: Service, requests: u64) {
        if requests > 0 {
            self.counters(service)
                .over_rate
                .fetch_add(requests, Ordering::Relaxed);
            self.tell(service);
        }
    }

    /// Room for one more DNS question that waits for an answer.
    pub(crate) fn question(&self) -> Option<OwnedSemaphorePermit> {
        self.room(Service::Dns, &self.questions)
    }

    /// Room for one more connection. DHCP has none.
    pub(crate) fn connection(&self, service: Service) -> Option<OwnedSemaphorePermit> {
        match service {
            Service::Dns => self.room(service, &self.dns_connections),
            Service::Imds => self.room(service, &self.imds_connections),
            Service::Dhcp => None,
        }
    }

    fn room(&self, service: Service, of: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        let permit = of.clone().try_acquire_owned().ok();
        if permit.is_none() {
            self.counters(service)
                .over_concurrency
                .fetch_add(1, Ordering::Relaxed);
            self.tell(service);
        }
        permit
    }

    fn counters(&self, service: Service) -> &Counters {
        match service {
            Service::Dns => &self.dns,
            Service::Imds => &self.imds,
            Service::Dhcp => &self.dhcp,
        }
    }

    /// One line when an interface begins to be limited, and at most one in [`TELL_EVERY`] while it goes on.
    fn tell(&self, service: Service) {
        let counters = self.counters(service);
        {
            let mut told = counters.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.is_some_and(|at| at.elapsed() < TELL_EVERY) {
                return;
            }
            *told = Some(Instant::now());
        }
        let so_far = counters.snapshot();
        tracing::warn!(
            vpc = self.vpc_id,
            interface = self.eni_id,
            address = %self.address,
            over_rate = so_far.over_rate,
            over_concurrency = so_far.over_concurrency,
            "an interface is over its share of {}: its requests are dropped",
            service.name(),
        );
    }

    fn snapshot(&self) -> InterfaceCounters {
        InterfaceCounters {
            vpc_id: self.vpc_id.clone(),
            interface_id: self.eni_id.clone(),
            address: self.address,
            dns: self.dns.snapshot(),
            imds: self.imds.snapshot(),
            dhcp: self.dhcp.snapshot(),
            connections: RefusedConnections::default(),
        }
    }
}

impl Counters {
    fn snapshot(&self) -> ServiceCounters {
        ServiceCounters {
            admitted: self.admitted.load(Ordering::Relaxed),
            over_rate: self.over_rate.load(Ordering::Relaxed),
            over_concurrency: self.over_concurrency.load(Ordering::Relaxed),
        }
    }
}

/// What the servers admitted and refused of one interface, since the agent's start or the interface's arrival.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceCounters {
    pub vpc_id: String,
    pub interface_id: String,
    pub address: Ipv4Addr,
    pub dns: ServiceCounters,
    pub imds: ServiceCounters,
    pub dhcp: ServiceCounters,
    pub connections: RefusedConnections,
}

/// Packets that would have begun a connection, and were dropped since the interface, or its VPC, had more than its share of
/// tracked connections. The kernel counts them, also while no agent runs, and forgets a count a day after its last packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedConnections {
    /// That the interface sent.
    pub begun: u64,
    /// That came from outside to its public address.
    pub from_outside: u64,
}

/// Requests: datagrams, connections, and messages on connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceCounters {
    pub admitted: u64,
    /// Dropped: more requests a second than the interface's share.
    pub over_rate: u64,
    /// Dropped: more open connections, or questions that wait, than the interface's share.
    pub over_concurrency: u64,
}

/// The shares of all interfaces of a host, by VPC and interface.
#[derive(Default)]
pub(crate) struct Shares(Mutex<BTreeMap<(String, String), Arc<Share>>>);

impl Shares {
    /// The share of an interface. One that has another address now is another interface to its guests, and begins anew.
    pub(crate) fn of(&self, vpc_id: &str, eni_id: &str, address: Ipv4Addr) -> Arc<Share> {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (vpc_id.to_owned(), eni_id.to_owned());
        match shares.get(&key) {
            Some(share) if share.address == address => share.clone(),
            _ => {
                let share = Arc::new(Share::new(vpc_id, eni_id, address));
                shares.insert(key, share.clone());
                share
            }
        }
    }

    /// Forgets the VPC's interfaces that are not `kept`.
    pub(crate) fn retain(&self, vpc_id: &str, kept: impl Fn(&str) -> bool) {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|(vpc, eni), _| vpc != vpc_id || kept(eni));
    }

    pub(crate) fn counters(&self) -> Vec<InterfaceCounters> {
        let shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shares.values().map(|share| share.snapshot()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share() -> Share {
        Share::new("vpc-1", "eni-1", Ipv4Addr::new(172, 31, 0, 10))
    }

    #[test]
    fn dns_and_imds_have_one_rate_and_dhcp_its_own() {
        let share = share();
        let admitted = (0..5000)
            .filter(|n| share.admit(if n % 2 == 0 { Service::Dns } else { Service::Imds }))
            .count();
        // The burst, and what a slow machine's clock adds to it.
        assert!((1024..2048).contains(&admitted), "{admitted}");
        assert!(share.admit(Service::Dhcp));
        let counters = share.snapshot();
        assert_eq!(
            counters.dns.admitted + counters.imds.admitted,
            u64::try_from(admitted).unwrap()
        );
        assert_eq!(
            counters.dns.over_rate + counters.imds.over_rate,
            5000 - u64::try_from(admitted).unwrap()
        );
    }

    #[test]
    fn room_comes_back() {
        let share = share();
        let held: Vec<_> = (0..100).filter_map(|_| share.question()).collect();
        assert_eq!(held.len(), DNS_QUESTIONS);
        assert_eq!(share.snapshot().dns.over_concurrency, 100 - 64);
        drop(held);
        assert!(share.question().is_some());
    }

    #[test]
    fn an_address_that_passes_on_takes_no_counters_along() {
        let shares = Shares::default();
        let [old, new] = [10, 11].map(|host| Ipv4Addr::new(172, 31, 0, host));
        shares.of("vpc-1", "eni-1", old).admit(Service::Dns);
        shares.of("vpc-2", "eni-1", old);
        assert_eq!(shares.of("vpc-1", "eni-1", old).snapshot().dns.admitted, 1);
        assert_eq!(shares.of("vpc-1", "eni-1", new).snapshot().dns.admitted, 0);
        shares.retain("vpc-1", |_| false);
        assert_eq!(shares.counters().len(), 1);
    }
}
