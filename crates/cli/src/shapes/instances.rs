//! Instances, reservations, state changes, console output.

use hearth_api::v1;
use serde::Serialize;
use serde_json::Value;

use super::security_groups::GroupIdentifier;
use super::{Tag, name_of, table, tags, time};
use crate::calls::structures;
use crate::output::Answer;

/// The answer of `DescribeInstances`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Reservations {
    reservations: Vec<Reservation>,
    #[serde(skip_serializing_if = "String::is_empty")]
    next_token: String,
}

/// One launch; the answer of `RunInstances`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Reservation {
    reservation_id: String,
    owner_id: String,
    groups: Vec<GroupIdentifier>,
    instances: Vec<Instance>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    architecture: String,
    boot_mode: String,
    current_instance_boot_mode: String,
    block_device_mappings: Vec<BlockDeviceMapping>,
    #[serde(skip_serializing_if = "String::is_empty")]
    client_token: String,
    hypervisor: &'static str,
    network_interfaces: Vec<NetworkInterface>,
    root_device_name: String,
    root_device_type: &'static str,
    security_groups: Vec<GroupIdentifier>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_reason: Option<StateReason>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Tag>,
    virtualization_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_options: Option<MetadataOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maintenance_options: Option<MaintenanceOptions>,
    instance_id: String,
    image_id: String,
    state: State,
    private_dns_name: String,
    state_transition_reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    key_name: String,
    ami_launch_index: i32,
    instance_type: String,
    launch_time: String,
    placement: Value,
    #[serde(skip_serializing_if = "String::is_empty")]
    subnet_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    vpc_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    private_ip_address: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    public_ip_address: String,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    code: i32,
    name: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StateReason {
    code: String,
    message: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct MetadataOptions {
    http_tokens: String,
    http_put_response_hop_limit: i32,
    http_endpoint: String,
    instance_metadata_tags: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct MaintenanceOptions {
    auto_recovery: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct BlockDeviceMapping {
    device_name: String,
    ebs: Ebs,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ebs {
    delete_on_termination: bool,
    status: String,
    volume_id: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkInterface {
    #[serde(skip_serializing_if = "Option::is_none")]
    association: Option<Association>,
    groups: Vec<GroupIdentifier>,
    mac_address: String,
    network_interface_id: String,
    private_ip_address: String,
    subnet_id: String,
    vpc_id: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Association {
    public_ip: String,
}

impl From<v1::DescribeInstancesResponse> for Reservations {
    fn from(answer: v1::DescribeInstancesResponse) -> Self {
        Self {
            reservations: answer.reservations.into_iter().map(Reservation::from).collect(),
            next_token: answer.next_token,
        }
    }
}

impl From<v1::Reservation> for Reservation {
    fn from(reservation: v1::Reservation) -> Self {
        Self {
            reservation_id: reservation.reservation_id,
            owner_id: reservation.owner_id,
            // EC2-Classic's; in a VPC the groups are the instances'.
            groups: Vec::new(),
            instances: reservation.instances.into_iter().map(Instance::from).collect(),
        }
    }
}

impl From<v1::InstanceState> for State {
    fn from(state: v1::InstanceState) -> Self {
        Self {
            code: state.code,
            name: state.name,
        }
    }
}

impl From<v1::Instance> for Instance {
    fn from(i: v1::Instance) -> Self {
        Self {
            architecture: i.architecture,
            boot_mode: i.boot_mode,
            current_instance_boot_mode: i.current_instance_boot_mode,
            block_device_mappings: i
                .block_device_mappings
                .into_iter()
                .map(BlockDeviceMapping::from)
                .collect(),
            client_token: i.client_token,
            hypervisor: "xen",
            network_interfaces: i
                .network_interfaces
                .into_iter()
                .map(NetworkInterface::from)
                .collect(),
            root_device_name: i.root_device_name,
            root_device_type: "ebs",
            security_groups: i.security_groups.into_iter().map(GroupIdentifier::from).collect(),
            state_reason: i.state_reason.map(|r| StateReason {
                code: r.code,
                message: r.message,
            }),
            tags: tags(i.tags),
            virtualization_type: "hvm",
            metadata_options: i.metadata_options.map(|m| MetadataOptions {
                http_tokens: m.http_tokens,
                http_put_response_hop_limit: m.http_put_response_hop_limit,
                http_endpoint: m.http_endpoint,
                instance_metadata_tags: m.instance_metadata_tags,
            }),
            maintenance_options: i.maintenance_options.map(|m| MaintenanceOptions {
                auto_recovery: m.auto_recovery,
            }),
            instance_id: i.instance_id,
            image_id: i.image_id,
            state: i.state.map(State::from).unwrap_or_default(),
            private_dns_name: i.private_dns_name,
            state_transition_reason: i.state_transition_reason,
            key_name: i.key_name,
            ami_launch_index: i.ami_launch_index,
            instance_type: i.instance_type,
            launch_time: time(i.launch_time),
            placement: structures::shape(&i.placement.unwrap_or_default()),
            subnet_id: i.subnet_id,
            vpc_id: i.vpc_id,
            private_ip_address: i.private_ip_address,
            public_ip_address: i.public_ip_address,
        }
    }
}

impl From<v1::BlockDeviceMapping> for BlockDeviceMapping {
    fn from(mapping: v1::BlockDeviceMapping) -> Self {
        let ebs = mapping.ebs.unwrap_or_default();
        Self {
            device_name: mapping.device_name,
            ebs: Ebs {
                delete_on_termination: ebs.delete_on_termination.unwrap_or(true),
                status: ebs.status,
                volume_id: ebs.volume_id,
            },
        }
    }
}

impl From<v1::InstanceNetworkInterface> for NetworkInterface {
    fn from(eni: v1::InstanceNetworkInterface) -> Self {
        Self {
            association: (!eni.public_ip.is_empty()).then_some(Association {
                public_ip: eni.public_ip,
            }),
            groups: eni.groups.into_iter().map(GroupIdentifier::from).collect(),
            mac_address: eni.mac_address,
            network_interface_id: eni.network_interface_id,
            private_ip_address: eni.private_ip_address,
            subnet_id: eni.subnet_id,
            vpc_id: eni.vpc_id,
        }
    }
}

impl Instance {
    /// The state; with the reason where nobody asked for it.
    fn state_and_reason(&self) -> String {
        match &self.state_reason {
            Some(reason) if !reason.code.starts_with("Client.User") => {
                format!("{}\n{}", self.state.name, reason.message)
            }
            _ => self.state.name.clone(),
        }
    }
}

/// The availability zone of a placement.
fn zone(placement: &Value) -> String {
    let zone = placement.get("AvailabilityZone").and_then(Value::as_str);
    zone.unwrap_or_default().to_owned()
}

fn instances_table<'a>(instances: impl Iterator<Item = &'a Instance>) -> String {
    let row = |i: &Instance| {
        [
            name_of(&i.tags),
            i.instance_id.clone(),
            i.state_and_reason(),
            i.instance_type.clone(),
            i.public_ip_address.clone(),
            i.private_ip_address.clone(),
            zone(&i.placement),
            i.image_id.clone(),
        ]
    };
    let head = [
        "Name",
        "Instance",
        "State",
        "Type",
        "Public IP",
        "Private IP",
        "Zone",
        "Image",
    ];
    table::of_rows(head, instances.map(row).collect(), "No instances.")
}

impl Answer for Reservations {
    fn table(&self) -> String {
        instances_table(self.reservations.iter().flat_map(|r| &r.instances))
    }
}

impl Answer for Reservation {
    fn table(&self) -> String {
        instances_table(self.instances.iter())
    }
}

/// The answers of `StartInstances`, `StopInstances` and `TerminateInstances`: they differ by the list's name.
#[derive(Debug, Serialize)]
pub(crate) enum StateChanges {
    #[serde(rename = "StartingInstances")]
    Starting(Vec<StateChange>),
    #[serde(rename = "StoppingInstances")]
    Stopping(Vec<StateChange>),
    #[serde(rename = "TerminatingInstances")]
    Terminating(Vec<StateChange>),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StateChange {
    instance_id: String,
    current_state: State,
    previous_state: State,
}

impl From<v1::InstanceStateChange> for StateChange {
    fn from(change: v1::InstanceStateChange) -> Self {
        Self {
            instance_id: change.instance_id,
            current_state: change.current_state.map(State::from).unwrap_or_default(),
            previous_state: change.previous_state.map(State::from).unwrap_or_default(),
        }
    }
}

impl Answer for StateChanges {
    fn table(&self) -> String {
        let (Self::Starting(changes) | Self::Stopping(changes) | Self::Terminating(changes)) = self;
        let row = |c: &StateChange| {
            [
                c.instance_id.clone(),
                c.previous_state.name.clone(),
                c.current_state.name.clone(),
            ]
        };
        table::of_rows(
            ["Instance", "Was", "Is"],
            changes.iter().map(row).collect(),
            "No instances.",
        )
    }
}

/// The answer of `GetConsoleOutput`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ConsoleOutput {
    instance_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    timestamp: String,
    output: String,
}

impl From<v1::GetConsoleOutputResponse> for ConsoleOutput {
    fn from(answer: v1::GetConsoleOutputResponse) -> Self {
        Self {
            instance_id: answer.instance_id,
            timestamp: time(answer.timestamp),
            output: String::from_utf8_lossy(&answer.output).into_owned(),
        }
    }
}

impl Answer for ConsoleOutput {
    fn table(&self) -> String {
        crate::terminal::sanitize(&self.output)
    }
}

/// The answer of `ModifyInstanceMaintenanceOptions`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ModifiedMaintenanceOptions {
    instance_id: String,
    auto_recovery: String,
}

impl From<v1::ModifyInstanceMaintenanceOptionsResult> for ModifiedMaintenanceOptions {
    fn from(answer: v1::ModifyInstanceMaintenanceOptionsResult) -> Self {
        Self {
            instance_id: answer.instance_id,
            auto_recovery: answer.auto_recovery,
        }
    }
}

impl Answer for ModifiedMaintenanceOptions {
    fn table(&self) -> String {
        format!(
            "{}: automatic recovery is {}",
            self.instance_id, self.auto_recovery
        )
    }
}
