//! At the start: digests of the disks of images that have none, because an older version made another kind.

use std::fs::File;
use std::io;

use crate::app::App;
use crate::store::images;

/// Computes what is missing. Each digest is durable before the next is begun, so that an interrupted start goes on where it
/// was. Hosts are sent their intents anew: a launch that waits for its image then expects the new digest.
///
/// An image whose disk cannot be read stays without a digest and cannot be fetched; hosts that have its disk keep it.
///
/// # Errors
/// The store fails.
pub async fn complete(app: &App) -> anyhow::Result<()> {
    let mut read = app.store.read().await?;
    let missing = images::without_digest(&mut read).await?;
    drop(read);
    for (id, size) in missing {
        let path = app.image_path(&id);
        let digest = tokio::task::spawn_blocking(move || {
            hearth_image::disk_digest(&File::open(path)?, size.unsigned_abs())
        });
        let digest = match digest.await.map_err(io::Error::other).flatten() {
            Ok(digest) => digest,
            Err(error) => {
                tracing::error!(image = id, %error, "the image's disk cannot be read: it has no digest, and hosts cannot fetch it");
                continue;
            }
        };
        let mut tx = app.store.write().await?;
        images::set_digest(tx.connection(), &id, &digest).await?;
        tx.commit().await?;
        tracing::info!(image = id, "the image's digest is computed anew");
    }
    Ok(())
}
