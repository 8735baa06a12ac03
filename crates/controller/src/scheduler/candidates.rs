//! Placing on the hosts of a cloud, however many there are: most launches look at a few of the emptiest.

use super::inventory::{describe, inventory};
use super::{Demand, Host, Placement, Refusal, place};
use crate::state::State;

/// Hosts that are looked at beyond those that the instances need: of these, the one that keeps the largest share free is
/// chosen.
const SPARE: usize = 32;

/// Places between `min` and `max` instances.
///
/// # Errors
/// What was short, per host, when fewer than `min` fit.
pub fn schedule(
    state: &State,
    demand: &Demand,
    connected: impl Fn(&str) -> bool,
) -> Result<Placement, Refusal> {
    // How instances stand to each other may depend on any host.
    if demand.spacing.is_some() && demand.host.is_none() {
        return place(&near(state, demand, connected), demand);
    }
    place(&candidates(state, demand, &connected), demand)
        .or_else(|_| place(&near(state, demand, connected), demand))
}

/// All hosts but those in zones of other regions than the demand's.
fn near(state: &State, demand: &Demand, connected: impl Fn(&str) -> bool) -> Vec<Host> {
    let region = demand.zones.first().and_then(|zone| state.region_of_zone(zone));
    let mut hosts = inventory(state, connected);
    hosts.retain(|host| region.is_none_or(|region| !state.is_abroad(&host.availability_zone, &region.name)));
    hosts
}

/// As many instances fit on these hosts as on all, up to `max`: each host takes one at least.
fn candidates(state: &State, demand: &Demand, connected: impl Fn(&str) -> bool) -> Vec<Host> {
    if let Some(host) = demand.host.as_ref().and_then(|id| state.host(id)) {
        return vec![describe(state, host, &connected)];
    }
    let mut candidates = Vec::new();
    for zone in &demand.zones {
        let before = candidates.len();
        let hosts = state.emptiest(zone).map(|host| describe(state, host, &connected));
        candidates.extend(hosts.filter(|host| host.takes(demand)).take(demand.max + SPARE));
        // Zones are in the order of preference: no later one is better.
        if candidates.len() - before >= demand.max {
            break;
        }
    }
    candidates
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scheduler::Resources;
    use crate::state::{HostReport, Incarnation, Reservation, Tx, tests};

    fn state_of(hosts: &[(String, u32, u64, Vec<u64>)]) -> State {
        let mut state = State::default();
        let mut tx = Tx::new(&mut state, 0);
        tx.put(Reservation {
            id: "r-1".into(),
            account_id: "1".into(),
            region: "local-1".into(),
            created_at: 0,
        });
        for (number, (zone, vcpus, memory_mib, claims)) in hosts.iter().enumerate() {
            let id = format!("h-{number}");
            tx.put(crate::state::Host {
                availability_zone: zone.clone(),
                ..tests::a_host(&id)
            });
            tx.put(HostReport {
                host_id: id.clone(),
                hostname: String::new(),
                agent_version: String::new(),
                vcpus: *vcpus,
                memory_mib: *memory_mib,
                disk_bytes: 100 << 30,
                cpus: *vcpus,
                uefi: true,
                reported_at: 0,
                repairs: Vec::new(),
            });
            for (claim, memory_mib) in claims.iter().enumerate() {
                let instance_id = format!("i-{number}-{claim}");
                let mut instance = tests::an_instance(&instance_id, &id, "r-1");
                instance.memory_mib = *memory_mib;
                tx.put(Incarnation::new(&instance, &id, 1));
                tx.put(instance);
            }
        }
        tx.finish().unwrap();
        state.check();
        state
    }

    proptest! {
        #[test]
        fn as_many_are_placed_as_if_all_hosts_were_looked_at(
            hosts in proptest::collection::vec(
                ("[ab]", 0u32..6, 0u64..4096, proptest::collection::vec(0u64..1024, 0..4)),
                0..90,
            ),
            max in 1usize..60,
            memory_mib in 1u64..2048,
        ) {
            let state = state_of(&hosts);
            let demand = Demand {
                zones: vec!["a".into(), "b".into()],
                host: None,
                except: Default::default(),
                spacing: None,
                uefi: false,
                each: Resources { vcpus: 1, memory_mib, disk_bytes: 1 << 30 },
                min: 1,
                max,
            };
            // Every third host is away.
            let connected = |id: &str| !id.ends_with(['0', '3', '6', '9']);
            let placed = |placement: Result<Placement, Refusal>| match placement {
                Ok(placement) => (placement.hosts.len(), placement.availability_zone),
                Err(_) => (0, String::new()),
            };
            prop_assert_eq!(
                placed(schedule(&state, &demand, connected)),
                placed(place(&inventory(&state, connected), &demand))
            );
        }
    }
}
