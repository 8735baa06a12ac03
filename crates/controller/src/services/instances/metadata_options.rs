//! The metadata options of instances: those of a launch, and ModifyInstanceMetadataOptions.

use hearth_api::v1::{
    InstanceMetadataOptions, ModifyInstanceMetadataOptionsRequest, ModifyInstanceMetadataOptionsResult,
    RunInstancesRequest, Tag,
};
use hearth_api::{ApiError, ErrorCode, InstanceState, Kind};
use serde_json::json;

use crate::app::App;
use crate::services::input;
use crate::state::noun::tell_tags;
use crate::state::{Instance, METADATA_TAGS_ENABLED, MetadataDefaults, Tx};
use crate::views;

/// Whether IMDSv1 answers, in EC2.
pub const TOKENS_OPTIONAL: &str = "optional";

/// What the request does not say is as the account has it, else as EC2 has it.
pub(super) fn filled(
    request: &RunInstancesRequest,
    defaults: &MetadataDefaults,
) -> Result<InstanceMetadataOptions, ApiError> {
    let mut options = request.metadata_options.clone().unwrap_or_default();
    let fill = |text: &mut String, default: &Option<String>, of_ec2: &str| {
        if text.is_empty() {
            text.push_str(default.as_deref().unwrap_or(of_ec2));
        }
    };
    fill(&mut options.http_tokens, &defaults.http_tokens, TOKENS_OPTIONAL);
    fill(&mut options.http_endpoint, &defaults.http_endpoint, "enabled");
    let tags = &mut options.instance_metadata_tags;
    fill(tags, &defaults.instance_metadata_tags, "disabled");
    fill(&mut options.http_protocol_ipv6, &None, "disabled");
    if options.http_put_response_hop_limit == 0 {
        options.http_put_response_hop_limit = defaults.http_put_response_hop_limit.unwrap_or(1);
    }
    check(&options)?;
    Ok(options)
}

/// # Errors
/// A value is none of EC2's.
fn check(options: &InstanceMetadataOptions) -> Result<(), ApiError> {
    let one_of = |name, value: &String, admitted: [&str; 2]| {
        if admitted.contains(&value.as_str()) {
            return Ok(());
        }
        let expected = format!("Expecting {} or {}.", admitted[0], admitted[1]);
        Err(ApiError::invalid_value(name, value, expected))
    };
    one_of("HttpTokens", &options.http_tokens, [TOKENS_OPTIONAL, "required"])?;
    one_of("HttpEndpoint", &options.http_endpoint, ["enabled", "disabled"])?;
    one_of(
        "InstanceMetadataTags",
        &options.instance_metadata_tags,
        ["enabled", "disabled"],
    )?;
    if options.http_protocol_ipv6 == "enabled" {
        let expected = "Only disabled is possible in this version: there is no IPv6.";
        return Err(ApiError::invalid_value("HttpProtocolIpv6", "enabled", expected));
    }
    one_of(
        "HttpProtocolIpv6",
        &options.http_protocol_ipv6,
        ["disabled", "enabled"],
    )?;
    if !(1..=64).contains(&options.http_put_response_hop_limit) {
        return Err(ApiError::invalid_value(
            "HttpPutResponseHopLimit",
            options.http_put_response_hop_limit,
            "Expecting 1 to 64.",
        ));
    }
    Ok(())
}

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
    check(&options)?;
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
