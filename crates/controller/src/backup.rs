//! `hearthd backup` and `hearthd restore`: the database, the key that its secrets are sealed under, the certificate authority
//! and the repository of the images' disks.
//!
//! Who has a backup has the cloud's secrets: the sealed ones are in the database, beside the key that opens them. Of what is
//! encrypted under KMS keys the repository has ciphertext, the database the data keys and the keys' material, both sealed, and
//! `seal.key` opens all of that. A key that was deleted after the backup is in it.
//!
//! A backup is a directory laid out as a data directory. It is of one moment: the database is copied by SQLite in one
//! read transaction, and what is in the repository never changes, and is held there until it is copied.
//!
//! What is cut short is not taken for whole: in both directions the database gets its name last. Until then a directory is
//! no backup, and no data directory in which `hearthd` starts.
//!
//! A restored store is older than what agents have heard. So that they listen to it, it begins a new epoch. What changed after the backup is not known to it: an instance launched since is
//! reported as unknown by its host, and kept there.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, ensure};
use hearth_image::Extents;
use hearth_repository::Repository;
use serde_json::json;

use crate::earlier::IMAGES;
use crate::state::Cloud;
use crate::store::{self, CommitError, DATABASE, RESTORING, Store};
use crate::vault;

const PKI: &str = "pki";
const REPOSITORY: &str = "repository";
/// What a copy of a repository needs.
const ROOMS: [&str; 3] = ["snapshots", "nodes", "chunks"];
/// The database's name in a backup that is not whole.
const BACKING_UP: &str = "backing-up.db";

/// Writes a backup of the data directory into `to`, which is empty or made; beside a running `hearthd`. Answers how
/// many images it has.
///
/// # Errors
/// `to` has something in it or cannot be written, or the data directory cannot be read.
pub async fn backup(data_dir: &Path, to: &Path) -> anyhow::Result<usize> {
    let database = data_dir.join(DATABASE);
    ensure!(
        database.exists(),
        "there is no database in {}: has hearthd ever run there?",
        data_dir.display()
    );
    make_empty(to)?;
    let copied = to.join(BACKING_UP);
    store::copy(&database, &copied)
        .await
        .with_context(|| format!("copying the database to {}", to.display()))?;
    let repository = Repository::in_directory(&data_dir.join(REPOSITORY))?;
    let hold = repository.hold().await?;
    let images = copy_files(data_dir, to);
    hold.release().await?;
    let images = images?;
    sync(&copied)?;
    fs::rename(&copied, to.join(DATABASE)).context("giving the database its name")?;
    sync(to)?;
    Ok(images)
}

/// Makes a data directory of a backup. No `hearthd` has run in `data_dir`; what a restore that was cut short has left there
/// goes.
///
/// # Errors
/// `data_dir` has something else in it, or `from` is no backup.
pub async fn restore(from: &Path, data_dir: &Path) -> anyhow::Result<()> {
    let database = from.join(DATABASE);
    ensure!(
        database.exists(),
        "there is no backup in {}: it has no {DATABASE}",
        from.display()
    );
    let copied = data_dir.join(RESTORING);
    if store::is_half_restored(data_dir) {
        sweep(data_dir)
            .with_context(|| format!("removing a half-made restore from {}", data_dir.display()))?;
    }
    make_empty(data_dir)?;
    // Before anything else is: it says that the directory is not whole.
    fs::copy(&database, &copied).with_context(|| format!("copying {}", database.display()))?;
    let store = Store::open(&copied).await?;
    let detail = json!({ "from": from.display().to_string() });
    store
        .transact(move |tx| {
            tx.update::<Cloud>(Cloud::ID, |cloud| cloud.epoch = Cloud::new_epoch());
            // Tokens that have been used since would admit hosts again.
            tx.revoke_tokens();
            tx.audit_without_call("Restore", &detail);
            Ok::<_, CommitError>(())
        })
        .await?;
    store.close().await;
    copy_files(from, data_dir)?;
    sync(&copied)?;
    fs::rename(&copied, data_dir.join(DATABASE)).context("putting the database into its place")?;
    sync(data_dir)
}

fn make_empty(dir: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .and_then(|()| dir.read_dir())
        .with_context(|| format!("making {}", dir.display()))
        .and_then(|mut entries| {
            ensure!(
                entries.next().is_none(),
                "{} is not empty: name a directory that is, or that does not exist",
                dir.display()
            );
            Ok(())
        })
}

/// Removes what a restore makes; last what says that it is not whole.
fn sweep(data_dir: &Path) -> io::Result<()> {
    for room in [PKI, REPOSITORY, IMAGES] {
        let gone = fs::remove_dir_all(data_dir.join(room));
        gone.or_else(ignore_absence)?;
    }
    fs::remove_file(data_dir.join(vault::FILE)).or_else(ignore_absence)?;
    for beside in ["-wal", "-shm", "-journal", ""] {
        let gone = fs::remove_file(data_dir.join(format!("{RESTORING}{beside}")));
        gone.or_else(ignore_absence)?;
    }
    Ok(())
}

fn ignore_absence(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

/// Copies the key of seals, the certificate authority and the repository; answers how many snapshots it has. What never
/// changes is linked where both directories are on one file system.
fn copy_files(from: &Path, to: &Path) -> anyhow::Result<usize> {
    // A database of before seals has none.
    copy(&from.join(vault::FILE), &to.join(vault::FILE))
        .or_else(ignore_absence)
        .with_context(|| format!("copying {} to {}", vault::FILE, to.display()))?;
    copy_room(from, to, PKI, |_| true, copy)?;
    let link = |from: &Path, to: &Path| fs::hard_link(from, to).or_else(|_| copy(from, to));
    // Of a backup that an earlier version has made.
    let mut images = 0;
    if from.join(IMAGES).exists() {
        let is_disk = |name: &Path| name.extension().is_some_and(|extension| extension == "raw");
        images += copy_room(from, to, IMAGES, is_disk, link)?;
    }
    for room in ROOMS {
        let room = Path::new(REPOSITORY).join(room);
        if from.join(&room).exists() {
            let copied = copy_tree(&from.join(&room), &to.join(&room), &link)?;
            images += if room.ends_with(ROOMS[0]) { copied } else { 0 };
        }
    }
    Ok(images)
}

/// Answers how many files.
fn copy_tree(
    from: &Path,
    to: &Path,
    copy: &impl Fn(&Path, &Path) -> io::Result<()>,
) -> anyhow::Result<usize> {
    let doing = || format!("copying {} to {}", from.display(), to.display());
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(to)
        .with_context(doing)?;
    let mut copied = 0;
    for entry in from.read_dir().with_context(doing)? {
        let entry = entry.with_context(doing)?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().with_context(doing)?.is_dir() {
            copied += copy_tree(&from, &to, copy)?;
        } else if !entry.file_name().as_encoded_bytes().contains(&b'#') {
            // One with a `#` is being written. One that is gone was not needed, as what is needed is held.
            copy(&from, &to).or_else(ignore_absence).with_context(doing)?;
            copied += 1;
        }
    }
    sync(to)?;
    Ok(copied)
}

fn copy_room(
    from: &Path,
    to: &Path,
    room: &str,
    wanted: impl Fn(&Path) -> bool,
    copy: impl Fn(&Path, &Path) -> io::Result<()>,
) -> anyhow::Result<usize> {
    let (from, to) = (from.join(room), to.join(room));
    let doing = || format!("copying {} to {}", from.display(), to.display());
    DirBuilder::new().mode(0o700).create(&to).with_context(doing)?;
    let mut copied = 0;
    for entry in from.read_dir().with_context(doing)? {
        let name = entry.with_context(doing)?.file_name();
        if wanted(Path::new(&name)) {
            let (from, to) = (from.join(&name), to.join(&name));
            copy(&from, &to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
            copied += 1;
        }
    }
    sync(&to)?;
    Ok(copied)
}

/// Copies a file, its mode, and its holes: at once where the file system shares blocks, and else what is not a hole.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let from = File::open(from)?;
    let metadata = from.metadata()?;
    let mut copy = File::options()
        .write(true)
        .create_new(true)
        .mode(metadata.mode() & 0o777)
        .open(to)?;
    if rustix::fs::ioctl_ficlone(&copy, &from).is_err() {
        copy.set_len(metadata.len())?;
        for extent in Extents::of(&from, metadata.len()) {
            let extent = extent?;
            copy.seek(SeekFrom::Start(extent.start))?;
            let mut source = &from;
            source.seek(SeekFrom::Start(extent.start))?;
            // By copy_file_range.
            io::copy(&mut source.take(extent.end - extent.start), &mut copy)?;
        }
    }
    copy.sync_all()
}

fn sync(path: &Path) -> anyhow::Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .with_context(|| format!("syncing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_holes_of_its_original() {
        const SIZE: u64 = 64 << 20;
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let (original, made) = (dir.path().join("original"), dir.path().join("copy"));
        let file = File::create(&original).unwrap();
        for at in [0, SIZE / 2, SIZE - 4096] {
            std::os::unix::fs::FileExt::write_all_at(&file, &[at as u8 | 1; 4096], at).unwrap();
        }
        file.set_len(SIZE + 12_345).unwrap();
        copy(&original, &made).unwrap();
        assert!(fs::read(&original).unwrap() == fs::read(&made).unwrap());
        let allocated = |path: &Path| fs::metadata(path).unwrap().blocks() * 512;
        assert!(
            allocated(&made) <= allocated(&original) + 65536,
            "{} bytes of a file that takes {}",
            allocated(&made),
            allocated(&original)
        );
    }
}
