//! Access keys of users. The root user's is made with the cloud.

use std::sync::Arc;

use hearth_api::ApiError;
use hearth_api::v1::*;
use serde_json::json;

use super::pages::page;
use super::{find_user, invalid, limit_exceeded, no_such};
use crate::app::App;
use crate::iam::Identity;
use crate::state::{self, State};
use crate::views::timestamp;

/// Keys of one user.
pub const MOST: usize = 2;

fn status(key: &state::AccessKey) -> String {
    if key.is_inactive { "Inactive" } else { "Active" }.to_owned()
}

/// Whose keys a request is about: a user's id and name, or the root user's, who has neither.
fn owner(app: &App, state: &State, name: &str) -> Result<(Option<String>, String), ApiError> {
    if name.is_empty() && matches!(Identity::current(state, &app.account())?, Identity::Root { .. }) {
        return Ok((None, String::new()));
    }
    let user = find_user(app, state, name)?;
    Ok((Some(user.id.clone()), user.name.clone()))
}

fn keys<'s>(state: &'s State, account_id: &str, user_id: Option<&str>) -> Vec<&'s state::AccessKey> {
    match user_id {
        Some(id) => state.by(&state::AccessKey::BY_USER, id).collect(),
        None => state.by(&state::AccessKey::BY_ACCOUNT, account_id).collect(),
    }
}

pub(super) async fn create(
    app: &App,
    request: CreateAccessKeyRequest,
) -> Result<CreateAccessKeyResponse, ApiError> {
    let (user_id, user_name) = owner(app, &app.state(), &request.user_name)?;
    let (account_id, vault) = (app.account(), Arc::clone(&app.vault));
    let made = app.store.transact(move |tx| {
        if keys(tx, &account_id, user_id.as_deref()).len() >= MOST {
            return Err(limit_exceeded("AccessKeysPerUser", MOST));
        }
        let (key, secret) =
            state::AccessKey::generate(&vault.root, &account_id, user_id.as_deref(), tx.now())?;
        tx.audit(json!({ "user": user_id, "access_key": key.id }));
        tx.put(key.clone());
        Ok((key, secret))
    });
    let (key, secret) = made.await?;
    Ok(CreateAccessKeyResponse {
        access_key: Some(AccessKey {
            access_key_id: key.id.clone(),
            create_date: Some(timestamp(key.created_at)),
            secret_access_key: secret.0,
            status: status(&key),
            user_name,
        }),
    })
}

pub(super) async fn list(
    app: &App,
    request: ListAccessKeysRequest,
) -> Result<ListAccessKeysResponse, ApiError> {
    let state = app.state();
    let (user_id, user_name) = owner(app, &state, &request.user_name)?;
    let keys = keys(&state, &app.account(), user_id.as_deref());
    let (keys, is_truncated, marker) = page(keys, &request.marker, request.max_items, |key| key.id.as_str())?;
    let tell = |key: &state::AccessKey| AccessKeyMetadata {
        access_key_id: key.id.clone(),
        create_date: Some(timestamp(key.created_at)),
        status: status(key),
        user_name: user_name.clone(),
    };
    Ok(ListAccessKeysResponse {
        access_key_metadata: keys.into_iter().map(tell).collect(),
        is_truncated,
        marker,
    })
}

pub(super) async fn update(
    app: &App,
    request: UpdateAccessKeyRequest,
) -> Result<UpdateAccessKeyResponse, ApiError> {
    let is_inactive = match request.status.as_str() {
        "Active" => false,
        "Inactive" => true,
        _ => {
            return Err(invalid(
                "status",
                "Member must satisfy enum value set: [Active, Inactive]",
            ));
        }
    };
    change(app, &request.user_name, request.access_key_id, move |tx, key| {
        tx.put(state::AccessKey { is_inactive, ..key });
    })
    .await?;
    Ok(UpdateAccessKeyResponse {})
}

pub(super) async fn delete(
    app: &App,
    request: DeleteAccessKeyRequest,
) -> Result<DeleteAccessKeyResponse, ApiError> {
    change(app, &request.user_name, request.access_key_id, |tx, key| {
        tx.remove::<state::AccessKey>(&key.id);
    })
    .await?;
    Ok(DeleteAccessKeyResponse {})
}

async fn change(
    app: &App,
    user_name: &str,
    id: String,
    change: impl FnOnce(&mut state::Tx<'_>, state::AccessKey) + Send + 'static,
) -> Result<(), ApiError> {
    let (user_id, _) = owner(app, &app.state(), user_name)?;
    app.store
        .transact(move |tx| {
            let found = tx
                .get::<state::AccessKey>(&id)
                .filter(|key| key.user_id == user_id);
            let Some(key) = found.cloned() else {
                return Err(no_such(format!("The Access Key with id {id} cannot be found.")));
            };
            tx.audit(json!({ "user": user_id, "access_key": id }));
            change(tx, key);
            Ok(())
        })
        .await
}
