//! DescribeImageAttribute, ModifyImageAttribute, ResetImageAttribute: who else may launch an image, and what it is.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/sharingamis-explicit.html>

use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode, Kind};
use serde_json::json;

use super::{images, input, sharing};
use crate::app::App;
use crate::state::{self, State};
use crate::views;

/// Characters of a description.
const LONGEST: usize = 255;

pub(super) async fn describe(
    app: &App,
    request: DescribeImageAttributeRequest,
) -> Result<ImageAttribute, ApiError> {
    let id = input::id(Kind::Image, &request.image_id, "ImageId")?;
    let state = app.state();
    let row = state.get::<state::Image>(&id).filter(|row| row.is_registered());
    let row = row.ok_or_else(|| Kind::Image.not_found(&[&id]))?;
    let mut told = ImageAttribute {
        image_id: row.id.clone(),
        ..ImageAttribute::default()
    };
    let text = |value: &str| {
        Some(AttributeValue {
            value: value.to_owned(),
        })
    };
    match request.attribute.as_str() {
        "launchPermission" => told.launch_permissions = permissions(own(&state, &id)?),
        "description" => told.description = text(&row.description),
        "bootMode" => told.boot_mode = text(row.boot_mode.as_str()),
        "sriovNetSupport" => {
            let driver = Some(views::sriov(row.sriov_net_support)).filter(|name| !name.is_empty());
            told.sriov_net_support = driver.and_then(text);
        }
        "blockDeviceMapping" => told.block_device_mappings = images::tell(&state, row).block_device_mappings,
        // No image has one.
        "imdsSupport" | "kernel" | "productCodes" | "ramdisk" | "tpmSupport" => {}
        "" => return Err(ApiError::missing("Attribute")),
        other => return Err(unknown(other)),
    }
    Ok(told)
}

fn unknown(attribute: &str) -> ApiError {
    ApiError::invalid_value(
        "Attribute",
        attribute,
        "It is none of an image's attributes that are kept.",
    )
}

/// An image of the caller's own.
///
/// # Errors
/// `AuthFailure`: it is another account's. `InvalidAMIID.NotFound`.
pub(super) fn own<'s>(state: &'s State, id: &str) -> Result<&'s state::Image, ApiError> {
    let seen = state.get::<state::Image>(id).filter(|row| row.is_registered());
    seen.ok_or_else(|| Kind::Image.not_found(&[id]))?;
    state.own(id).ok_or_else(|| {
        ApiError::new(
            ErrorCode::AuthFailure,
            format!("Not authorized for image:{id}. Its owner alone may do this."),
        )
    })
}

fn permissions(row: &state::Image) -> Vec<LaunchPermission> {
    let told = sharing::tell(row.is_public, &row.shared_with);
    told.map(|named| LaunchPermission {
        user_id: named.account,
        group: named.group,
    })
    .collect()
}

/// What a request asks for.
#[derive(Debug)]
enum Change {
    Permissions(sharing::Change),
    Description(String),
}

fn change(request: &ModifyImageAttributeRequest) -> Result<Change, ApiError> {
    match (
        &request.launch_permission,
        &request.description,
        request.attribute.as_str(),
    ) {
        (Some(_), Some(_), _) => Err(ApiError::combination("LaunchPermission", "Description")),
        // Ansible names it as its member, which EC2 admits.
        (Some(given), None, "" | "launchPermission" | "LaunchPermission") => {
            Ok(Change::Permissions(sharing::Change {
                add: named(&given.add),
                remove: named(&given.remove),
            }))
        }
        (None, Some(given), "" | "description") => Ok(Change::Description(given.value.clone())),
        (None, None, "description") => Ok(Change::Description(request.value.clone())),
        (None, None, "launchPermission") => {
            let groups = &request.user_groups;
            sharing::listed(&request.operation_type, groups, &request.user_ids).map(Change::Permissions)
        }
        (None, None, "") => Err(ApiError::missing("LaunchPermission")),
        (_, _, other) => Err(unknown(other)),
    }
}

fn named(given: &[LaunchPermission]) -> Vec<sharing::Named> {
    let named = given.iter().map(|permission| sharing::Named {
        account: permission.user_id.clone(),
        group: permission.group.clone(),
    });
    named.collect()
}

/// As EC2 says it.
fn refuse(is_managed: bool) -> ApiError {
    let why = match is_managed {
        true => "Snapshots encrypted with the AWS Managed CMK can't be shared. Specify another snapshot.",
        false => "Images with encrypted snapshots cannot be public: share it with accounts.",
    };
    ApiError::new(ErrorCode::InvalidParameter, why)
}

pub(super) async fn modify(
    app: &App,
    request: ModifyImageAttributeRequest,
) -> Result<ModifyImageAttributeResponse, ApiError> {
    let id = input::id(Kind::Image, &request.image_id, "ImageId")?;
    let change = change(&request)?;
    if let Change::Description(text) = &change
        && text.chars().count() > LONGEST
    {
        let expected = format!("Expecting up to {LONGEST} characters.");
        return Err(ApiError::invalid_value("Description", text, expected));
    }
    app.store
        .transact(move |tx| {
            let mut row = own(tx, &id)?.clone();
            match change {
                Change::Description(text) => row.description = text,
                Change::Permissions(asked) => {
                    for device in &row.devices {
                        let snapshot = device.snapshot_id.as_deref();
                        let snapshot = snapshot.and_then(|id| tx.of_anybody::<state::Snapshot>(id));
                        let encryption = snapshot.and_then(|snapshot| snapshot.encryption.as_ref());
                        sharing::check_encrypted(tx, &asked, encryption, refuse)?;
                    }
                    sharing::apply(&asked, &mut row.is_public, &mut row.shared_with)?;
                }
            }
            tx.audit(json!({ "image": row.id, "public": row.is_public, "shared_with": row.shared_with }));
            tx.event("image.modified", &id);
            tx.put(row);
            Ok(ModifyImageAttributeResponse {})
        })
        .await
}

pub(super) async fn reset(
    app: &App,
    request: ResetImageAttributeRequest,
) -> Result<ResetImageAttributeResponse, ApiError> {
    let id = input::id(Kind::Image, &request.image_id, "ImageId")?;
    if request.attribute != "launchPermission" {
        return Err(ApiError::invalid_value(
            "Attribute",
            &request.attribute,
            "Expecting launchPermission.",
        ));
    }
    app.store
        .transact(move |tx| {
            let row = own(tx, &id)?.clone();
            tx.audit(json!({ "image": row.id }));
            tx.event("image.modified", &id);
            tx.put(state::Image {
                is_public: false,
                shared_with: Default::default(),
                ..row
            });
            Ok(ResetImageAttributeResponse {})
        })
        .await
}
