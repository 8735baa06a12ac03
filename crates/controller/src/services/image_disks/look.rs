//! Looks into a disk that is in the repository. It is laid out as a file first, which the inspection is confined to.

use hearth_api::ApiError;
use hearth_repository::{CHUNK, Error};

use super::upload::Upload;
use super::upload_image::{blocking, not_bootable};
use crate::app::App;
use crate::inspection::Inspected;
use crate::state::Disk;

/// Answers what the disk holds, and its digest. `id`: of the image that it becomes.
///
/// # Errors
/// It cannot be booted, there is no room for it, or it cannot be read.
pub(in crate::services) async fn into(
    app: &App,
    id: &str,
    disk: &Disk,
) -> Result<(Inspected, String), ApiError> {
    let internal = |error: Error| ApiError::internal(&error);
    let reader = app.repository.read(&disk.name).await.map_err(internal)?;
    let path = app.uploads_dir().join(format!("{id}.upload"));
    let size = disk.size;
    let mut upload = blocking(move || Upload::create(path, size)).await?;
    let mut index = 0;
    while let Some((found, chunk)) = reader.next(index).await.map_err(internal)? {
        let mut data = app.repository.chunk(chunk).await.map_err(internal)?;
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
    Ok((inspected, digest))
}
