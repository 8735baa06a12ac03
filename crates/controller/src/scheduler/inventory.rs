//! The hosts as the scheduler sees them.

use super::{Host, Resources};
use crate::state::{self, HostReport, Incarnation, State};

/// All hosts that are not forgotten, in the order of their ids. Volumes are the disk claims: they outlive stops, and some
/// their instance.
pub fn inventory(state: &State, connected: impl Fn(&str) -> bool) -> Vec<Host> {
    state
        .hosts()
        .map(|host| describe(state, host, &connected))
        .collect()
}

pub(super) fn describe(state: &State, host: &state::Host, connected: impl Fn(&str) -> bool) -> Host {
    let report = state.get::<HostReport>(&host.id);
    let [vcpus, memory_mib] = state.sum(&Incarnation::ON_HOST, &host.id);
    let gib = state.gib_on(&host.id);
    Host {
        connected: connected(&host.id),
        draining: host.drain.is_some(),
        id: host.id.clone(),
        availability_zone: host.availability_zone.clone(),
        uefi: report.is_some_and(|report| report.uefi),
        total: report.map_or(Resources::default(), |report| Resources {
            vcpus: report.vcpus.into(),
            memory_mib: report.memory_mib,
            disk_bytes: report.disk_bytes,
        }),
        claimed: Resources {
            vcpus,
            memory_mib,
            disk_bytes: gib << 30,
        },
    }
}
