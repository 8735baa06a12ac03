//! Makes a diff and its base one snapshot.

use std::fs::File;

use super::{Snapshot, SnapshotError, image};

/// Brings `memory`, a copy of the base's memory file, up to date with the diff, and writes the state of the two as
/// one into `state`. Base and diff are checked before, which reads them as a whole. Syncing is the caller's.
///
/// # Errors
/// The diff is another snapshot's, or none; either is damaged; a file cannot be read or written. `memory` is not
/// to be used then.
pub fn merge(
    base: &Snapshot,
    diff: &Snapshot,
    diff_memory: &File,
    memory: &File,
    state: &File,
) -> Result<(), SnapshotError> {
    let wanted = diff.about.base.ok_or(SnapshotError::Damaged("description"))?;
    let given = base.about.id;
    if wanted != given {
        return Err(SnapshotError::WrongBase { wanted, given });
    }
    if base.about.memory_mib != diff.about.memory_mib {
        return Err(SnapshotError::Damaged("description"));
    }
    image::verify(diff_memory, &diff.pages, &diff.checksums)?;
    image::verify(memory, &base.pages, &base.checksums)?;
    image::apply(memory, diff_memory, &diff.pages)?;
    let mut merged = diff.clone();
    merged.about.base = base.about.base;
    merged.pages.insert_all(&base.pages);
    merged.checksums = image::checksums(memory, &merged.pages)?;
    merged.write(state)
}
