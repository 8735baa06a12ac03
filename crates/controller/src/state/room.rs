//! How much room hosts have, with the emptiest first: what the scheduler begins with, however many hosts there are.

use std::cmp::Reverse;

use imbl::{OrdMap, OrdSet};
use smol_str::SmolStr;

use super::{Host, HostReport, Incarnation, State};

/// A host's zone, and the free share of what it has least of, in millionths.
type Place = (SmolStr, Reverse<u64>);

/// Follows from hosts, their reports, incarnations, volumes and moves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    places: OrdMap<SmolStr, Place>,
    ranking: OrdSet<(Place, SmolStr)>,
}

impl Room {
    fn put(&mut self, host_id: &str, place: Option<Place>) {
        let id: SmolStr = SmolStr::from(host_id);
        if let Some(before) = self.places.remove(&id) {
            self.ranking.remove(&(before, id.clone()));
        }
        if let Some(place) = place {
            self.ranking.insert((place.clone(), id.clone()));
            self.places.insert(id, place);
        }
    }
}

/// The free share of the scarcest of several resources, in millionths. Each is what there is, and what of it is free.
pub fn free_share(resources: &[(u64, u64)]) -> u64 {
    let share = |(total, free): &(u64, u64)| {
        u64::try_from(u128::from(*free) * 1_000_000 / u128::from(*total.max(&1))).unwrap_or(u64::MAX)
    };
    resources.iter().map(share).min().unwrap_or(0)
}

impl State {
    /// Hosts of a zone that are not forgotten and have reported, those with the largest share free first.
    pub fn emptiest<'s>(&'s self, zone: &'s str) -> impl Iterator<Item = &'s Host> + use<'s> {
        let first: (Place, SmolStr) = ((SmolStr::from(zone), Reverse(u64::MAX)), SmolStr::from(""));
        self.room
            .ranking
            .range(first..)
            .take_while(move |((of, _), _)| of == zone)
            .filter_map(|(_, id)| self.host(id))
    }

    /// Takes a host's room up anew, after a change of what it follows from.
    pub(super) fn rank(&mut self, host_id: &str) {
        let place = self.host(host_id).zip(self.get::<HostReport>(host_id));
        let place = place.map(|(host, report)| {
            let [vcpus, memory_mib] = self.sum(&Incarnation::ON_HOST, host_id);
            let gib = self.gib_on(host_id);
            let free = |total: u64, taken: u64| (total, total.saturating_sub(taken));
            let share = free_share(&[
                free(report.vcpus.into(), vcpus),
                free(report.memory_mib, memory_mib),
                free(report.disk_bytes, gib << 30),
            ]);
            (SmolStr::from(host.availability_zone.as_str()), Reverse(share))
        });
        self.room.put(host_id, place);
    }
}
