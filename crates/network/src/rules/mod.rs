//! Packet rules as the `nftables` crate's types, and loading them.
//!
//! Everything is made from a [`Plan`]: ids that were checked, addresses, ports. The members of security groups are
//! named sets whose changes are an element more or less, never a new table.

mod compare;
mod ending;
mod expr;
mod guard;
mod loaded;
mod neighbours;
mod nft;
mod root;
mod shares;
mod table;
mod vpc;

pub(crate) use loaded::{Loaded, obstacles, remove_guard, remove_root_rules};
pub(crate) use shares::{ConnectionShares, Refused};

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::plan::Plan;
use crate::reach::Reach;
use table::{Batch, Table};

/// All rules that Hearth wants of one VPC in one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    tables: Vec<Table>,
    /// Whether the namespace may have no other tables.
    exclusive: bool,
}

impl Rules {
    /// What a VPC's own namespace filters. Nothing passes to or from the addresses `ending`, whatever connection it
    /// belongs to: they change hands.
    pub(crate) fn of_vpc(plan: &Plan, shares: ConnectionShares, ending: &BTreeSet<Ipv4Addr>) -> Self {
        let mut tables = vpc::tables(plan);
        tables.push(shares::table(shares));
        if !ending.is_empty() {
            tables.push(ending::table(ending));
        }
        Self {
            tables,
            exclusive: true,
        }
    }

    /// What a VPC needs in the root namespace.
    pub(crate) fn of_root(plan: &Plan, reach: &Reach) -> Self {
        Self {
            tables: vec![root::table(plan, reach)],
            exclusive: false,
        }
    }

    /// What the host needs in the root namespace when Hearth has switched its forwarding on.
    pub(crate) fn guard() -> Self {
        Self {
            tables: vec![guard::table()],
            exclusive: false,
        }
    }

    /// The transaction that leads from `loaded` to these, and whether it replaces whole tables; `None` when there is
    /// nothing to change.
    fn update_from(&self, loaded: Option<&Self>) -> Option<(Batch, bool)> {
        let mut batch = Batch::default();
        let mut replaces = false;
        for table in &self.tables {
            let loaded =
                loaded.and_then(|loaded| loaded.tables.iter().find(|loaded| loaded.is_named_as(table)));
            if !loaded.is_some_and(|loaded| table.update(loaded, &mut batch)) {
                table.replace(&mut batch);
                replaces = true;
            }
        }
        let unwanted = loaded.iter().flat_map(|loaded| &loaded.tables);
        for table in unwanted.filter(|loaded| !self.tables.iter().any(|table| table.is_named_as(loaded))) {
            table.remove(&mut batch);
        }
        (!batch.items.is_empty()).then_some((batch, replaces))
    }
}

#[cfg(test)]
mod tests;
