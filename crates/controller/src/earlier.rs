//! At the beginning of a term: disks of images that an earlier version has put into files go into the repository, and images
//! of before have snapshots.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::app::App;
use crate::disks::{self, Source};
use crate::state::{Concern, Disk, Image, ImageDevice, Noun as _, Scope, Snapshot, Volume};
use crate::store::CommitError;

/// Where earlier versions kept disks.
pub const IMAGES: &str = "images";

fn path(app: &App, image_id: &str) -> PathBuf {
    app.config.data_dir.join(IMAGES).join(format!("{image_id}.raw"))
}

/// Moves one after the other, each durably, so that an interrupted start goes on where it was. Hosts are sent their intents
/// anew: a launch that waits for its image then expects the digest of this version.
///
/// An image whose disk cannot be read cannot be fetched; hosts that have its disk keep it.
///
/// # Errors
/// The store fails.
pub async fn take_in(app: &App) -> anyhow::Result<()> {
    let missing: Vec<(String, u64)> = app
        .store
        .state()
        .all::<Image>()
        .filter(|image| image.snapshot.is_empty())
        .map(|image| (image.id.clone(), image.size))
        .collect();
    for (id, size) in missing {
        let path = path(app, &id);
        let (digest, snapshot) = match take(app, &path, size).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::error!(image = id, error = %hearth_log::chain(&error), "the image's disk cannot be read: hosts cannot fetch it");
                continue;
            }
        };
        let image = id.clone();
        app.store
            .transact(move |tx| {
                tx.update::<Image>(&image, |image| {
                    (image.digest, image.snapshot) = (digest, snapshot)
                });
                let waiting: Vec<Concern> = tx
                    .by(&Volume::BY_IMAGE, &image)
                    .flat_map(|volume| volume.concerns(tx))
                    .collect();
                waiting.into_iter().for_each(|concern| tx.concern(concern));
                Ok::<_, CommitError>(())
            })
            .await?;
        tracing::info!(image = id, "the image's disk is in the repository now");
        if let Err(error) = tokio::fs::remove_file(&path).await {
            tracing::warn!(path = %path.display(), %error, "removing a disk that is in the repository");
        }
    }
    give_snapshots(app).await
}

/// Images of before get the snapshots that they are made of. A snapshot has the name of its disk in the repository.
async fn give_snapshots(app: &App) -> anyhow::Result<()> {
    let is_of_before = |image: &&Image| image.devices.is_empty() && image.is_registered();
    if !app.store.state().all::<Image>().any(|image| is_of_before(&image)) {
        return Ok(());
    }
    app.store
        .transact(move |tx| {
            let images: Vec<Image> = tx.all::<Image>().filter(is_of_before).cloned().collect();
            for mut image in images {
                let id = Some(image.snapshot.clone()).filter(|id| !id.is_empty());
                if let Some(id) = &id {
                    let scope = Scope::new(&image.account_id, &image.region);
                    let disk = Disk {
                        name: id.clone(),
                        size: image.size,
                        digest: image.digest.clone(),
                    };
                    let gib = image.size.div_ceil(1 << 30);
                    tx.put(Snapshot {
                        stored: image.size,
                        ..Snapshot::of_disk(id, &scope, Some(disk), gib, image.created_at)
                    });
                }
                image.devices = vec![ImageDevice::root(image.size, id)];
                tx.put(image);
            }
            Ok::<_, CommitError>(())
        })
        .await?;
    Ok(())
}

/// Answers the disk's digest, and the name of its snapshot.
async fn take(app: &App, path: &Path, size: u64) -> Result<(String, String), disks::StoreError> {
    let file = File::open(path)?;
    let whole = file.try_clone()?;
    let digest = tokio::task::spawn_blocking(move || hearth_image::disk_digest(&whole, size)).await;
    let digest = digest.map_err(io::Error::other)??;
    let snapshot = disks::new_name();
    disks::store(&app.repository, &snapshot, file, size, Source::Stays, None).await?;
    Ok((digest, snapshot))
}
