//! A VPC's packet rules as nftables text, and loading them.
//!
//! Everything is made from a [`Plan`]: ids that were checked, addresses, ports. The members of security groups are
//! named sets beside the rest, so that a membership change is an element more or less and never a new table.

mod nft;
mod root;
mod vpc;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;

pub(crate) use nft::load;
pub(crate) use root::{remove_root_rules, root_rules};

use crate::plan::Plan;

/// What a VPC's namespace should filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Both tables with everything but the groups' members.
    tables: String,
    /// By set name.
    members: BTreeMap<String, BTreeSet<Ipv4Addr>>,
}

impl Rules {
    pub(crate) fn of(plan: &Plan) -> Self {
        let members = plan
            .security_groups
            .iter()
            .map(|group| {
                (
                    vpc::members_set(&group.group_id),
                    group.members.iter().copied().collect(),
                )
            })
            .collect();
        Self {
            tables: vpc::tables(plan),
            members,
        }
    }

    /// One transaction that replaces whatever is loaded. Tracked connections are not touched.
    pub(crate) fn replacement(&self) -> String {
        let mut text = String::new();
        for table in ["inet vpc", "arp vpc"] {
            // `delete` needs it to exist, so that the first load and all others are the same text.
            let _ = writeln!(text, "table {table}\ndelete table {table}");
        }
        text.push_str(&self.tables);
        for (set, members) in &self.members {
            change(&mut text, "add", set, members.iter());
        }
        text
    }

    /// What leads from `loaded` to these: nothing, a few elements, or everything anew.
    pub(crate) fn update_from(&self, loaded: Option<&Self>) -> Option<String> {
        let Some(loaded) = loaded.filter(|loaded| loaded.tables == self.tables) else {
            return Some(self.replacement());
        };
        let mut text = String::new();
        let nobody = BTreeSet::new();
        for (set, members) in &self.members {
            let before = loaded.members.get(set).unwrap_or(&nobody);
            change(&mut text, "delete", set, before.difference(members));
            change(&mut text, "add", set, members.difference(before));
        }
        (!text.is_empty()).then_some(text)
    }
}

fn change<'a>(text: &mut String, verb: &str, set: &str, members: impl Iterator<Item = &'a Ipv4Addr>) {
    let members: Vec<String> = members.map(Ipv4Addr::to_string).collect();
    if !members.is_empty() {
        let _ = writeln!(text, "{verb} element inet vpc {set} {{ {} }}", members.join(", "));
    }
}

#[cfg(test)]
mod tests;
