//! Names of what is stored: where it lies follows from what is in it.

use std::fmt;
use std::str::FromStr;

use object_store::path::Path;

use crate::key::DataKey;

const NODE_CONTEXT: &str = "Hearth 2026-11-27 node of a snapshot's tree";

/// BLAKE3 of a chunk, keyed where it is encrypted, or of a node in key derivation mode: no chunk has the name of a node. Written
/// in hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; 32]);

impl Id {
    /// Of a chunk's bytes.
    #[must_use]
    pub fn of_chunk(chunk: &[u8]) -> Self {
        Self(*blake3::hash(chunk).as_bytes())
    }

    /// Of a chunk's bytes; of an encrypted disk, under its data key.
    pub(crate) fn under(key: Option<&DataKey>, chunk: &[u8]) -> Self {
        match key {
            Some(key) => key.name(chunk),
            None => Self::of_chunk(chunk),
        }
    }

    pub(crate) fn of_node(node: &[u8]) -> Self {
        Self(blake3::derive_key(NODE_CONTEXT, node))
    }

    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 64 lower-case hex digits.
#[derive(Debug, thiserror::Error)]
#[error("not a BLAKE3 in hex")]
pub struct NotAnId;

impl FromStr for Id {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let is_ours = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let hash = is_ours.then(|| blake3::Hash::from_hex(text).ok()).flatten();
        hash.map(|hash| Self(*hash.as_bytes())).ok_or(NotAnId)
    }
}

/// What an [`Id`] is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Chunk,
    Node,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Chunk, Self::Node];

    pub(crate) const fn room(self) -> &'static str {
        match self {
            Self::Chunk => "chunks",
            Self::Node => "nodes",
        }
    }
}

/// A chunk or a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name {
    pub kind: Kind,
    pub id: Id,
}

impl Name {
    pub(crate) fn chunk(id: Id) -> Self {
        Self {
            kind: Kind::Chunk,
            id,
        }
    }

    pub(crate) fn node(id: Id) -> Self {
        Self { kind: Kind::Node, id }
    }

    /// `chunks/ab/cd...`: a directory of a file system holds few of them.
    pub(crate) fn path(&self) -> Path {
        let hex = self.id.to_string();
        let (shelf, rest) = hex.split_at(2);
        Path::from_iter([self.kind.room(), shelf, rest])
    }
}

/// As a path, `chunks/abcd...`, without the shelf.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.room(), self.id)
    }
}

impl FromStr for Name {
    type Err = NotAnId;

    /// Of a path, or as displayed.
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (room, id) = text.split_once('/').ok_or(NotAnId)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.room() == room);
        Ok(Self {
            kind: kind.ok_or(NotAnId)?,
            id: id.replace('/', "").parse()?,
        })
    }
}
