//! RegisterImage: an image of snapshots. Its root disk is looked into, as that of an upload is.
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RegisterImage.html>

use std::collections::BTreeMap;

use hearth_api::v1::{RegisterImageRequest, RegisterImageResult};
use hearth_api::{ApiError, ErrorCode, Id, Kind};
use hearth_image::BootMode;
use serde_json::json;

use super::devices::{self, Asked};
use super::{check_name, name_is_free};
use crate::app::App;
use crate::keys;
use crate::services::image_disks::{boot_mode, limits, look};
use crate::services::input;
use crate::services::volumes::devices::Slot;
use crate::state::noun::keep_tags;
use crate::state::{AVAILABLE, Image, ImageDevice, Snapshot, State};
use crate::views::{ARCHITECTURE, SRIOV, VIRTUALIZATION};

type Devices = BTreeMap<Slot, (String, Asked)>;

pub(super) async fn register(
    app: &App,
    request: RegisterImageRequest,
) -> Result<RegisterImageResult, ApiError> {
    check_name(&request.name, &request.description)?;
    let asked_mode = boot_mode::asked(&request.boot_mode)?;
    only("Architecture", &request.architecture, ARCHITECTURE)?;
    only("VirtualizationType", &request.virtualization_type, VIRTUALIZATION)?;
    only("SriovNetSupport", &request.sriov_net_support, SRIOV)?;
    if !request.image_location.is_empty() {
        let expected = "Hearth has no images in S3: name a snapshot of the root device, or upload the disk.";
        let given = &request.image_location;
        return Err(ApiError::invalid_value("ImageLocation", given, expected));
    }
    let tags = input::tags_for(&request.tag_specifications, &[Kind::Image], Kind::Image)?;
    let asked = devices::asked(&request.block_device_mappings)?;
    let root = root(&request.root_device_name, &asked)?;
    let scope = app.scope();
    let (disk, own_encryption, totals) = {
        let state = app.state();
        name_is_free(&state, &scope, &request.name)?;
        let (_, snapshot) = own_devices(&state, &asked, &root)?;
        let disk = snapshot.disk().cloned();
        let encryption = snapshot.encryption.clone();
        if let Some(encryption) = &encryption {
            keys::usable(&state, encryption, scope.region())?;
        }
        (disk, encryption, limits::totals(&state, scope.account_id()))
    };
    let disk = disk.ok_or_else(|| {
        devices::refused(format!(
            "The snapshot of the root device {root} is blank: nothing can boot of it."
        ))
    })?;
    let _slot = app
        .imports
        .uploads
        .admit(scope.account_id(), 0, &app.config, totals)?;
    if request.dry_run {
        return Err(ApiError::dry_run());
    }
    let id = Id::new(Kind::Image).to_string();
    let info = look::into(app, &disk, own_encryption.as_ref()).await?;
    let boot_mode = boot_mode::registered(asked_mode, &info)?;
    let config = app.config.clone();
    app.store
        .transact(move |tx| {
            name_is_free(tx, &scope, &request.name)?;
            limits::one_more(tx, scope.account_id(), &config, 0)?;
            // Once more: snapshots may have gone since.
            let (devices, _) = own_devices(tx, &asked, &root)?;
            let image = Image {
                id: id.clone(),
                account_id: scope.account_id().to_owned(),
                region: scope.region().to_owned(),
                name: request.name,
                description: request.description,
                state: AVAILABLE.to_owned(),
                size: disk.size,
                digest: disk.digest,
                snapshot: disk.name,
                encryption: own_encryption,
                devices,
                store: devices::store_over(&[], &asked),
                source: None,
                failure: String::new(),
                kernel_path: match boot_mode {
                    BootMode::Uefi => String::new(),
                    BootMode::LegacyBios | BootMode::UefiPreferred => info.kernel_path,
                },
                boot_mode,
                ena_support: request.ena_support,
                sriov_net_support: !request.sriov_net_support.is_empty(),
                is_public: false,
                shared_with: Default::default(),
                created_at: tx.now(),
                tags: keep_tags(&tags),
            };
            tx.audit(json!({ "image": id, "name": image.name, "boot_mode": boot_mode.as_str() }));
            tx.event("image.registered", &id);
            tx.put(image);
            Ok(RegisterImageResult { image_id: id })
        })
        .await
}

fn only(parameter: &str, given: &str, admitted: &str) -> Result<(), ApiError> {
    if given.is_empty() || given == admitted {
        return Ok(());
    }
    let expected = format!("Hearth has {admitted} alone.");
    Err(ApiError::invalid_value(parameter, given, expected))
}

/// What the request calls the root device.
fn root(name: &str, asked: &Devices) -> Result<String, ApiError> {
    let is_root = |slot: &Slot| slot.is_root();
    let mapped = asked.iter().find(|(slot, _)| is_root(slot));
    match (name, mapped) {
        (_, None) => Err(ApiError::new(
            ErrorCode::MissingParameter,
            "The request must contain a block device mapping of the root device with a snapshot.",
        )),
        ("", Some((_, (name, _)))) => Ok(name.clone()),
        (name, Some(_)) if Slot::of(name).as_ref().is_some_and(is_root) => Ok(name.to_owned()),
        (name, Some(_)) => {
            let expected = "Expecting /dev/sda1, /dev/xvda or /dev/vda.";
            Err(ApiError::invalid_value("RootDeviceName", name, expected))
        }
    }
}

/// The devices of the image, the root device first, and the snapshot of that.
fn own_devices<'s>(
    state: &'s State,
    asked: &Devices,
    root: &str,
) -> Result<(Vec<ImageDevice>, &'s Snapshot), ApiError> {
    let (mut found, mut of_root) = (Vec::new(), None);
    for (slot, (name, what)) in asked {
        let Asked::Ebs(ebs) = what else { continue };
        let snapshot = devices::snapshot(state, ebs)?;
        match slot.is_root() {
            true => {
                of_root = snapshot;
                found.insert(0, devices::device(root, ebs, snapshot)?);
            }
            false => found.push(devices::device(name, ebs, snapshot)?),
        }
    }
    let of_root = of_root.ok_or_else(|| ApiError::missing("snapshotId"))?;
    Ok((found, of_root))
}
