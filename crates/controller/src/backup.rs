//! `hearthd backup` and `hearthd restore`: the database, the certificate authority and the images' disks.
//!
//! A backup is a directory laid out as a data directory. It is of one moment: the database is copied by SQLite in one
//! read transaction, and the images' disks never change.
//!
//! A restored store is older than what agents have heard. So that they listen to it, each host's generation is raised
//! beyond any that they can know. What changed after the backup is not known to it: an instance launched since is
//! reported as unknown by its host, and kept there.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::store::{Store, hosts, join_tokens};

const DATABASE: &str = "hearth.db";
const PKI: &str = "pki";
const IMAGES: &str = "images";

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
    let store = Store::open(&database).await?;
    store
        .copy_to(&to.join(DATABASE))
        .await
        .with_context(|| format!("copying the database to {}", to.display()))?;
    store.close().await;
    let images = copy_files(data_dir, to)?;
    sync(&to.join(DATABASE))?;
    sync(to)?;
    Ok(images)
}

/// Makes a data directory of a backup. No `hearthd` has run in `data_dir`.
///
/// # Errors
/// `data_dir` has something in it, or `from` is no backup.
pub async fn restore(from: &Path, data_dir: &Path) -> anyhow::Result<()> {
    let database = from.join(DATABASE);
    ensure!(
        database.exists(),
        "there is no backup in {}: it has no {DATABASE}",
        from.display()
    );
    make_empty(data_dir)?;
    let copied = data_dir.join("restoring.db");
    fs::copy(&database, &copied).with_context(|| format!("copying {}", database.display()))?;
    let store = Store::open(&copied).await?;
    let mut tx = store.write().await?;
    hosts::raise_generations(tx.connection()).await?;
    // Tokens that have been used since would admit hosts again.
    join_tokens::revoke_all(tx.connection()).await?;
    tx.audit("Restore", &json!({ "from": from.display().to_string() }))
        .await?;
    tx.commit().await?;
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

/// Copies the certificate authority and the images' disks; answers how many disks. A disk is linked where both
/// directories are on one file system.
fn copy_files(from: &Path, to: &Path) -> anyhow::Result<usize> {
    copy_room(from, to, PKI, |_| true, copy)?;
    // Uploads that are not done have another extension.
    let is_disk = |name: &Path| name.extension().is_some_and(|extension| extension == "raw");
    copy_room(from, to, IMAGES, is_disk, |from, to| {
        fs::hard_link(from, to).or_else(|_| copy(from, to))
    })
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

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::open(to)?.sync_all()
}

fn sync(path: &Path) -> anyhow::Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .with_context(|| format!("syncing {}", path.display()))
}
