//! Who a caller is, and what it may do. The state has users, roles and policies ([`crate::state::Entity`]); `hearth-iam`
//! decides what policies say; here is what lies between: the caller's identity, the policies that hold for it, and what a
//! request is about.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>

mod authorize;
mod identity;
mod keys;
pub mod managed;
mod members;
mod parsed;
mod seal;
pub mod session;
mod subjects;

pub use authorize::{Authorizer, Denial, Of, denial, denial_by_key, denial_to_retire};
pub use identity::Identity;
pub use keys::{check_grant, policy_of};
use parsed::parsed;
pub use seal::open;
pub use subjects::Subject;
