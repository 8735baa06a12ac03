//! Making a namespace's rules what they should be, and noticing when they are not.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::Value;

use super::nft::Scope;
use super::table::{Batch, Table};
use super::{Rules, compare, ending, nft, root, vpc};
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
    let mut batch = Batch::default();
    let table: Table = root::empty_table(vpc_id);
    table.remove(&mut batch);
    nft::apply(root, &format!("{vpc_id} in the root namespace"), &batch).await
}
