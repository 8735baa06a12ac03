//! ModifyInstanceMetadataOptions.

use hearth_api::v1::{
    InstanceMetadataOptions, ModifyInstanceMetadataOptionsRequest, ModifyInstanceMetadataOptionsResult, Tag,
};
use hearth_api::{ApiError, ErrorCode, InstanceState, Kind};
use serde_json::json;

use super::plan;
use crate::app::App;
use crate::services::input;
use crate::state::noun::tell_tags;
use crate::state::{Instance, METADATA_TAGS_ENABLED, Tx};
use crate::views;

pub(super) async fn modify(
    app: &App,
    request: ModifyInstanceMetadataOptionsRequest,
) -> Result<ModifyInstanceMetadataOptionsResult, ApiError> {
    input::id(Kind::Instance, &request.instance_id, "InstanceId")?;
    app.store.transact(move |tx| set(tx, request)).await
}

fn set(
    tx: &mut Tx<'_>,
    request: ModifyInstanceMetadataOptionsRequest,
) -> Result<ModifyInstanceMetadataOptionsResult, ApiError> {
    let instance_id = request.instance_id;
    let Some(row) = tx.get::<Instance>(&instance_id).cloned() else {
        return Err(Kind::Instance.not_found(&[&instance_id]));
    };
    if matches!(row.state, InstanceState::ShuttingDown | InstanceState::Terminated) {
        return Err(ApiError::new(
            ErrorCode::IncorrectInstanceState,
            format!(
                "The instance '{instance_id}' is {} and has no metadata any more.",
                row.state
            ),
        ));
    }
    let now = views::metadata_options(&row);
    let or = |given: String, now: String| if given.is_empty() { now } else { given };
    let options = InstanceMetadataOptions {
        http_endpoint: or(request.http_endpoint, now.http_endpoint),
        http_put_response_hop_limit: match request.http_put_response_hop_limit {
            0 => now.http_put_response_hop_limit,
            limit => limit,
        },
        http_tokens: or(request.http_tokens, now.http_tokens),
        instance_metadata_tags: or(request.instance_metadata_tags, now.instance_metadata_tags),
        http_protocol_ipv6: or(request.http_protocol_ipv6, now.http_protocol_ipv6),
    };
    plan::check_metadata(&options)?;
    if options.instance_metadata_tags == METADATA_TAGS_ENABLED {
        let tags: Vec<Tag> = tell_tags(&row.tags);
        input::check_metadata_tags(&tags)?;
    }
    tx.event("instance.modified", &instance_id);
    tx.audit(json!({
        "instance": instance_id, "http_endpoint": options.http_endpoint, "http_tokens": options.http_tokens,
        "http_hop_limit": options.http_put_response_hop_limit, "metadata_tags": options.instance_metadata_tags,
    }));
    let row = Instance {
        http_endpoint: options.http_endpoint,
        http_hop_limit: options.http_put_response_hop_limit.unsigned_abs(),
        http_tokens: options.http_tokens,
        metadata_tags: options.instance_metadata_tags,
        ..row
    };
    let options = Some(views::metadata_options(&row));
    tx.put(row);
    Ok(ModifyInstanceMetadataOptionsResult {
        instance_id,
        instance_metadata_options: options,
    })
}
