//! Whom a state is read for. A call reads through the scope of its account and region: what belongs to another account, or is
//! in another region, is not there, whatever it is looked up by. What no call asked for reads the whole.

use smol_str::SmolStr;

use super::{Held, Noun, State, key};

/// An account's view of a region: what is its own, what is shared with it, and what is the operator's, such as hosts. Names
/// are unique within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    account_id: SmolStr,
    /// Empty: all regions.
    region: SmolStr,
}

impl Scope {
    pub fn new(account_id: &str, region: &str) -> Self {
        Self {
            account_id: account_id.into(),
            region: region.into(),
        }
    }

    pub fn account_id(&self) -> &str {
        &self.account_id
    }

    pub fn region(&self) -> &str {
        &self.region
    }

    /// The key of what has a name in this scope: the account, the region, and what is given.
    pub fn key(&self, parts: &[&str]) -> String {
        let mut all = vec![self.account_id.as_str(), self.region.as_str()];
        all.extend_from_slice(parts);
        key(&all)
    }

    fn owns<N: Noun>(&self, object: &N) -> bool {
        let owner = object.account();
        (owner.is_empty() || owner == self.account_id) && self.reaches(object)
    }

    fn reaches<N: Noun>(&self, object: &N) -> bool {
        let region = object.region();
        region.is_empty() || self.region.is_empty() || region == self.region
    }
}

impl State {
    /// The same state as an account sees it.
    pub fn seen_by(&self, scope: Scope) -> Self {
        let mut seen = self.clone();
        seen.scope = Some(scope);
        seen
    }

    /// The same state with what belongs to all accounts: for what accounts share, such as public addresses and hosts.
    pub fn whole(&self) -> Self {
        let mut whole = self.clone();
        whole.scope = None;
        whole
    }

    /// An object of whom the state is read for, and not one that is shared with it.
    pub fn own<N: Held>(&self, id: &str) -> Option<&N> {
        self.get(id).filter(|object| self.owns(*object))
    }

    /// An object, whoever it belongs to.
    pub fn of_anybody<N: Held>(&self, id: &str) -> Option<&N> {
        N::table(self).get(id).map(AsRef::as_ref)
    }

    pub(super) fn set_scope(&mut self, scope: Option<Scope>) {
        self.scope = scope;
    }

    /// Whether the object is there for whom the state is read.
    pub(super) fn sees<N: Noun>(&self, object: &N) -> bool {
        let seen = |scope: &Scope| {
            scope.owns(object) || object.is_shared_with(&scope.account_id) && scope.reaches(object)
        };
        self.scope.as_ref().is_none_or(seen)
    }

    /// Whether the object is there, and its owner is whom the state is read for.
    pub(super) fn owns<N: Noun>(&self, object: &N) -> bool {
        self.scope.as_ref().is_none_or(|scope| scope.owns(object))
    }
}
