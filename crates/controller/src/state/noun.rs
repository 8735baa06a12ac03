//! What a noun declares of itself, once: its kind, its indexes, its sums, its tags. Everything general follows from this.

use std::collections::BTreeMap;
use std::fmt::Debug;

use hearth_api::{ErrorCode, Kind, v1};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Concern, State};

/// Tags of a resource, by key.
pub type Tags = BTreeMap<String, String>;

/// A kind of object. Its JSON form is what the database stores: a field that is added later needs a default.
pub trait Noun: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name of the kind in the database.
    const KIND: &'static str;
    /// The kind of EC2 resource that this is, where it has an id of EC2's shape.
    const RESOURCE: Option<Kind> = None;
    const INDEXES: &'static [Index<Self>] = &[];
    const SUMS: &'static [Sum<Self>] = &[];
    /// How many an account may have. `None`: they are bounded otherwise, such as by options of `hearthd`.
    const BOUND: Option<Bound> = None;

    /// Unique among the objects of this kind.
    fn id(&self) -> &str;

    /// The account that owns the object; empty for what belongs to the operator.
    fn account(&self) -> &str {
        ""
    }

    /// The region that the object is in; empty for what is in none, such as users and hosts.
    fn region(&self) -> &str {
        ""
    }

    /// Puts an object that is in a region into another ([`Tx::move_all`](super::Tx::move_all)).
    fn move_to(&mut self, _region: &str) {}

    /// Whether an account that does not own the object may use it.
    fn is_shared_with(&self, _account_id: &str) -> bool {
        false
    }

    /// Whether it is an account's, or shared with it.
    fn is_usable_by(&self, account_id: &str) -> bool {
        self.account() == account_id || self.is_shared_with(account_id)
    }

    /// What changes for hosts when this object comes, changes or goes. `state` is that of its time.
    fn concerns(&self, _state: &State) -> Vec<Concern> {
        Vec::new()
    }

    /// The host whose room this object takes part in ([`State::emptiest`]).
    fn room(&self) -> Option<&str> {
        None
    }

    /// `None` for a noun that cannot be tagged.
    fn tags(&self) -> Option<&Tags> {
        None
    }

    fn tags_mut(&mut self) -> Option<&mut Tags> {
        None
    }
}

/// The methods of [`Noun`] for what is in a region: a struct with `region`.
macro_rules! regional {
    () => {
        fn region(&self) -> &str {
            &self.region
        }

        fn move_to(&mut self, region: &str) {
            region.clone_into(&mut self.region);
        }
    };
}
pub(crate) use regional;

/// How many of something an account may have, in all regions. What one account has is not held against another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    pub most: usize,
    /// In plural.
    pub what: &'static str,
    pub code: ErrorCode,
    /// What to do, in the imperative.
    pub remedy: &'static str,
}

impl Bound {
    pub const fn new(most: usize, what: &'static str, code: ErrorCode) -> Self {
        Self {
            most,
            what,
            code,
            remedy: "delete some first",
        }
    }
}

/// Of all tags of an account's resources.
pub const TAGS: Bound = Bound::new(100_000, "tags", ErrorCode::TagLimitExceeded);

/// The methods of [`Noun`] for what an account owns in a region and can tag: a struct with `id`, `account_id`, `region` and
/// `tags`.
macro_rules! resource {
    () => {
        $crate::state::noun::owned!();
        $crate::state::noun::regional!();
    };
}
pub(crate) use resource;

/// The methods of [`Noun`] for what an account owns and can tag, and what is in no region: a struct with `id`, `account_id` and
/// `tags`.
macro_rules! owned {
    () => {
        fn id(&self) -> &str {
            &self.id
        }

        fn account(&self) -> &str {
            &self.account_id
        }

        fn tags(&self) -> Option<&$crate::state::Tags> {
            Some(&self.tags)
        }

        fn tags_mut(&mut self) -> Option<&mut $crate::state::Tags> {
            Some(&mut self.tags)
        }
    };
}
pub(crate) use owned;

/// A way to find objects: by each of the keys that `keys` answers.
#[derive(Debug)]
pub struct Index<N> {
    pub name: &'static str,
    pub rule: Rule,
    pub keys: fn(&N) -> Vec<String>,
}

/// What an index demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Any,
    /// Two objects never have the same key.
    Unique,
    /// Keys are ids of this kind. The object that a key names exists, and stays while it is named.
    Refers(&'static str),
    /// As `Refers`; but the object goes when the one that a key names goes.
    Owned(&'static str),
}

impl<N> Index<N> {
    pub const fn new(name: &'static str, keys: fn(&N) -> Vec<String>) -> Self {
        Self {
            name,
            rule: Rule::Any,
            keys,
        }
    }

    pub const fn unique(name: &'static str, keys: fn(&N) -> Vec<String>) -> Self {
        Self {
            name,
            rule: Rule::Unique,
            keys,
        }
    }

    pub const fn refers<T: Noun>(name: &'static str, keys: fn(&N) -> Vec<String>) -> Self {
        Self {
            name,
            rule: Rule::Refers(T::KIND),
            keys,
        }
    }

    /// The object goes with the one of `T` that it refers to.
    pub const fn owned<T: Noun>(name: &'static str, keys: fn(&N) -> Vec<String>) -> Self {
        Self {
            name,
            rule: Rule::Owned(T::KIND),
            keys,
        }
    }
}

/// Two amounts that are added up over groups of objects, such as the vCPUs and the memory that a host's claims take.
pub type Amounts = [u64; 2];

/// A sum over the objects of each group.
#[derive(Debug)]
pub struct Sum<N> {
    pub name: &'static str,
    /// The group that the object counts for, and how much; `None`: it does not count.
    pub part: fn(&N) -> Option<(String, Amounts)>,
}

/// A key of several parts, separated by U+001F. Only the last one may contain any character; the others are ids or
/// addresses.
pub fn key(parts: &[&str]) -> String {
    parts.join("\u{1f}")
}

/// Tags in the API's form, in the order of their keys.
pub fn tell_tags(tags: &Tags) -> Vec<v1::Tag> {
    tags.iter()
        .map(|(key, value)| v1::Tag {
            key: key.clone(),
            value: value.clone(),
        })
        .collect()
}

/// Tags as a caller gave them. The last of several with one key holds; callers' input is checked for that before.
pub fn keep_tags(tags: &[v1::Tag]) -> Tags {
    tags.iter()
        .map(|tag| (tag.key.clone(), tag.value.clone()))
        .collect()
}
