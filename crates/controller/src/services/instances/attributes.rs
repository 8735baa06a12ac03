//! DescribeInstanceAttribute, ModifyInstanceAttribute, ResetInstanceAttribute.
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyInstanceAttribute.html>

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hearth_api::v1::{
    AttributeBooleanValue, AttributeValue, BlobAttributeValue, DescribeInstanceAttributeRequest,
    InstanceAttribute, InstanceBlockDeviceMappingSpecification, ModifyInstanceAttributeRequest,
    ModifyInstanceAttributeResponse, ResetInstanceAttributeRequest, ResetInstanceAttributeResponse,
};
use hearth_api::{ApiError, ErrorCode, Id, InstanceState, Kind};
use serde_json::json;

use super::{block_devices, plan};
use crate::app::App;
use crate::services::input;
use crate::services::volumes::devices::{self, Slot};
use crate::state::{Instance, NetworkInterface, SecurityGroup, Tx, Volume};
use crate::views::{self, ROOT_DEVICE};

pub(super) async fn describe(
    app: &App,
    request: &DescribeInstanceAttributeRequest,
) -> Result<InstanceAttribute, ApiError> {
    let id = input::id(Kind::Instance, &request.instance_id, "InstanceId")?;
    let row = {
        let state = app.state();
        let row = state.get::<Instance>(&id).cloned();
        row.ok_or_else(|| Kind::Instance.not_found(&[&id]))?
    };
    let mut told = InstanceAttribute {
        instance_id: row.id.clone(),
        ..InstanceAttribute::default()
    };
    let is = |value| Some(AttributeBooleanValue { value });
    let text = |value: &str| {
        Some(AttributeValue {
            value: value.to_owned(),
        })
    };
    match request.attribute.as_str() {
        "disableApiStop" => told.disable_api_stop = is(row.disable_api_stop),
        "disableApiTermination" => told.disable_api_termination = is(row.disable_api_termination),
        "ebsOptimized" => told.ebs_optimized = is(false),
        "enaSupport" => told.ena_support = is(false),
        // No instance has any of them.
        "kernel" | "productCodes" | "ramdisk" | "sriovNetSupport" => {}
        "blockDeviceMapping" => {
            let state = app.state();
            told.block_device_mappings = views::block_devices(&state, &row);
        }
        "groupSet" => {
            let state = app.state();
            let interface = state.interface_of(&row.id);
            told.groups =
                interface.map_or_else(Vec::new, |own| views::group_identifiers(&state, &own.groups));
        }
        "instanceInitiatedShutdownBehavior" => {
            told.instance_initiated_shutdown_behavior = text(&row.shutdown_behavior);
        }
        "instanceType" => told.instance_type = text(&row.instance_type),
        "rootDeviceName" => told.root_device_name = text(ROOT_DEVICE),
        "sourceDestCheck" => told.source_dest_check = is(true),
        "userData" => {
            let bytes = match &row.user_data {
                Some(blob) => app
                    .store
                    .blob(blob)
                    .await
                    .map_err(|error| ApiError::internal(&error))?,
                None => Vec::new(),
            };
            told.user_data = text(&BASE64_STANDARD.encode(bytes));
        }
        "" => return Err(ApiError::missing("Attribute")),
        other => return Err(unknown(other)),
    }
    Ok(told)
}

fn unknown(attribute: &str) -> ApiError {
    ApiError::invalid_value("attribute", attribute, "Unknown attribute.")
}

/// One change.
#[derive(Debug)]
enum Change {
    StopIsDisabled(bool),
    TerminationIsDisabled(bool),
    Groups(Vec<String>),
    /// Whether volumes go with the instance, by their devices.
    DeleteOnTermination(Vec<(String, bool)>),
    ShutdownBehavior(String),
    Type(String),
    UserData(Vec<u8>),
    /// What is so already.
    Nothing,
}

pub(super) async fn modify(
    app: &App,
    request: ModifyInstanceAttributeRequest,
) -> Result<ModifyInstanceAttributeResponse, ApiError> {
    let id = input::id(Kind::Instance, &request.instance_id, "InstanceId")?.to_string();
    let change = change(request)?;
    app.store
        .transact(move |tx| {
            apply(tx, &id, change)?;
            Ok(ModifyInstanceAttributeResponse {})
        })
        .await
}

pub(super) fn reset(
    app: &App,
    request: &ResetInstanceAttributeRequest,
) -> Result<ResetInstanceAttributeResponse, ApiError> {
    let id = input::id(Kind::Instance, &request.instance_id, "InstanceId")?;
    if app.state().get::<Instance>(&id).is_none() {
        return Err(Kind::Instance.not_found(&[&id]));
    }
    match request.attribute.as_str() {
        "sourceDestCheck" => Ok(ResetInstanceAttributeResponse {}),
        "" => Err(ApiError::missing("Attribute")),
        other => Err(ApiError::invalid_value(
            "Attribute",
            other,
            "It cannot be reset; modify it.",
        )),
    }
}

/// The one attribute that a request names, by its own member or by `Attribute` and `Value`.
fn change(mut request: ModifyInstanceAttributeRequest) -> Result<Change, ApiError> {
    named(&mut request)?;
    let fixed = |name: &str, given: AttributeBooleanValue, only: bool| match given.value == only {
        true => Ok(Change::Nothing),
        false => Err(ApiError::invalid_value(
            name,
            given.value,
            format!("Only {only} is possible in this version."),
        )),
    };
    let mut changes = Vec::new();
    changes.extend(
        request
            .disable_api_stop
            .map(|given| Ok(Change::StopIsDisabled(given.value))),
    );
    let termination = request.disable_api_termination;
    changes.extend(termination.map(|given| Ok(Change::TerminationIsDisabled(given.value))));
    if !request.groups.is_empty() {
        changes.push(Ok(Change::Groups(request.groups)));
    }
    if !request.block_device_mappings.is_empty() {
        changes.push(delete_on_termination(&request.block_device_mappings));
    }
    let behavior = request.instance_initiated_shutdown_behavior;
    changes.extend(behavior.map(|given| Ok(Change::ShutdownBehavior(given.value))));
    changes.extend(request.instance_type.map(|given| Ok(Change::Type(given.value))));
    changes.extend(request.user_data.map(|given| Ok(Change::UserData(given.value))));
    changes.extend(
        request
            .source_dest_check
            .map(|given| fixed("SourceDestCheck", given, true)),
    );
    changes.extend(
        request
            .ebs_optimized
            .map(|given| fixed("EbsOptimized", given, false)),
    );
    let (first, more) = (changes.pop(), !changes.is_empty());
    match first {
        None => Err(ApiError::new(
            ErrorCode::InvalidParameterCombination,
            "No attributes specified.",
        )),
        Some(_) if more => Err(ApiError::new(
            ErrorCode::InvalidParameterCombination,
            "Fields for multiple attribute types specified",
        )),
        Some(change) => change,
    }
}

fn delete_on_termination(mappings: &[InstanceBlockDeviceMappingSpecification]) -> Result<Change, ApiError> {
    let mut devices = BTreeSet::new();
    let asked = mappings.iter().map(|mapping| {
        let name = &mapping.device_name;
        if !devices.insert(Slot::of(name)) {
            let message = format!("The device '{name}' is mapped twice.");
            return Err(ApiError::new(ErrorCode::InvalidBlockDeviceMapping, message));
        }
        let asked = mapping.ebs.as_ref().and_then(|ebs| ebs.delete_on_termination);
        let asked = asked.ok_or_else(|| ApiError::missing("BlockDeviceMapping.Ebs.DeleteOnTermination"))?;
        Ok((name.clone(), asked))
    });
    asked.collect::<Result<_, _>>().map(Change::DeleteOnTermination)
}

/// # Errors
/// `InvalidInstanceAttributeValue`: the instance has no such device.
fn set_delete_on_termination(tx: &mut Tx<'_>, id: &str, device: &str, is: bool) -> Result<(), ApiError> {
    let slot = Slot::of(device);
    let volume = slot.and_then(|slot| devices::at(tx, id, &slot));
    let Some(volume) = volume.map(|volume| volume.id.clone()) else {
        return Err(ApiError::new(
            ErrorCode::InvalidInstanceAttributeValue,
            format!("No device is currently mapped at '{device}'."),
        ));
    };
    tx.update::<Volume>(&volume, |row| {
        if let Some(attachment) = &mut row.attachment {
            attachment.delete_on_termination = is;
        }
    });
    Ok(())
}

/// Puts what `Attribute` and `Value` say where the attribute's own member is.
fn named(request: &mut ModifyInstanceAttributeRequest) -> Result<(), ApiError> {
    let (attribute, value) = (
        std::mem::take(&mut request.attribute),
        std::mem::take(&mut request.value),
    );
    let is = |value: &str| match value.to_ascii_lowercase().as_str() {
        "true" => Ok(Some(AttributeBooleanValue { value: true })),
        "false" => Ok(Some(AttributeBooleanValue { value: false })),
        _ => Err(ApiError::invalid_value(
            "Value",
            value,
            "Expecting true or false.",
        )),
    };
    match attribute.as_str() {
        "" if value.is_empty() => {}
        "" => return Err(ApiError::missing("Attribute")),
        "disableApiStop" => request.disable_api_stop = is(&value)?,
        "disableApiTermination" => request.disable_api_termination = is(&value)?,
        "ebsOptimized" => request.ebs_optimized = is(&value)?,
        "instanceInitiatedShutdownBehavior" => {
            request.instance_initiated_shutdown_behavior = Some(AttributeValue { value });
        }
        "instanceType" => request.instance_type = Some(AttributeValue { value }),
        "sourceDestCheck" => request.source_dest_check = is(&value)?,
        "userData" => {
            let value = BASE64_STANDARD.decode(&value).map_err(|_| {
                ApiError::new(
                    ErrorCode::InvalidParameterValue,
                    "Invalid BASE64 encoding of user data.",
                )
            })?;
            request.user_data = Some(BlobAttributeValue { value });
        }
        other => return Err(unknown(other)),
    }
    Ok(())
}

fn apply(tx: &mut Tx<'_>, id: &str, change: Change) -> Result<(), ApiError> {
    let Some(row) = tx.get::<Instance>(id).cloned() else {
        return Err(Kind::Instance.not_found(&[id]));
    };
    if matches!(row.state, InstanceState::ShuttingDown | InstanceState::Terminated) {
        return Err(state_forbids(&row, "has no attributes any more"));
    }
    let stopped = || match row.state {
        InstanceState::Stopped => Ok(()),
        _ => Err(state_forbids(&row, "must be stopped for that")),
    };
    let mut next = row.clone();
    let told = match change {
        Change::Nothing => return Ok(()),
        Change::StopIsDisabled(is) => {
            next.disable_api_stop = is;
            "disableApiStop"
        }
        Change::TerminationIsDisabled(is) => {
            next.disable_api_termination = is;
            "disableApiTermination"
        }
        Change::ShutdownBehavior(behavior) => {
            plan::check_shutdown_behavior(&behavior)?;
            next.shutdown_behavior = behavior;
            "instanceInitiatedShutdownBehavior"
        }
        Change::Type(name) => {
            let kind = plan::instance_type(&name)?;
            stopped()?;
            next.instance_type = kind.name.clone();
            next.vcpus = kind.vcpus;
            next.memory_mib = kind.memory_mib;
            next.store = block_devices::store(kind, &row.mapped_store());
            let volumes = tx.by(&Volume::BY_INSTANCE, id).count();
            devices::check_count(volumes + next.store.len())?;
            "instanceType"
        }
        Change::UserData(bytes) => {
            plan::check_user_data(&bytes)?;
            stopped()?;
            next.user_data = (!bytes.is_empty()).then(|| tx.keep_blob(bytes));
            "userData"
        }
        Change::DeleteOnTermination(asked) => {
            for (device, is) in asked {
                set_delete_on_termination(tx, id, &device, is)?;
            }
            "blockDeviceMapping"
        }
        Change::Groups(ids) => {
            set_groups(tx, &row, &ids)?;
            "groupSet"
        }
    };
    tx.put(next);
    if let Some(blob) = &row.user_data
        && !tx.any_by(&Instance::BY_USER_DATA, blob)
    {
        tx.drop_blob(blob);
    }
    tx.event("instance.modified", id);
    tx.audit(json!({ "instance": id, "attribute": told }));
    Ok(())
}

fn state_forbids(row: &Instance, why: &str) -> ApiError {
    ApiError::new(
        ErrorCode::IncorrectInstanceState,
        format!("The instance '{}' is {} and {why}.", row.id, row.state),
    )
}

fn set_groups(tx: &mut Tx<'_>, row: &Instance, ids: &[String]) -> Result<(), ApiError> {
    plan::check_count_of_groups(ids.len())?;
    let Some(interface) = tx.interface_of(&row.id).cloned() else {
        return Err(state_forbids(row, "has no network interface"));
    };
    let mut groups: Vec<String> = Vec::new();
    for id in ids {
        Id::parse(Kind::SecurityGroup, id)?;
        match tx.get::<SecurityGroup>(id) {
            Some(group) if group.vpc_id == interface.vpc_id => {}
            Some(_) => {
                return Err(ApiError::new(
                    ErrorCode::InvalidParameter,
                    format!("Security group {id} and the network interface belong to different networks."),
                ));
            }
            None => return Err(Kind::SecurityGroup.not_found(&[id])),
        }
        if !groups.contains(id) {
            groups.push(id.clone());
        }
    }
    tx.put(NetworkInterface { groups, ..interface });
    Ok(())
}
