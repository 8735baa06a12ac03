//! How writers and a collection keep out of each other's way, without a lock.
//!
//! A writer does not store what is there already. It first writes down what it relies on (a pin), and then looks at what is
//! condemned. A collection first writes down what it is about to delete, and then looks at the pins. So one of them sees the
//! other: either the collection spares what is pinned, or the writer waits until the condemned objects are gone, and then
//! stores what it needs anew.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;

use crate::error::Error;
use crate::name::{Id, Name};
use crate::objects::{Listed, Objects};

pub(crate) const ROOM: &str = "pins";
const CONDEMNED: &str = "condemned";

/// How often a writer looks whether what it needs is still condemned.
const LOOK: Duration = Duration::from_millis(200);
/// A collection condemns what it can delete in seconds. One that has not ended for this long will not.
const PATIENCE: Duration = Duration::from_secs(600);

/// What a pin keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pin {
    One(Name),
    /// All that hangs on a node.
    Tree(Id),
}

const TREE: &str = "tree ";

fn encode(pins: &[Pin]) -> Bytes {
    let line = |pin: &Pin| match pin {
        Pin::One(name) => format!("{name}\n"),
        Pin::Tree(root) => format!("{TREE}{root}\n"),
    };
    pins.iter().map(line).collect::<String>().into()
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Vec<Pin>, Error> {
    let parse = |line: &str| match line.strip_prefix(TREE) {
        Some(root) => root.parse().map(Pin::Tree),
        None => line.parse().map(Pin::One),
    };
    let text = String::from_utf8_lossy(bytes);
    let pins = text.lines().map(parse).collect::<Result<_, _>>();
    pins.map_err(|error| Error::Damaged {
        object: path.to_string(),
        reason: error.to_string(),
    })
}

/// A writer's pins. What they keep is kept until they are dropped, or have not grown for [`collect::SILENCE`](crate::collect).
#[derive(Debug)]
pub(crate) struct Session {
    objects: Objects,
    id: String,
    pins: u64,
}

impl Session {
    pub fn new(objects: Objects) -> Self {
        Self {
            objects,
            id: format!("{:032x}", rand::random::<u128>()),
            pins: 0,
        }
    }

    fn path(&self, number: u64) -> Path {
        Path::from_iter([ROOM, &self.id, &number.to_string()])
    }

    /// Keeps names from being collected. On return none of them is condemned: those that are there stay.
    pub async fn pin(&mut self, names: impl IntoIterator<Item = Name>) -> Result<(), Error> {
        let names: Vec<Name> = names.into_iter().collect();
        if names.is_empty() {
            return Ok(());
        }
        self.write(&names.iter().copied().map(Pin::One).collect::<Vec<_>>())
            .await?;
        self.until(|condemned| !names.iter().any(|name| condemned.contains(name)))
            .await
    }

    /// Keeps a whole tree from being collected. On return nothing at all is condemned: a tree that is still there stays.
    pub async fn pin_tree(&mut self, root: Id) -> Result<(), Error> {
        self.write(&[Pin::Tree(root)]).await?;
        self.until(HashSet::is_empty).await
    }

    async fn write(&mut self, pins: &[Pin]) -> Result<(), Error> {
        let path = self.path(self.pins);
        self.objects.put(&path, encode(pins)).await?;
        self.pins += 1;
        Ok(())
    }

    async fn until(&self, is_clear: impl Fn(&HashSet<Name>) -> bool) -> Result<(), Error> {
        let begin = tokio::time::Instant::now();
        while !is_clear(&condemned(&self.objects).await?) {
            if begin.elapsed() > PATIENCE {
                return Err(Error::Collecting {
                    minutes: PATIENCE.as_secs() / 60,
                });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Whether the first pin is still there; without any, nothing needs to be.
    pub async fn is_alive(&self) -> Result<bool, Error> {
        Ok(self.pins == 0 || self.objects.exists(&self.path(0)).await?)
    }

    pub async fn end(mut self) -> Result<(), Error> {
        let pins = self.take();
        self.objects.delete(pins).await
    }

    /// The pins, which are somebody else's to delete now.
    fn take(&mut self) -> Vec<Path> {
        let pins = std::mem::take(&mut self.pins);
        (0..pins).map(|number| self.path(number)).collect()
    }
}

/// Whoever asked for the snapshot may go away at any moment. What a process that is killed leaves is kept for a day.
impl Drop for Session {
    fn drop(&mut self) {
        let pins = self.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && !pins.is_empty()
        {
            let objects = self.objects.clone();
            runtime.spawn(async move {
                if let Err(error) = objects.delete(pins).await {
                    tracing::warn!(%error, "removing the pins of a snapshot that was given up");
                }
            });
        }
    }
}

/// All pins of all sessions, and removes those of sessions that have been silent for longer than `silence`.
pub(crate) async fn all(objects: &Objects, silence: Duration) -> Result<Vec<Pin>, Error> {
    let mut sessions: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
    for pin in objects.list(ROOM).await? {
        let session = pin.path.parts().nth(1).map(|part| part.as_ref().to_owned());
        sessions.entry(session.unwrap_or_default()).or_default().push(pin);
    }
    let mut all = Vec::new();
    for (session, pins) in sessions {
        let newest = pins.iter().map(Listed::age).min().unwrap_or_default();
        let paths = pins.into_iter().map(|pin| pin.path);
        if newest > silence {
            tracing::warn!(
                session,
                "a snapshot was not finished; what it alone has is collected"
            );
            objects.delete(paths.collect()).await?;
            continue;
        }
        for path in paths {
            // A pin that is gone is of a session that has ended.
            if let Some(bytes) = objects.get(&path).await? {
                all.extend(decode(&path, &bytes)?);
            }
        }
    }
    Ok(all)
}

pub(crate) async fn condemn(objects: &Objects, names: &[Name]) -> Result<(), Error> {
    let pins: Vec<Pin> = names.iter().copied().map(Pin::One).collect();
    objects.put(&Path::from(CONDEMNED), encode(&pins)).await
}

pub(crate) async fn acquit(objects: &Objects) -> Result<(), Error> {
    objects.delete(vec![Path::from(CONDEMNED)]).await
}

async fn condemned(objects: &Objects) -> Result<HashSet<Name>, Error> {
    let path = Path::from(CONDEMNED);
    let Some(bytes) = objects.get(&path).await? else {
        return Ok(HashSet::new());
    };
    let names = decode(&path, &bytes)?.into_iter().filter_map(|pin| match pin {
        Pin::One(name) => Some(name),
        Pin::Tree(_) => None,
    });
    Ok(names.collect())
}
