//! Tags: all resources of a call change, or none.

use std::sync::Arc;

use hearth_api::filter::Filters;
use hearth_api::page::paginate;
use hearth_api::v1::{
    CreateTagsRequest, CreateTagsResponse, DeleteTagsRequest, DeleteTagsResponse, DescribeTagsRequest,
    DescribeTagsResponse, TagDescription, tags_server,
};
use hearth_api::{ApiError, Id, Kind};
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{Failure, answer, commit, input, refuse_dry_run};
use crate::app::App;
use crate::store::{WriteTransaction, instances, tags};

const FILTERS: &[&str] = &["key", "resource-id", "resource-type", "tag", "value"];
/// Resources that one call may name.
const MAX_RESOURCES: usize = 1000;

pub(super) struct Tags(pub(super) Arc<App>);

#[tonic::async_trait]
impl tags_server::Tags for Tags {
    async fn create_tags(
        &self,
        request: Request<CreateTagsRequest>,
    ) -> Result<Response<CreateTagsResponse>, Status> {
        answer("CreateTags", create(&self.0, &request.into_inner()).await)
    }

    async fn delete_tags(
        &self,
        request: Request<DeleteTagsRequest>,
    ) -> Result<Response<DeleteTagsResponse>, Status> {
        answer("DeleteTags", delete(&self.0, &request.into_inner()).await)
    }

    async fn describe_tags(
        &self,
        request: Request<DescribeTagsRequest>,
    ) -> Result<Response<DescribeTagsResponse>, Status> {
        answer("DescribeTags", describe(&self.0, &request.into_inner()).await)
    }
}

async fn create(app: &App, request: &CreateTagsRequest) -> Result<CreateTagsResponse, Failure> {
    if request.tags.is_empty() {
        return Err(ApiError::missing("Tags").into());
    }
    input::check_tags(&request.tags)?;
    let mut tx = app.store.write().await?;
    for id in resources(&mut tx, &request.resources).await? {
        if in_metadata(&mut tx, &id).await? {
            input::check_metadata_tags(&request.tags)?;
        }
        tags::put(tx.connection(), &id, id.kind().resource_type(), &request.tags).await?;
        if usize::try_from(tags::count(tx.connection(), &id).await?).unwrap_or(usize::MAX) > input::MAX_TAGS {
            return Err(input::too_many_tags().into());
        }
        changed(&mut tx, &id).await?;
    }
    let keys: Vec<&str> = request.tags.iter().map(|t| t.key.as_str()).collect();
    tx.audit(
        "CreateTags",
        &json!({ "resources": request.resources, "keys": keys }),
    )
    .await?;
    commit(tx, request.dry_run).await?;
    Ok(CreateTagsResponse {})
}

/// Whether the resource is an instance whose metadata has its tags.
async fn in_metadata(tx: &mut WriteTransaction, id: &Id) -> sqlx::Result<bool> {
    if id.kind() != Kind::Instance {
        return Ok(false);
    }
    let rows = instances::by_ids(tx.connection(), &[id.to_string()]).await?;
    Ok(rows
        .iter()
        .any(|row| row.metadata_tags == instances::METADATA_TAGS_ENABLED))
}

async fn delete(app: &App, request: &DeleteTagsRequest) -> Result<DeleteTagsResponse, Failure> {
    for tag in &request.tags {
        input::check_tag_key(&tag.key)?;
    }
    let mut tx = app.store.write().await?;
    for id in resources(&mut tx, &request.resources).await? {
        if request.tags.is_empty() {
            tags::remove_all(tx.connection(), &id).await?;
        }
        for tag in &request.tags {
            tags::remove(tx.connection(), &id, &tag.key, tag.value.as_deref()).await?;
        }
        changed(&mut tx, &id).await?;
    }
    let keys: Vec<&str> = request.tags.iter().map(|t| t.key.as_str()).collect();
    tx.audit(
        "DeleteTags",
        &json!({ "resources": request.resources, "keys": keys }),
    )
    .await?;
    commit(tx, request.dry_run).await?;
    Ok(DeleteTagsResponse {})
}

/// The resources of a call: well-formed, and all there.
async fn resources(tx: &mut WriteTransaction, given: &[String]) -> Result<Vec<Id>, Failure> {
    if given.is_empty() {
        return Err(ApiError::missing("ResourceId").into());
    }
    if given.len() > MAX_RESOURCES {
        let expected = format!("At most {MAX_RESOURCES} resources are admitted in a call.");
        return Err(ApiError::invalid_value("ResourceId", given.len(), expected).into());
    }
    let mut ids = Vec::with_capacity(given.len());
    for text in given {
        let id = Id::parse_any(text)?;
        if !exists(tx, &id).await? {
            return Err(id.kind().not_found(&[text]).into());
        }
        ids.push(id);
    }
    ids.sort();
    ids.dedup();
    Ok(ids)
}

async fn exists(tx: &mut WriteTransaction, id: &Id) -> sqlx::Result<bool> {
    let query = match id.kind() {
        Kind::Instance => "SELECT 1 FROM instances WHERE id = ?",
        Kind::Image => "SELECT 1 FROM images WHERE id = ? AND state = 'available'",
        Kind::SecurityGroup => "SELECT 1 FROM security_groups WHERE id = ?",
        Kind::SecurityGroupRule => "SELECT 1 FROM security_group_rules WHERE id = ?",
        Kind::Volume => "SELECT 1 FROM volumes WHERE id = ?",
        Kind::NetworkInterface => "SELECT 1 FROM network_interfaces WHERE id = ?",
        Kind::KeyPair => "SELECT 1 FROM key_pairs WHERE id = ?",
        Kind::Reservation => "SELECT 1 FROM reservations WHERE id = ?",
        Kind::Vpc => "SELECT 1 FROM vpcs WHERE id = ?",
        Kind::Subnet => "SELECT 1 FROM subnets WHERE id = ?",
        Kind::Host => "SELECT 1 FROM hosts WHERE id = ?",
    };
    let found: Option<i64> = sqlx::query_scalar(query)
        .bind(id.to_string())
        .fetch_optional(tx.connection())
        .await?;
    Ok(found.is_some())
}

/// An instance's tags are part of what its host tells it, and of what watchers see.
async fn changed(tx: &mut WriteTransaction, id: &Id) -> sqlx::Result<()> {
    if id.kind() != Kind::Instance {
        return Ok(());
    }
    for row in instances::by_ids(tx.connection(), &[id.to_string()]).await? {
        tx.touch_host(&row.host_id);
    }
    tx.event("instance.tagged", id).await
}

async fn describe(app: &App, request: &DescribeTagsRequest) -> Result<DescribeTagsResponse, Failure> {
    let filters = Filters::new(&request.filters, FILTERS)?;
    refuse_dry_run(request.dry_run)?;
    let mut read = app.store.read().await?;
    let rows = tags::all(&mut read).await?;
    drop(read);
    let told = rows.into_iter().map(|row| TagDescription {
        resource_id: row.resource_id,
        resource_type: row.resource_type,
        key: row.key,
        value: row.value,
    });
    let told = told.filter(|tag| {
        let itself = [hearth_api::v1::Tag {
            key: tag.key.clone(),
            value: tag.value.clone(),
        }];
        filters.matches(&itself, |name| {
            vec![
                match name {
                    "key" => &tag.key,
                    "value" => &tag.value,
                    "resource-type" => &tag.resource_type,
                    _ => &tag.resource_id,
                }
                .clone()
                .into(),
            ]
        })
    });
    let (tags, next_token) = paginate(told.collect(), request.page.as_ref(), |tag: &TagDescription| {
        format!("{}/{}", tag.resource_id, tag.key)
    })?;
    Ok(DescribeTagsResponse { tags, next_token })
}
