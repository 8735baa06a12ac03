//! A specification that was checked, and the addresses that follow from it.
//!
//! Rules, paths and names are only made from a [`Plan`], so nothing unchecked ever reaches `nft`, the kernel or a path.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::sync::{Arc, RwLock};

use ipnet::Ipv4Net;

use crate::NetworkError;
use crate::names::{is_id, tap_name};
use crate::spec::{EniSpec, Peer, Protocol, RuleSpec, SecurityGroupSpec, SubnetSpec, VpcSpec};

/// Where IMDS answers, in every VPC.
pub(crate) const IMDS_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The Amazon DNS server's address that is the same in every VPC.
pub(crate) const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);

/// A valid [`VpcSpec`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan(VpcSpec);

/// The plan that is in force; replaced as a whole.
pub(crate) type CurrentPlan = Arc<RwLock<Arc<Plan>>>;

impl Deref for Plan {
    type Target = VpcSpec;

    fn deref(&self) -> &VpcSpec {
        &self.0
    }
}

impl Plan {
    pub(crate) fn new(spec: &VpcSpec) -> Result<Self, NetworkError> {
        match check(spec) {
            Ok(()) => Ok(Self(spec.clone())),
            Err(reason) => Err(NetworkError::InvalidSpec {
                vpc_id: spec.vpc_id.clone(),
                reason,
            }),
        }
    }

    /// The host's own end of the uplink: the first host address of the public pool.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        first_host(&self.public_pool)
    }

    /// DNS: the base of the VPC plus two, and the link-local one.
    pub(crate) fn dns(&self) -> [Ipv4Addr; 2] {
        [dns_of(&self.cidr), DNS_ADDRESS]
    }

    /// All that the namespace answers for itself: each subnet's router, DNS, IMDS.
    pub(crate) fn local_addresses(&self) -> BTreeSet<Ipv4Addr> {
        let routers = self.enis.iter().map(|eni| first_host(&eni.subnet));
        routers.chain(self.dns()).chain([IMDS_ADDRESS]).collect()
    }

    /// The subnet that an interface is in.
    pub(crate) fn subnet_of(&self, eni: &EniSpec) -> Option<&SubnetSpec> {
        self.subnets.iter().find(|subnet| subnet.cidr == eni.subnet)
    }

    pub(crate) fn eni(&self, eni_id: &str) -> Option<&EniSpec> {
        self.enis.iter().find(|eni| eni.eni_id == eni_id)
    }

    pub(crate) fn eni_by_address(&self, ip: Ipv4Addr) -> Option<&EniSpec> {
        self.enis.iter().find(|eni| eni.private_ip == ip)
    }
}

/// The router of a subnet; EC2 reserves it.
pub(crate) fn first_host(net: &Ipv4Net) -> Ipv4Addr {
    offset(net, 1)
}

fn dns_of(net: &Ipv4Net) -> Ipv4Addr {
    offset(net, 2)
}

fn offset(net: &Ipv4Net, by: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(net.network().to_bits().saturating_add(by))
}

type Check = Result<(), String>;

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn ensure_new<T: std::hash::Hash + Eq + fmt::Debug>(seen: &mut HashSet<T>, value: T, what: &str) -> Check {
    let text = format!("{value:?}");
    ensure(seen.insert(value), || format!("{what} {text} is given twice"))
}

fn check(spec: &VpcSpec) -> Check {
    ensure(is_id("vpc", &spec.vpc_id), || {
        "the id is not vpc- and 17 hex digits".to_owned()
    })?;
    ensure(spec.cidr.prefix_len() <= 28, || {
        format!("the block {} is smaller than /28", spec.cidr)
    })?;
    ensure(spec.public_pool.prefix_len() <= 30, || {
        format!(
            "the public pool {} has no room for a gateway and an address",
            spec.public_pool
        )
    })?;
    let (cidr, pool) = (&spec.cidr, &spec.public_pool);
    ensure(
        !cidr.contains(&pool.network()) && !pool.contains(&cidr.network()),
        || format!("the block {cidr} and the public pool {pool} overlap"),
    )?;
    let (mut ids, mut taps, mut addresses, mut publics) =
        (HashSet::new(), HashSet::new(), HashSet::new(), HashSet::new());
    for eni in &spec.enis {
        check_eni(spec, eni)?;
        ensure_new(&mut ids, &eni.eni_id, "interface")?;
        ensure_new(&mut taps, tap_name(&eni.eni_id), "TAP")?;
        ensure_new(&mut addresses, eni.private_ip, "address")?;
        if let Some(public) = eni.public_ip {
            ensure_new(&mut publics, public, "public address")?;
        }
    }
    let (mut ids, mut blocks) = (HashSet::new(), HashSet::new());
    for subnet in &spec.subnets {
        check_subnet(subnet)?;
        ensure_new(&mut ids, &subnet.subnet_id, "subnet")?;
        ensure_new(&mut blocks, subnet.cidr, "subnet's block")?;
    }
    let mut groups = HashSet::new();
    for group in &spec.security_groups {
        ensure_new(&mut groups, &group.group_id, "security group")?;
        check_group(group)?;
    }
    Ok(())
}

fn check_subnet(subnet: &SubnetSpec) -> Check {
    let id = &subnet.subnet_id;
    ensure(is_id("subnet", id), || {
        format!("subnet id {id:?} is not subnet- and 17 hex digits")
    })?;
    let mut blocks = subnet.internet.clone();
    blocks.sort();
    // Blocks either hold each other or have nothing in common.
    let pairs = std::iter::zip(&blocks, blocks.iter().skip(1));
    let mut overlapping = pairs.filter(|(one, next)| one.contains(*next));
    match overlapping.next() {
        Some((one, next)) => Err(format!("{id}: the blocks {one} and {next} overlap")),
        None => Ok(()),
    }
}

fn check_eni(spec: &VpcSpec, eni: &EniSpec) -> Check {
    let id = &eni.eni_id;
    ensure(is_id("eni", id), || {
        format!("interface id {id:?} is not eni- and 17 hex digits")
    })?;
    ensure(spec.cidr.contains(&eni.subnet), || {
        format!("{id}: subnet {} is outside {}", eni.subnet, spec.cidr)
    })?;
    ensure(eni.subnet.prefix_len() <= 28, || {
        format!("{id}: subnet {} is smaller than /28", eni.subnet)
    })?;
    let ip = eni.private_ip;
    let reserved = [
        eni.subnet.network(),
        first_host(&eni.subnet),
        dns_of(&spec.cidr),
        eni.subnet.broadcast(),
    ];
    ensure(eni.subnet.contains(&ip) && !reserved.contains(&ip), || {
        format!("{id}: address {ip} is reserved or outside {}", eni.subnet)
    })?;
    if let Some(public) = eni.public_ip {
        let pool = &spec.public_pool;
        let reserved = [pool.network(), first_host(pool), pool.broadcast()];
        ensure(pool.contains(&public) && !reserved.contains(&public), || {
            format!("{id}: public address {public} is reserved or outside {pool}")
        })?;
    }
    let [first, ..] = eni.mac;
    ensure(first & 1 == 0 && eni.mac != [0; 6], || {
        format!("{id}: the MAC is no unicast address")
    })?;
    ensure((1..=64).contains(&eni.imds.hop_limit), || {
        format!("{id}: hop limit outside 1 to 64")
    })?;
    ensure(is_host_name(&eni.hostname), || {
        format!(
            "{id}: host name {:?} is not a name of labels of letters, digits and hyphens",
            eni.hostname
        )
    })?;
    eni.security_group_ids
        .iter()
        .try_for_each(|group| check_group_id(group))
}

/// RFC 1123, 2.1: labels of 1 to 63 letters, digits and hyphens, which no hyphen begins or ends; 253 characters at most
/// (RFC 1035, 2.3.4, less the lengths).
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn check_group(group: &SecurityGroupSpec) -> Check {
    check_group_id(&group.group_id)?;
    group.ingress.iter().chain(&group.egress).try_for_each(check_rule)
}

fn check_group_id(id: &str) -> Check {
    ensure(is_id("sg", id), || {
        format!("security group id {id:?} is not sg- and 17 hex digits")
    })
}

fn check_rule(rule: &RuleSpec) -> Check {
    if let Protocol::Tcp { from, to } | Protocol::Udp { from, to } = rule.protocol {
        ensure(from <= to, || format!("port range {from} to {to} is upside down"))?;
    }
    if let Protocol::Icmp {
        kind: None,
        code: Some(code),
    } = rule.protocol
    {
        return Err(format!("ICMP code {code} without a type"));
    }
    match &rule.peer {
        Peer::Group(id) => check_group_id(id),
        Peer::Cidr(_) => Ok(()),
    }
}
