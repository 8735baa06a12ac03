//! What snapshots take in the object store: each of them, and all together.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::error::Error;
use crate::name::{Id, Kind, Name};
use crate::tree::{LEVELS, Node};
use crate::{AT_ONCE, Repository, Snapshot};

/// What a snapshot takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    /// Bytes of the disk.
    pub size: u64,
    pub is_encrypted: bool,
    /// Chunks that are not zeros, each as often as the disk has it.
    pub chunks: u64,
    /// Bytes of these in the object store, each as often.
    pub stored: u64,
    /// Of `stored`, the bytes of chunks that another snapshot has too.
    pub shared: u64,
    /// Bytes in the object store, nodes included, that no other snapshot needs: what its deletion frees.
    pub own: u64,
    /// What of it cannot be read: what hangs on that is not counted.
    pub damage: Option<String>,
}

/// What all snapshots take together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of the disks.
    pub size: u64,
    /// The sum of [`Share::chunks`].
    pub references: u64,
    /// Chunks that are needed, each once.
    pub chunks: u64,
    /// Bytes in the object store that are needed, nodes included.
    pub stored: u64,
    /// Bytes of chunks and nodes that no snapshot needs: of some that are being made, or to be collected.
    pub unneeded: u64,
}

/// What lies in a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// By name.
    pub snapshots: BTreeMap<String, Share>,
    pub totals: Totals,
}

impl Repository {
    /// Counts what snapshots take. It reads every node once, and no chunk. Snapshots that come or go meanwhile may be missing.
    ///
    /// # Errors
    /// The store fails.
    pub async fn survey(&self) -> Result<Survey, Error> {
        let names = self.snapshots().await?;
        let found = stream::iter(names).map(|name| async move {
            let snapshot = self.snapshot(&name).await;
            (name, snapshot)
        });
        let mut found = found.buffer_unordered(AT_ONCE);
        let (mut snapshots, mut damaged) = (BTreeMap::new(), BTreeMap::new());
        while let Some((name, snapshot)) = found.next().await {
            match snapshot {
                Ok(snapshot) => drop(snapshots.insert(name, snapshot)),
                Err(Error::NoSuchSnapshot(_)) => {}
                Err(error @ Error::Damaged { .. }) => drop(damaged.insert(name, error.to_string())),
                Err(error) => return Err(error),
            }
        }
        // After the snapshots: whatever they name was there before.
        let mut sizes = HashMap::new();
        for kind in Kind::ALL {
            let objects = self.objects.list(kind.room()).await?;
            let named = objects.into_iter().filter_map(|object| {
                let name: Name = object.path.as_ref().parse().ok()?;
                Some((name, object.size))
            });
            sizes.extend(named);
        }
        let roots = snapshots.values().filter_map(|snapshot| snapshot.root);
        let nodes = self.nodes(roots.collect()).await?;
        let counted = tokio::task::spawn_blocking(move || count(snapshots, &nodes, sizes)).await;
        let mut survey = counted.map_err(|source| Error::Store {
            doing: "counting what lies in",
            object: "the whole".to_owned(),
            source: object_store::Error::Generic {
                store: "runtime",
                source: source.into(),
            },
        })?;
        // Of one that was deleted meanwhile, nodes may be gone.
        let suspects = survey
            .snapshots
            .iter()
            .filter(|(_, share)| share.damage.is_some());
        let suspects: Vec<String> = suspects.map(|(name, _)| name.clone()).collect();
        for name in suspects {
            if matches!(self.snapshot(&name).await, Err(Error::NoSuchSnapshot(_))) {
                survey.snapshots.remove(&name);
            }
        }
        let unreadable = |why| Share {
            damage: Some(why),
            ..Share::default()
        };
        let damaged = damaged.into_iter().map(|(name, why)| (name, unreadable(why)));
        survey.snapshots.extend(damaged);
        Ok(survey)
    }

    /// All nodes that hang on these, or why one cannot be read.
    async fn nodes(&self, roots: Vec<Id>) -> Result<Nodes, Error> {
        let mut nodes = Nodes::new();
        let mut level = roots;
        for depth in (0..LEVELS).rev() {
            level.sort_unstable();
            level.dedup();
            level.retain(|id| !nodes.contains_key(id));
            let loads = stream::iter(std::mem::take(&mut level)).map(|id| async move {
                match Node::load(&self.objects, id).await {
                    Ok(node) => Ok((id, Ok(node))),
                    Err(error @ Error::Damaged { .. }) => Ok((id, Err(error.to_string()))),
                    Err(error) => Err(error),
                }
            });
            let mut loads = loads.buffer_unordered(AT_ONCE);
            while let Some((id, node)) = loads.try_next().await? {
                if let (Ok(node), 1..) = (&node, depth) {
                    level.extend(node.children().iter().map(|(_, id)| *id));
                }
                nodes.insert(id, node);
            }
        }
        Ok(nodes)
    }
}

type Nodes = HashMap<Id, Result<Node, String>>;

/// The snapshot, by its number, that alone needs an object, or [`SEVERAL`].
type Owner = u32;
const SEVERAL: Owner = Owner::MAX;

/// The sum of what hangs on a node.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    chunks: u64,
    stored: u64,
    shared: u64,
}

struct Count<'a> {
    nodes: &'a Nodes,
    sizes: &'a HashMap<Name, u64>,
    owners: HashMap<Name, Owner>,
    sums: HashMap<Id, Sum>,
}

fn count(snapshots: BTreeMap<String, Snapshot>, nodes: &Nodes, sizes: HashMap<Name, u64>) -> Survey {
    let mut count = Count {
        nodes,
        sizes: &sizes,
        owners: HashMap::new(),
        sums: HashMap::new(),
    };
    for (owner, snapshot) in (0..SEVERAL).zip(snapshots.values()) {
        if let Some(root) = snapshot.root {
            count.claim(Name::node(root), LEVELS, owner);
        }
    }
    let is_damaged = nodes.values().any(Result::is_err);
    let mut shares = Vec::with_capacity(snapshots.len());
    for snapshot in snapshots.values() {
        let sum = snapshot.root.map(|root| count.sum(root, LEVELS));
        let sum = sum.unwrap_or_default();
        shares.push(Share {
            size: snapshot.size,
            is_encrypted: snapshot.key.is_some(),
            chunks: sum.chunks,
            stored: sum.stored,
            shared: sum.shared,
            own: 0,
            damage: snapshot
                .root
                .filter(|_| is_damaged)
                .and_then(|root| count.damage(root, LEVELS)),
        });
    }
    let mut totals = Totals::default();
    for (name, size) in &sizes {
        match count.owners.get(name) {
            None => totals.unneeded += size,
            Some(owner) => {
                totals.stored += size;
                if let Some(share) = shares.get_mut(*owner as usize) {
                    share.own += size;
                }
            }
        }
    }
    let chunks = count.owners.keys().filter(|name| name.kind == Kind::Chunk);
    totals.chunks = chunks.count() as u64;
    for share in &shares {
        totals.size = totals.size.saturating_add(share.size);
        totals.references += share.chunks;
    }
    Survey {
        snapshots: snapshots.into_keys().zip(shares).collect(),
        totals,
    }
}

impl Count<'_> {
    /// Notes who needs an object, and all that hangs on it. `level`: 0 for a chunk. What is known to be needed by several is not
    /// walked again, so that a node is walked twice at most.
    fn claim(&mut self, name: Name, level: u32, owner: Owner) {
        let owner = match self.owners.entry(name) {
            Entry::Vacant(entry) => *entry.insert(owner),
            Entry::Occupied(entry) if [owner, SEVERAL].contains(entry.get()) => return,
            Entry::Occupied(mut entry) => {
                entry.insert(SEVERAL);
                SEVERAL
            }
        };
        for child in self.children(name.id, level) {
            let child = match level {
                1 => Name::chunk(child),
                _ => Name::node(child),
            };
            self.claim(child, level - 1, owner);
        }
    }

    /// Of a node; a chunk has none, and neither has what cannot be read.
    fn children(&self, id: Id, level: u32) -> Vec<Id> {
        let node = match level {
            0 => None,
            _ => self.nodes.get(&id).and_then(|node| node.as_ref().ok()),
        };
        let children = node.map_or(&[][..], Node::children);
        children.iter().map(|(_, id)| *id).collect()
    }

    /// After all claims.
    fn sum(&mut self, node: Id, level: u32) -> Sum {
        if let Some(known) = self.sums.get(&node) {
            return *known;
        }
        let mut sum = Sum::default();
        for child in self.children(node, level) {
            if level > 1 {
                let of = self.sum(child, level - 1);
                sum.chunks += of.chunks;
                sum.stored += of.stored;
                sum.shared += of.shared;
                continue;
            }
            let name = Name::chunk(child);
            let size = self.sizes.get(&name).copied().unwrap_or(0);
            sum.chunks += 1;
            sum.stored += size;
            if self.owners.get(&name) == Some(&SEVERAL) {
                sum.shared += size;
            }
        }
        self.sums.insert(node, sum);
        sum
    }

    /// The first node, of those that hang on one, that cannot be read.
    fn damage(&self, node: Id, level: u32) -> Option<String> {
        match self.nodes.get(&node) {
            Some(Err(why)) => Some(why.clone()),
            _ if level <= 1 => None,
            _ => {
                let mut children = self.children(node, level).into_iter();
                children.find_map(|child| self.damage(child, level - 1))
            }
        }
    }
}
