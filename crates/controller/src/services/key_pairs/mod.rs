//! Key pairs. Private halves are told once and never kept.

use std::sync::Arc;

use hearth_api::filter::{Filters, Known};
use hearth_api::known;
use hearth_api::v1::{
    CreateKeyPairRequest, DeleteKeyPairRequest, DeleteKeyPairResponse, DescribeKeyPairsRequest,
    DescribeKeyPairsResponse, ImportKeyPairRequest, ImportKeyPairResult, KeyPair, KeyPairInfo,
    TagSpecification, key_pairs_server,
};
use hearth_api::{ApiError, ErrorCode, Id, Kind};
use serde_json::json;
use tonic::{Request, Response, Status};

use self::material::Public;
use super::{answer, input};
use crate::app::App;
use crate::state;
use crate::state::noun::{keep_tags, tell_tags};
use crate::views;

mod material;

pub(super) const FILTERS: Known<KeyPairInfo> = known! {
    tags: |item| &item.tags;
    "fingerprint" => key_fingerprint,
    "key-name" => key_name,
    "key-pair-id" => key_pair_id,
    "key-type" => key_type,
};

pub(super) struct KeyPairs(pub(super) Arc<App>);

#[tonic::async_trait]
impl key_pairs_server::KeyPairs for KeyPairs {
    async fn create_key_pair(
        &self,
        request: Request<CreateKeyPairRequest>,
    ) -> Result<Response<KeyPair>, Status> {
        answer(create(&self.0, request.into_inner()).await)
    }

    async fn import_key_pair(
        &self,
        request: Request<ImportKeyPairRequest>,
    ) -> Result<Response<ImportKeyPairResult>, Status> {
        answer(import(&self.0, request.into_inner()).await)
    }

    async fn describe_key_pairs(
        &self,
        request: Request<DescribeKeyPairsRequest>,
    ) -> Result<Response<DescribeKeyPairsResponse>, Status> {
        answer(describe(&self.0, &request.into_inner()))
    }

    async fn delete_key_pair(
        &self,
        request: Request<DeleteKeyPairRequest>,
    ) -> Result<Response<DeleteKeyPairResponse>, Status> {
        answer(delete(&self.0, request.into_inner()).await)
    }
}

/// The OpenSSH line of a public key that may log in.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub(super) fn check_login_key(key: &str) -> Result<String, String> {
    let read = material::import("ec2-instance-connect", key.as_bytes());
    read.map(|public| public.line).map_err(|error| error.message)
}

async fn create(app: &App, request: CreateKeyPairRequest) -> Result<KeyPair, ApiError> {
    check_name(&request.key_name)?;
    let name = request.key_name.clone();
    let make = match request.key_type.as_str() {
        "" | material::RSA => material::create_rsa,
        material::ED25519 => material::create_ed25519,
        other => {
            return Err(ApiError::invalid_value(
                "KeyType",
                other,
                "Expecting rsa or ed25519.",
            ));
        }
    };
    let made = tokio::task::spawn_blocking(move || make(&name)).await;
    let made = made.map_err(|error| ApiError::internal(&error))?;
    let created = made.map_err(|error| ApiError::internal(&error))?;
    let row = insert(
        app,
        &request.key_name,
        created.public,
        &request.tag_specifications,
    )
    .await?;
    Ok(KeyPair {
        tags: tell_tags(&row.tags),
        key_pair_id: row.id,
        key_name: row.name,
        key_fingerprint: row.fingerprint,
        key_material: created.private_pem,
    })
}

async fn import(app: &App, request: ImportKeyPairRequest) -> Result<ImportKeyPairResult, ApiError> {
    check_name(&request.key_name)?;
    let public = material::import(&request.key_name, &request.public_key_material)?;
    let row = insert(app, &request.key_name, public, &request.tag_specifications).await?;
    Ok(ImportKeyPairResult {
        tags: tell_tags(&row.tags),
        key_pair_id: row.id,
        key_name: row.name,
        key_fingerprint: row.fingerprint,
    })
}

fn check_name(name: &str) -> Result<(), ApiError> {
    if name.is_empty() {
        return Err(ApiError::missing("KeyName"));
    }
    // The name becomes the comment of an OpenSSH line.
    let printable = name.chars().all(|c| c.is_ascii() && !c.is_ascii_control());
    if name.len() > 255 || !printable || name.trim() != name {
        return Err(ApiError::invalid_value(
            "KeyName",
            name,
            "Expecting up to 255 ASCII characters without leading or trailing spaces.",
        ));
    }
    Ok(())
}

async fn insert(
    app: &App,
    name: &str,
    public: Public,
    specifications: &[TagSpecification],
) -> Result<state::KeyPair, ApiError> {
    let tags = input::tags_for(specifications, &[Kind::KeyPair], Kind::KeyPair)?;
    let (scope, name) = (app.scope(), name.to_owned());
    app.store
        .transact(move |tx| {
            if tx.key_pair_named(&scope, &name).is_some() {
                return Err(ApiError::new(
                    ErrorCode::InvalidKeyPairDuplicate,
                    format!("The keypair '{name}' already exists. Choose another name, or delete it first."),
                ));
            }
            let row = state::KeyPair {
                id: Id::new(Kind::KeyPair).to_string(),
                account_id: scope.account_id().to_owned(),
                region: scope.region().to_owned(),
                name,
                key_type: public.key_type.to_owned(),
                fingerprint: public.fingerprint,
                public_key: public.line,
                created_at: tx.now(),
                tags: keep_tags(&tags),
            };
            tx.audit(json!({ "key_pair": row.id, "name": row.name }));
            tx.event("key-pair.created", &row.id);
            tx.put(row.clone());
            Ok(row)
        })
        .await
}

fn tell(row: &state::KeyPair, with_public_key: bool) -> KeyPairInfo {
    KeyPairInfo {
        key_pair_id: row.id.clone(),
        key_name: row.name.clone(),
        key_type: row.key_type.clone(),
        key_fingerprint: row.fingerprint.clone(),
        create_time: Some(views::timestamp(row.created_at)),
        tags: tell_tags(&row.tags),
        public_key: if with_public_key {
            row.public_key.clone()
        } else {
            String::new()
        },
    }
}

fn describe(app: &App, request: &DescribeKeyPairsRequest) -> Result<DescribeKeyPairsResponse, ApiError> {
    let filters = Filters::new(&request.filters, &FILTERS)?;
    let state = app.state();
    input::all_known(Kind::KeyPair, &request.key_pair_ids, |id| {
        state.get::<state::KeyPair>(id).is_some()
    })?;
    let unknown: Vec<&String> = request
        .key_names
        .iter()
        .filter(|name| state.key_pair_named(&app.scope(), name).is_none())
        .collect();
    if !unknown.is_empty() {
        return Err(Kind::KeyPair.not_found(&unknown));
    }
    let unnamed = request.key_names.is_empty() && request.key_pair_ids.is_empty();
    let mut rows: Vec<&state::KeyPair> = state
        .all::<state::KeyPair>()
        .filter(|row| {
            unnamed || request.key_names.contains(&row.name) || request.key_pair_ids.contains(&row.id)
        })
        .collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    let told = rows
        .into_iter()
        .map(|row| tell(row, request.include_public_key))
        .filter(|pair| filters.matches(pair));
    Ok(DescribeKeyPairsResponse {
        key_pairs: told.collect(),
    })
}

/// Instances keep the key that they were launched with.
async fn delete(app: &App, request: DeleteKeyPairRequest) -> Result<DeleteKeyPairResponse, ApiError> {
    let scope = app.scope();
    app.store
        .transact(move |tx| {
            let (name, id) = (request.key_name.as_str(), request.key_pair_id.as_str());
            let found = match (name, id) {
                ("", "") => return Err(ApiError::missing("KeyName")),
                (name, "") => tx.key_pair_named(&scope, name),
                ("", id) => tx.get::<state::KeyPair>(&Id::parse(Kind::KeyPair, id)?),
                _ => return Err(ApiError::combination("KeyName", "KeyPairId")),
            };
            let deleted = found.map(|row| row.id.clone());
            if let Some(id) = &deleted {
                tx.remove::<state::KeyPair>(id);
                tx.event("key-pair.deleted", id);
            }
            tx.audit(json!({ "key_pair": deleted, "name": name }));
            Ok(DeleteKeyPairResponse {
                key_pair_id: deleted.unwrap_or_default(),
                r#return: true,
            })
        })
        .await
}
