//! Tags of keys. They are KMS's own: EC2's calls do not tell them.

use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode};

use super::{by_id, change, page, refuse_deletion};
use crate::app::App;
use crate::state::Tags;

const MOST: usize = 50;
/// Tags of a page: as many as nothing says, and the most.
const PAGE: (i32, i32) = (50, 50);

/// # Errors
/// `TagException`.
fn wrong(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::TagException, message)
}

/// # Errors
/// `TagException` for a wrong one, one key twice, or too many.
pub(super) fn checked(given: &[KmsTag]) -> Result<Tags, ApiError> {
    let mut tags = Tags::new();
    for KmsTag { tag_key, tag_value } in given {
        let is_key =
            (1..=128).contains(&tag_key.chars().count()) && !tag_key.to_ascii_lowercase().starts_with("aws:");
        if !is_key || tag_value.chars().count() > 256 {
            return Err(wrong(format!(
                "The tag '{tag_key}' is not valid: keys have 1 to 128 characters and do not begin with 'aws:', values have at \
                 most 256."
            )));
        }
        if tags.insert(tag_key.clone(), tag_value.clone()).is_some() {
            return Err(wrong(format!("The tag key '{tag_key}' is there twice.")));
        }
    }
    match tags.len() {
        ..=MOST => Ok(tags),
        _ => Err(wrong(format!("A key has at most {MOST} tags."))),
    }
}

pub(super) async fn tag(app: &App, request: TagResourceRequest) -> Result<TagResourceResponse, ApiError> {
    let given = checked(&request.tags)?;
    change(app, request.key_id, |key, _| {
        refuse_deletion(key)?;
        key.tags.extend(given);
        match key.tags.len() {
            ..=MOST => Ok(()),
            _ => Err(wrong(format!("A key has at most {MOST} tags."))),
        }
    })
    .await?;
    Ok(TagResourceResponse {})
}

pub(super) async fn untag(
    app: &App,
    request: UntagResourceRequest,
) -> Result<UntagResourceResponse, ApiError> {
    let names = request.tag_keys;
    change(app, request.key_id, move |key, _| {
        refuse_deletion(key)?;
        key.tags.retain(|name, _| !names.contains(name));
        Ok(())
    })
    .await?;
    Ok(UntagResourceResponse {})
}

pub(super) async fn list(
    app: &App,
    request: ListResourceTagsRequest,
) -> Result<ListResourceTagsResponse, ApiError> {
    let state = app.state();
    let key = by_id(app, &state, &request.key_id)?;
    let entry = |(tag_key, tag_value): (&String, &String)| KmsTag {
        tag_key: tag_key.clone(),
        tag_value: tag_value.clone(),
    };
    let of_key = |(name, _): &(&String, &String)| (*name).clone();
    let (tags, next_marker) = page(&key.tags, PAGE, request.limit, &request.marker, of_key, entry)?;
    Ok(ListResourceTagsResponse {
        tags,
        truncated: !next_marker.is_empty(),
        next_marker,
    })
}
