//! A transaction: changes of the state, which become true together or not at all.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use smol_str::SmolStr;

use crate::call::{Call, Caller};

use super::{Amounts, Bound, Concern, Held, Row, Scope, State, TAGS, Taken, concern};

/// Something that happened to a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Reads like `instance.pending`.
    pub kind: String,
    pub resource_id: String,
}

/// A call that changed something. `detail` never holds user data, keys or tokens; it has the call's request id, account,
/// region and user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    pub action: String,
    /// JSON.
    pub detail: String,
}

/// What a transaction would do that the state cannot bear: a fault of the program, not of the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("the {kind} {id} has the same {} as {}", .taken.index, .taken.by)]
    Taken {
        kind: &'static str,
        id: String,
        taken: Taken,
    },
    #[error("the {kind} {id} refers to the {target_kind} {target}, which is not there")]
    Dangling {
        kind: &'static str,
        id: String,
        target_kind: &'static str,
        target: String,
    },
    #[error("the {kind} {id} refers to the {target_kind} {target}, which is in another region")]
    Abroad {
        kind: &'static str,
        id: String,
        target_kind: &'static str,
        target: String,
    },
    #[error("the {by_kind} {by} refers to the {kind} {id}, which would go")]
    Referred {
        kind: &'static str,
        id: String,
        by_kind: &'static str,
        by: String,
    },
    #[error("the {kind} {id} cannot be written as JSON: {why}")]
    Json {
        kind: &'static str,
        id: String,
        why: String,
    },
}

/// One object, as a transaction leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put(Row),
    Removed { kind: &'static str, id: String },
}

/// What a transaction did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub sequence: u64,
    /// Milliseconds since the epoch.
    pub at: i64,
    pub objects: Vec<Change>,
    pub events: Vec<Event>,
    pub audit: Vec<Audit>,
    /// Large bodies that objects name by their digest, in the order of what became of them; `None`: it goes.
    pub blobs: Vec<(String, Option<Vec<u8>>)>,
    /// What agents have to hear of.
    pub concerns: BTreeSet<Concern>,
}

impl Changes {
    /// Instances that watchers have to hear of.
    pub fn instances(&self) -> impl Iterator<Item = &str> {
        self.events
            .iter()
            .filter(|event| event.kind.starts_with("instance."))
            .map(|event| event.resource_id.as_str())
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.events.is_empty() && self.audit.is_empty() && self.blobs.is_empty()
    }
}

/// Makes one object again what it was before the transaction.
type Undo = Box<dyn FnOnce(&mut State)>;

/// Reads as the state does, own changes included. Unless it is finished, the state becomes again what it was: also when a
/// transaction panics.
pub struct Tx<'s> {
    state: &'s mut State,
    /// By the first change of each object, the first one first.
    undo: Vec<Undo>,
    now: i64,
    /// What has changed, with the region where it was; `None`: it is new.
    changed: BTreeMap<(&'static str, String), Option<SmolStr>>,
    events: Vec<Event>,
    audit: Vec<Audit>,
    blobs: Vec<(String, Option<Vec<u8>>)>,
    concerns: BTreeSet<Concern>,
    violation: Option<Violation>,
    exceeded: Option<Bound>,
    is_finished: bool,
    /// The call that it is for.
    call: Option<Arc<Call>>,
}

impl Deref for Tx<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.state
    }
}

impl<'s> Tx<'s> {
    /// Begins a transaction at a time in milliseconds since the epoch.
    pub fn new(state: &'s mut State, now: i64) -> Self {
        state.sequence += 1;
        Self {
            state,
            undo: Vec::new(),
            now,
            changed: BTreeMap::new(),
            events: Vec::new(),
            audit: Vec::new(),
            blobs: Vec::new(),
            concerns: BTreeSet::new(),
            violation: None,
            exceeded: None,
            is_finished: false,
            call: None,
        }
    }

    /// The transaction is a call's.
    pub fn set_call(&mut self, call: Option<Arc<Call>>) {
        self.state.set_scope(call.as_ref().and_then(|call| call.scope()));
        self.call = call;
    }

    /// The time of the transaction, in milliseconds since the epoch.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// Adds or replaces an object.
    pub fn put<N: Held>(&mut self, object: N) {
        let id = object.id().to_owned();
        let version = self.state.sequence;
        let before = self
            .state
            .of_anybody::<N>(&id)
            .map(|object| object.concerns(self.state));
        let ranked = self.ranked::<N>(&id);
        self.remember::<N>(&id);
        let account_id = object.account().to_owned();
        let had = N::table(self.state).of_account(&account_id);
        match N::table_mut(self.state).put(version, object) {
            Ok(()) => {
                self.bound::<N>(&account_id, had);
                let after = self
                    .state
                    .of_anybody::<N>(&id)
                    .map(|object| object.concerns(self.state));
                concern::news(
                    before.unwrap_or_default(),
                    after.unwrap_or_default(),
                    &mut self.concerns,
                );
                self.rank([ranked, self.ranked::<N>(&id)]);
            }
            Err(taken) => self.violate(Violation::Taken {
                kind: N::KIND,
                id,
                taken,
            }),
        }
    }

    /// Looks whether an account has more than it may have, of a noun or of tags, where it has more than before.
    fn bound<N: Held>(&mut self, account_id: &str, [objects, tags]: Amounts) {
        let [now, now_tags] = N::table(self.state).of_account(account_id);
        let exceeds = |count: u64, bound: &Bound| count > bound.most as u64;
        let of_noun = N::BOUND.filter(|bound| now > objects && exceeds(now, bound));
        let is_tagged = N::RESOURCE.is_some() && now_tags > tags;
        let of_tags = (is_tagged && exceeds(self.state.count_of_tags(account_id), &TAGS)).then_some(TAGS);
        self.exceeded = self.exceeded.take().or(of_noun).or(of_tags);
    }

    /// What an account would have too much of. It is for calls to refuse; what hosts report is taken.
    pub fn exceeded(&self) -> Option<&Bound> {
        self.exceeded.as_ref()
    }

    /// Keeps what an object is, should it be the transaction's first change of it.
    fn remember<N: Held>(&mut self, id: &str) {
        let Entry::Vacant(first) = self.changed.entry((N::KIND, id.to_owned())) else {
            return;
        };
        let (id, before) = (id.to_owned(), N::table(self.state).row(id).cloned());
        first.insert(before.as_ref().map(|row| row.object.region().into()));
        self.undo.push(Box::new(move |state| {
            let mut hosts = [None, before.as_ref().and_then(|row| room(&*row.object))];
            hosts[0] = state
                .of_anybody::<N>(&id)
                .and_then(room)
                .filter(|host| hosts[1].as_ref() != Some(host));
            N::table_mut(state).restore(&id, before);
            hosts.iter().flatten().for_each(|host| state.rank(host));
        }));
    }

    /// The host whose room an object takes part in.
    fn ranked<N: Held>(&self, id: &str) -> Option<String> {
        self.state.of_anybody::<N>(id).and_then(room)
    }

    /// Takes the room of hosts up anew: one that an object took part in, and one that it does now.
    fn rank(&mut self, [before, after]: [Option<String>; 2]) {
        if let Some(host) = before.as_ref().filter(|before| after.as_ref() != Some(before)) {
            self.state.rank(host);
        }
        if let Some(host) = after {
            self.state.rank(&host);
        }
    }

    /// Changes an object; answers whether there is one, of those that whoever the transaction is for may change.
    pub fn update<N: Held>(&mut self, id: &str, change: impl FnOnce(&mut N)) -> bool {
        let Some(object) = self.own::<N>(id) else {
            return false;
        };
        let mut object = N::clone(object);
        change(&mut object);
        self.put(object);
        true
    }

    /// From here on the transaction changes what an account has in a region, whoever calls: for what one account lets another do.
    /// Whether it does was asked before.
    pub fn act_for(&mut self, scope: Scope) {
        self.state.set_scope(Some(scope));
    }

    /// Removes an object, and those that go with it; answers whether there was one.
    pub fn remove<N: Held>(&mut self, id: &str) -> bool {
        let own = self.own::<N>(id);
        let Some(before) = own.map(|object| object.concerns(self.state)) else {
            return false;
        };
        let ranked = self.ranked::<N>(id);
        self.remember::<N>(id);
        N::table_mut(self.state).remove(id);
        self.rank([ranked, None]);
        concern::news(before, Vec::new(), &mut self.concerns);
        for (kind, id) in self.owned(N::KIND, id) {
            self.remove_of(kind, &id);
        }
        true
    }

    /// Removes the objects with these ids.
    pub fn remove_all<N: Held>(&mut self, ids: impl IntoIterator<Item = String>) {
        for id in ids {
            self.remove::<N>(&id);
        }
    }

    /// Keeps a large body and answers the name that an object shall keep of it.
    pub fn keep_blob(&mut self, body: Vec<u8>) -> String {
        let digest = blake3::hash(&body).to_hex().to_string();
        self.blobs.push((digest.clone(), Some(body)));
        digest
    }

    /// Removes a body that no object names any more.
    pub fn drop_blob(&mut self, digest: &str) {
        self.blobs.push((digest.to_owned(), None));
    }

    /// Tells agents of what no object says of itself.
    pub fn concern(&mut self, concern: Concern) {
        self.concerns.insert(concern);
    }

    /// Records what happened to a resource. `kind` reads like `instance.pending`.
    pub fn event(&mut self, kind: &str, resource_id: &str) {
        self.events.push(Event {
            kind: kind.to_owned(),
            resource_id: resource_id.to_owned(),
        });
    }

    /// Records what the call has asked for, with the call's context. `detail` is an object and never holds user data, keys
    /// or tokens.
    pub fn audit(&mut self, mut detail: serde_json::Value) {
        let Some(call) = self.call.clone() else {
            return self.audit_without_call("", &detail);
        };
        if let Some(detail) = detail.as_object_mut() {
            detail.insert("request_id".to_owned(), call.request_id.clone().into());
            detail.insert("account".to_owned(), call.principal.account_id.clone().into());
            if !call.region.is_empty() {
                detail.insert("region".to_owned(), call.region.clone().into());
            }
            match &call.principal.caller {
                Caller::Process { uid, .. } => detail.insert("uid".to_owned(), (*uid).into()),
                Caller::AccessKey(id) => detail.insert("access_key_id".to_owned(), id.clone().into()),
                Caller::Session(session) => detail.insert("session".to_owned(), session.to_string().into()),
            };
        }
        self.audit_without_call(&call.action, &detail);
    }

    /// Records what was done on the machine itself, by no call.
    pub fn audit_without_call(&mut self, action: &str, detail: &serde_json::Value) {
        self.audit.push(Audit {
            action: action.to_owned(),
            detail: detail.to_string(),
        });
    }

    fn violate(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// Ends the transaction: the state is what it made of it. One without changes takes no sequence number.
    ///
    /// # Errors
    /// What the state cannot bear. It is what it was before then.
    pub fn finish(mut self) -> Result<Changes, Violation> {
        if let Some(violation) = self.violation.take() {
            return Err(violation);
        }
        let mut objects = Vec::with_capacity(self.changed.len());
        for ((kind, id), region) in &self.changed {
            objects.push(self.change(kind, id, region.as_deref())?);
        }
        let changes = Changes {
            sequence: self.state.sequence,
            at: self.now,
            objects,
            events: std::mem::take(&mut self.events),
            audit: std::mem::take(&mut self.audit),
            blobs: std::mem::take(&mut self.blobs),
            concerns: std::mem::take(&mut self.concerns),
        };
        if !changes.is_empty() {
            self.is_finished = true;
        }
        Ok(changes)
    }

    /// `region`: where the object was.
    fn change(&self, kind: &'static str, id: &str, region: Option<&str>) -> Result<Change, Violation> {
        if let Some((target_kind, target)) = self.state.dangling(kind, id) {
            return Err(Violation::Dangling {
                kind,
                id: id.to_owned(),
                target_kind,
                target,
            });
        }
        if let Some((target_kind, target)) = self.state.abroad(kind, id) {
            return Err(Violation::Abroad {
                kind,
                id: id.to_owned(),
                target_kind,
                target,
            });
        }
        let has_moved = region.is_some_and(|region| self.state.region_of(kind, id) != Some(region));
        if has_moved && let Some((by_kind, by)) = self.state.stranger(kind, id) {
            return Err(Violation::Abroad {
                kind: by_kind,
                id: by,
                target_kind: kind,
                target: id.to_owned(),
            });
        }
        let row = self.state.encode(kind, id).map_err(|error| Violation::Json {
            kind,
            id: id.to_owned(),
            why: error.to_string(),
        })?;
        if let Some(row) = row {
            return Ok(Change::Put(row));
        }
        match self.state.referrer(kind, id) {
            None => Ok(Change::Removed {
                kind,
                id: id.to_owned(),
            }),
            Some((by_kind, by)) => Err(Violation::Referred {
                kind,
                id: id.to_owned(),
                by_kind,
                by,
            }),
        }
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        self.state.set_scope(None);
        if self.is_finished {
            return;
        }
        for undo in self.undo.drain(..).rev() {
            undo(self.state);
        }
        self.state.sequence -= 1;
    }
}

fn room<N: Held>(object: &N) -> Option<String> {
    object.room().map(str::to_owned)
}
