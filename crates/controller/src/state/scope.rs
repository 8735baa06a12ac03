//! Whom a state is read for. A call reads through the scope of its account: what belongs to another account is not there,
//! whatever it is looked up by. What no call asked for reads the whole.

use smol_str::SmolStr;

use super::{Held, Noun, State};

/// An account's view of the cloud: what is its own, what is shared with it, and what is the operator's, such as hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    account_id: SmolStr,
}

impl Scope {
    pub fn new(account_id: &str) -> Self {
        Self {
            account_id: account_id.into(),
        }
    }

    fn owns<N: Noun>(&self, object: &N) -> bool {
        let owner = object.account();
        owner.is_empty() || owner == self.account_id
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
        let seen = |scope: &Scope| scope.owns(object) || object.is_shared_with(&scope.account_id);
        self.scope.as_ref().is_none_or(seen)
    }

    /// Whether the object is there, and its owner is whom the state is read for.
    pub(super) fn owns<N: Noun>(&self, object: &N) -> bool {
        self.scope.as_ref().is_none_or(|scope| scope.owns(object))
    }
}
