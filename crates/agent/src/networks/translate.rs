//! From the intents' words to the network crate's.

use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use hearth_api::agent::rule::Peer as PeerIntent;
use hearth_api::agent::{
    InstanceIntent, NetworkInterface, Rule, SecurityGroupIntent, SubnetIntent, VpcIntent,
};
use hearth_network::metadata::SecurityGroupName;
use hearth_network::spec::{
    EniSpec, ImdsOptions, Peer, Protocol, RuleSpec, SecurityGroupSpec, SubnetSpec, VpcSpec,
};
use hearth_network::{InstanceMetadata, InstanceProfile, PublicKey};

#[derive(Debug, thiserror::Error)]
pub enum Untranslatable {
    #[error("{whose}: '{value}' is no {what}")]
    Malformed {
        whose: String,
        what: &'static str,
        value: String,
    },
    #[error("{whose}: {what} is missing")]
    Missing { whose: String, what: &'static str },
}

/// A VPC with the interfaces that the intents place on this host. Stopped instances' interfaces belong to
/// it too: an interface without a TAP costs nothing, and a start finds its network ready.
///
/// # Errors
/// The VPC itself or one of its groups is malformed. A malformed interface is left out and logged: it must
/// not take the others' network away.
pub fn vpc_spec(vpc: &VpcIntent, instances: &[InstanceIntent]) -> Result<VpcSpec, Untranslatable> {
    let mut enis = Vec::new();
    for instance in instances {
        let own = instance.network_interfaces.iter();
        for eni in own.filter(|eni| eni.vpc_id == vpc.vpc_id) {
            match eni_spec(eni, instance) {
                Ok(spec) => enis.push(spec),
                Err(error) => tracing::error!(%error, "leaving out an interface"),
            }
        }
    }
    let groups = vpc.security_groups.iter().map(security_group);
    Ok(VpcSpec {
        vpc_id: vpc.vpc_id.clone(),
        cidr: parse(&vpc.vpc_id, "CIDR", &vpc.cidr_block)?,
        public_pool: parse(&vpc.vpc_id, "CIDR", &vpc.public_pool_cidr)?,
        enis,
        security_groups: groups.collect::<Result<_, _>>()?,
        subnets: vpc.subnets.iter().map(subnet).collect::<Result<_, _>>()?,
        dns: !vpc.dns_disabled,
    })
}

fn subnet(subnet: &SubnetIntent) -> Result<SubnetSpec, Untranslatable> {
    let whose = &subnet.subnet_id;
    let internet = subnet
        .internet_cidrs
        .iter()
        .map(|block| parse(whose, "CIDR", block));
    Ok(SubnetSpec {
        subnet_id: whose.clone(),
        cidr: parse(whose, "CIDR", &subnet.cidr_block)?,
        internet: internet.collect::<Result<_, _>>()?,
    })
}

fn eni_spec(eni: &NetworkInterface, instance: &InstanceIntent) -> Result<EniSpec, Untranslatable> {
    let whose = &eni.network_interface_id;
    let told = instance.metadata.clone().unwrap_or_default();
    let hostname = if told.local_hostname.is_empty() {
        instance.instance_id.clone()
    } else {
        told.local_hostname.clone()
    };
    Ok(EniSpec {
        eni_id: whose.clone(),
        mac: mac(whose, &eni.mac_address)?,
        private_ip: parse(whose, "IPv4 address", &eni.private_ip)?,
        subnet: parse(whose, "CIDR", &eni.subnet_cidr)?,
        public_ip: public_ip(eni)?,
        security_group_ids: eni.security_group_ids.clone(),
        hostname,
        imds: ImdsOptions {
            enabled: told.http_endpoint_enabled,
            tokens_required: told.http_tokens_required,
            hop_limit: u8::try_from(told.http_put_response_hop_limit.clamp(1, 64)).unwrap_or(1),
        },
    })
}

fn security_group(group: &SecurityGroupIntent) -> Result<SecurityGroupSpec, Untranslatable> {
    let whose = &group.group_id;
    let members = group.members.iter().map(|ip| parse(whose, "IPv4 address", ip));
    let rules = |rules: &[Rule]| rules.iter().map(|r| rule(whose, r)).collect::<Result<_, _>>();
    Ok(SecurityGroupSpec {
        group_id: whose.clone(),
        members: members.collect::<Result<_, _>>()?,
        ingress: rules(&group.ingress)?,
        egress: rules(&group.egress)?,
    })
}

fn rule(whose: &str, rule: &Rule) -> Result<RuleSpec, Untranslatable> {
    let port = |value: i32, all: u16| match value {
        -1 => Ok(all),
        value => u16::try_from(value).map_err(|_| malformed(whose, "port", value)),
    };
    let byte = |what, value: i32| match value {
        -1 => Ok(None),
        value => u8::try_from(value)
            .map(Some)
            .map_err(|_| malformed(whose, what, value)),
    };
    let ports = || Ok((port(rule.from_port, 0)?, port(rule.to_port, u16::MAX)?));
    let protocol = match rule.protocol {
        -1 => Protocol::All,
        1 => Protocol::Icmp {
            kind: byte("ICMP type", rule.from_port)?,
            code: byte("ICMP code", rule.to_port)?,
        },
        6 => {
            let (from, to) = ports()?;
            Protocol::Tcp { from, to }
        }
        17 => {
            let (from, to) = ports()?;
            Protocol::Udp { from, to }
        }
        other => Protocol::Other(u8::try_from(other).map_err(|_| malformed(whose, "IP protocol", other))?),
    };
    let peer = match &rule.peer {
        Some(PeerIntent::Cidr(cidr)) => Peer::Cidr(parse(whose, "CIDR", cidr)?),
        Some(PeerIntent::GroupId(group)) => Peer::Group(group.clone()),
        None => {
            return Err(Untranslatable::Missing {
                whose: whose.to_owned(),
                what: "a rule's peer",
            });
        }
    };
    Ok(RuleSpec { protocol, peer })
}

/// Where an instance asks IMDS: the VPC and the private address of each of its interfaces. Malformed ones are left out, as in
/// [`vpc_spec`].
pub fn addresses(instance: &InstanceIntent) -> impl Iterator<Item = (String, Ipv4Addr)> {
    let enis = instance.network_interfaces.iter();
    enis.filter_map(|eni| Some((eni.vpc_id.clone(), eni.private_ip.parse().ok()?)))
}

/// What IMDS tells an instance, of its primary interface.
///
/// # Errors
/// An address is malformed, or the instance has no interface.
pub fn metadata(instance: &InstanceIntent, vpcs: &[VpcIntent]) -> Result<InstanceMetadata, Untranslatable> {
    let whose = &instance.instance_id;
    let missing = |what| Untranslatable::Missing {
        whose: whose.clone(),
        what,
    };
    let eni = instance
        .network_interfaces
        .first()
        .ok_or_else(|| missing("the network interface"))?;
    let told = instance
        .metadata
        .as_ref()
        .ok_or_else(|| missing("the metadata"))?;
    let public_ipv4 = public_ip(eni)?;
    let vpc_cidrs = vpcs.iter().filter(|vpc| vpc.vpc_id == eni.vpc_id);
    Ok(InstanceMetadata {
        instance_id: whose.clone(),
        ami_id: told.image_id.clone(),
        ami_launch_index: told.ami_launch_index,
        instance_type: told.instance_type.clone(),
        reservation_id: told.reservation_id.clone(),
        owner_id: told.owner_id.clone(),
        region: told.region.clone(),
        availability_zone: told.availability_zone.clone(),
        availability_zone_id: hearth_api::zones::id(&told.availability_zone),
        root_device_name: match instance.volumes.first() {
            Some(root) if !root.device_name.is_empty() => root.device_name.clone(),
            _ => "/dev/vda".to_owned(),
        },
        // What the instance is to let go is not its any more.
        ebs_device_names: (instance.volumes.iter().skip(1))
            .filter(|volume| !volume.detaching && !volume.device_name.is_empty())
            .map(|volume| volume.device_name.clone())
            .collect(),
        // As in EC2 those that are there without a mapping have no names.
        store_device_names: (instance.store_disks.iter())
            .filter(|disk| !disk.device_name.is_empty())
            .map(|disk| (disk.number, disk.device_name.clone()))
            .collect(),
        local_hostname: told.local_hostname.clone(),
        public_hostname: None,
        interface_id: eni.network_interface_id.clone(),
        mac: mac(whose, &eni.mac_address)?,
        local_ipv4: parse(whose, "IPv4 address", &eni.private_ip)?,
        public_ipv4,
        subnet_id: eni.subnet_id.clone(),
        subnet_cidr: parse(whose, "CIDR", &eni.subnet_cidr)?,
        vpc_id: eni.vpc_id.clone(),
        vpc_cidrs: vpc_cidrs
            .map(|vpc| parse(whose, "CIDR", &vpc.cidr_block))
            .collect::<Result<_, _>>()?,
        security_groups: std::iter::zip(&eni.security_group_ids, &told.security_group_names)
            .map(|(group_id, group_name)| SecurityGroupName {
                group_id: group_id.clone(),
                group_name: group_name.clone(),
            })
            .collect(),
        public_keys: if told.public_key.is_empty() {
            Vec::new()
        } else {
            vec![PublicKey {
                key_name: told.key_name.clone(),
                openssh: told.public_key.clone(),
            }]
        },
        user_data: (!told.user_data.is_empty()).then(|| told.user_data.clone()),
        tags: (!told.tags.is_empty()).then(|| {
            let mut tags: Vec<_> = told.tags.clone().into_iter().collect();
            tags.sort();
            tags
        }),
        instance_profile: told.instance_profile.as_ref().map(|profile| InstanceProfile {
            arn: profile.arn.clone(),
            id: profile.id.clone(),
            role_id: (!profile.role_id.is_empty()).then(|| profile.role_id.clone()),
        }),
        launch_time: SystemTime::UNIX_EPOCH
            + Duration::from_secs(u64::try_from(told.launch_time).unwrap_or(0)),
    })
}

fn public_ip(eni: &NetworkInterface) -> Result<Option<Ipv4Addr>, Untranslatable> {
    if eni.public_ip.is_empty() {
        return Ok(None);
    }
    parse(&eni.network_interface_id, "IPv4 address", &eni.public_ip).map(Some)
}

fn mac(whose: &str, text: &str) -> Result<[u8; 6], Untranslatable> {
    let octets: Vec<u8> = text
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16))
        .collect::<Result<_, _>>()
        .map_err(|_| malformed(whose, "MAC address", text))?;
    octets
        .try_into()
        .map_err(|_| malformed(whose, "MAC address", text))
}

fn parse<T: FromStr>(whose: &str, what: &'static str, value: &str) -> Result<T, Untranslatable> {
    value.parse().map_err(|_| malformed(whose, what, value))
}

fn malformed(whose: &str, what: &'static str, value: impl ToString) -> Untranslatable {
    Untranslatable::Malformed {
        whose: whose.to_owned(),
        what,
        value: value.to_string(),
    }
}

#[cfg(test)]
mod tests;
