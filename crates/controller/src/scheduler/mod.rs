//! Which hosts run a launch: a pure function of what the hosts offer and what is claimed.
//!
//! - All instances of one launch go into one availability zone, as in EC2: a launch has one subnet.
//! - Spread: each instance goes to the host that keeps the largest share free afterwards. With overcommitted vCPUs
//!   that is where it competes least, and a lost host takes the fewest instances with it. The price, that a large
//!   instance may find only crumbs, is small on the few hosts of a private cloud.
//! - Unless the launch says how its instances are to stand to each other ([`Spacing`]).
//! - An instance may have more vCPUs than its host has physical CPUs: the owner's overcommit (`Capacity.vcpus`) is
//!   the only bound, so that a two-core machine can still run what asks for four.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::state::free_share;

mod candidates;
mod inventory;
mod spacing;
#[cfg(test)]
mod tests;

pub use candidates::schedule;
pub use inventory::inventory;
use spacing::Space;
pub use spacing::{Conflict, Other, Spacing, Strategy};

/// An amount of what instances claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    pub vcpus: u64,
    pub memory_mib: u64,
    pub disk_bytes: u64,
}

impl Resources {
    fn fits(self, need: Self) -> bool {
        need.vcpus <= self.vcpus && need.memory_mib <= self.memory_mib && need.disk_bytes <= self.disk_bytes
    }

    /// How many of `each` fit.
    fn times(self, each: Self) -> u64 {
        let times = |have: u64, need: u64| have.checked_div(need).unwrap_or(u64::MAX);
        times(self.vcpus, each.vcpus)
            .min(times(self.memory_mib, each.memory_mib))
            .min(times(self.disk_bytes, each.disk_bytes))
    }

    /// What is left; nothing where more is claimed than there is (a host may shrink).
    pub fn minus(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus.saturating_sub(other.vcpus),
            memory_mib: self.memory_mib.saturating_sub(other.memory_mib),
            disk_bytes: self.disk_bytes.saturating_sub(other.disk_bytes),
        }
    }
}

/// A host as the scheduler sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub id: String,
    pub availability_zone: String,
    pub connected: bool,
    /// The operator drains it.
    pub draining: bool,
    /// It has UEFI firmware.
    pub uefi: bool,
    pub total: Resources,
    pub claimed: Resources,
}

impl Host {
    fn free(&self) -> Resources {
        self.total.minus(self.claimed)
    }

    /// Whether at least one instance can be placed on it.
    fn takes(&self, demand: &Demand) -> bool {
        !demand.except.contains(&self.id)
            && self.connected
            && !self.draining
            && (self.uefi || !demand.uefi)
            && self.free().fits(demand.each)
    }
}

/// A launch, or the start of an instance, on one host if `host` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// Zones that will do, in the order of preference among equals.
    pub zones: Vec<String>,
    pub host: Option<String>,
    /// Hosts that are not to be chosen: they have old copies of the instance's volumes.
    pub except: BTreeSet<String>,
    /// The image boots by UEFI firmware only.
    pub uefi: bool,
    pub each: Resources,
    pub spacing: Option<Spacing>,
    /// None is placed when fewer than this fit.
    pub min: usize,
    pub max: usize,
}

/// Where the instances go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    pub availability_zone: String,
    /// One host id per instance.
    pub hosts: Vec<String>,
    /// The cell of each instance; 0 where there are no cells.
    pub cells: Vec<u32>,
}

/// Why nothing was placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub wanted: usize,
    /// How many would fit in the best zone.
    pub fit: usize,
    pub each: Resources,
    /// Per host what was short.
    pub hosts: Vec<(String, Shortage)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shortage {
    NotConnected,
    Draining,
    OtherZone {
        zone: String,
    },
    /// Another one was asked for.
    OtherHost,
    /// It has something of the instance, or of its volumes, from before they left it.
    Remnants,
    /// The image needs UEFI firmware, and the host has none.
    NoFirmware,
    /// It takes `fit` more, and then none for the sake of those that they stand to.
    Spacing {
        fit: usize,
        conflict: Conflict,
    },
    /// It takes `fit` more, and then lacks what is in `free`.
    Short {
        fit: usize,
        free: Resources,
    },
}

/// Places between `min` and `max` instances.
///
/// # Errors
/// What was short, per host, when fewer than `min` fit.
pub fn place(hosts: &[Host], demand: &Demand) -> Result<Placement, Refusal> {
    let mut best: Option<Placement> = None;
    for zone in &demand.zones {
        let placed = place_in_zone(hosts, demand, zone);
        if best
            .as_ref()
            .is_none_or(|best| placed.hosts.len() > best.hosts.len())
        {
            best = Some(placed);
        }
    }
    match best {
        Some(best) if best.hosts.len() >= demand.min.max(1) => Ok(best),
        best => Err(Refusal {
            wanted: demand.min,
            fit: best.map_or(0, |b| b.hosts.len()),
            each: demand.each,
            hosts: hosts
                .iter()
                .map(|host| (host.id.clone(), shortage(host, demand)))
                .collect(),
        }),
    }
}

fn place_in_zone(hosts: &[Host], demand: &Demand, zone: &str) -> Placement {
    let mut candidates: Vec<(&Host, Resources)> = hosts
        .iter()
        .filter(|h| h.availability_zone == zone && h.takes(demand))
        .filter(|h| demand.host.as_ref().is_none_or(|wanted| *wanted == h.id))
        .map(|h| (h, h.free()))
        .collect();
    let mut space = demand.spacing.as_ref().map(|spacing| Space::new(spacing, zone));
    let mut placed = Placement {
        availability_zone: zone.to_owned(),
        hosts: Vec::new(),
        cells: Vec::new(),
    };
    while placed.hosts.len() < demand.max {
        let left = demand.max - placed.hosts.len();
        let rank = |host: &Host, free: Resources| match &space {
            None => Some(0),
            Some(space) => space.rank(host, free, demand.each, left).ok(),
        };
        let chosen = candidates
            .iter_mut()
            .filter(|(_, free)| free.fits(demand.each))
            .filter_map(|candidate| Some((rank(candidate.0, candidate.1)?, candidate)))
            .max_by_key(|(rank, (host, free))| (*rank, share_left(host.total, free.minus(demand.each))));
        let Some((_, (host, free))) = chosen else { break };
        *free = free.minus(demand.each);
        placed.hosts.push(host.id.clone());
        let host: &Host = host;
        placed
            .cells
            .push(space.as_mut().map_or(0, |space| space.place(host)));
    }
    placed
}

/// The scarcest resource's free share, in millionths.
fn share_left(total: Resources, left: Resources) -> u64 {
    free_share(&[
        (total.vcpus, left.vcpus),
        (total.memory_mib, left.memory_mib),
        (total.disk_bytes, left.disk_bytes),
    ])
}

fn shortage(host: &Host, demand: &Demand) -> Shortage {
    if demand.host.as_ref().is_some_and(|wanted| *wanted != host.id) {
        return Shortage::OtherHost;
    }
    if !host.connected {
        return Shortage::NotConnected;
    }
    if host.draining {
        return Shortage::Draining;
    }
    if !demand.zones.contains(&host.availability_zone) {
        return Shortage::OtherZone {
            zone: host.availability_zone.clone(),
        };
    }
    if demand.except.contains(&host.id) {
        return Shortage::Remnants;
    }
    if demand.uefi && !host.uefi {
        return Shortage::NoFirmware;
    }
    let mut free = host.free();
    let mut fit = 0;
    let spacing = demand.spacing.as_ref();
    let mut space = spacing.map(|spacing| Space::new(spacing, &host.availability_zone));
    while fit < demand.max && free.fits(demand.each) {
        if let Some(space) = &mut space {
            if let Err(conflict) = space.rank(host, free, demand.each, 1) {
                return Shortage::Spacing { fit, conflict };
            }
            space.place(host);
        }
        free = free.minus(demand.each);
        fit += 1;
    }
    Shortage::Short { fit, free }
}

/// Hosts that a sentence names at most; the others are counted.
const NAMED: usize = 16;

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = self.each;
        let shown: BTreeMap<_, _> = self.hosts.iter().map(|(id, short)| (id, short)).collect();
        write!(
            f,
            "{} of {} instances fit; each needs {} vCPUs, {} MiB of memory, {} GiB of disk. ",
            self.fit,
            self.wanted,
            each.vcpus,
            each.memory_mib,
            each.disk_bytes.div_ceil(1 << 30)
        )?;
        if shown.is_empty() {
            return f
                .write_str("There is no host yet: join one with `hearthd join-token` and `hearth-agent`.");
        }
        for (n, (id, shortage)) in shown.iter().take(NAMED).enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}{id}: ")?;
            match shortage {
                Shortage::NotConnected => f.write_str("not connected")?,
                Shortage::Draining => write!(f, "being drained, until `hearth resume-host --host-id {id}`")?,
                Shortage::OtherZone { zone } => write!(f, "in {zone}")?,
                Shortage::NoFirmware => {
                    f.write_str(
                        "has no UEFI firmware, and the image boots by nothing else (its BootMode is uefi)",
                    )?;
                }
                Shortage::Spacing { fit: 0, conflict } => write!(f, "{conflict}")?,
                Shortage::Spacing { fit, conflict } => write!(f, "takes {fit}, then {conflict}")?,
                Shortage::OtherHost => f.write_str("another host was asked for")?,
                Shortage::Remnants => {
                    f.write_str("has not erased yet what is left there of the instance: try again soon")?;
                }
                Shortage::Short { fit, free } => {
                    let mut lacks = Vec::new();
                    if free.vcpus < each.vcpus {
                        lacks.push(format!("{} vCPUs", free.vcpus));
                    }
                    if free.memory_mib < each.memory_mib {
                        lacks.push(format!("{} MiB of memory", free.memory_mib));
                    }
                    if free.disk_bytes < each.disk_bytes {
                        lacks.push(format!("{} GiB of disk", free.disk_bytes >> 30));
                    }
                    match fit {
                        0 => write!(f, "only {} free", lacks.join(", "))?,
                        _ => write!(f, "takes {fit}, then only {} free", lacks.join(", "))?,
                    }
                }
            }
        }
        match shown.len().saturating_sub(NAMED) {
            0 => f.write_str("."),
            more => write!(f, "; and {more} more hosts."),
        }
    }
}
