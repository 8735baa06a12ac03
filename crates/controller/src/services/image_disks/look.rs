//! Looks into a disk that is in the repository. It is laid out as a file first, which the inspection is confined to; an encrypted
//! one in memory, so that nothing of it lies unencrypted on a disk.

use hearth_api::{ApiError, ErrorCode};
use hearth_repository::{CHUNK, Error};

use super::upload::Upload;
use super::upload_image::{blocking, not_bootable};
use crate::app::App;
use crate::disks;
use crate::inspection::Inspected;
use crate::state::{Disk, Encryption};

/// Bytes of data of an encrypted disk that is looked into.
const IN_MEMORY: u64 = 1 << 30;

/// Answers what the disk holds, and its digest. `id`: of the image that it becomes.
///
/// # Errors
/// It cannot be booted, there is no room for it, or it cannot be read.
pub(in crate::services) async fn into(
    app: &App,
    id: &str,
    disk: &Disk,
    encryption: Option<&Encryption>,
) -> Result<(Inspected, String), ApiError> {
    let internal = |error: Error| ApiError::internal(&error);
    let key = match encryption {
        Some(encryption) => Some(disks::key(app, encryption, app.scope().region())?),
        None => None,
    };
    let reader = app.repository.read(&disk.name, key).await.map_err(internal)?;
    let path = app.uploads_dir().join(format!("{id}.upload"));
    let (size, is_encrypted) = (disk.size, encryption.is_some());
    let mut upload = blocking(move || match is_encrypted {
        true => Upload::in_memory(path, size),
        false => Upload::create(path, size),
    })
    .await?;
    let mut room = IN_MEMORY;
    let mut index = 0;
    while let Some((found, chunk)) = reader.next(index).await.map_err(internal)? {
        if is_encrypted {
            room = room.checked_sub(CHUNK as u64).ok_or_else(too_much)?;
        }
        let mut data = reader.named(chunk).await.map_err(internal)?;
        let offset = found * CHUNK as u64;
        data.truncate(usize::try_from(size - offset).unwrap_or(CHUNK));
        upload = blocking(move || {
            upload.write(offset.cast_signed(), &data)?;
            Ok(upload)
        })
        .await?;
        index = found + 1;
    }
    let (upload, digest) = blocking(move || upload.finish()).await?;
    let (upload, file) = blocking(move || {
        let file = upload.reopen()?;
        Ok((upload, file))
    })
    .await?;
    let inspected = app.imports.inspections.inspect(file).await;
    drop(upload);
    let inspected = inspected.map_err(|error| not_bootable(&error))?;
    // Who reads the database learns nothing of what is encrypted.
    let digest = Some(digest).filter(|_| !is_encrypted);
    Ok((inspected, digest.unwrap_or_default()))
}

fn too_much() -> ApiError {
    ApiError::new(
        ErrorCode::UnsupportedOperation,
        format!(
            "The snapshot of the root device is encrypted and has more than {} MiB of data, which is too much to look into in \
             memory. Register an image of a snapshot that is not encrypted, and make an encrypted copy of it by CopyImage.",
            IN_MEMORY >> 20
        ),
    )
}
