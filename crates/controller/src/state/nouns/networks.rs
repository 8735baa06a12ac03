//! VPCs, subnets and network interfaces.

use std::net::Ipv4Addr;

use hearth_api::Kind;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{Instance, SecurityGroup};
use crate::state::noun::resource;
use crate::state::{Index, Noun, State, Sum, Tags, key};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vpc {
    pub id: String,
    pub account_id: String,
    pub cidr: Ipv4Net,
    pub is_default: bool,
    pub created_at: i64,
    pub tags: Tags,
}

impl Vpc {
    /// The default VPC of an account.
    pub const DEFAULT: Index<Self> = Index::unique("default", |v| {
        if v.is_default {
            vec![v.account_id.clone()]
        } else {
            Vec::new()
        }
    });
}

impl Noun for Vpc {
    const KIND: &'static str = "vpc";
    const RESOURCE: Option<Kind> = Some(Kind::Vpc);
    const INDEXES: &'static [Index<Self>] = &[Self::DEFAULT];

    resource!();
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub id: String,
    pub account_id: String,
    pub vpc_id: String,
    pub cidr: Ipv4Net,
    pub availability_zone: String,
    pub default_for_az: bool,
    pub map_public_ip_on_launch: bool,
    pub created_at: i64,
    pub tags: Tags,
}

impl Noun for Subnet {
    const KIND: &'static str = "subnet";
    const RESOURCE: Option<Kind> = Some(Kind::Subnet);
    const INDEXES: &'static [Index<Self>] = &[
        Index::refers::<Vpc>("vpc", |s| vec![s.vpc_id.clone()]),
        Index::unique("cidr", |s| vec![key(&[&s.vpc_id, &s.cidr.to_string()])]),
    ];

    resource!();
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    pub id: String,
    pub account_id: String,
    pub instance_id: String,
    pub vpc_id: String,
    pub subnet_id: String,
    pub mac_address: String,
    pub private_ip: Ipv4Addr,
    pub public_ip: Option<Ipv4Addr>,
    /// Ids of the security groups that it is in, in their order.
    pub groups: Vec<String>,
    pub tags: Tags,
}

impl NetworkInterface {
    pub const BY_INSTANCE: Index<Self> =
        Index::refers::<Instance>("instance", |n| vec![n.instance_id.clone()]);
    pub const BY_GROUP: Index<Self> = Index::refers::<SecurityGroup>("group", |n| n.groups.clone());
    pub const BY_ADDRESS: Index<Self> =
        Index::unique("address", |n| vec![address_key(&n.subnet_id, n.private_ip)]);
    pub const BY_PUBLIC: Index<Self> =
        Index::unique("public-address", |n| n.public_ip.map(hex).into_iter().collect());
    pub const BY_MAC: Index<Self> = Index::unique("mac-address", |n| vec![n.mac_address.clone()]);
    /// Interfaces of a subnet.
    pub const IN_SUBNET: Sum<Self> = Sum {
        name: "subnet",
        part: |n| Some((n.subnet_id.clone(), [1, 0])),
    };
}

/// Keys sort as addresses do.
pub fn address_key(subnet_id: &str, address: Ipv4Addr) -> String {
    key(&[subnet_id, &hex(address)])
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
        Self::BY_ADDRESS,
        Self::BY_PUBLIC,
        Self::BY_MAC,
        Index::refers::<Subnet>("subnet", |n| vec![n.subnet_id.clone()]),
        Index::refers::<Vpc>("vpc", |n| vec![n.vpc_id.clone()]),
    ];
    const SUMS: &'static [Sum<Self>] = &[Self::IN_SUBNET];

    resource!();
}

impl State {
    /// The default VPC of an account.
    pub fn default_vpc(&self, account_id: &str) -> Option<&Vpc> {
        self.first_by(&Vpc::DEFAULT, account_id)
    }

    pub fn interface_of(&self, instance_id: &str) -> Option<&NetworkInterface> {
        self.first_by(&NetworkInterface::BY_INSTANCE, instance_id)
    }
}
