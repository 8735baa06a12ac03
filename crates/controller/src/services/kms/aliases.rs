//! Names of keys.

use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode};
use serde_json::json;

use super::{by_id, not_found, own, page, refuse_deletion};
use crate::app::App;
use crate::keys;
use crate::state::{KmsAlias, KmsKey, Scope, State};
use crate::views::timestamp;

/// Names of a page: as many as nothing says, and the most.
const PAGE: (i32, i32) = (50, 100);
/// What names of keys begin with that the cloud makes.
const RESERVED: &str = "alias/aws/";

/// # Errors
/// `InvalidAliasNameException`; `NotAuthorizedException`: the name is the cloud's.
fn check(name: &str) -> Result<(), ApiError> {
    let rest = name.strip_prefix(KmsAlias::PREFIX).unwrap_or_default();
    let admitted = |b: u8| b.is_ascii_alphanumeric() || b"/_-".contains(&b);
    if rest.is_empty() || name.len() > 256 || !rest.bytes().all(admitted) {
        let message = format!(
            "The alias name '{name:.300}' is not valid: names are alias/ and letters, digits and /_-, 256 characters at most."
        );
        return Err(ApiError::new(ErrorCode::InvalidAliasNameException, message));
    }
    if name.starts_with(RESERVED) {
        let message =
            format!("Names that begin with {RESERVED} are those of AWS managed keys: choose another.");
        return Err(ApiError::new(ErrorCode::NotAuthorizedException, message));
    }
    Ok(())
}

fn find<'s>(state: &'s State, scope: &Scope, name: &str) -> Result<&'s KmsAlias, ApiError> {
    state.kms_alias(scope, name).ok_or_else(|| {
        let (region, account) = (scope.region(), scope.account_id());
        not_found(format!(
            "Alias arn:aws:kms:{region}:{account}:{name} is not found."
        ))
    })
}

/// The key that a name is to be given to.
fn target(app: &App, given: &str) -> Result<String, ApiError> {
    let key = own(app, &app.state(), given)?;
    refuse_deletion(&key)?;
    Ok(key.id)
}

pub(super) async fn create(app: &App, request: CreateAliasRequest) -> Result<CreateAliasResponse, ApiError> {
    check(&request.alias_name)?;
    let key_id = target(app, &request.target_key_id)?;
    let (scope, name) = (app.scope(), request.alias_name);
    app.store
        .transact(move |tx| {
            if let Some(taken) = tx.kms_alias(&scope, &name) {
                let message = format!("An alias with the name {} already exists", taken.arn());
                return Err(ApiError::new(ErrorCode::AlreadyExistsException, message));
            }
            let key = tx.get::<KmsKey>(&key_id);
            key.ok_or_else(|| not_found(format!("Key '{key_id}' does not exist")))?;
            tx.audit(json!({ "alias": name, "key": key_id }));
            let now = tx.now();
            tx.put(KmsAlias {
                id: keys::uuid(rand::random()),
                account_id: scope.account_id().to_owned(),
                region: scope.region().to_owned(),
                name,
                key_id,
                created_at: now,
                updated_at: now,
            });
            Ok(CreateAliasResponse {})
        })
        .await
}

pub(super) async fn update(app: &App, request: UpdateAliasRequest) -> Result<UpdateAliasResponse, ApiError> {
    check(&request.alias_name)?;
    let key_id = target(app, &request.target_key_id)?;
    let (scope, name) = (app.scope(), request.alias_name);
    app.store
        .transact(move |tx| {
            let alias = find(tx, &scope, &name)?.clone();
            let key = tx.get::<KmsKey>(&key_id);
            key.ok_or_else(|| not_found(format!("Key '{key_id}' does not exist")))?;
            tx.audit(json!({ "alias": name, "key": key_id }));
            let updated_at = tx.now();
            tx.put(KmsAlias {
                key_id,
                updated_at,
                ..alias
            });
            Ok(UpdateAliasResponse {})
        })
        .await
}

pub(super) async fn delete(app: &App, request: DeleteAliasRequest) -> Result<DeleteAliasResponse, ApiError> {
    check(&request.alias_name)?;
    let (scope, name) = (app.scope(), request.alias_name);
    app.store
        .transact(move |tx| {
            let id = find(tx, &scope, &name)?.id.clone();
            tx.audit(json!({ "alias": name }));
            tx.remove::<KmsAlias>(&id);
            Ok(DeleteAliasResponse {})
        })
        .await
}

pub(super) async fn list(app: &App, request: ListAliasesRequest) -> Result<ListAliasesResponse, ApiError> {
    let state = app.state();
    let mut wanted: Vec<&KmsAlias> = match request.key_id.as_str() {
        "" => state.all().collect(),
        given => state
            .by(&KmsAlias::BY_KEY, &by_id(app, &state, given)?.id)
            .collect(),
    };
    wanted.sort_by(|one, other| one.name.cmp(&other.name));
    let entry = |alias: &KmsAlias| AliasListEntry {
        alias_name: alias.name.clone(),
        alias_arn: alias.arn(),
        target_key_id: alias.key_id.clone(),
        creation_date: Some(timestamp(alias.created_at)),
        last_updated_date: Some(timestamp(alias.updated_at)),
    };
    let of_name = |alias: &&KmsAlias| alias.name.clone();
    let (aliases, next_marker) = page(wanted, PAGE, request.limit, &request.marker, of_name, entry)?;
    Ok(ListAliasesResponse {
        aliases,
        truncated: !next_marker.is_empty(),
        next_marker,
    })
}
