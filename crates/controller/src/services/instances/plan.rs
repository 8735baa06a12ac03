//! RunInstances, checked by itself: what can be refused without looking at anything else.

use std::net::Ipv4Addr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hearth_api::v1::{InstanceMaintenanceOptions, InstanceMetadataOptions, RunInstancesRequest, Tag};
use hearth_api::{ApiError, ErrorCode, Id, Kind};
use prost::Message as _;

use super::block_devices::{self, Mappings};
use super::{maintenance, metadata_options};
use crate::catalog::instance_types::{self, InstanceType};
use crate::services::input;
use crate::services::ssm;
use crate::state::{
    AUTO_RECOVERY_DEFAULT, METADATA_TAGS_ENABLED, MetadataDefaults, SHUTDOWN_STOP, SHUTDOWN_TERMINATE,
};

/// Bytes of user data before any encoding. The EC2 API's own limit.
const MAX_USER_DATA: usize = 16 * 1024;
/// How instances with burstable performance earn credits.
pub(super) const CREDITS: &str = "unlimited";
/// Security groups of one interface.
pub const MAX_GROUPS: usize = 5;

/// A launch that makes sense by itself.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub kind: &'static InstanceType,
    pub min: usize,
    pub max: usize,
    pub private_ip: Option<Ipv4Addr>,
    pub mappings: Mappings,
    pub metadata: InstanceMetadataOptions,
    pub auto_recovery: String,
    pub instance_tags: Vec<Tag>,
    pub volume_tags: Vec<Tag>,
    pub interface_tags: Vec<Tag>,
    pub user_data: Vec<u8>,
    /// Whether it has a public address; as the subnet says when `None`.
    pub public_address: Option<bool>,
    /// BLAKE3 of what was asked for, defaults filled in: what a ClientToken stands for.
    pub hash: String,
    /// The request with its defaults filled in.
    pub request: RunInstancesRequest,
}

/// # Errors
/// What is wrong with the request, and what would do.
pub(super) fn check(mut request: RunInstancesRequest, defaults: &MetadataDefaults) -> Result<Plan, ApiError> {
    let public_address = fold_interface(&mut request)?;
    fill_defaults(&mut request);
    input::check_client_token(&request.client_token)?;
    if request.image_id.is_empty() {
        return Err(ApiError::missing("ImageId"));
    }
    if ssm::resolved(&request.image_id).is_none() {
        Id::parse(Kind::Image, &request.image_id)?;
    }
    let kind = instance_type(&request.instance_type)?;
    let (min, max) = counts(&request)?;
    groups(&request)?;
    if !request.subnet_id.is_empty() {
        Id::parse(Kind::Subnet, &request.subnet_id)?;
    }
    let user_data = user_data(&request)?;
    for (name, is_wanted) in [
        ("EbsOptimized", request.ebs_optimized),
        (
            "Monitoring.Enabled",
            request.monitoring.is_some_and(|monitoring| monitoring.enabled),
        ),
        (
            "HibernationOptions.Configured",
            request
                .hibernation_options
                .is_some_and(|options| options.configured),
        ),
        (
            "EnclaveOptions.Enabled",
            request.enclave_options.is_some_and(|options| options.enabled),
        ),
    ] {
        if is_wanted {
            return Err(ApiError::invalid_value(
                name,
                true,
                "Hearth does not have it yet; leave it out.",
            ));
        }
    }
    match request
        .credit_specification
        .as_ref()
        .map(|credits| credits.cpu_credits.as_str())
    {
        None | Some("" | CREDITS) => {}
        Some(other) => {
            return Err(ApiError::invalid_value(
                "CreditSpecification.CpuCredits",
                other,
                format!("Hearth slows no instance down for want of credits: all are {CREDITS}."),
            ));
        }
    }
    check_shutdown_behavior(&request.instance_initiated_shutdown_behavior)?;
    let mappings = block_devices::check(&request.block_device_mappings)?;
    let auto_recovery = auto_recovery(&mut request)?;
    let made = [Kind::Instance, Kind::Volume, Kind::NetworkInterface];
    let tags = |kind| input::tags_for(&request.tag_specifications, &made, kind);
    let (metadata, instance_tags) = (
        metadata_options::filled(&request, defaults)?,
        tags(Kind::Instance)?,
    );
    if metadata.instance_metadata_tags == METADATA_TAGS_ENABLED {
        input::check_metadata_tags(&instance_tags)?;
    }
    Ok(Plan {
        kind,
        min,
        max,
        private_ip: private_ip(&request, max)?,
        mappings,
        metadata,
        auto_recovery,
        instance_tags,
        volume_tags: tags(Kind::Volume)?,
        interface_tags: tags(Kind::NetworkInterface)?,
        user_data,
        public_address,
        hash: hash(&request),
        request,
    })
}

/// # Errors
/// There is no such type.
pub(super) fn instance_type(name: &str) -> Result<&'static InstanceType, ApiError> {
    instance_types::find(name).ok_or_else(|| {
        ApiError::new(
            ErrorCode::InvalidInstanceType,
            format!(
                "Invalid value '{name}' for InstanceType. DescribeInstanceTypes lists those that there are."
            ),
        )
    })
}

/// # Errors
/// It is neither of EC2's two values.
pub(super) fn check_shutdown_behavior(behavior: &str) -> Result<(), ApiError> {
    if [SHUTDOWN_STOP, SHUTDOWN_TERMINATE].contains(&behavior) {
        return Ok(());
    }
    Err(ApiError::invalid_value(
        "InstanceInitiatedShutdownBehavior",
        behavior,
        "Expecting stop or terminate.",
    ))
}

/// Puts what an interface's specification says in place of the launch's own, and answers whether it wants a public address.
fn fold_interface(request: &mut RunInstancesRequest) -> Result<Option<bool>, ApiError> {
    let combination = |what: &str| {
        ApiError::new(
            ErrorCode::InvalidParameterCombination,
            format!(
                "Network interfaces and an instance-level {what} may not be specified on the same request"
            ),
        )
    };
    let interface = match request.network_interfaces.as_mut_slice() {
        [] => return Ok(None),
        [interface] => interface,
        more => {
            let count = more.len();
            return Err(ApiError::invalid_value(
                "NetworkInterfaces",
                format!("{count} interfaces"),
                "An instance has one in this version.",
            ));
        }
    };
    match interface.device_index {
        Some(0) => {}
        Some(index) => {
            return Err(ApiError::invalid_value(
                "DeviceIndex",
                index,
                "The one interface has the index 0.",
            ));
        }
        None => return Err(ApiError::missing("NetworkInterface.DeviceIndex")),
    }
    if interface.delete_on_termination == Some(false) {
        return Err(ApiError::invalid_value(
            "DeleteOnTermination",
            false,
            "An interface goes with its instance in this version.",
        ));
    }
    interface.delete_on_termination = None;
    if !request.subnet_id.is_empty() {
        return Err(combination("subnet ID"));
    }
    if !request.security_groups.is_empty() || !request.security_group_ids.is_empty() {
        return Err(combination("security groups"));
    }
    if !request.private_ip_address.is_empty() {
        return Err(combination("private address"));
    }
    request.subnet_id = std::mem::take(&mut interface.subnet_id);
    request.security_group_ids = std::mem::take(&mut interface.groups);
    request.private_ip_address = std::mem::take(&mut interface.private_ip_address);
    Ok(interface.associate_public_ip_address)
}

fn user_data(request: &RunInstancesRequest) -> Result<Vec<u8>, ApiError> {
    let bytes = BASE64_STANDARD.decode(&request.user_data).map_err(|_| {
        ApiError::new(
            ErrorCode::InvalidParameterValue,
            "Invalid BASE64 encoding of user data.",
        )
    })?;
    check_user_data(&bytes)?;
    Ok(bytes)
}

/// # Errors
/// It is larger than EC2 admits.
pub(super) fn check_user_data(bytes: &[u8]) -> Result<(), ApiError> {
    if bytes.len() > MAX_USER_DATA {
        return Err(ApiError::new(
            ErrorCode::InvalidParameterValue,
            format!(
                "User data is limited to {MAX_USER_DATA} bytes, and this has {}. Put what is larger where the instance \
                 can fetch it, and fetch it from the user data.",
                bytes.len()
            ),
        ));
    }
    Ok(())
}

fn fill_defaults(request: &mut RunInstancesRequest) {
    let or = |text: &mut String, default: &str| {
        if text.is_empty() {
            text.push_str(default);
        }
    };
    or(&mut request.instance_type, instance_types::DEFAULT);
    or(&mut request.instance_initiated_shutdown_behavior, SHUTDOWN_STOP);
    request.security_group_ids.sort();
    request.security_group_ids.dedup();
    request.security_groups.sort();
    request.security_groups.dedup();
}

fn counts(request: &RunInstancesRequest) -> Result<(usize, usize), ApiError> {
    let (min, max) = (request.min_count, request.max_count);
    for (name, count) in [("MinCount", min), ("MaxCount", max)] {
        if count < 1 {
            return Err(ApiError::invalid_value(name, count, "Expecting 1 or more."));
        }
    }
    if min > max {
        return Err(ApiError::invalid_value(
            "MinCount",
            min,
            format!("Expecting at most MaxCount, which is {max}."),
        ));
    }
    // Both are positive.
    Ok((min.unsigned_abs() as usize, max.unsigned_abs() as usize))
}

fn groups(request: &RunInstancesRequest) -> Result<(), ApiError> {
    for id in &request.security_group_ids {
        Id::parse(Kind::SecurityGroup, id)?;
    }
    if !request.security_groups.is_empty() && !request.subnet_id.is_empty() {
        // As in EC2: names only reach the default VPC's groups.
        return Err(ApiError::combination("groupName", "subnet"));
    }
    check_count_of_groups(request.security_group_ids.len() + request.security_groups.len())
}

/// # Errors
/// An interface cannot be in so many.
pub(super) fn check_count_of_groups(count: usize) -> Result<(), ApiError> {
    if count > MAX_GROUPS {
        return Err(ApiError::new(
            ErrorCode::SecurityGroupsPerInterfaceLimitExceeded,
            format!("A network interface is in at most {MAX_GROUPS} security groups; name fewer."),
        ));
    }
    Ok(())
}

/// The default and no option at all are the same request.
fn auto_recovery(request: &mut RunInstancesRequest) -> Result<String, ApiError> {
    let asked = request
        .maintenance_options
        .take()
        .unwrap_or_default()
        .auto_recovery;
    if asked.is_empty() || asked == AUTO_RECOVERY_DEFAULT {
        return Ok(AUTO_RECOVERY_DEFAULT.to_owned());
    }
    maintenance::check_auto_recovery(&asked)?;
    request.maintenance_options = Some(InstanceMaintenanceOptions {
        auto_recovery: asked.clone(),
    });
    Ok(asked)
}

fn private_ip(request: &RunInstancesRequest, max: usize) -> Result<Option<Ipv4Addr>, ApiError> {
    let text = request.private_ip_address.as_str();
    if text.is_empty() {
        return Ok(None);
    }
    if max > 1 {
        return Err(ApiError::new(
            ErrorCode::InvalidParameterCombination,
            "One private IP address cannot go to several instances: launch one, or leave it out.",
        ));
    }
    let address = text
        .parse()
        .map_err(|_| ApiError::invalid_value("PrivateIpAddress", text, "Expecting an IPv4 address."))?;
    Ok(Some(address))
}

/// Of the request without what does not change the launch.
fn hash(request: &RunInstancesRequest) -> String {
    let mut request = request.clone();
    request.client_token.clear();
    request.dry_run = false;
    request
        .tag_specifications
        .sort_by(|a, b| a.resource_type.cmp(&b.resource_type));
    for specification in &mut request.tag_specifications {
        specification.tags.sort_by(|a, b| a.key.cmp(&b.key));
    }
    blake3::hash(&request.encode_to_vec()).to_hex().to_string()
}

#[cfg(test)]
mod tests;
