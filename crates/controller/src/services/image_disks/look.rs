//! Looks into a disk that is in the repository. The inspection asks for the parts that it reads; nothing is laid out for it.

use hearth_api::ApiError;

use super::upload_image::not_bootable;
use crate::app::App;
use crate::disks;
use crate::inspection::Inspected;
use crate::state::{Disk, Encryption};

/// Answers what the disk holds.
///
/// # Errors
/// It cannot be booted, or it cannot be read.
pub(in crate::services) async fn into(
    app: &App,
    disk: &Disk,
    encryption: Option<&Encryption>,
) -> Result<Inspected, ApiError> {
    let key = match encryption {
        Some(encryption) => Some(disks::key(app, encryption, app.scope().region())?),
        None => None,
    };
    let reader = app.repository.read(&disk.name, key).await;
    let reader = reader.map_err(|error| ApiError::internal(&error))?;
    let inspected = app.imports.inspections.inspect_stored(&reader).await;
    inspected.map_err(|error| not_bootable(&error))
}
