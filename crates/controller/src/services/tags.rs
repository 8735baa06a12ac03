//! Tags: all resources of a call change, or none.

use std::sync::Arc;

use hearth_api::filter::Filters;
use hearth_api::page::{Page, paginate};
use hearth_api::v1::{
    CreateTagsRequest, CreateTagsResponse, DeleteTagsRequest, DeleteTagsResponse, DescribeTagsRequest,
    DescribeTagsResponse, Tag, TagDescription, tags_server,
};
use hearth_api::{ApiError, Id, Kind};
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{answer, input};
use crate::app::App;
use crate::state::noun::keep_tags;
use crate::state::{Instance, METADATA_TAGS_ENABLED, State, Tags as Kept, Tx};

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
        answer(create(&self.0, request.into_inner()).await)
    }

    async fn delete_tags(
        &self,
        request: Request<DeleteTagsRequest>,
    ) -> Result<Response<DeleteTagsResponse>, Status> {
        answer(delete(&self.0, request.into_inner()).await)
    }

    async fn describe_tags(
        &self,
        request: Request<DescribeTagsRequest>,
    ) -> Result<Response<DescribeTagsResponse>, Status> {
        answer(describe(&self.0, &request.into_inner()))
    }
}

async fn create(app: &App, request: CreateTagsRequest) -> Result<CreateTagsResponse, ApiError> {
    if request.tags.is_empty() {
        return Err(ApiError::missing("Tags"));
    }
    input::check_tags(&request.tags)?;
    let ids = ids(&request.resources)?;
    app.store
        .transact(move |tx| {
            all_taggable(tx, &ids)?;
            for id in &ids {
                if in_metadata(tx, id) {
                    input::check_metadata_tags(&request.tags)?;
                }
                let mut count = 0;
                change(tx, id, |tags| {
                    tags.extend(keep_tags(&request.tags));
                    count = tags.len();
                });
                if count > input::MAX_TAGS {
                    return Err(input::too_many_tags());
                }
            }
            audit(tx, &request.resources, &request.tags);
            Ok(CreateTagsResponse {})
        })
        .await
}

/// Whether the resource is an instance whose metadata has its tags.
fn in_metadata(state: &State, id: &Id) -> bool {
    id.kind() == Kind::Instance
        && state
            .get::<Instance>(id)
            .is_some_and(|row| row.metadata_tags == METADATA_TAGS_ENABLED)
}

async fn delete(app: &App, request: DeleteTagsRequest) -> Result<DeleteTagsResponse, ApiError> {
    for tag in &request.tags {
        input::check_tag_key(&tag.key)?;
    }
    let ids = ids(&request.resources)?;
    app.store
        .transact(move |tx| {
            all_taggable(tx, &ids)?;
            for id in &ids {
                change(tx, id, |tags| {
                    if request.tags.is_empty() {
                        tags.clear();
                    }
                    for tag in &request.tags {
                        // With a value, only where the tag has it.
                        let has = tags.get(&tag.key);
                        if tag.value.is_none() || has == tag.value.as_ref() {
                            tags.remove(&tag.key);
                        }
                    }
                });
            }
            let keys: Vec<&str> = request.tags.iter().map(|t| t.key.as_str()).collect();
            tx.audit(json!({ "resources": request.resources, "keys": keys }));
            Ok(DeleteTagsResponse {})
        })
        .await
}

fn audit(tx: &mut Tx<'_>, resources: &[String], tags: &[Tag]) {
    let keys: Vec<&str> = tags.iter().map(|t| t.key.as_str()).collect();
    tx.audit(json!({ "resources": resources, "keys": keys }));
}

/// The ids of a call: well-formed, each once.
fn ids(given: &[String]) -> Result<Vec<Id>, ApiError> {
    if given.is_empty() {
        return Err(ApiError::missing("ResourceId"));
    }
    if given.len() > MAX_RESOURCES {
        let expected = format!("At most {MAX_RESOURCES} resources are admitted in a call.");
        return Err(ApiError::invalid_value("ResourceId", given.len(), expected));
    }
    let mut ids = given
        .iter()
        .map(|text| Id::parse_any(text))
        .collect::<Result<Vec<_>, _>>()?;
    ids.sort();
    ids.dedup();
    Ok(ids)
}

/// # Errors
/// `Invalid...NotFound` for the first that is not there, `InvalidParameterValue` for the first of a kind that has no tags.
fn all_taggable(state: &State, ids: &[Id]) -> Result<(), ApiError> {
    for id in ids {
        if matches!(id.kind(), Kind::Reservation | Kind::Host) {
            let expected = format!("A {} has no tags: tag its instances.", id.kind().resource_type());
            return Err(ApiError::invalid_value("ResourceId", id, expected));
        }
        if state.tags(id.kind(), id).is_none() {
            return Err(id.kind().not_found(&[id]));
        }
    }
    Ok(())
}

/// An instance's tags are part of what watchers see.
fn change(tx: &mut Tx<'_>, id: &Id, change: impl FnOnce(&mut Kept)) {
    tx.retag(id.kind(), id, change);
    if id.kind() != Kind::Instance {
        return;
    }
    tx.event("instance.tagged", id);
}

fn describe(app: &App, request: &DescribeTagsRequest) -> Result<DescribeTagsResponse, ApiError> {
    let filters = Filters::new(&request.filters, FILTERS)?;
    let state = app.state();
    let mut all: Vec<(&str, Kind, &str, &str)> = state
        .tagged()
        .flat_map(|(kind, id, tags)| {
            tags.iter()
                .map(move |(key, value)| (id, kind, key.as_str(), value.as_str()))
        })
        .collect();
    all.sort_unstable_by_key(|(id, _, key, _)| (*id, *key));
    let tell = |(id, kind, key, value): (&str, Kind, &str, &str)| {
        let told = TagDescription {
            resource_id: id.to_owned(),
            resource_type: kind.resource_type().to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let itself = [Tag {
            key: told.key.clone(),
            value: told.value.clone(),
        }];
        let passes = filters.matches(&itself, |name| {
            vec![
                match name {
                    "key" => &told.key,
                    "value" => &told.value,
                    "resource-type" => &told.resource_type,
                    _ => &told.resource_id,
                }
                .as_str()
                .into(),
            ]
        });
        passes.then_some(told)
    };
    let page = Page::new(request.max_results, &request.next_token);
    let (tags, next_token) = paginate(all, page, |(id, _, key, _)| format!("{id}/{key}"), tell)?;
    Ok(DescribeTagsResponse { tags, next_token })
}
