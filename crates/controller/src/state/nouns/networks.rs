//! VPCs, subnets and network interfaces.

use std::net::Ipv4Addr;

use hearth_api::{ErrorCode, Kind};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{Attachment, Instance, PRIMARY, SecurityGroup};
use crate::state::noun::resource;
use crate::state::{Bound, Concern, Index, Noun, Scope, State, Sum, Tags, key};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vpc {
    pub id: String,
    pub account_id: String,
    #[serde(default)]
    pub region: String,
    pub cidr: Ipv4Net,
    pub is_default: bool,
    /// Whether its resolver answers.
    #[serde(default = "yes")]
    pub dns_support: bool,
    /// Whether its instances have public names. VPCs of before were default ones.
    #[serde(default = "yes")]
    pub dns_hostnames: bool,
    pub created_at: i64,
    pub tags: Tags,
}

/// Of what was always so before it could be chosen.
fn yes() -> bool {
    true
}

impl Vpc {
    /// The default VPC of an account in a region.
    pub const DEFAULT: Index<Self> = Index::unique("default", |v| {
        if v.is_default {
            vec![key(&[&v.account_id, &v.region])]
        } else {
            Vec::new()
        }
    });
}

impl Noun for Vpc {
    const KIND: &'static str = "vpc";
    const RESOURCE: Option<Kind> = Some(Kind::Vpc);
    const INDEXES: &'static [Index<Self>] = &[Self::DEFAULT];
    const BOUND: Option<Bound> = Some(Bound::new(100, "VPCs", ErrorCode::VpcLimitExceeded));

    fn concerns(&self, _: &State) -> Vec<Concern> {
        vec![Concern::Vpc {
            vpc_id: self.id.clone(),
        }]
    }

    resource!();
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub id: String,
    pub account_id: String,
    #[serde(default)]
    pub region: String,
    pub vpc_id: String,
    pub cidr: Ipv4Net,
    pub availability_zone: String,
    pub default_for_az: bool,
    pub map_public_ip_on_launch: bool,
    pub created_at: i64,
    pub tags: Tags,
}

impl Subnet {
    pub const BY_VPC: Index<Self> = Index::refers::<Vpc>("vpc", |s| vec![s.vpc_id.clone()]);
}

impl Noun for Subnet {
    const KIND: &'static str = "subnet";
    const RESOURCE: Option<Kind> = Some(Kind::Subnet);
    const INDEXES: &'static [Index<Self>] = &[
        Self::BY_VPC,
        Index::unique("cidr", |s| vec![key(&[&s.vpc_id, &s.cidr.to_string()])]),
    ];

    resource!();
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredInterface")]
pub struct NetworkInterface {
    pub id: String,
    pub account_id: String,
    pub region: String,
    /// `None`: no instance has it.
    pub attachment: Option<Attachment>,
    /// Of its newest attachment; 0 if it never had one.
    pub epoch: u64,
    pub vpc_id: String,
    pub subnet_id: String,
    pub mac_address: String,
    pub private_ip: Ipv4Addr,
    pub public_ip: Option<Ipv4Addr>,
    /// Ids of the security groups that it is in, in their order.
    pub groups: Vec<String>,
    pub tags: Tags,
}

/// As the database has it: also interfaces of before there were attachments.
#[derive(Deserialize)]
struct StoredInterface {
    id: String,
    account_id: String,
    #[serde(default)]
    region: String,
    #[serde(default)]
    attachment: Option<Attachment>,
    #[serde(default)]
    epoch: Option<u64>,
    vpc_id: String,
    subnet_id: String,
    mac_address: String,
    private_ip: Ipv4Addr,
    public_ip: Option<Ipv4Addr>,
    groups: Vec<String>,
    tags: Tags,
    /// Of before.
    #[serde(default)]
    instance_id: Option<String>,
}

impl From<StoredInterface> for NetworkInterface {
    fn from(stored: StoredInterface) -> Self {
        let before = stored
            .instance_id
            .map(|instance| Attachment::first(&instance, PRIMARY, true, 0));
        Self {
            id: stored.id,
            account_id: stored.account_id,
            region: stored.region,
            attachment: stored.attachment.or(before),
            epoch: stored.epoch.unwrap_or(1),
            vpc_id: stored.vpc_id,
            subnet_id: stored.subnet_id,
            mac_address: stored.mac_address,
            private_ip: stored.private_ip,
            public_ip: stored.public_ip,
            groups: stored.groups,
            tags: stored.tags,
        }
    }
}

impl NetworkInterface {
    pub const BY_INSTANCE: Index<Self> = Index::refers::<Instance>("instance", |n| {
        n.instance_id().map(str::to_owned).into_iter().collect()
    });
    pub const BY_GROUP: Index<Self> = Index::refers::<SecurityGroup>("group", |n| n.groups.clone());
    /// Members of a group: its id and their private addresses.
    pub const MEMBER: Index<Self> = Index::new("member", |n| {
        let member = |group: &String| address_key(group, n.private_ip);
        n.groups.iter().map(member).collect()
    });
    pub const BY_ADDRESS: Index<Self> =
        Index::unique("address", |n| vec![address_key(&n.subnet_id, n.private_ip)]);
    pub const BY_PUBLIC: Index<Self> =
        Index::unique("public-address", |n| n.public_ip.map(hex).into_iter().collect());
    pub const BY_MAC: Index<Self> = Index::unique("mac-address", |n| vec![n.mac_address.clone()]);
    pub const BY_VPC: Index<Self> = Index::refers::<Vpc>("vpc", |n| vec![n.vpc_id.clone()]);
    pub const BY_SUBNET: Index<Self> = Index::refers::<Subnet>("subnet", |n| vec![n.subnet_id.clone()]);
    /// Interfaces with addresses of a block, as [`block_key`] names it.
    pub const IN_BLOCK: Sum<Self> = Sum {
        name: "block",
        part: |n| Some((block_key(&n.subnet_id, n.private_ip), [1, 0])),
    };
    /// Interfaces with public addresses of a block.
    pub const IN_PUBLIC_BLOCK: Sum<Self> = Sum {
        name: "public-block",
        part: |n| Some((block_key("", n.public_ip?), [1, 0])),
    };
    /// Interfaces of a subnet.
    pub const IN_SUBNET: Sum<Self> = Sum {
        name: "subnet",
        part: |n| Some((n.subnet_id.clone(), [1, 0])),
    };

    /// The instance that has it.
    pub fn instance_id(&self) -> Option<&str> {
        Some(&self.attachment.as_ref()?.instance_id)
    }
}

/// The key of an address within a subnet or a group. Keys sort as addresses do.
pub fn address_key(within: &str, address: Ipv4Addr) -> String {
    key(&[within, &hex(address)])
}

/// The key of the block of 256 addresses, within a subnet, that an address is in.
pub fn block_key(within: &str, address: Ipv4Addr) -> String {
    key(&[within, &format!("{:06x}", u32::from(address) >> 8)])
}

/// An address as eight hexadecimal digits, which sort as addresses do.
pub fn hex(address: Ipv4Addr) -> String {
    format!("{:08x}", u32::from(address))
}

impl Noun for NetworkInterface {
    const KIND: &'static str = "network-interface";
    const RESOURCE: Option<Kind> = Some(Kind::NetworkInterface);
    const INDEXES: &'static [Index<Self>] = &[
        Self::BY_INSTANCE,
        Self::BY_GROUP,
        Self::MEMBER,
        Self::BY_ADDRESS,
        Self::BY_PUBLIC,
        Self::BY_MAC,
        Self::BY_SUBNET,
        Self::BY_VPC,
    ];
    const SUMS: &'static [Sum<Self>] = &[Self::IN_SUBNET, Self::IN_BLOCK, Self::IN_PUBLIC_BLOCK];

    fn concerns(&self, state: &State) -> Vec<Concern> {
        let member = |group_id: &String| Concern::Member {
            group_id: group_id.clone(),
            address: self.private_ip,
        };
        let instance = self.instance_id().and_then(|id| state.get::<Instance>(id));
        let instance = instance.map(|instance| Concern::Instance {
            host_id: instance.host_id.clone(),
            instance_id: instance.id.clone(),
        });
        self.groups.iter().map(member).chain(instance).collect()
    }

    resource!();
}

impl State {
    /// The default VPC of an account in a region.
    pub fn default_vpc(&self, of: &Scope) -> Option<&Vpc> {
        self.first_by(&Vpc::DEFAULT, &of.key(&[]))
    }

    /// Private addresses of the members of a group, in their order.
    pub fn members<'s>(&'s self, group_id: &'s str) -> impl Iterator<Item = Ipv4Addr> + use<'s> {
        let first = address_key(group_id, Ipv4Addr::UNSPECIFIED);
        self.from(&NetworkInterface::MEMBER, &first)
            .take_while(move |(key, _)| {
                key.strip_prefix(group_id)
                    .is_some_and(|rest| rest.starts_with('\u{1f}'))
            })
            .map(|(_, interface)| interface.private_ip)
    }

    pub fn is_member(&self, group_id: &str, address: Ipv4Addr) -> bool {
        self.any_by(&NetworkInterface::MEMBER, &address_key(group_id, address))
    }

    /// The primary interface of an instance.
    pub fn interface_of(&self, instance_id: &str) -> Option<&NetworkInterface> {
        self.by(&NetworkInterface::BY_INSTANCE, instance_id)
            .find(|interface| interface.attachment.as_ref().is_some_and(|a| a.device == PRIMARY))
    }
}
