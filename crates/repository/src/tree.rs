//! The tree of a snapshot's chunks. It has [`LEVELS`] levels, whatever the disk's size; a node has a place for each of its
//! `2^BITS` children and holds those that are not all zeros. Equal parts of two disks are the same node, so that they are
//! stored, compared and collected once.

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::CHUNK;
use crate::error::Error;
use crate::name::{Id, Name};
use crate::objects::Objects;

/// Bits of a chunk's number that one level tells.
pub(crate) const BITS: u32 = 9;
pub(crate) const LEVELS: u32 = 3;
/// Bytes.
pub(crate) const MAX_SIZE: u64 = (1 << (BITS * LEVELS)) * CHUNK as u64;

/// Bytes of an entry: place (16 bits, little-endian) and name.
const ENTRY: usize = 2 + 32;

/// Names of children by their places, which grow. Those of level 0 are chunks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Node(Vec<(u16, Id)>);

/// New names of chunks, by number, in order; `None` for zeros.
pub(crate) type Change = (u64, Option<Id>);

/// Nodes that a change needs.
pub(crate) type Made = Vec<(Id, Bytes)>;

/// The place of a chunk in its node of a level.
fn place(number: u64, level: u32) -> u16 {
    // Nine bits fit.
    ((number >> (BITS * level)) & ((1 << BITS) - 1)) as u16
}

impl Node {
    pub fn children(&self) -> &[(u16, Id)] {
        &self.0
    }

    /// The child of a node of `level` in which the chunk is.
    pub fn child(&self, number: u64, level: u32) -> Option<Id> {
        let place = place(number, level);
        let at = self.0.binary_search_by_key(&place, |(at, _)| *at).ok()?;
        self.0.get(at).map(|(_, id)| *id)
    }

    fn set(&mut self, place: u16, child: Option<Id>) {
        let at = self.0.binary_search_by_key(&place, |(at, _)| *at);
        match (at, child) {
            (Ok(at), Some(id)) => self.0[at].1 = id,
            (Ok(at), None) => drop(self.0.remove(at)),
            (Err(at), Some(id)) => self.0.insert(at, (place, id)),
            (Err(_), None) => {}
        }
    }

    fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.0.len() * ENTRY);
        for (place, id) in &self.0 {
            bytes.extend_from_slice(&place.to_le_bytes());
            bytes.extend_from_slice(id.as_bytes());
        }
        bytes.into()
    }

    /// A node has children, and one spelling.
    fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || !bytes.len().is_multiple_of(ENTRY) || bytes.len() / ENTRY > 1 << BITS {
            return None;
        }
        let mut children: Vec<(u16, Id)> = Vec::with_capacity(bytes.len() / ENTRY);
        for entry in bytes.chunks_exact(ENTRY) {
            let place = u16::from_le_bytes([entry[0], entry[1]]);
            let follows = children.last().is_none_or(|(last, _)| *last < place);
            if !follows || place >> BITS != 0 {
                return None;
            }
            children.push((place, Id::from_bytes(entry[2..].try_into().ok()?)));
        }
        Some(Self(children))
    }

    /// Reads a node, checked against its name.
    pub async fn load(objects: &Objects, id: Id) -> Result<Self, Error> {
        let name = Name::node(id);
        let bytes = objects.get(&name.path()).await?;
        let bytes = bytes.ok_or_else(|| Error::missing(&name))?;
        if Id::of_node(&bytes) != id {
            return Err(Error::damaged(&name, "its bytes are not those of its name"));
        }
        Self::decode(&bytes).ok_or_else(|| Error::damaged(&name, "it is no node"))
    }
}

/// The root of a changed tree, and the nodes that it has and `root` has not.
pub(crate) async fn change(
    objects: &Objects,
    root: Option<Id>,
    changes: &[Change],
) -> Result<(Option<Id>, Made), Error> {
    let mut made = Vec::new();
    let root = change_node(objects, root, LEVELS - 1, changes, &mut made).await?;
    Ok((root, made))
}

fn change_node<'a>(
    objects: &'a Objects,
    node: Option<Id>,
    level: u32,
    changes: &'a [Change],
    made: &'a mut Made,
) -> BoxFuture<'a, Result<Option<Id>, Error>> {
    async move {
        let before = match node {
            Some(id) => Node::load(objects, id).await?,
            None => Node::default(),
        };
        let mut after = before.clone();
        for part in changes.chunk_by(|(a, _), (b, _)| place(*a, level) == place(*b, level)) {
            let &[(number, ref last), ..] = part else { continue };
            let child = match level {
                0 => part.last().map_or(*last, |(_, id)| *id),
                _ => change_node(objects, before.child(number, level), level - 1, part, made).await?,
            };
            after.set(place(number, level), child);
        }
        if after == before {
            return Ok(node);
        }
        if after.0.is_empty() {
            return Ok(None);
        }
        let bytes = after.encode();
        let id = Id::of_node(&bytes);
        made.push((id, bytes));
        Ok(Some(id))
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> Id {
        Id::of_chunk(&[byte])
    }

    #[test]
    fn a_node_has_one_spelling() {
        let mut node = Node::default();
        for place in [511, 0, 7] {
            node.set(place, Some(id(1)));
        }
        node.set(7, None);
        let bytes = node.encode();
        assert_eq!(bytes.len(), 2 * ENTRY);
        assert_eq!(Node::decode(&bytes), Some(node));
        let entry = |place: u16| [&place.to_le_bytes()[..], id(1).as_bytes()].concat();
        let bad = [
            Vec::new(),
            entry(512),
            [entry(3), entry(3)].concat(),
            [entry(3), entry(2)].concat(),
            entry(1)[..ENTRY - 1].to_vec(),
        ];
        for bytes in bad {
            assert_eq!(Node::decode(&bytes), None);
        }
    }

    #[tokio::test]
    async fn the_largest_disk_has_three_nodes_per_lonely_chunk() {
        let store = object_store::memory::InMemory::new();
        let objects = Objects::new(std::sync::Arc::new(store));
        let last = crate::MAX_CHUNKS - 1;
        let (root, made) = change(&objects, None, &[(last, Some(id(1)))]).await.unwrap();
        assert_eq!((root, made.len()), (Some(made[2].0), 3));
        let (none, made) = change(&objects, None, &[(last, None)]).await.unwrap();
        assert_eq!((none, made.len()), (None, 0));
    }
}
