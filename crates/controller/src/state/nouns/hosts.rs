//! Hosts: who joined, what their agents say of the machine, which keys are theirs, and which secrets admit more.

use hearth_api::Kind;
use hearth_api::agent::Capacity;
use serde::{Deserialize, Serialize};

use crate::state::{Concern, Index, Noun, State, Tx};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    pub id: String,
    pub availability_zone: String,
    /// Milliseconds since the epoch.
    pub enrolled_at: i64,
    /// A forgotten host is kept, so that what refers to it can be described. It is admitted no more.
    pub forgotten_at: Option<i64>,
    /// Nothing new is placed on it.
    #[serde(default)]
    pub drain: Option<Drain>,
    /// Since when nothing was heard of it, once that has been for too long: it is lost. Milliseconds since the epoch.
    #[serde(default)]
    pub silent_since: Option<i64>,
}

/// What the operator has asked for with a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Milliseconds since the epoch.
    pub since: i64,
    /// Its running instances are stopped.
    pub stop_instances: bool,
}

impl Noun for Host {
    const KIND: &'static str = "host";
    const RESOURCE: Option<Kind> = Some(Kind::Host);

    fn room(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn concerns(&self, _: &State) -> Vec<Concern> {
        vec![Concern::Host {
            host_id: self.id.clone(),
        }]
    }
}

/// What a host's agent says of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    pub host_id: String,
    pub hostname: String,
    pub agent_version: String,
    /// vCPUs that instances may have together.
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_bytes: u64,
    /// Physical CPUs.
    pub cpus: u32,
    /// It has UEFI firmware.
    pub uefi: bool,
    pub reported_at: i64,
    /// The last [`MAX_REPAIRS`] that it has told of, the newest last.
    #[serde(default)]
    pub repairs: Vec<Repair>,
}

/// What somebody had changed on a host by hand and its agent has mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// Milliseconds since the epoch, by the host's clock.
    pub time: i64,
    pub what: String,
}

/// How many repairs are kept of a host.
pub const MAX_REPAIRS: usize = 8;

impl HostReport {
    /// Adds repairs; the oldest go.
    pub fn add_repairs(&mut self, repairs: Vec<Repair>) {
        self.repairs.extend(repairs);
        let too_many = self.repairs.len().saturating_sub(MAX_REPAIRS);
        self.repairs.drain(..too_many);
    }

    pub fn capacity(&self) -> Capacity {
        Capacity {
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            disk_bytes: self.disk_bytes,
            cpus: self.cpus,
        }
    }

    pub fn set_capacity(&mut self, capacity: &Capacity) {
        self.vcpus = capacity.vcpus;
        self.memory_mib = capacity.memory_mib;
        self.disk_bytes = capacity.disk_bytes;
        self.cpus = capacity.cpus;
    }
}

impl Noun for HostReport {
    const KIND: &'static str = "host-report";
    const INDEXES: &'static [Index<Self>] = &[Index::refers::<Host>("host", |r| vec![r.host_id.clone()])];

    fn room(&self) -> Option<&str> {
        Some(&self.host_id)
    }

    fn id(&self) -> &str {
        &self.host_id
    }
}

/// A public key whose certificates are accepted as the host's: a certificate that the authority signed is good only while
/// its key is here. A host has one key, and two between a renewal and the first session with the new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKey {
    /// SHA-256 of the certificate's SubjectPublicKeyInfo (RFC 5280, 4.1.2.7), hex.
    pub public_key_hash: String,
    pub host_id: String,
    /// The join token that admitted the key; `None` for a renewed one.
    pub token_id: Option<String>,
    /// Grows with each key of a host.
    pub number: u64,
    pub recorded_at: i64,
}

impl HostKey {
    pub const BY_HOST: Index<Self> = Index::refers::<Host>("host", |k| vec![k.host_id.clone()]);
}

impl Noun for HostKey {
    const KIND: &'static str = "host-key";
    const INDEXES: &'static [Index<Self>] = &[Self::BY_HOST];

    fn id(&self) -> &str {
        &self.public_key_hash
    }
}

/// A secret that admits hosts, until when and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    pub id: String,
    /// BLAKE3 of the secret, hex: the secret itself is told once.
    pub secret_hash: String,
    /// The host that joins again with it; `None`: each use makes a new host.
    pub host_id: Option<String>,
    pub uses: u32,
    pub uses_left: u32,
    pub created_at: i64,
    pub expires_at: i64,
}

impl JoinToken {
    pub const BY_HOST: Index<Self> = Index::refers::<Host>("host", |t| t.host_id.iter().cloned().collect());

    pub fn is_expired(&self, now: i64) -> bool {
        self.expires_at <= now
    }

    /// It still admits hosts.
    pub fn is_usable(&self, now: i64) -> bool {
        self.uses_left > 0 && !self.is_expired(now)
    }
}

impl Noun for JoinToken {
    const KIND: &'static str = "join-token";
    const INDEXES: &'static [Index<Self>] = &[
        Self::BY_HOST,
        Index::unique("secret", |t| vec![t.secret_hash.clone()]),
    ];

    fn id(&self) -> &str {
        &self.id
    }
}

/// Whether a certificate of the authority is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Admitted,
    /// No host has this id.
    Unknown,
    Forgotten,
    /// The host has another key by now.
    Replaced,
}

impl State {
    /// A host that is not forgotten.
    pub fn host(&self, id: &str) -> Option<&Host> {
        self.get::<Host>(id).filter(|host| host.forgotten_at.is_none())
    }

    /// Hosts that are not forgotten, in the order of their ids.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.all::<Host>().filter(|host| host.forgotten_at.is_none())
    }

    /// Whether the holder of a key, whose certificate names the host, is admitted. A host without any key enrolled before
    /// keys were recorded: its only certificate is good.
    pub fn admission(&self, host_id: &str, key_hash: &str) -> Admission {
        let Some(host) = self.get::<Host>(host_id) else {
            return Admission::Unknown;
        };
        if host.forgotten_at.is_some() {
            return Admission::Forgotten;
        }
        let is_own = self
            .get::<HostKey>(key_hash)
            .is_some_and(|key| key.host_id == host_id);
        if is_own || !self.any_by(&HostKey::BY_HOST, host_id) {
            Admission::Admitted
        } else {
            Admission::Replaced
        }
    }

    /// Tokens that still admit hosts, the oldest first.
    pub fn usable_tokens(&self, now: i64) -> Vec<&JoinToken> {
        let mut usable: Vec<_> = self
            .all::<JoinToken>()
            .filter(|token| token.is_usable(now))
            .collect();
        usable.sort_by_key(|token| token.created_at);
        usable
    }

    /// The token with this secret, whether it is still good or not. The time that this takes depends on the number of
    /// tokens alone: all hashes are compared, each in constant time (which is what `==` of [`blake3::Hash`] does).
    pub fn join_token(&self, secret: &str) -> Option<&JoinToken> {
        let offered = blake3::hash(secret.as_bytes());
        let mut found = None;
        for token in self.all::<JoinToken>() {
            if blake3::Hash::from_hex(&token.secret_hash).is_ok_and(|hash| hash == offered) {
                found = Some(token);
            }
        }
        found
    }
}

impl Tx<'_> {
    /// Revokes all join tokens. Answers the ids of those that still admitted hosts.
    pub fn revoke_tokens(&mut self) -> Vec<String> {
        let usable = self
            .usable_tokens(self.now())
            .iter()
            .map(|token| token.id.clone())
            .collect();
        let all: Vec<String> = self.all::<JoinToken>().map(|token| token.id.clone()).collect();
        self.remove_all::<JoinToken>(all);
        usable
    }

    /// Accepts a key that no host has yet.
    pub fn record_key(&mut self, host_id: &str, key_hash: &str, token_id: Option<&str>) {
        let last = self.by(&HostKey::BY_HOST, host_id).map(|key| key.number).max();
        self.put(HostKey {
            public_key_hash: key_hash.to_owned(),
            host_id: host_id.to_owned(),
            token_id: token_id.map(str::to_owned),
            number: last.unwrap_or(0) + 1,
            recorded_at: self.now(),
        });
    }

    /// Ends the keys of a host that `ends` answers true for.
    pub fn end_keys(&mut self, host_id: &str, ends: impl Fn(&HostKey) -> bool) {
        let ended: Vec<String> = self
            .by(&HostKey::BY_HOST, host_id)
            .filter(|key| ends(key))
            .map(|key| key.public_key_hash.clone())
            .collect();
        self.remove_all::<HostKey>(ended);
    }

    /// The host uses this key: older ones end. A newer one stays: its certificate may still be on the way. The key of a
    /// host that had none becomes its first.
    pub fn use_key(&mut self, host_id: &str, key_hash: &str) {
        let used = self
            .get::<HostKey>(key_hash)
            .filter(|key| key.host_id == host_id)
            .map(|key| key.number);
        match used {
            Some(number) => self.end_keys(host_id, |key| key.number < number),
            None => self.record_key(host_id, key_hash, None),
        }
    }
}
