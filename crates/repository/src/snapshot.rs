//! What a snapshot is, and how it is written down.

use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::CHUNK;
use crate::error::Error;
use crate::name::Id;
use crate::tree::MAX_SIZE;

pub(crate) const ROOM: &str = "snapshots";
const VERSION: u32 = 1;

/// A whole disk at a point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Bytes of the disk.
    pub size: u64,
    /// The root of its tree; `None` where it is all zeros.
    pub root: Option<Id>,
    /// Which data key it is encrypted under: its fingerprint, in hex. `None`: it is not encrypted.
    pub key: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    /// Bytes of a chunk.
    chunk: usize,
    size: u64,
    root: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

pub(crate) fn path(name: &str) -> Result<Path, Error> {
    let admitted = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=64).contains(&name.len()) || !name.bytes().all(admitted) {
        return Err(Error::BadName(name.to_owned()));
    }
    Ok(Path::from_iter([ROOM, name]))
}

impl Snapshot {
    /// # Errors
    /// It cannot be told as JSON.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let stored = Stored {
            version: VERSION,
            chunk: CHUNK,
            size: self.size,
            root: self.root.map(|root| root.to_string()),
            key: self.key.clone(),
        };
        // Numbers and texts alone: this cannot fail.
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    pub(crate) fn decode(name: &str, bytes: &[u8]) -> Result<Self, Error> {
        let damaged = |reason: String| Error::Damaged {
            object: format!("{ROOM}/{name}"),
            reason,
        };
        let stored: Stored = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if (stored.version, stored.chunk) != (VERSION, CHUNK) || stored.size > MAX_SIZE {
            return Err(damaged(
                "it is of a kind that this version does not know".to_owned(),
            ));
        }
        let root = stored.root.map(|root| root.parse()).transpose();
        Ok(Self {
            size: stored.size,
            root: root.map_err(|error| damaged(format!("its root: {error}")))?,
            key: stored.key,
        })
    }
}
