//! What the instance metadata service knows of an instance, and whom it asks.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::Ipv4Net;

/// Answers "who has this address in this VPC?". Called for each request to IMDS: must be quick and must not block.
pub trait MetadataSource: Send + Sync {
    fn by_address(&self, vpc_id: &str, ip: Ipv4Addr) -> Option<Arc<InstanceMetadata>>;

    /// The credentials of an instance's role; `None` while there are none that hold.
    fn credentials(&self, instance_id: &str) -> Option<Arc<RoleCredentials>>;

    /// The keys that log in to an instance at this moment, beside its key pair's.
    fn active_keys(&self, _instance_id: &str) -> Vec<ActiveKey> {
        Vec::new()
    }
}

/// A key that logs in for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveKey {
    /// Of the guest.
    pub os_user: String,
    /// `ssh-ed25519 AAAA... comment`, one line.
    pub openssh: String,
}

/// What an instance signs its requests with.
#[derive(Clone, PartialEq, Eq)]
pub struct RoleCredentials {
    pub role_name: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    pub token: String,
    pub last_updated: SystemTime,
    pub expiration: SystemTime,
}

impl fmt::Debug for RoleCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoleCredentials({}, ..)", self.access_key_id)
    }
}

/// One launched instance as IMDS tells it (the primary interface's view).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceMetadata {
    pub instance_id: String,
    pub ami_id: String,
    pub ami_launch_index: u32,
    pub instance_type: String,
    pub reservation_id: String,
    pub owner_id: String,
    pub region: String,
    pub availability_zone: String,
    pub availability_zone_id: String,
    /// The root device's name, such as `/dev/xvda`.
    pub root_device_name: String,
    /// The other EBS volumes' device names as they were attached, such as `/dev/sdf`, in their order.
    pub ebs_device_names: Vec<String>,
    /// The device names of disks of the instance store that a mapping gave one, with the disks' numbers.
    pub store_device_names: Vec<(u32, String)>,
    /// The private DNS name with its domain, such as `ip-172-31-0-10.us-east-1.compute.internal`.
    pub local_hostname: String,
    pub public_hostname: Option<String>,
    pub interface_id: String,
    pub mac: [u8; 6],
    pub local_ipv4: Ipv4Addr,
    pub public_ipv4: Option<Ipv4Addr>,
    pub subnet_id: String,
    pub subnet_cidr: Ipv4Net,
    pub vpc_id: String,
    /// The primary block first.
    pub vpc_cidrs: Vec<Ipv4Net>,
    /// Names and ids, in the same order.
    pub security_groups: Vec<SecurityGroupName>,
    pub public_keys: Vec<PublicKey>,
    /// As the guest gets it (decoded); `None` answers 404.
    pub user_data: Option<Vec<u8>>,
    /// Shown under `tags/instance` when the instance has `InstanceMetadataTags` enabled; `None` hides the category.
    pub tags: Option<Vec<(String, String)>>,
    pub instance_profile: Option<InstanceProfile>,
    /// `pendingTime` of the identity document.
    pub launch_time: SystemTime,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityGroupName {
    pub group_id: String,
    pub group_name: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    pub key_name: String,
    /// `ssh-ed25519 AAAA... comment`, one line.
    pub openssh: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceProfile {
    pub arn: String,
    pub id: String,
    /// Whether it gives a role, and which: by its id.
    pub role_id: Option<String>,
}
