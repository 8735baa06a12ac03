//! Packet rules as the `nftables` crate's types, and loading them.
//!
//! Everything is made from a [`Plan`]: ids that were checked, addresses, ports. The members of security groups are
//! named sets whose changes are an element more or less, never a new table.

mod compare;
mod expr;
mod loaded;
mod nft;
mod root;
mod table;
mod vpc;

pub(crate) use loaded::{Loaded, remove_root_rules};

use crate::plan::Plan;
use table::{Batch, Table};

/// All rules that Hearth wants of one VPC in one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    tables: Vec<Table>,
    /// Whether the namespace may have no other tables.
    exclusive: bool,
}

impl Rules {
    /// What a VPC's own namespace filters.
    pub(crate) fn of_vpc(plan: &Plan) -> Self {
        Self {
            tables: vpc::tables(plan),
            exclusive: true,
        }
    }

    /// What a VPC needs in the root namespace.
    pub(crate) fn of_root(plan: &Plan) -> Self {
        Self {
            tables: vec![root::table(plan)],
            exclusive: false,
        }
    }

    /// The transaction that leads from `loaded` to these, and whether it replaces whole tables; `None` when there is
    /// nothing to change.
    fn update_from(&self, loaded: Option<&Self>) -> Option<(Batch, bool)> {
        let mut batch = Batch::default();
        let mut replaces = false;
        for (index, table) in self.tables.iter().enumerate() {
            let loaded = loaded.and_then(|loaded| loaded.tables.get(index));
            if !loaded.is_some_and(|loaded| table.update(loaded, &mut batch)) {
                table.replace(&mut batch);
                replaces = true;
            }
        }
        (!batch.items.is_empty()).then_some((batch, replaces))
    }
}

#[cfg(test)]
mod tests;
