//! Removes what no snapshot needs.

use std::collections::HashSet;
use std::time::Duration;

use futures::{StreamExt as _, stream};

use crate::error::Error;
use crate::name::{Id, Kind, Name};
use crate::pins::{self, Pin};
use crate::tree::{LEVELS, Node};
use crate::{AT_ONCE, Repository, staged};

/// A writer that has pinned nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(24 * 3600);
/// What is condemned at a time: so much is deleted in seconds, and a writer that needs any of it waits for so long.
const SLICE: usize = 1000;

/// What a collection has found and removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Chunks and nodes that are needed.
    pub kept: u64,
    pub removed: u64,
    /// Bytes in the object store.
    pub removed_bytes: u64,
}

impl Repository {
    /// Removes chunks and nodes that no snapshot needs. Snapshots may be made, read and deleted meanwhile. It may be killed
    /// at any point; the next one goes on. Only one at a time may run: before it deletes anything more it asks `may_go_on`.
    ///
    /// # Errors
    /// The store fails, or a snapshot is damaged: then what it needs is not known, and nothing is removed.
    pub async fn collect(&self, may_go_on: impl Fn() -> bool) -> Result<Collected, Error> {
        self.collect_silent(SILENCE, may_go_on).await
    }

    pub(crate) async fn collect_silent(
        &self,
        silence: Duration,
        may_go_on: impl Fn() -> bool,
    ) -> Result<Collected, Error> {
        // Of a collection that was killed. What it had not deleted is found again.
        pins::acquit(&self.objects).await?;
        if let Some(directory) = self.directory.clone() {
            for kind in Kind::ALL {
                let room = directory.join(kind.room());
                let removed = tokio::task::spawn_blocking({
                    let room = room.clone();
                    move || staged::remove(&room)
                });
                let removed = removed.await.map_err(std::io::Error::other).flatten();
                removed.map_err(|source| Error::directory("sweeping", &room, source))?;
            }
        }
        let mut found = Vec::new();
        for kind in Kind::ALL {
            for object in self.objects.list(kind.room()).await? {
                // What has no name of ours is not ours to delete.
                if let Ok(name) = object.path.as_ref().parse::<Name>() {
                    found.push((name, object.size));
                }
            }
        }
        let mut marks = Marks::default();
        self.mark(&mut marks, silence).await?;
        found.retain(|(name, _)| !marks.names.contains(name));
        let mut collected = Collected {
            kept: marks.names.len() as u64,
            ..Collected::default()
        };
        for slice in found.chunks(SLICE) {
            let names: Vec<Name> = slice.iter().map(|(name, _)| *name).collect();
            pins::condemn(&self.objects, &names).await?;
            // What has come to be needed since. The order matters: a writer publishes its snapshot and then drops its pins.
            self.mark(&mut marks, silence).await?;
            let doomed = slice.iter().filter(|(name, _)| !marks.names.contains(name));
            let doomed: Vec<&(Name, u64)> = doomed.collect();
            let paths = doomed.iter().map(|(name, _)| name.path()).collect();
            if !may_go_on() {
                // What is condemned is for the next one to acquit: it may be its own by now.
                break;
            }
            self.objects.delete(paths).await?;
            pins::acquit(&self.objects).await?;
            collected.removed += doomed.len() as u64;
            collected.removed_bytes += doomed.iter().map(|(_, size)| size).sum::<u64>();
        }
        Ok(collected)
    }

    /// Marks what is pinned, and what snapshots need that were not seen before.
    async fn mark(&self, marks: &mut Marks, silence: Duration) -> Result<(), Error> {
        let (mut roots, mut pinned) = (Vec::new(), Vec::new());
        for pin in pins::all(&self.objects, silence).await? {
            match pin {
                Pin::One(name) => drop(marks.names.insert(name)),
                Pin::Tree(root) => pinned.push(root),
            }
        }
        for name in self.snapshots().await? {
            if marks.snapshots.contains(&name) {
                continue;
            }
            match self.snapshot(&name).await {
                Ok(snapshot) => roots.extend(snapshot.root),
                // It was deleted meanwhile.
                Err(Error::NoSuchSnapshot(_)) => continue,
                Err(error) => return Err(error),
            }
            marks.snapshots.insert(name);
        }
        self.mark_trees(marks, roots, false).await?;
        // A writer that pins the tree of a snapshot which was deleted before gives up, but its pin is there.
        self.mark_trees(marks, pinned, true).await
    }

    /// Level by level. A node that was walked is not walked again, so that equal parts of many snapshots cost once.
    async fn mark_trees(&self, marks: &mut Marks, roots: Vec<Id>, may_lack: bool) -> Result<(), Error> {
        let mut level = roots;
        for depth in (0..LEVELS).rev() {
            level.retain(|id| marks.walked.insert(*id));
            marks.names.extend(level.iter().map(|id| Name::node(*id)));
            let nodes = stream::iter(std::mem::take(&mut level))
                .map(|id| async move { (id, Node::load(&self.objects, id).await) })
                .buffer_unordered(AT_ONCE);
            let mut nodes = std::pin::pin!(nodes);
            while let Some((id, node)) = nodes.next().await {
                let node = match node {
                    Ok(node) => node,
                    Err(Error::Damaged { .. }) if may_lack => {
                        marks.walked.remove(&id);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let children = node.children().iter().map(|(_, id)| *id);
                match depth {
                    0 => marks.names.extend(children.map(Name::chunk)),
                    _ => level.extend(children),
                }
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Marks {
    snapshots: HashSet<String>,
    /// Nodes whose children are marked.
    walked: HashSet<Id>,
    names: HashSet<Name>,
}
