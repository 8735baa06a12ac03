//! What holds for all instances of an account in a region.

use hearth_api::v1::*;
use hearth_api::{ApiError, Kind};
use serde_json::json;

use super::serve;
use crate::app::App;
use crate::state;

mod ebs;

/// Who has set what there is.
const MANAGED_BY: &str = "account";
const NO_PREFERENCE: &str = "no-preference";

serve! { account_settings_server::AccountSettings as AccountSettings {
    get_instance_metadata_defaults(GetInstanceMetadataDefaultsRequest) -> GetInstanceMetadataDefaultsResult: metadata;
    modify_instance_metadata_defaults(ModifyInstanceMetadataDefaultsRequest) -> ModifyInstanceMetadataDefaultsResult: set_metadata;
    enable_serial_console_access(EnableSerialConsoleAccessRequest) -> EnableSerialConsoleAccessResult: enable;
    disable_serial_console_access(DisableSerialConsoleAccessRequest) -> DisableSerialConsoleAccessResult: disable;
    get_serial_console_access_status(GetSerialConsoleAccessStatusRequest) -> GetSerialConsoleAccessStatusResult: access;
    enable_ebs_encryption_by_default(EnableEbsEncryptionByDefaultRequest) -> EnableEbsEncryptionByDefaultResult: ebs::enable;
    disable_ebs_encryption_by_default(DisableEbsEncryptionByDefaultRequest) -> DisableEbsEncryptionByDefaultResult: ebs::disable;
    get_ebs_encryption_by_default(GetEbsEncryptionByDefaultRequest) -> GetEbsEncryptionByDefaultResult: ebs::get;
    get_ebs_default_kms_key_id(GetEbsDefaultKmsKeyIdRequest) -> GetEbsDefaultKmsKeyIdResult: ebs::get_key;
    modify_ebs_default_kms_key_id(ModifyEbsDefaultKmsKeyIdRequest) -> ModifyEbsDefaultKmsKeyIdResult: ebs::modify_key;
    reset_ebs_default_kms_key_id(ResetEbsDefaultKmsKeyIdRequest) -> ResetEbsDefaultKmsKeyIdResult: ebs::reset_key;
    describe_id_format(DescribeIdFormatRequest) -> DescribeIdFormatResult: id_format;
    describe_aggregate_id_format(DescribeAggregateIdFormatRequest) -> DescribeAggregateIdFormatResult: all_id_formats;
} }

/// Changes the account's settings in a transaction, which has an audit row.
async fn change(
    app: &App,
    change: impl FnOnce(&mut state::AccountSettings) -> Result<(), ApiError> + Send + 'static,
) -> Result<(), ApiError> {
    let scope = app.scope();
    app.store
        .transact(move |tx| {
            let mut settings = tx.account_settings(&scope);
            change(&mut settings)?;
            tx.audit(json!({
                "serial_console_access": settings.serial_console_access,
                "metadata_defaults": settings.metadata_defaults,
                "ebs_encryption": settings.ebs_encryption,
                "ebs_key": settings.ebs_key,
            }));
            tx.put(settings);
            Ok(())
        })
        .await
}

async fn metadata(
    app: &App,
    _: GetInstanceMetadataDefaultsRequest,
) -> Result<GetInstanceMetadataDefaultsResult, ApiError> {
    let defaults = app.state().account_settings(&app.scope()).metadata_defaults;
    Ok(GetInstanceMetadataDefaultsResult {
        account_level: Some(InstanceMetadataDefaultsResponse {
            http_tokens: defaults.http_tokens.unwrap_or_default(),
            http_put_response_hop_limit: defaults.http_put_response_hop_limit,
            http_endpoint: defaults.http_endpoint.unwrap_or_default(),
            instance_metadata_tags: defaults.instance_metadata_tags.unwrap_or_default(),
            managed_by: MANAGED_BY.to_owned(),
        }),
    })
}

/// Sets a default that a request gives.
fn set(
    parameter: &str,
    given: String,
    admitted: [&str; 2],
    default: &mut Option<String>,
) -> Result<(), ApiError> {
    match given.as_str() {
        "" => {}
        NO_PREFERENCE => *default = None,
        value if admitted.contains(&value) => *default = Some(given),
        value => {
            let expected = format!("Expecting {}, {} or {NO_PREFERENCE}.", admitted[0], admitted[1]);
            return Err(ApiError::invalid_value(parameter, value, expected));
        }
    }
    Ok(())
}

async fn set_metadata(
    app: &App,
    request: ModifyInstanceMetadataDefaultsRequest,
) -> Result<ModifyInstanceMetadataDefaultsResult, ApiError> {
    let is_either = ["enabled", "disabled"];
    change(app, move |settings| {
        let defaults = &mut settings.metadata_defaults;
        let tokens = ["optional", "required"];
        set(
            "HttpTokens",
            request.http_tokens,
            tokens,
            &mut defaults.http_tokens,
        )?;
        set(
            "HttpEndpoint",
            request.http_endpoint,
            is_either,
            &mut defaults.http_endpoint,
        )?;
        let tags = &mut defaults.instance_metadata_tags;
        set(
            "InstanceMetadataTags",
            request.instance_metadata_tags,
            is_either,
            tags,
        )?;
        match request.http_put_response_hop_limit {
            None => {}
            Some(-1) => defaults.http_put_response_hop_limit = None,
            Some(limit @ 1..=64) => defaults.http_put_response_hop_limit = Some(limit),
            Some(other) => {
                let expected = "Expecting 1 to 64, or -1 for no preference.";
                return Err(ApiError::invalid_value(
                    "HttpPutResponseHopLimit",
                    other,
                    expected,
                ));
            }
        }
        Ok(())
    })
    .await?;
    Ok(ModifyInstanceMetadataDefaultsResult { r#return: true })
}

async fn set_access(app: &App, is_enabled: bool) -> Result<bool, ApiError> {
    change(app, move |settings| {
        settings.serial_console_access = is_enabled;
        Ok(())
    })
    .await?;
    Ok(is_enabled)
}

async fn enable(
    app: &App,
    _: EnableSerialConsoleAccessRequest,
) -> Result<EnableSerialConsoleAccessResult, ApiError> {
    Ok(EnableSerialConsoleAccessResult {
        serial_console_access_enabled: set_access(app, true).await?,
    })
}

async fn disable(
    app: &App,
    _: DisableSerialConsoleAccessRequest,
) -> Result<DisableSerialConsoleAccessResult, ApiError> {
    Ok(DisableSerialConsoleAccessResult {
        serial_console_access_enabled: set_access(app, false).await?,
    })
}

async fn access(
    app: &App,
    _: GetSerialConsoleAccessStatusRequest,
) -> Result<GetSerialConsoleAccessStatusResult, ApiError> {
    let settings = app.state().account_settings(&app.scope());
    Ok(GetSerialConsoleAccessStatusResult {
        serial_console_access_enabled: settings.serial_console_access,
        managed_by: MANAGED_BY.to_owned(),
    })
}

/// Kinds of resources whose ids begin as EC2's do.
fn formats() -> Vec<IdFormat> {
    let kinds = [
        Kind::Image,
        Kind::Instance,
        Kind::InternetGateway,
        Kind::NetworkInterface,
        Kind::Reservation,
        Kind::RouteTable,
        Kind::SecurityGroup,
        Kind::Subnet,
        Kind::Volume,
        Kind::Vpc,
    ];
    let format = |kind: Kind| IdFormat {
        deadline: None,
        resource: kind.resource_type().to_owned(),
        use_long_ids: true,
    };
    kinds.into_iter().map(format).collect()
}

async fn id_format(_: &App, request: DescribeIdFormatRequest) -> Result<DescribeIdFormatResult, ApiError> {
    let mut statuses = formats();
    if !request.resource.is_empty() {
        statuses.retain(|status| status.resource == request.resource);
        if statuses.is_empty() {
            let known: Vec<String> = formats().into_iter().map(|format| format.resource).collect();
            let expected = format!("Expecting one of {}.", known.join(", "));
            return Err(ApiError::invalid_value("Resource", &request.resource, expected));
        }
    }
    Ok(DescribeIdFormatResult { statuses })
}

async fn all_id_formats(
    _: &App,
    _: DescribeAggregateIdFormatRequest,
) -> Result<DescribeAggregateIdFormatResult, ApiError> {
    Ok(DescribeAggregateIdFormatResult {
        use_long_ids_aggregated: true,
        statuses: formats(),
    })
}
