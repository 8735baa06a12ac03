//! IAM policy documents, and what they decide about a request.
//!
//! Everything here is a function of its arguments: the clock, too, is a value in the [`Context`].
//!
//! - The language: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html>
//! - Its grammar: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html>
//! - The decision: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>

#![cfg_attr(
    any(test, feature = "testing"),
    allow(clippy::unwrap_used, clippy::expect_used)
)]

mod arn;
mod condition;
mod context;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod glob;
mod json;
mod malformed;
mod operator;
mod pattern;
mod policy;
mod principal;
mod statement;
mod values;

use std::sync::Arc;

pub use context::Context;
pub use malformed::Malformed;
pub use policy::{Kind, Policy};
pub use principal::Principal;

use pattern::fold;
use principal::Naming;
use statement::Effect;

/// What a principal asks for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Such as `ec2:RunInstances`.
    pub action: &'a str,
    /// An ARN, or `*` for an action that has no resources.
    pub resource: &'a str,
    pub context: &'a Context,
}

/// What identity policies decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Allowed,
    /// A Deny statement covers the request.
    Denied,
    /// No statement covers the request.
    NotAllowed,
}

/// What identity policies decide together: an explicit Deny beats every Allow.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-denyallow.html>
///
/// Policies that name principals decide nothing here.
pub fn decide<'p>(policies: impl IntoIterator<Item = &'p Policy>, request: &Request<'_>) -> Decision {
    let action = fold(request.action);
    let mut decision = Decision::NotAllowed;
    for statement in policies.into_iter().flat_map(Policy::statements) {
        // One more Allow changes nothing.
        if statement.effect == Effect::Allow && decision == Decision::Allowed {
            continue;
        }
        if statement.has_principals() || !statement.covers(&action, request.resource, request.context) {
            continue;
        }
        match statement.effect {
            Effect::Allow => decision = Decision::Allowed,
            Effect::Deny => return Decision::Denied,
        }
    }
    decision
}

/// What a set of policies is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layer {
    /// They give permissions.
    #[default]
    Identity,
    /// They limit what identity policies give: a permissions boundary.
    Boundary,
    /// They limit what a session has of its principal's permissions.
    Session,
    /// They are of what the request is about: a key's. [`decide_within`] is not asked for them.
    Resource,
}

/// What identity policies decide together with what limits them: a request is allowed if every set allows it, and denied if
/// any policy of any set denies it. With the set that decided.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-basics-id-rdp.html>
pub fn decide_within(layers: &[(Layer, Vec<Arc<Policy>>)], request: &Request<'_>) -> (Decision, Layer) {
    let mut missing = None;
    for (layer, policies) in layers {
        match decide(policies.iter().map(AsRef::as_ref), request) {
            Decision::Denied => return (Decision::Denied, *layer),
            // Of several sets that do not allow it, the first is told.
            Decision::NotAllowed => missing = missing.or(Some(*layer)),
            Decision::Allowed => {}
        }
    }
    match missing {
        // Without any set nobody has given a permission.
        None if layers.is_empty() => (Decision::NotAllowed, Layer::Identity),
        None => (Decision::Allowed, Layer::Identity),
        Some(layer) => (Decision::NotAllowed, layer),
    }
}

/// Whether the policy of a role or a key lets a principal do what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The policy names the principal: by `*`, or by the ARN of the user, the role or the session, or as the service.
    Direct,
    /// The policy only names the principal's account. The principal's own policies must allow the action, too.
    ByAccount,
    /// A Deny statement covers the principal.
    Denied,
    /// No statement covers the principal.
    NotAllowed,
}

/// Whether policies of what a request is about let a principal do it: the trust policy of a role (`sts:AssumeRole`), or the
/// policies of a key.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html>
///
/// The account's root is named by its account: that is [`Trust::Direct`]. Identity policies trust nobody.
pub fn trusts<'p>(
    policies: impl IntoIterator<Item = &'p Policy>,
    principal: &Principal<'_>,
    request: &Request<'_>,
) -> Trust {
    let action = fold(request.action);
    let mut trust = Trust::NotAllowed;
    for statement in policies.into_iter().flat_map(Policy::statements) {
        let Some(naming) = statement.names(principal) else {
            continue;
        };
        if !statement.covers(&action, request.resource, request.context) {
            continue;
        }
        match (statement.effect, naming) {
            (Effect::Deny, _) => return Trust::Denied,
            (Effect::Allow, Naming::Itself) => trust = Trust::Direct,
            (Effect::Allow, Naming::Account) if trust == Trust::NotAllowed => trust = Trust::ByAccount,
            (Effect::Allow, Naming::Account) => {}
        }
    }
    trust
}
