//! Making a namespace's rules what they should be, and noticing when they are not.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::Value;

use super::nft::Scope;
use super::table::{Batch, Table};
use super::{Refused, Rules, compare, ending, guard, neighbours, nft, root, shares, vpc};
use crate::NetworkError;
use crate::holders::Holders;
use crate::netns::Netns;

/// The rules of a VPC in one namespace.
pub(crate) struct Loaded {
    netns: Netns,
    /// Names them in errors.
    what: String,
    /// What is loaded, as far as this process knows.
    rules: Option<Rules>,
}

impl Loaded {
    pub(crate) fn nothing_known(netns: Netns, what: String) -> Self {
        Self {
            netns,
            what,
            rules: None,
        }
    }

    /// Whether these rules are loaded, as far as this process knows.
    pub(crate) fn is(&self, rules: &Rules) -> bool {
        self.rules.as_ref() == Some(rules)
    }

    pub(crate) fn is_known(&self) -> bool {
        self.rules.is_some()
    }

    /// Whose the addresses are by what is loaded, and which of them were about to change hands.
    pub(crate) async fn holders(&self) -> Result<(Holders, BTreeSet<Ipv4Addr>), NetworkError> {
        let listed = nft::list(&self.netns, &self.what, Scope::Ruleset).await?;
        let bound = compare::listed_elements(&listed, vpc::BOUND);
        let private_of = compare::listed_elements(&listed, vpc::PRIVATE_OF);
        Ok((Holders::of_listing(bound, private_of), ending::addresses(&listed)))
    }

    /// New connections that were refused by [`Rules::of_vpc`]'s shares: `take` gets each count.
    pub(crate) async fn refused(&self, mut take: impl FnMut(Refused<'_>)) -> Result<(), NetworkError> {
        let listed = nft::list(&self.netns, &self.what, Scope::Ruleset).await?;
        shares::refused(&listed).for_each(&mut take);
        Ok(())
    }

    /// Loads what differs from `wanted`.
    ///
    /// Rules of which this process knows nothing are read first, and adopted when they are as wanted. Whole tables are
    /// read again after loading, so that nothing that `nft` changed by itself stays unseen. Element changes are not:
    /// reading 10,000 rules takes longer than changing an element; [`Loaded::check`] is for them.
    pub(crate) async fn make(&mut self, wanted: Rules) -> Result<(), NetworkError> {
        if self.rules.is_none() && self.difference(&wanted).await?.is_none() {
            self.rules = Some(wanted);
            return Ok(());
        }
        let Some((batch, replaces)) = wanted.update_from(self.rules.as_ref()) else {
            return Ok(());
        };
        // Until it is loaded nothing is known: a failure makes the next attempt a replacement.
        self.rules = None;
        nft::apply(&self.netns, &self.what, &batch).await?;
        if replaces && let Some(difference) = self.difference(&wanted).await? {
            return Err(self.error(format!("what nft loaded is not what was asked for: {difference}")));
        }
        self.rules = Some(wanted);
        Ok(())
    }

    /// Reads all rules and compares. The first difference is returned, and the next [`Loaded::make`] replaces what
    /// differs.
    pub(crate) async fn check(&mut self) -> Result<Option<String>, NetworkError> {
        let Some(rules) = &self.rules else {
            return Ok(None);
        };
        let difference = self.difference(rules).await?;
        if difference.is_some() {
            self.rules = None;
        }
        Ok(difference)
    }

    async fn difference(&self, wanted: &Rules) -> Result<Option<String>, NetworkError> {
        if wanted.exclusive {
            let listed = nft::list(&self.netns, &self.what, Scope::Ruleset).await?;
            return self.compare(&wanted.tables, &listed);
        }
        for table in &wanted.tables {
            let listed = nft::list(&self.netns, &self.what, Scope::Table(table)).await?;
            let difference = self.compare(std::slice::from_ref(table), &listed)?;
            if difference.is_some() {
                return Ok(difference);
            }
        }
        Ok(None)
    }

    fn compare(&self, wanted: &[Table], listed: &[Value]) -> Result<Option<String>, NetworkError> {
        compare::difference(wanted, listed).map_err(|e| self.error(e.to_string()))
    }

    fn error(&self, message: String) -> NetworkError {
        NetworkError::Rules {
            action: "comparing",
            what: self.what.clone(),
            message,
        }
    }
}

/// Removes a VPC's rules from the root namespace, also when they were never there.
pub(crate) async fn remove_root_rules(root: &Netns, vpc_id: &str) -> Result<(), NetworkError> {
    remove(
        root,
        &format!("{vpc_id} in the root namespace"),
        &root::empty_table(vpc_id),
    )
    .await
}

/// Removes the rules of [`Rules::guard`].
pub(crate) async fn remove_guard(root: &Netns) -> Result<(), NetworkError> {
    remove(root, "the host's forwarding", &guard::empty_table()).await
}

async fn remove(netns: &Netns, what: &str, table: &Table) -> Result<(), NetworkError> {
    let mut batch = Batch::default();
    table.remove(&mut batch);
    nft::apply(netns, what, &batch).await
}

/// Rule sets beside Hearth's that keep guests from the world: a sentence for each, that says what to do.
pub(crate) async fn obstacles(root: &Netns) -> Result<Vec<String>, NetworkError> {
    let listed = nft::list(root, "the host", Scope::Chains).await?;
    // Absent without legacy iptables.
    let legacy = root.run(|| Ok(std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default()));
    let has_legacy_filter = legacy.await?.lines().any(|table| table == "filter");
    Ok(neighbours::obstacles(&listed, has_legacy_filter))
}
