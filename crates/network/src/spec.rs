//! What a host's networks should be: the words between the agent and this crate.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// A VPC as this host should have it: complete each time, and made so (level-triggered).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VpcSpec {
    /// `vpc-` and 17 hex digits; the network namespace has this name.
    pub vpc_id: String,
    pub cidr: Ipv4Net,
    /// Public addresses; the first host address of the pool is the host's own end of every uplink.
    pub public_pool: Ipv4Net,
    /// The subnets of the interfaces. One that is not here has no way out and none in.
    pub subnets: Vec<SubnetSpec>,
    /// The interfaces of this VPC that are on this host.
    pub enis: Vec<EniSpec>,
    pub security_groups: Vec<SecurityGroupSpec>,
    /// Whether the resolver answers.
    pub dns: bool,
}

/// What routes say of a subnet. Those of one VPC always reach each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetSpec {
    /// `subnet-` and 17 hex digits.
    pub subnet_id: String,
    pub cidr: Ipv4Net,
    /// The addresses that it reaches by the VPC's internet gateway, and that reach it: blocks that do not overlap.
    pub internet: Vec<Ipv4Net>,
}

/// An elastic network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniSpec {
    /// `eni-` and 17 hex digits.
    pub eni_id: String,
    pub mac: [u8; 6],
    pub private_ip: Ipv4Addr,
    /// The subnet, for DHCP: its first host address is the router.
    pub subnet: Ipv4Net,
    pub public_ip: Option<Ipv4Addr>,
    pub security_group_ids: Vec<String>,
    /// The private DNS name with its domain, such as `ip-172-31-0-4.ec2.internal`: DHCP's options 12 and 15, and the name
    /// that the VPC's resolver answers for.
    pub hostname: String,
    /// IMDS tells and enforces.
    pub imds: ImdsOptions,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImdsOptions {
    pub enabled: bool,
    pub tokens_required: bool,
    /// IP TTL of token answers, 1 to 64.
    pub hop_limit: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityGroupSpec {
    /// `sg-` and 17 hex digits.
    pub group_id: String,
    /// Private addresses of all interfaces in the group, on every host.
    pub members: Vec<Ipv4Addr>,
    pub ingress: Vec<RuleSpec>,
    pub egress: Vec<RuleSpec>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleSpec {
    pub protocol: Protocol,
    pub peer: Peer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    All,
    /// Inclusive ports.
    Tcp {
        from: u16,
        to: u16,
    },
    Udp {
        from: u16,
        to: u16,
    },
    Icmp {
        kind: Option<u8>,
        code: Option<u8>,
    },
    /// Any other, by IP protocol number.
    Other(u8),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    Cidr(Ipv4Net),
    /// The members of a group of the same VPC.
    Group(String),
}
