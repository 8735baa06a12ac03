//! Reads everything that snapshots need, and finds what is not as it was stored.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;
use futures::{StreamExt as _, stream};

use crate::error::Error;
use crate::name::{Id, Kind, Name};
use crate::tree::{LEVELS, Node};
use crate::{AT_ONCE, Repository, codec};

/// An object that is not as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Its path in the object store.
    pub object: String,
    pub reason: String,
    /// Names of snapshots that need it.
    pub snapshots: BTreeSet<String>,
    /// It was replaced by another repository's copy.
    pub repaired: bool,
}

/// What a scrub has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Objects that were read.
    pub objects: u64,
    pub damages: Vec<Damage>,
}

impl Repository {
    /// Reads and checks all that snapshots need, without keys. What is damaged is taken from `copy` where that has it. What hangs on a
    /// damaged node is not known, and so not checked.
    ///
    /// # Errors
    /// The store fails.
    pub async fn scrub(&self, copy: Option<&Repository>) -> Result<Scrubbed, Error> {
        self.scrub_telling(copy, |_| {}).await
    }

    /// As [`Repository::scrub`]; `tell` hears how many objects are read, now and then.
    ///
    /// # Errors
    /// As [`Repository::scrub`].
    pub async fn scrub_telling(
        &self,
        copy: Option<&Repository>,
        tell: impl Fn(u64),
    ) -> Result<Scrubbed, Error> {
        let mut scrubbed = Scrubbed::default();
        let mut damages: BTreeMap<Name, Damage> = BTreeMap::new();
        let mut sound: HashSet<Name> = HashSet::new();
        for snapshot in self.snapshots().await? {
            let mut level = match self.snapshot(&snapshot).await {
                Ok(found) => found.root.into_iter().map(Name::node).collect(),
                Err(Error::NoSuchSnapshot(_)) => continue,
                Err(Error::Damaged { object, reason }) => {
                    scrubbed.damages.push(Damage {
                        object,
                        reason,
                        snapshots: [snapshot].into(),
                        repaired: false,
                    });
                    continue;
                }
                Err(error) => return Err(error),
            };
            // Nodes of each level, then chunks. What was found sound in another snapshot is read for its children alone.
            for depth in (0..=LEVELS).rev() {
                let names: BTreeSet<Name> = std::mem::take(&mut level);
                // Also of what was repaired since another snapshot needed it.
                for name in &names {
                    if let Some(damage) = damages.get_mut(name) {
                        damage.snapshots.insert(snapshot.clone());
                    }
                }
                let checks = names
                    .into_iter()
                    .filter(|name| depth > 0 || !sound.contains(name));
                let checks = stream::iter(checks.collect::<Vec<_>>())
                    .map(|name| async move { (name, self.check(name, copy).await) })
                    .buffer_unordered(AT_ONCE);
                let mut checks = std::pin::pin!(checks);
                let mut checked = Vec::new();
                while let Some((name, check)) = checks.next().await {
                    // What is damaged is read for each snapshot, and counts once.
                    let is_new = sound.insert(name) && !damages.contains_key(&name);
                    scrubbed.objects += u64::from(is_new);
                    tell(scrubbed.objects);
                    checked.push((name, check?));
                }
                for (name, (children, damage)) in checked {
                    let child = |id| {
                        if depth > 1 {
                            Name::node(id)
                        } else {
                            Name::chunk(id)
                        }
                    };
                    level.extend(children.into_iter().map(child));
                    if let Some(damage) = damage {
                        sound.remove(&name);
                        let damage = damages.entry(name).or_insert(damage);
                        damage.snapshots.insert(snapshot.clone());
                    }
                }
            }
        }
        scrubbed.damages.extend(damages.into_values());
        // What was deleted meanwhile may have been collected.
        let left: HashSet<String> = self.snapshots().await?.into_iter().collect();
        for damage in &mut scrubbed.damages {
            damage.snapshots.retain(|snapshot| left.contains(snapshot));
        }
        scrubbed.damages.retain(|damage| !damage.snapshots.is_empty());
        Ok(scrubbed)
    }

    /// How many chunks and nodes there are, those that nothing needs included.
    ///
    /// # Errors
    /// The store fails.
    pub async fn objects(&self) -> Result<u64, Error> {
        let mut count = 0;
        for kind in Kind::ALL {
            count += self.objects.list(kind.room()).await?.len() as u64;
        }
        Ok(count)
    }

    /// A node's children, and what is wrong with the object.
    async fn check(&self, name: Name, copy: Option<&Repository>) -> Result<(Vec<Id>, Option<Damage>), Error> {
        let (object, reason) = match self.children(name).await {
            Ok(children) => return Ok((children, None)),
            Err(Error::Damaged { object, reason }) => (object, reason),
            Err(error) => return Err(error),
        };
        let (repaired, children) = match copy {
            Some(copy) => match copy.children(name).await {
                Ok(children) => (self.take(name, copy).await?, children),
                Err(_) => (false, Vec::new()),
            },
            None => (false, Vec::new()),
        };
        let damage = Damage {
            object,
            reason,
            snapshots: BTreeSet::new(),
            repaired,
        };
        Ok((children, Some(damage)))
    }

    /// Reads an object, checked against its name, or against its sum if it is encrypted. A chunk has no children.
    async fn children(&self, name: Name) -> Result<Vec<Id>, Error> {
        match name.kind {
            Kind::Chunk => {
                let check = move |stored: &Bytes| codec::check_chunk(name.id, stored);
                self.chunk(name.id, check).await.map(|()| Vec::new())
            }
            Kind::Node => {
                let node = Node::load(&self.objects, name.id).await?;
                Ok(node.children().iter().map(|(_, id)| *id).collect())
            }
        }
    }

    /// Replaces an object by another repository's. Answers whether that has it.
    async fn take(&self, name: Name, copy: &Repository) -> Result<bool, Error> {
        match copy.objects.get(&name.path()).await? {
            Some(bytes) => self.objects.put(&name.path(), bytes).await.map(|()| true),
            None => Ok(false),
        }
    }
}
