//! Uploads of other formats than raw become the raw disks that they hold.

use hearth_api::ApiError;
use hearth_image::sniff;

use super::limits::Patience;
use super::upload::Upload;
use super::upload_image::{MAX_SIZE, blocking, not_bootable};
use crate::app::App;
use crate::inspection::Piece;

/// A disk may be in a compressed file.
const LAYERS: usize = 2;

/// The raw disk of an upload; the upload itself where it is one.
pub(super) async fn raw(app: &App, mut upload: Upload) -> Result<Upload, ApiError> {
    for layer in 0..LAYERS {
        let (format, file);
        (upload, format, file) = blocking(move || {
            let mut file = upload.reopen()?;
            let format = sniff(&mut file).map_err(|source| upload.fault("reading", source))?;
            Ok((upload, format, file))
        })
        .await?;
        let is_wanted = format.can_be_unpacked() && (layer == 0 || !format.is_compression());
        if !is_wanted {
            break;
        }
        tracing::info!(%format, "an upload is unpacked");
        upload = unpack(app, &upload, file).await?;
    }
    Ok(upload)
}

async fn unpack(app: &App, packed: &Upload, file: std::fs::File) -> Result<Upload, ApiError> {
    let most = MAX_SIZE
        .unsigned_abs()
        .min(u64::from(app.config.image_gib_limit) << 30);
    let path = packed.beside();
    let mut upload = blocking(move || Upload::of_unknown_size(path, most)).await?;
    let mut patience = Patience::new(&app.config);
    let mut unpacking = app
        .imports
        .inspections
        .unpack(file, most)
        .await
        .map_err(|error| not_bootable(&error))?;
    let mut piece = unpacking.next().await;
    loop {
        match piece.map_err(|error| not_bootable(&error))? {
            Piece::Data(offset, data) => {
                let offset = offset.cast_signed();
                patience.came(offset, data.len());
                let writing = blocking(move || {
                    upload.write(offset, &data)?;
                    Ok(upload)
                });
                let (end, why) = patience.ends();
                let next = async {
                    tokio::time::timeout_at(end, unpacking.next())
                        .await
                        .map_err(|_| why)
                };
                (upload, piece) = tokio::try_join!(writing, next)?;
            }
            Piece::End(size) => {
                return blocking(move || {
                    upload.ends_at(size)?;
                    Ok(upload)
                })
                .await;
            }
        }
    }
}
