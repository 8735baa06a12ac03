//! At the start: digests of the disks of images that have none, because an older version made another kind.

use std::fs::File;
use std::io;

use crate::app::App;
use crate::state::{Concern, Image, Noun as _, Volume};
use crate::store::CommitError;

/// Computes what is missing. Each digest is durable before the next is begun, so that an interrupted start goes on where it
/// was. Hosts are sent their intents anew: a launch that waits for its image then expects the new digest.
///
/// An image whose disk cannot be read stays without a digest and cannot be fetched; hosts that have its disk keep it.
///
/// # Errors
/// The store fails.
pub async fn complete(app: &App) -> anyhow::Result<()> {
    let missing: Vec<(String, u64)> = app
        .store
        .state()
        .all::<Image>()
        .filter(|image| image.digest.is_empty())
        .map(|image| (image.id.clone(), image.size))
        .collect();
    for (id, size) in missing {
        let path = app.image_path(&id);
        let digest = tokio::task::spawn_blocking(move || hearth_image::disk_digest(&File::open(path)?, size));
        let digest = match digest.await.map_err(io::Error::other).flatten() {
            Ok(digest) => digest,
            Err(error) => {
                tracing::error!(image = id, %error, "the image's disk cannot be read: it has no digest, and hosts cannot fetch it");
                continue;
            }
        };
        let image = id.clone();
        app.store
            .transact(move |tx| {
                tx.update::<Image>(&image, |image| image.digest = digest);
                let waiting: Vec<Concern> = tx
                    .by(&Volume::BY_IMAGE, &image)
                    .flat_map(|volume| volume.concerns(tx))
                    .collect();
                waiting.into_iter().for_each(|concern| tx.concern(concern));
                Ok::<_, CommitError>(())
            })
            .await?;
        tracing::info!(image = id, "the image's digest is computed anew");
    }
    Ok(())
}
