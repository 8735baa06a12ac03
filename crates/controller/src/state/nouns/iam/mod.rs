//! Who may do what: users, groups, roles, the policies that they have, and the profiles that give roles to instances.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html>

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::access_keys::base32;
use crate::state::{Held, Index, State, key};

mod groups;
mod instance_profiles;
mod policies;
mod roles;
mod users;

pub use groups::Group;
pub use instance_profiles::InstanceProfile;
pub use policies::{Policy, PolicyVersion};
pub use roles::Role;
pub use users::User;

/// What has a name and a path of its own in an account.
pub trait Entity: Held {
    /// Of ARNs.
    const WORD: &'static str;
    /// Of sentences.
    const NOUN: &'static str;
    /// The beginning of its ids.
    const PREFIX: &'static str;
    /// IAM's name of the quota for them, and how many an account may have.
    const QUOTA: (&'static str, usize);
    /// By [`name_key`].
    const BY_NAME: Index<Self>;

    fn name(&self) -> &str;

    /// Begins and ends with a slash.
    fn path(&self) -> &str;

    fn arn(&self) -> String {
        arn(self.account(), Self::WORD, self.path(), self.name())
    }

    /// An id that nothing else has.
    fn new_id() -> String {
        format!("{}{}", Self::PREFIX, base32::<17>())
    }
}

/// `arn:aws:iam::123456789012:user/PATH/NAME`.
pub fn arn(account_id: &str, word: &str, path: &str, name: &str) -> String {
    format!("arn:aws:iam::{account_id}:{word}{path}{name}")
}

/// Names are unique whatever their case.
pub fn name_key(account_id: &str, name: &str) -> String {
    key(&[account_id, &name.to_ascii_lowercase()])
}

/// The policies of a user, a group or a role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// Documents by name.
    pub inline: BTreeMap<String, String>,
    /// ARNs of managed policies.
    pub attached: BTreeSet<String>,
    /// The ARN of the managed policy that limits what the others give.
    #[serde(default)]
    pub boundary: Option<String>,
}

/// What has policies.
pub trait Bearer: Entity {
    /// By the ARNs of managed policies.
    const BY_POLICY: Index<Self>;
    /// By the ARN of the permissions boundary.
    const BY_BOUNDARY: Index<Self>;

    fn grants(&self) -> &Grants;
    fn grants_mut(&mut self) -> &mut Grants;
}

impl State {
    /// Whatever case the name has.
    pub fn named<E: Entity>(&self, account_id: &str, name: &str) -> Option<&E> {
        self.first_by(&E::BY_NAME, &name_key(account_id, name))
    }

    /// The entity of an ARN.
    pub fn of_arn<E: Entity>(&self, account_id: &str, arn: &str) -> Option<&E> {
        let name = arn.rsplit('/').next()?;
        self.named::<E>(account_id, name)
            .filter(|found| found.arn() == arn)
    }
}

/// [`Entity`] and [`Bearer`] for structs with `name`, `path` and `grants`.
macro_rules! entity {
    ($noun:ident, $word:literal, $said:literal, $prefix:literal, $quota:expr) => {
        impl $crate::state::Entity for $noun {
            const WORD: &'static str = $word;
            const NOUN: &'static str = $said;
            const PREFIX: &'static str = $prefix;
            const QUOTA: (&'static str, usize) = $quota;
            const BY_NAME: $crate::state::Index<Self> = $crate::state::Index::unique("name", |entity| {
                vec![$crate::state::nouns::iam::name_key(
                    &entity.account_id,
                    &entity.name,
                )]
            });

            fn name(&self) -> &str {
                &self.name
            }

            fn path(&self) -> &str {
                &self.path
            }
        }
    };
}

macro_rules! bearer {
    ($noun:ident) => {
        impl $crate::state::Bearer for $noun {
            const BY_POLICY: $crate::state::Index<Self> = $crate::state::Index::new("policy", |bearer| {
                bearer.grants.attached.iter().cloned().collect()
            });

            const BY_BOUNDARY: $crate::state::Index<Self> = $crate::state::Index::new("boundary", |bearer| {
                bearer.grants.boundary.iter().cloned().collect()
            });

            fn grants(&self) -> &$crate::state::Grants {
                &self.grants
            }

            fn grants_mut(&mut self) -> &mut $crate::state::Grants {
                &mut self.grants
            }
        }
    };
}
use {bearer, entity};
