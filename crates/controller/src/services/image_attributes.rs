//! DescribeImageAttribute, ModifyImageAttribute, ResetImageAttribute: who else may launch an image, and what it is.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/sharingamis-explicit.html>

use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode, Kind};
use serde_json::json;

use super::{images, input};
use crate::app::App;
use crate::state::{self, State};

/// The group of all accounts, the only one that there is.
const ALL: &str = "all";
/// Accounts that an image is shared with.
const MOST: usize = 1000;
/// Characters of a description.
const LONGEST: usize = 255;

pub(super) fn describe(
    app: &App,
    request: &DescribeImageAttributeRequest,
) -> Result<ImageAttribute, ApiError> {
    let id = input::id(Kind::Image, &request.image_id, "ImageId")?;
    let state = app.state();
    let row = state.get::<state::Image>(&id).filter(|row| row.is_available());
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
        "blockDeviceMapping" => told.block_device_mappings = images::tell(&state, row).block_device_mappings,
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
    let seen = state.get::<state::Image>(id).filter(|row| row.is_available());
    seen.ok_or_else(|| Kind::Image.not_found(&[id]))?;
    state.own(id).ok_or_else(|| {
        ApiError::new(
            ErrorCode::AuthFailure,
            format!("Not authorized for image:{id}. Its owner alone may do this."),
        )
    })
}

fn permissions(row: &state::Image) -> Vec<LaunchPermission> {
    let everybody = row.is_public.then(|| LaunchPermission {
        group: ALL.to_owned(),
        user_id: String::new(),
    });
    let accounts = row.shared_with.iter().map(|account| LaunchPermission {
        group: String::new(),
        user_id: account.clone(),
    });
    everybody.into_iter().chain(accounts).collect()
}

/// What a request asks for.
#[derive(Debug)]
enum Change {
    Permissions(LaunchPermissionModifications),
    Description(String),
}

fn change(request: &ModifyImageAttributeRequest) -> Result<Change, ApiError> {
    match (
        &request.launch_permission,
        &request.description,
        request.attribute.as_str(),
    ) {
        (Some(_), Some(_), _) => Err(ApiError::combination("LaunchPermission", "Description")),
        (Some(given), None, "" | "launchPermission") => Ok(Change::Permissions(given.clone())),
        (None, Some(given), "" | "description") => Ok(Change::Description(given.value.clone())),
        (None, None, "description") => Ok(Change::Description(request.value.clone())),
        (None, None, "launchPermission") => listed(request),
        (None, None, "") => Err(ApiError::missing("LaunchPermission")),
        (_, _, other) => Err(unknown(other)),
    }
}

/// The older form of a request.
fn listed(request: &ModifyImageAttributeRequest) -> Result<Change, ApiError> {
    let groups = request.user_groups.iter().map(|group| LaunchPermission {
        group: group.clone(),
        user_id: String::new(),
    });
    let accounts = request.user_ids.iter().map(|account| LaunchPermission {
        group: String::new(),
        user_id: account.clone(),
    });
    let named = groups.chain(accounts).collect();
    let mut modifications = LaunchPermissionModifications::default();
    match request.operation_type.as_str() {
        "add" => modifications.add = named,
        "remove" => modifications.remove = named,
        "" => return Err(ApiError::missing("OperationType")),
        other => {
            return Err(ApiError::invalid_value(
                "OperationType",
                other,
                "Expecting add or remove.",
            ));
        }
    }
    Ok(Change::Permissions(modifications))
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
                    share(&mut row, &asked.add, true)?;
                    share(&mut row, &asked.remove, false)?;
                }
            }
            tx.audit(json!({ "image": row.id, "public": row.is_public, "shared_with": row.shared_with }));
            tx.event("image.modified", &id);
            tx.put(row);
            Ok(ModifyImageAttributeResponse {})
        })
        .await
}

fn share(row: &mut state::Image, named: &[LaunchPermission], may: bool) -> Result<(), ApiError> {
    let item = |value: &str, of: &str| {
        ApiError::new(
            ErrorCode::InvalidAmiAttributeItemValue,
            format!("Invalid attribute item value \"{value}\" for {of} item type."),
        )
    };
    for LaunchPermission { user_id, group } in named {
        match (user_id.as_str(), group.as_str()) {
            ("", ALL) => row.is_public = may,
            (account, "") if account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()) => {
                if may {
                    row.shared_with.insert(account.to_owned());
                } else {
                    row.shared_with.remove(account);
                }
            }
            (account, "") => return Err(item(account, "userId")),
            ("", group) => return Err(item(group, "group")),
            _ => return Err(ApiError::combination("UserId", "Group")),
        }
    }
    if row.shared_with.len() > MOST {
        let message = format!("An image is shared with at most {MOST} accounts. Share it with all.");
        return Err(ApiError::new(ErrorCode::ResourceLimitExceeded, message));
    }
    Ok(())
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
