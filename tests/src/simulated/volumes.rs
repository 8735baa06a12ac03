//! What a simulated host has of volumes: each holds what it began with, and its own id in its last chunk.

use std::collections::BTreeMap;

use hearth_api::agent::{
    InstanceVolume, Intents, SnapshotBegin, SnapshotChunk, SnapshotIntent, SnapshotPart, snapshot_part,
};

/// Bytes of a chunk of a snapshot.
const CHUNK: usize = 512 << 10;

/// The volumes that the instances of one host have had, by their ids.
#[derive(Debug, Default)]
pub struct Volumes(BTreeMap<String, InstanceVolume>);

impl Volumes {
    /// A volume stays on its host when no instance has it any more.
    pub fn learn(&mut self, intents: &Intents) {
        for volume in intents.instances.iter().flat_map(|instance| &instance.volumes) {
            self.0.insert(volume.volume_id.clone(), volume.clone());
        }
    }

    /// What a host sends of a snapshot: the chunk that is not as the volume began.
    pub fn contents(&self, intent: &SnapshotIntent) -> [SnapshotPart; 2] {
        let volume = self.0.get(&intent.volume_id).cloned().unwrap_or_default();
        let size_bytes = volume.size_bytes.max(1 << 30);
        let mut data = intent.volume_id.clone().into_bytes();
        data.resize(CHUNK, 0);
        let begin = SnapshotBegin {
            snapshot_id: intent.snapshot_id.clone(),
            size_bytes,
            base_id: volume.image_id,
            chunks: 1,
        };
        let index = size_bytes / CHUNK as u64 - 1;
        [
            snapshot_part::Part::Begin(begin),
            snapshot_part::Part::Chunk(SnapshotChunk { index, data }),
        ]
        .map(|part| SnapshotPart { part: Some(part) })
    }
}
