//! How the instances of a demand stand to each other and to those that are there already: together, apart, or in cells
//! that share no host.

use std::collections::HashMap;
use std::fmt;

use super::{Host, Resources};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spacing {
    pub strategy: Strategy,
    /// The instances that those of the demand stand to.
    pub others: Vec<Other>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// On as few hosts as possible.
    Together,
    /// Each running instance has a host of its own.
    Apart {
        /// Running instances that a zone has at most.
        per_zone: Option<usize>,
    },
    /// Running instances of different cells never share a host. Cells have numbers from 1.
    Cells {
        count: u32,
        /// The cell of all instances of the demand; `None`: they are divided evenly.
        cell: Option<u32>,
    },
}

/// An instance that is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    pub host: String,
    pub zone: String,
    /// 0 where there are no cells.
    pub cell: u32,
    /// It holds vCPUs and memory. One that is stopped keeps nothing free; but it can be started only on its host, so that
    /// other hosts are preferred.
    pub runs: bool,
}

/// What is on a host of those that a demand's instances stand to, its own included.
#[derive(Debug, Clone, Copy, Default)]
struct Occupied {
    running: usize,
    /// Of the running ones.
    cell: u32,
    stopped: usize,
    /// Of one of the stopped ones.
    stopped_cell: u32,
}

/// Hosts during the placement of a demand in a zone.
#[derive(Debug)]
pub(super) struct Space<'s> {
    strategy: Strategy,
    hosts: HashMap<&'s str, Occupied>,
    /// Instances of each cell, stopped ones included.
    cells: Vec<usize>,
    /// Running instances of the zone.
    running: usize,
}

/// Why a host cannot have an instance, although it has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// Each instance has a host of its own, and this one is another's.
    Occupied,
    /// The host's zone has as many as it may.
    ZoneFull { most: usize },
    /// The host is another cell's.
    OtherCell { cell: u32 },
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Occupied => f.write_str("has an instance of the placement group, which are to be apart"),
            Self::ZoneFull { most } => {
                write!(
                    f,
                    "its zone has {most} running instances of the placement group, the most that it may"
                )
            }
            Self::OtherCell { cell } => write!(f, "is used by partition {cell} of the placement group"),
        }
    }
}

impl<'s> Space<'s> {
    pub(super) fn new(spacing: &'s Spacing, zone: &str) -> Self {
        let cells = match spacing.strategy {
            Strategy::Cells { count, .. } => count,
            Strategy::Together | Strategy::Apart { .. } => 0,
        };
        let mut space = Self {
            strategy: spacing.strategy,
            hosts: HashMap::new(),
            cells: vec![0; cells as usize],
            running: 0,
        };
        for other in &spacing.others {
            space.add(&other.host, other.cell, other.runs);
            space.running += usize::from(other.runs && other.zone == zone);
        }
        space
    }

    fn add(&mut self, host: &'s str, cell: u32, runs: bool) {
        let occupied = self.hosts.entry(host).or_default();
        if runs {
            (occupied.running, occupied.cell) = (occupied.running + 1, cell);
        } else {
            (occupied.stopped, occupied.stopped_cell) = (occupied.stopped + 1, cell);
        }
        if let Some(instances) = cell.checked_sub(1).and_then(|n| self.cells.get_mut(n as usize)) {
            *instances += 1;
        }
    }

    fn on(&self, host: &Host) -> Occupied {
        self.hosts.get(host.id.as_str()).copied().unwrap_or_default()
    }

    /// How well a host suits the next instance: the more, the better. `free` is what it has left, and `left` how many
    /// instances are to be placed.
    ///
    /// # Errors
    /// It cannot have the instance.
    pub(super) fn rank(
        &self,
        host: &Host,
        free: Resources,
        each: Resources,
        left: usize,
    ) -> Result<i64, Conflict> {
        let on = self.on(host);
        match self.strategy {
            Strategy::Together if on.running + on.stopped > 0 => Ok(i64::MAX),
            Strategy::Together => Ok(i64::try_from(free.times(each).min(left as u64)).unwrap_or(i64::MAX)),
            Strategy::Apart { .. } if on.running > 0 => Err(Conflict::Occupied),
            Strategy::Apart { per_zone: Some(most) } if self.running >= most => {
                Err(Conflict::ZoneFull { most })
            }
            Strategy::Apart { .. } => Ok(-i64::from(on.stopped > 0)),
            Strategy::Cells { .. } => {
                let cell = self.cell_on(host);
                if on.running > 0 && on.cell != cell {
                    return Err(Conflict::OtherCell { cell: on.cell });
                }
                let in_its_way = on.stopped > 0 && on.stopped_cell != cell;
                // Evenness matters more than whom it is in the way of.
                Ok(-2 * i64::try_from(self.size_of(cell)).unwrap_or(0) - i64::from(in_its_way))
            }
        }
    }

    /// The cell that the next instance is in if it goes to the host; 0 where there are no cells.
    fn cell_on(&self, host: &Host) -> u32 {
        let Strategy::Cells { count, cell } = self.strategy else {
            return 0;
        };
        let on = self.on(host);
        match cell {
            Some(cell) => cell,
            None if on.running > 0 => on.cell,
            None => (1..=count).min_by_key(|cell| self.size_of(*cell)).unwrap_or(1),
        }
    }

    fn size_of(&self, cell: u32) -> usize {
        let size = cell.checked_sub(1).and_then(|n| self.cells.get(n as usize));
        size.copied().unwrap_or(0)
    }

    /// The next instance goes to the host; answers the cell that it is in.
    pub(super) fn place(&mut self, host: &'s Host) -> u32 {
        let cell = self.cell_on(host);
        self.add(&host.id, cell, true);
        self.running += 1;
        cell
    }
}
