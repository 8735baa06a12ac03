//! The control plane's state is a value: a table per noun, in memory. A copy of it is a snapshot, costs next to nothing
//! and never changes, so that readers never wait. Pure: no I/O, and no clock but the one that is handed in.
//!
//! A noun is declared once. From the declaration follow lookups by index, references that hold, what goes with what, tags,
//! sums, and its form in the database. From the proto follow the client, reflection, bounds of requests, and the command of
//! `hearth`. To add a noun with its calls:
//!
//! 1. `proto/hearth/v1/<noun>.proto`: the service, its messages, the bounds of their fields, and comments, which are the
//!    help texts.
//! 2. `crates/api/src/ids.rs`: the kind of its ids, if it has some; `crates/api/src/error.rs`: EC2's codes for it.
//! 3. `nouns/<noun>.rs`: the struct, with [`Noun`] for it: its kind, its account, its region, its indexes (unique ones, and
//!    those that refer to another noun or go with it), its sums, its bound, its tags, and whom a change of it concerns. Its lines in
//!    `nouns/mod.rs`.
//! 4. `services/<noun>.rs`: the calls. What changes the state is a closure that [`crate::store::Store::transact`] runs. Its
//!    line in `services/mod.rs`.
//! 5. Tests: `tests/cloud/<noun>.rs`.
//!
//! Placement groups were added so, with three calls, and honoured by launches and starts. The files of that commit:
//!
//! ```text
//! proto/hearth/v1/placement.proto                  three calls, and the group in Placement
//! crates/api/src/ids.rs                            pg-...
//! crates/api/src/error.rs                          InvalidPlacementGroup.Duplicate, .InUse, .Unknown ...
//! crates/controller/src/state/nouns/placement.rs   PlacementGroup, PlacementGroupMember
//! crates/controller/src/state/nouns/mod.rs         two lines
//! crates/controller/src/services/placement.rs      the calls, and what a launch demands of the scheduler
//! crates/controller/src/services/mod.rs            one line
//! crates/controller/tests/cloud/placement.rs
//! ```
//!
//! A field that is added later has a default (`#[serde(default)]`): rows of before do not have it.

use std::sync::Arc;

use hearth_api::Kind;

mod concern;
pub mod noun;
pub mod nouns;
mod room;
mod scope;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod tx;

pub use concern::{Concern, Topic};
use noun::Rule;
pub use noun::{Amounts, Bound, Index, Noun, Sum, TAGS, Tags, key};
pub use nouns::*;
pub use room::free_share;
pub use scope::Scope;
pub use table::{Table, Taken};
pub use tx::{Audit, Change, Changes, Event, Tx, Violation};

/// A noun that has a table.
pub trait Held: Noun {
    fn table(state: &State) -> &Table<Self>;
    fn table_mut(state: &mut State) -> &mut Table<Self>;
}

/// An object as the database stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub kind: String,
    pub id: String,
    pub account: String,
    pub version: u64,
    /// JSON.
    pub body: String,
}

/// A row that is no object of this version.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(
        "an object is of the kind '{0}', which this version does not know: was it written by a newer one?"
    )]
    Kind(String),
    #[error("reading the {kind} {id}")]
    Body {
        kind: String,
        id: String,
        source: serde_json::Error,
    },
    #[error("the {kind} {id} has the same {} as {}", .taken.index, .taken.by)]
    Taken { kind: String, id: String, taken: Taken },
}

macro_rules! nouns {
    ($($table:ident: $noun:ty,)*) => {
        /// Everything that the control plane knows.
        #[derive(Debug, Clone, Default)]
        pub struct State {
            sequence: u64,
            /// Whom it is read for; `None`: for nobody in particular, and there is everything.
            scope: Option<Scope>,
            room: room::Room,
            $($table: Table<$noun>,)*
        }

        $(impl Held for $noun {
            fn table(state: &State) -> &Table<Self> {
                &state.$table
            }

            fn table_mut(state: &mut State) -> &mut Table<Self> {
                &mut state.$table
            }
        })*

        impl State {
            /// Adds an object as the database has it.
            ///
            /// # Errors
            /// It is none, or its unique keys are another's.
            pub fn load(&mut self, row: &Row) -> Result<(), LoadError> {
                match row.kind.as_str() {
                    $(<$noun>::KIND => load::<$noun>(self, row),)*
                    _ => Err(LoadError::Kind(row.kind.clone())),
                }
            }

            /// Takes an object out, whatever refers to it.
            pub(crate) fn unload(&mut self, kind: &str, id: &str) {
                match kind {
                    $(<$noun>::KIND => unload::<$noun>(self, id),)*
                    _ => {}
                }
            }

            /// An object as the database shall have it; `None` for one that is no more.
            pub(super) fn encode(&self, kind: &str, id: &str) -> Result<Option<Row>, serde_json::Error> {
                match kind {
                    $(<$noun>::KIND => encode(&self.$table, id),)*
                    _ => Ok(None),
                }
            }

            fn exists(&self, kind: &str, id: &str) -> bool {
                match kind {
                    $(<$noun>::KIND => self.$table.get(id).is_some(),)*
                    _ => false,
                }
            }

            /// The first object that an object refers to and that is not there.
            fn dangling(&self, kind: &str, id: &str) -> Option<(&'static str, String)> {
                match kind {
                    $(<$noun>::KIND => dangling(self, &self.$table, id),)*
                    _ => None,
                }
            }

            /// The region that an object is in.
            fn region_of(&self, kind: &str, id: &str) -> Option<&str> {
                match kind {
                    $(<$noun>::KIND => self.$table.get(id).map(|object| object.region()),)*
                    _ => None,
                }
            }

            /// The first object that an object refers to and that is in another region.
            fn abroad(&self, kind: &str, id: &str) -> Option<(&'static str, String)> {
                match kind {
                    $(<$noun>::KIND => abroad(self, &self.$table, id),)*
                    _ => None,
                }
            }

            /// An object that refers to this one.
            fn referrer(&self, kind: &str, id: &str) -> Option<(&'static str, String)> {
                $(if let Some(found) = referrer(&self.$table, kind, id) {
                    return Some(found);
                })*
                None
            }

            /// The objects that go with this one.
            fn owned(&self, kind: &str, id: &str) -> Vec<(&'static str, String)> {
                let mut found = Vec::new();
                $(owned(&self.$table, kind, id, &mut found);)*
                found
            }

            /// The tags of a resource; `None` when there is no such resource, or none that can be tagged. Tags are the
            /// owner's alone.
            pub fn tags(&self, kind: Kind, id: &str) -> Option<&Tags> {
                $(if <$noun>::RESOURCE == Some(kind) {
                    return self.$table.get(id).filter(|object| self.owns(&***object))?.tags();
                })*
                None
            }

            /// How many tags an account's resources have.
            pub fn count_of_tags(&self, account_id: &str) -> u64 {
                let mut count = 0;
                $(if <$noun>::RESOURCE.is_some() {
                    let [_, tags] = self.$table.of_account(account_id);
                    count += tags;
                })*
                count
            }

            /// All resources that have tags, in the order of kinds and ids.
            pub fn tagged(&self) -> impl Iterator<Item = (Kind, &str, &Tags)> {
                std::iter::empty()$(.chain(tagged(self, &self.$table)))*
            }

            /// The first object of an account that is of none of some kinds.
            pub fn belonging(&self, account_id: &str, but: &[&str]) -> Option<(&'static str, String)> {
                $(if !but.contains(&<$noun>::KIND)
                    && let Some(object) = self.$table.iter().find(|object| object.account() == account_id)
                {
                    return Some((<$noun>::KIND, object.id().to_owned()));
                })*
                None
            }

            /// The first object that refers to this one, which has a region, from another.
            fn stranger(&self, kind: &str, id: &str) -> Option<(&'static str, String)> {
                let region = self.region_of(kind, id).filter(|region| !region.is_empty())?;
                $(if let Some(found) = stranger(&self.$table, (kind, id), region) {
                    return Some(found);
                })*
                None
            }

            /// The first object in a region that is of none of some kinds.
            pub fn in_region(&self, region: &str, but: &[&str]) -> Option<(&'static str, String)> {
                $(if !but.contains(&<$noun>::KIND)
                    && let Some(object) = self.$table.iter().find(|object| object.region() == region)
                {
                    return Some((<$noun>::KIND, object.id().to_owned()));
                })*
                None
            }

            #[cfg(test)]
            pub(crate) fn check(&self) {
                let mut ranked = self.clone();
                ranked.room = room::Room::default();
                self.hosts().for_each(|host| ranked.rank(&host.id));
                assert_eq!(self.room, ranked.room);
                $(self.$table.check();)*
                $(for object in self.$table.iter() {
                    assert_eq!(self.dangling(<$noun>::KIND, object.id()), None, "{object:?}");
                    assert_eq!(self.abroad(<$noun>::KIND, object.id()), None, "{object:?}");
                })*
            }
        }

        impl Tx<'_> {
            /// Removes an object of a kind that is known by its name alone.
            fn remove_of(&mut self, kind: &str, id: &str) {
                match kind {
                    $(<$noun>::KIND => {
                        self.remove::<$noun>(id);
                    })*
                    _ => {}
                }
            }

            /// Puts everything that is in a region into another one. What names no region is of before regions.
            pub fn move_all(&mut self, from: &str, to: &str) {
                $(move_all::<$noun>(self, from, to);)*
            }

            /// Changes the tags of a resource; answers whether there is one that can be tagged.
            pub fn retag(&mut self, kind: Kind, id: &str, change: impl FnOnce(&mut Tags)) -> bool {
                $(if <$noun>::RESOURCE == Some(kind) {
                    let Some(object) = self.own::<$noun>(id) else { return false };
                    let mut object = <$noun>::clone(object);
                    let Some(tags) = object.tags_mut() else { return false };
                    change(tags);
                    self.put(object);
                    return true;
                })*
                false
            }
        }
    };
}

nouns::all!(nouns);

impl State {
    /// The number of the last transaction in it.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn set_sequence(&mut self, sequence: u64) {
        self.sequence = sequence;
    }

    pub fn get<N: Held>(&self, id: &str) -> Option<&N> {
        let found: &N = N::table(self).get(id)?;
        self.sees(found).then_some(found)
    }

    /// All objects of a noun, in the order of their ids.
    pub fn all<N: Held>(&self) -> impl Iterator<Item = &N> {
        N::table(self)
            .iter()
            .map(AsRef::as_ref)
            .filter(|object| self.sees(*object))
    }

    /// How many objects of a noun the cloud has.
    pub fn count<N: Held>(&self) -> usize {
        N::table(self).len()
    }

    /// The objects that an index has under a key, in the order of their ids.
    pub fn by<'s, N: Held>(
        &'s self,
        index: &Index<N>,
        key: &str,
    ) -> impl Iterator<Item = &'s N> + use<'s, N> {
        let table = N::table(self);
        let wanted = key.to_owned();
        table
            .index_from(index, key)
            .take_while(move |(found, _)| *found == wanted)
            .filter_map(move |(_, id)| table.get(id))
            .map(AsRef::as_ref)
            .filter(|object| self.sees(*object))
    }

    /// The first object that an index has under a key.
    pub fn first_by<N: Held>(&self, index: &Index<N>, key: &str) -> Option<&N> {
        self.by(index, key).next()
    }

    /// Whether an index has anything under a key.
    pub fn any_by<N: Held>(&self, index: &Index<N>, key: &str) -> bool {
        self.first_by(index, key).is_some()
    }

    /// The objects that an index has under keys from `from` on, in the order of keys and ids.
    pub fn from<'s, N: Held>(
        &'s self,
        index: &Index<N>,
        from: &str,
    ) -> impl Iterator<Item = (&'s str, &'s N)> + use<'s, N> {
        let table = N::table(self);
        table
            .index_from(index, from)
            .filter_map(move |(key, id)| Some((key, table.get(id)?.as_ref())))
            .filter(|(_, object)| self.sees(*object))
    }

    /// How many objects of a noun an account has.
    pub fn count_of<N: Held>(&self, account_id: &str) -> usize {
        let [count, _] = N::table(self).of_account(account_id);
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    pub fn sum<N: Held>(&self, sum: &Sum<N>, group: &str) -> Amounts {
        N::table(self).sum(sum, group)
    }
}

fn load<N: Held>(state: &mut State, row: &Row) -> Result<(), LoadError> {
    let object: N = serde_json::from_str(&row.body).map_err(|source| LoadError::Body {
        kind: row.kind.clone(),
        id: row.id.clone(),
        source,
    })?;
    let host = object.room().map(str::to_owned);
    let loaded = N::table_mut(state).put(row.version, object);
    loaded.map_err(|taken| LoadError::Taken {
        kind: row.kind.clone(),
        id: row.id.clone(),
        taken,
    })?;
    if let Some(host) = host {
        state.rank(&host);
    }
    Ok(())
}

fn unload<N: Held>(state: &mut State, id: &str) {
    let object = N::table_mut(state).remove(id);
    if let Some(host) = object.as_ref().and_then(|object| object.room()) {
        state.rank(host);
    }
}

fn encode<N: Noun>(table: &Table<N>, id: &str) -> Result<Option<Row>, serde_json::Error> {
    let Some((object, version)) = table.get(id).zip(table.version(id)) else {
        return Ok(None);
    };
    Ok(Some(Row {
        kind: N::KIND.to_owned(),
        id: id.to_owned(),
        account: object.account().to_owned(),
        version,
        body: serde_json::to_string(object.as_ref())?,
    }))
}

fn dangling<N: Noun>(state: &State, table: &Table<N>, id: &str) -> Option<(&'static str, String)> {
    let object: &Arc<N> = table.get(id)?;
    N::INDEXES.iter().find_map(|index| match index.rule {
        Rule::Refers(kind) | Rule::Owned(kind) => (index.keys)(object)
            .into_iter()
            .find(|key| !state.exists(kind, key))
            .map(|key| (kind, key)),
        Rule::Any | Rule::Unique => None,
    })
}

fn abroad<N: Noun>(state: &State, table: &Table<N>, id: &str) -> Option<(&'static str, String)> {
    let object: &Arc<N> = table.get(id)?;
    let is_near = |region: &str| region.is_empty() || region == object.region();
    // What has no owner is the cloud's, such as claims.
    if object.account().is_empty() && object.region().is_empty() {
        return None;
    }
    N::INDEXES.iter().find_map(|index| match index.rule {
        Rule::Refers(kind) | Rule::Owned(kind) => (index.keys)(object)
            .into_iter()
            .find(|key| !state.region_of(kind, key).is_none_or(is_near))
            .map(|key| (kind, key)),
        Rule::Any | Rule::Unique => None,
    })
}

fn stranger<N: Noun>(
    table: &Table<N>,
    (kind, id): (&str, &str),
    region: &str,
) -> Option<(&'static str, String)> {
    let refers = |rule| matches!(rule, Rule::Refers(target) | Rule::Owned(target) if target == kind);
    let is_near = |object: &N| match object.region() {
        "" => object.account().is_empty(),
        own => own == region,
    };
    N::INDEXES
        .iter()
        .filter(|index| refers(index.rule))
        .find_map(|index| {
            let mut by = table.index_from(index, id).take_while(|(key, _)| *key == id);
            let (_, by) = by.find(|(_, by)| !table.get(by).is_none_or(|object| is_near(object)))?;
            Some((N::KIND, by.to_string()))
        })
}

fn move_all<N: Held>(tx: &mut Tx<'_>, from: &str, to: &str) {
    let of_region = tx.all::<N>().filter(|object| object.region() == from);
    for object in of_region.cloned().collect::<Vec<N>>() {
        let mut moved = object.clone();
        moved.move_to(to);
        if moved.id() != object.id() {
            tx.remove::<N>(object.id());
        }
        if moved != object {
            tx.put(moved);
        }
    }
}

fn referrer<N: Noun>(table: &Table<N>, kind: &str, id: &str) -> Option<(&'static str, String)> {
    N::INDEXES
        .iter()
        .filter(|index| matches!(index.rule, Rule::Refers(target) if target == kind))
        .find_map(|index| {
            let (key, by) = table.index_from(index, id).next()?;
            (key == id).then(|| (N::KIND, by.to_string()))
        })
}

fn owned<N: Noun>(table: &Table<N>, kind: &str, id: &str, found: &mut Vec<(&'static str, String)>) {
    let indexes = N::INDEXES.iter();
    for index in indexes.filter(|index| matches!(index.rule, Rule::Owned(owner) if owner == kind)) {
        let owned = table.index_from(index, id).take_while(|(key, _)| *key == id);
        found.extend(owned.map(|(_, by)| (N::KIND, by.to_string())));
    }
}

fn tagged<'s, N: Noun>(
    state: &'s State,
    table: &'s Table<N>,
) -> impl Iterator<Item = (Kind, &'s str, &'s Tags)> {
    let kind = N::RESOURCE;
    table
        .iter()
        .filter(|object| state.owns(&***object))
        .filter_map(move |object| Some((kind?, object.id(), object.tags()?)))
        .filter(|(_, _, tags)| !tags.is_empty())
}
