//! At the beginning of a term: disks of images that an earlier version has put into files go into the repository.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::app::App;
use crate::disks::{self, Source};
use crate::state::{Concern, Image, Noun as _, Volume};
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
    Ok(())
}

/// Answers the disk's digest, and the name of its snapshot.
async fn take(app: &App, path: &Path, size: u64) -> Result<(String, String), disks::StoreError> {
    let file = File::open(path)?;
    let whole = file.try_clone()?;
    let digest = tokio::task::spawn_blocking(move || hearth_image::disk_digest(&whole, size)).await;
    let digest = digest.map_err(io::Error::other)??;
    let snapshot = disks::new_name();
    disks::store(&app.repository, &snapshot, file, size, Source::Stays).await?;
    Ok((digest, snapshot))
}
