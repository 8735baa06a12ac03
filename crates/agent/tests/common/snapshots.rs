//! Where the fake control plane keeps snapshots, and what a test asks of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use hearth_api::agent::snapshot_observation::State;
use hearth_api::agent::snapshot_part::Part;
use hearth_api::agent::*;
use tokio::sync::watch;
use tonic::{Response, Status, Streaming};

use super::{Cloud, PATIENCE, Service};

pub const UNIT: usize = 512 << 10;

/// One that is whole.
#[derive(Clone, Default)]
pub struct Stored {
    pub size: u64,
    pub base: String,
    /// The numbers of what was sent.
    pub sent: Vec<u64>,
    /// Chunks that are not zeros.
    pub chunks: BTreeMap<u64, Vec<u8>>,
}

impl Stored {
    /// All of it.
    pub fn contents(&self) -> Vec<u8> {
        let mut contents = vec![0; self.size as usize];
        for (index, chunk) in &self.chunks {
            contents[*index as usize * UNIT..][..chunk.len()].copy_from_slice(chunk);
        }
        contents
    }
}

#[derive(Default)]
pub struct Repository {
    pub stored: BTreeMap<String, Stored>,
    /// Bases that are not there any more.
    pub forgotten: BTreeSet<String>,
    /// Snapshots that nobody wants.
    pub unwanted: BTreeSet<String>,
    /// Streams that are cut off after their first chunk, before one comes through.
    pub cut: usize,
    /// No chunk is taken while it is true.
    pub held: watch::Sender<bool>,
}

impl Service {
    pub(super) async fn store(
        &self,
        mut parts: Streaming<SnapshotPart>,
    ) -> Result<Response<StoreSnapshotResponse>, Status> {
        let Some(Part::Begin(begin)) = parts.message().await?.and_then(|part| part.part) else {
            return Err(Status::invalid_argument("it has no beginning"));
        };
        let (mut stored, mut held) = {
            let repository = self.snapshots.lock().unwrap();
            if repository.unwanted.contains(&begin.snapshot_id) {
                return Err(Status::not_found("nobody wants it"));
            }
            if repository.forgotten.contains(&begin.base_id) {
                return Err(Status::failed_precondition("its base is not there"));
            }
            let base = match begin.base_id.as_str() {
                "" => Stored::default(),
                "ami-1" => {
                    let image = self.image.lock().unwrap();
                    let chunks = (0..).zip(image.chunks(UNIT).map(<[u8]>::to_vec));
                    Stored {
                        chunks: chunks.collect(),
                        ..Stored::default()
                    }
                }
                id => repository.stored[id].clone(),
            };
            (base, repository.held.subscribe())
        };
        (stored.size, stored.base, stored.sent) = (begin.size_bytes, begin.base_id, Vec::new());
        while let Some(part) = parts.message().await? {
            held.wait_for(|held| !held).await.unwrap();
            let Some(Part::Chunk(chunk)) = part.part else {
                return Err(Status::invalid_argument("another beginning"));
            };
            assert!(stored.sent.last().is_none_or(|last| *last < chunk.index));
            stored.sent.push(chunk.index);
            match chunk.data.is_empty() {
                true => stored.chunks.remove(&chunk.index),
                false => {
                    let end = chunk.index as usize * UNIT + chunk.data.len();
                    assert!(chunk.data.len() == UNIT || end as u64 == stored.size);
                    stored.chunks.insert(chunk.index, chunk.data.to_vec())
                }
            };
            let mut repository = self.snapshots.lock().unwrap();
            if repository.cut > 0 {
                repository.cut -= 1;
                return Err(Status::unavailable("cut off"));
            }
        }
        if stored.sent.len() as u64 != begin.chunks {
            return Err(Status::invalid_argument("it ends early"));
        }
        let mut repository = self.snapshots.lock().unwrap();
        repository.stored.insert(begin.snapshot_id, stored);
        Ok(Response::new(StoreSnapshotResponse {}))
    }
}

impl Cloud {
    /// Wants these snapshots, and no others.
    pub fn want_snapshots(&self, snapshots: Vec<SnapshotIntent>) {
        self.intents.send_modify(|intents| {
            intents.sequence += 1;
            intents.snapshots = snapshots;
        });
    }

    pub fn want_snapshot(&self, id: &str, volume_id: &str) {
        self.want_snapshots(vec![SnapshotIntent {
            snapshot_id: id.to_owned(),
            volume_id: volume_id.to_owned(),
            ..SnapshotIntent::default()
        }]);
    }

    /// Waits until the agent says so of the snapshot; answers the message.
    pub async fn until_snapshot(&self, id: &str, state: State) -> String {
        let mut seen = self.seen.clone();
        let is = |one: &SnapshotObservation| one.snapshot_id == id && one.state() == state;
        let found = seen.wait_for(|seen| seen.snapshots.iter().any(is));
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(seen) => {
                let seen = seen.unwrap();
                seen.snapshots.iter().find(|one| is(one)).unwrap().message.clone()
            }
            Err(_) => panic!("{id}: the agent says {:?}", self.seen.borrow().snapshots),
        }
    }

    pub fn stored(&self, id: &str) -> Stored {
        self.snapshots.lock().unwrap().stored[id].clone()
    }

    /// Whether chunks are not taken.
    pub fn hold_snapshots(&self, held: bool) {
        self.snapshots.lock().unwrap().held.send_replace(held);
    }

    /// Has the guest of a stand-in monitor write, and waits until it has; see the example `fake-monitor`.
    pub async fn write(&self, volume_id: &str, lines: &str) {
        let half = self.volume_dir(volume_id).join("pen.half");
        std::fs::write(half, lines).unwrap();
        self.written(volume_id).await;
    }

    /// The second half of it: the lines are in `pen.half`.
    pub async fn written(&self, volume_id: &str) {
        let pen = self.volume_dir(volume_id).join("pen");
        std::fs::rename(pen.with_extension("half"), &pen).unwrap();
        let written = async {
            while pen.exists() {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        let written = tokio::time::timeout(PATIENCE, written).await;
        assert!(written.is_ok(), "nobody writes to {volume_id}");
    }

    pub fn volume_dir(&self, volume_id: &str) -> PathBuf {
        self.data_dir().join("volumes").join(volume_id)
    }

    /// Waits until nothing of a snapshot is left beside its volume.
    pub async fn until_thawed(&self, volume_id: &str, id: &str) {
        let dir = self.volume_dir(volume_id).join(id);
        let gone = async {
            while dir.exists() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let gone = tokio::time::timeout(PATIENCE, gone).await;
        assert!(gone.is_ok(), "{} stays", dir.display());
    }
}
