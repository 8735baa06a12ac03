//! Key pairs. Private halves are told once and never kept.

use std::sync::Arc;

use hearth_api::filter::Filters;
use hearth_api::v1::{
    CreateKeyPairRequest, CreateKeyPairResponse, DeleteKeyPairRequest, DeleteKeyPairResponse,
    DescribeKeyPairsRequest, DescribeKeyPairsResponse, ImportKeyPairRequest, KeyPair, TagSpecification,
    key_pairs_server,
};
use hearth_api::{ApiError, ErrorCode, Id, Kind};
use serde_json::json;
use tonic::{Request, Response, Status};

use self::material::Public;
use super::{Failure, answer, commit, input, refuse_dry_run};
use crate::app::App;
use crate::store::key_pairs::{self, KeyPairRow};
use crate::store::{now, tags, views};

mod material;

const FILTERS: &[&str] = &["fingerprint", "key-name", "key-pair-id", "key-type", "tag"];

pub(super) struct KeyPairs(pub(super) Arc<App>);

#[tonic::async_trait]
impl key_pairs_server::KeyPairs for KeyPairs {
    async fn create_key_pair(
        &self,
        request: Request<CreateKeyPairRequest>,
    ) -> Result<Response<CreateKeyPairResponse>, Status> {
        answer("CreateKeyPair", create(&self.0, request.into_inner()).await)
    }

    async fn import_key_pair(
        &self,
        request: Request<ImportKeyPairRequest>,
    ) -> Result<Response<KeyPair>, Status> {
        answer("ImportKeyPair", import(&self.0, request.into_inner()).await)
    }

    async fn describe_key_pairs(
        &self,
        request: Request<DescribeKeyPairsRequest>,
    ) -> Result<Response<DescribeKeyPairsResponse>, Status> {
        answer("DescribeKeyPairs", describe(&self.0, &request.into_inner()).await)
    }

    async fn delete_key_pair(
        &self,
        request: Request<DeleteKeyPairRequest>,
    ) -> Result<Response<DeleteKeyPairResponse>, Status> {
        answer("DeleteKeyPair", delete(&self.0, &request.into_inner()).await)
    }
}

async fn create(app: &App, request: CreateKeyPairRequest) -> Result<CreateKeyPairResponse, Failure> {
    check_name(&request.key_name)?;
    let name = request.key_name.clone();
    let make = match request.key_type.as_str() {
        "" | material::RSA => material::create_rsa,
        material::ED25519 => material::create_ed25519,
        other => return Err(ApiError::invalid_value("KeyType", other, "Expecting rsa or ed25519.").into()),
    };
    let made = tokio::task::spawn_blocking(move || make(&name)).await;
    let made = made.map_err(|error| ApiError::internal(&error))?;
    let created = made.map_err(|error| ApiError::internal(&error))?;
    let key_pair = insert(
        app,
        "CreateKeyPair",
        &request.key_name,
        created.public,
        &request.tag_specifications,
        request.dry_run,
    )
    .await?;
    Ok(CreateKeyPairResponse {
        key_pair: Some(key_pair),
        key_material: created.private_pem,
    })
}

async fn import(app: &App, request: ImportKeyPairRequest) -> Result<KeyPair, Failure> {
    check_name(&request.key_name)?;
    let public = material::import(&request.key_name, &request.public_key_material)?;
    insert(
        app,
        "ImportKeyPair",
        &request.key_name,
        public,
        &request.tag_specifications,
        request.dry_run,
    )
    .await
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
    action: &str,
    name: &str,
    public: Public,
    specifications: &[TagSpecification],
    dry_run: bool,
) -> Result<KeyPair, Failure> {
    let given = input::tags_for(specifications, &[Kind::KeyPair], Kind::KeyPair)?;
    let mut tx = app.store.write().await?;
    if key_pairs::by_name(tx.connection(), name).await?.is_some() {
        return Err(ApiError::new(
            ErrorCode::InvalidKeyPairDuplicate,
            format!("The keypair '{name}' already exists. Choose another name, or delete it first."),
        )
        .into());
    }
    let row = KeyPairRow {
        id: Id::new(Kind::KeyPair).to_string(),
        name: name.to_owned(),
        key_type: public.key_type.to_owned(),
        fingerprint: public.fingerprint,
        public_key: public.line,
        created_at: now(),
    };
    key_pairs::insert(tx.connection(), &row).await?;
    tags::put(tx.connection(), &row.id, Kind::KeyPair.resource_type(), &given).await?;
    tx.audit(action, &json!({ "key_pair": row.id, "name": name }))
        .await?;
    tx.event("key-pair.created", &row.id).await?;
    commit(tx, dry_run).await?;
    let mut told = tell(row);
    told.public_key.clear();
    told.tags = given;
    Ok(told)
}

fn tell(row: KeyPairRow) -> KeyPair {
    KeyPair {
        key_pair_id: row.id,
        key_name: row.name,
        key_type: row.key_type,
        key_fingerprint: row.fingerprint,
        create_time: Some(views::timestamp(row.created_at)),
        tags: Vec::new(),
        public_key: row.public_key,
    }
}

async fn describe(app: &App, request: &DescribeKeyPairsRequest) -> Result<DescribeKeyPairsResponse, Failure> {
    let filters = Filters::new(&request.filters, FILTERS)?;
    let mut read = app.store.read().await?;
    let rows = key_pairs::all(&mut read).await?;
    let mut tags = tags::of_type(&mut read, Kind::KeyPair.resource_type(), None).await?;
    drop(read);
    input::all_known(
        Kind::KeyPair,
        &request.key_pair_ids,
        rows.iter().map(|row| row.id.as_str()),
    )?;
    let unknown: Vec<&String> = request
        .key_names
        .iter()
        .filter(|name| !rows.iter().any(|row| row.name == **name))
        .collect();
    if !unknown.is_empty() {
        return Err(Kind::KeyPair.not_found(&unknown).into());
    }
    refuse_dry_run(request.dry_run)?;
    let pairs = rows.into_iter().map(|row| {
        let tags = tags.remove(&row.id).unwrap_or_default();
        KeyPair { tags, ..tell(row) }
    });
    let unnamed = request.key_names.is_empty() && request.key_pair_ids.is_empty();
    let told = pairs.filter(|pair| {
        let named =
            request.key_names.contains(&pair.key_name) || request.key_pair_ids.contains(&pair.key_pair_id);
        (unnamed || named)
            && filters.matches(&pair.tags, |name| {
                vec![match name {
                    "fingerprint" => pair.key_fingerprint.as_str().into(),
                    "key-name" => pair.key_name.as_str().into(),
                    "key-type" => pair.key_type.as_str().into(),
                    _ => pair.key_pair_id.as_str().into(),
                }]
            })
    });
    let shown = told.map(|mut pair| {
        if !request.include_public_key {
            pair.public_key.clear();
        }
        pair
    });
    Ok(DescribeKeyPairsResponse {
        key_pairs: shown.collect(),
    })
}

/// Instances keep the key that they were launched with.
async fn delete(app: &App, request: &DeleteKeyPairRequest) -> Result<DeleteKeyPairResponse, Failure> {
    let (name, id) = (request.key_name.as_str(), request.key_pair_id.as_str());
    let mut tx = app.store.write().await?;
    let found = match (name, id) {
        ("", "") => return Err(ApiError::missing("KeyName").into()),
        (name, "") => key_pairs::by_name(tx.connection(), name).await?,
        ("", id) => {
            Id::parse(Kind::KeyPair, id)?;
            key_pairs::by_id(tx.connection(), id).await?
        }
        _ => return Err(ApiError::combination("KeyName", "KeyPairId").into()),
    };
    if let Some(row) = &found {
        key_pairs::delete(tx.connection(), &row.id).await?;
        tags::remove_all(tx.connection(), &row.id).await?;
        tx.event("key-pair.deleted", &row.id).await?;
    }
    let deleted = found.map(|row| row.id);
    tx.audit("DeleteKeyPair", &json!({ "key_pair": deleted, "name": name }))
        .await?;
    commit(tx, request.dry_run).await?;
    Ok(DeleteKeyPairResponse {})
}
