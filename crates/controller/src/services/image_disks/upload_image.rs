//! UploadImage: the bytes go to a file of their own, are looked into, go to the repository, and become an AMI by the commit of
//! its row.

use std::sync::Arc;

use hearth_api::v1::{UploadImageRequest, UploadImageResponse, upload_image_request};
use hearth_api::{ApiError, ErrorCode, Id, Kind};
use hearth_image::BootMode;
use serde_json::json;
use tonic::{Code, Streaming};
use upload_image_request::{Chunk, Parameters, Part};

use super::limits::{Patience, one_more};
use super::partial::{self, Claim};
use super::unpacked;
use super::upload::{Upload, UploadError, full};
use super::{boot_mode, limits};
use crate::app::App;
use crate::disks::{self, Litter};
use crate::inspection::InspectError;
use crate::services::encryption::{self, Asked, Wanted};
use crate::services::images::{check_name, name_is_free};
use crate::services::input;
use crate::state::noun::keep_tags;
use crate::state::{AVAILABLE, Disk, Encryption, Image, ImageDevice, Scope, Snapshot};
use crate::store::now;

/// Bytes of an image: EC2's largest volume.
pub(super) const MAX_SIZE: i64 = 16 << 40;

pub(super) async fn upload_image(
    app: &App,
    mut parts: Streaming<UploadImageRequest>,
) -> Result<UploadImageResponse, ApiError> {
    let patience = Patience::new(&app.config);
    let Some(Part::Parameters(parameters)) = next(&mut parts, &patience).await? else {
        return Err(ApiError::new(
            ErrorCode::MissingParameter,
            "The first message of UploadImage carries the parameters.",
        ));
    };
    check(&parameters)?;
    let asked = boot_mode::asked(&parameters.boot_mode)?;
    let given = input::tags_for(&parameters.tag_specifications, &[Kind::Image], Kind::Image)?;
    // Once before the bytes come, and once when they are there.
    let totals = {
        let state = app.state();
        name_is_free(&state, &app.scope(), &parameters.name)?;
        limits::totals(&state, &app.account())
    };
    let size = parameters.size.unsigned_abs();
    let _slot = app
        .imports
        .uploads
        .admit(&app.account(), size, &app.config, totals)?;
    if parameters.dry_run {
        return Err(ApiError::dry_run());
    }

    let id = Id::new(Kind::Image).to_string();
    let scope = app.scope();
    let path = app.uploads_dir().join(format!("{id}.upload"));
    let upload = match wanted(app)? {
        Wanted::Plain => {
            let partial = partial::path(&app.uploads_dir(), &scope, &parameters.name, size);
            let claim = app.imports.partial.claim(partial)?;
            let begun = begin(app, &claim, &scope, size, parameters.resume_at.unsigned_abs()).await?;
            let upload = receive(begun, &mut parts, patience).await?;
            blocking(move || upload.whole(path)).await?
        }
        // Its file is plain: nothing stays in it for who goes on.
        _ if parameters.resume_at > 0 => {
            let expected = "What is stored encrypted is uploaded from the beginning: give 0.";
            return Err(ApiError::invalid_value(
                "ResumeAt",
                parameters.resume_at,
                expected,
            ));
        }
        _ => {
            let begun = blocking(move || Upload::create(path, size)).await?;
            receive(begun, &mut parts, patience).await?
        }
    };
    let upload = unpacked::raw(app, upload).await?;
    let size = upload.size();
    let (upload, digest) = blocking(move || upload.finish()).await?;
    let encryption = encryption(app).await?;
    // Who reads the database learns nothing of what is encrypted.
    let digest = Some(digest).filter(|_| encryption.is_none()).unwrap_or_default();
    let (upload, disk) = blocking(move || {
        let disk = upload.reopen()?;
        Ok((upload, disk))
    })
    .await?;
    let info = app
        .imports
        .inspections
        .inspect(disk)
        .await
        .map_err(|error| not_bootable(&error))?;
    let boot_mode = boot_mode::registered(asked, &info)?;
    let snapshot = disks::new_name();
    let file = blocking({
        let shared = upload.file();
        move || shared
    })
    .await?;
    let litter = Litter::of(app);
    let key = encryption
        .as_ref()
        .map(|encryption| disks::key(app, encryption, app.scope().region()));
    let source = disks::Source::IsUsedUp;
    let stored = disks::store(&app.repository, &snapshot, file, size, source, key.transpose()?).await;
    stored.map_err(|error| not_stored(app, &error))?;
    drop(upload);

    // The snapshot is there before a row names it: what a crash in between leaves, the next start sweeps.
    let image = Image {
        id: id.clone(),
        account_id: scope.account_id().to_owned(),
        region: scope.region().to_owned(),
        name: parameters.name,
        description: parameters.description,
        state: AVAILABLE.to_owned(),
        size,
        digest,
        snapshot: snapshot.clone(),
        encryption: encryption.clone(),
        devices: vec![ImageDevice::root(size, Some(snapshot.clone()))],
        store: Vec::new(),
        source: None,
        failure: String::new(),
        kernel_path: match boot_mode {
            BootMode::Uefi => String::new(),
            BootMode::LegacyBios | BootMode::UefiPreferred => info.kernel_path,
        },
        boot_mode,
        ena_support: false,
        sriov_net_support: false,
        is_public: false,
        shared_with: Default::default(),
        created_at: now(),
        tags: keep_tags(&given),
    };
    let config = app.config.clone();
    let registered = app.store.transact(move |tx| {
        name_is_free(tx, &scope, &image.name)?;
        one_more(tx, &image.account_id, &config, size)?;
        let detail = json!({ "image": image.id, "name": image.name, "size": image.size,
            "kernel": image.kernel_path, "boot_mode": image.boot_mode.as_str() });
        tx.audit(detail);
        tx.event("image.registered", &image.id);
        let disk = Disk {
            name: image.snapshot.clone(),
            size,
            digest: image.digest.clone(),
        };
        // It has the name of its disk in the repository.
        let gib = size.div_ceil(1 << 30);
        tx.put(Snapshot {
            description: format!("Uploaded for {}", image.id),
            stored: size,
            encryption,
            ..Snapshot::of_disk(&image.snapshot, &scope, Some(disk), gib, tx.now())
        });
        tx.put(image);
        Ok::<_, ApiError>(())
    });
    if let Err(error) = registered.await {
        // Of an answer that was lost, the row may name it.
        if error.code != ErrorCode::Unavailable
            && let Err(error) = app.repository.delete(&snapshot).await
        {
            tracing::warn!(error = %hearth_log::chain(&error), snapshot, "removing the disk of an image that was refused");
        }
        return Err(error);
    }
    litter.keep();
    Ok(UploadImageResponse { image_id: id })
}

pub(super) fn wanted(app: &App) -> Result<Wanted, ApiError> {
    encryption::wanted(&app.state(), &app.scope(), Asked::default(), None)
}

/// Where volumes are encrypted that do not ask for it, what is uploaded is, too.
/// <https://docs.aws.amazon.com/ebs/latest/userguide/encryption-by-default.html>
async fn encryption(app: &App) -> Result<Option<Encryption>, ApiError> {
    let (scope, wanted) = (app.scope(), wanted(app)?);
    if wanted == Wanted::Plain {
        return Ok(None);
    }
    let vault = Arc::clone(&app.vault);
    app.store
        .transact(move |tx| wanted.make(tx, &vault, &scope))
        .await
}

fn check(parameters: &Parameters) -> Result<(), ApiError> {
    check_name(&parameters.name, &parameters.description)?;
    if !(1..=MAX_SIZE).contains(&parameters.size) {
        return Err(ApiError::invalid_value(
            "Size",
            parameters.size,
            format!("Expecting the image's bytes, at most {MAX_SIZE}."),
        ));
    }
    if !(0..=parameters.size).contains(&parameters.resume_at) {
        let expected = "Expecting 0, or what GetImageUpload tells as received.";
        return Err(ApiError::invalid_value(
            "ResumeAt",
            parameters.resume_at,
            expected,
        ));
    }
    Ok(())
}

/// The file that the upload goes to, with what came of it before.
async fn begin(
    app: &App,
    claim: &Claim,
    scope: &Scope,
    size: u64,
    resume_at: u64,
) -> Result<Upload, ApiError> {
    let path = claim.path.clone();
    if resume_at > 0 {
        return blocking(move || Upload::resume(path, size, resume_at)).await;
    }
    let (uploads, scope, taken) = (app.uploads_dir(), scope.clone(), Arc::clone(&app.imports.partial));
    blocking(move || {
        partial::make_room(&uploads, &scope, &taken).map_err(|source| UploadError::Io {
            doing: "making room in",
            path: uploads,
            source,
        })?;
        Upload::create_partial(path, size)
    })
    .await
}

/// Answers the whole file. A chunk is written while the next one comes; while nothing comes, no thread waits for it.
async fn receive(
    mut upload: Upload,
    parts: &mut Streaming<UploadImageRequest>,
    mut patience: Patience,
) -> Result<Upload, ApiError> {
    let mut chunk = next_chunk(parts, &patience).await?;
    while let Some(Chunk { offset, data }) = chunk {
        patience.came(offset, data.len());
        let writing = blocking(move || {
            upload.write(offset, &data)?;
            Ok(upload)
        });
        (upload, chunk) = tokio::try_join!(writing, next_chunk(parts, &patience))?;
    }
    Ok(upload)
}

async fn next_chunk(
    parts: &mut Streaming<UploadImageRequest>,
    patience: &Patience,
) -> Result<Option<Chunk>, ApiError> {
    match next(parts, patience).await? {
        None => Ok(None),
        Some(Part::Chunk(chunk)) => Ok(Some(chunk)),
        Some(Part::Parameters(_)) => Err(ApiError::new(
            ErrorCode::InvalidParameterCombination,
            "The parameters come once, in the first message.",
        )),
    }
}

async fn next(
    parts: &mut Streaming<UploadImageRequest>,
    patience: &Patience,
) -> Result<Option<Part>, ApiError> {
    let (end, why) = patience.ends();
    let message = tokio::time::timeout_at(end, parts.message()).await;
    match message.map_err(|_| why)? {
        Ok(None) => Ok(None),
        Ok(Some(UploadImageRequest { part: Some(part) })) => Ok(Some(part)),
        Ok(Some(UploadImageRequest { part: None })) => Err(ApiError::new(
            ErrorCode::InvalidParameter,
            "A message of UploadImage carries parameters or a chunk.",
        )),
        Err(status) if status.code() == Code::OutOfRange => Err(ApiError::new(
            ErrorCode::InvalidParameterValue,
            format!("{} Send smaller chunks.", status.message()),
        )),
        Err(status) => Err(ApiError::new(
            ErrorCode::InvalidParameter,
            format!(
                "The upload broke off ({}). What came is kept for a day: upload again to go on.",
                status.message()
            ),
        )),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UploadError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::internal(&error))?.map_err(refusal)
}

fn refusal(error: UploadError) -> ApiError {
    match error {
        UploadError::Refused(error) => error,
        UploadError::Io { .. } => ApiError::internal(&error),
    }
}

fn not_stored(app: &App, error: &disks::StoreError) -> ApiError {
    match error {
        disks::StoreError::Repository(error) if error.is_full() => refusal(full(&app.uploads_dir())),
        _ => ApiError::internal(error),
    }
}

pub(super) fn not_bootable(error: &InspectError) -> ApiError {
    match error {
        InspectError::Refused(_) | InspectError::Exceeded { .. } | InspectError::UnpackingExceeded { .. } => {
            ApiError::new(
                ErrorCode::InvalidParameterValue,
                format!(
                    "This cannot become an AMI: {error}. Give a disk image, raw or in a qcow2 file, with a boot loader in an EFI system \
                 partition, or with a boot loader's configuration and a kernel on an ext4 file system. Nothing was kept."
                ),
            )
        }
        InspectError::Io { .. }
        | InspectError::Repository(_)
        | InspectError::NoJail(_)
        | InspectError::Garbled => ApiError::internal(error),
    }
}
