//! What a new cloud begins with: an owner with an access key, a region, the default VPC, its default subnets and its default
//! security group.

use std::collections::BTreeMap;

use hearth_api::{Id, Kind};
use ipnet::Ipv4Net;

use crate::config::Config;
use crate::seal::{Broken, SealedSecret, SealingKey, Secret};
use crate::state::{
    AccessKey, Account, Association, Cloud, InternetGateway, Region, RouteTable, Scope, SecurityGroup,
    SecurityGroupRule, Subnet, Tags, Tx, Vpc,
};

/// How a new cloud is laid out.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The name of the home region.
    pub region: String,
    /// The home region's.
    pub zones: Vec<String>,
    /// Of default VPCs.
    pub vpc_cidr: Ipv4Net,
}

impl Layout {
    pub fn of(config: &Config) -> Self {
        Self {
            region: config.region.clone(),
            zones: config.zones.clone(),
            vpc_cidr: config.vpc_cidr,
        }
    }
}

/// The name of the operator's account.
const OPERATOR: &str = "operator";

/// The prefix length of default subnets, as in EC2.
pub const SUBNET_PREFIX: u8 = 20;

/// The name of the group that interfaces are in when nobody says another. Reserved.
pub const DEFAULT_GROUP: &str = "default";

/// Why a cloud cannot be laid out so.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("sealing the cloud's secrets")]
    Seal(#[from] Broken),
    #[error(
        "--region {region}: the cloud has this region beside its home region {home}, and both have things in them. Start \
         hearthd with --region {home}"
    )]
    Region { region: String, home: String },
    #[error("--zones {zone}: the zone is the region {region}'s. Name another, or delete that region")]
    Zone { zone: String, region: String },
}

/// Makes what is missing; a cloud that exists keeps its VPCs, and gets subnets for zones that are new. Answers the
/// owner's account id. Secrets are sealed under `root`; those that are not, of a database of before seals, as well.
///
/// # Errors
/// As [`SealedSecret::seal`]; the home region's name or zones are another region's.
pub fn bootstrap(tx: &mut Tx<'_>, layout: &Layout, root: &SealingKey) -> Result<String, BootstrapError> {
    let owner = owner_id(tx, root)?;
    if tx.by(&AccessKey::BY_ACCOUNT, &owner).next().is_none() {
        let (key, _) = AccessKey::generate(root, &owner, None, tx.now())?;
        tx.put(key);
    }
    let keys: Vec<AccessKey> = tx.all::<AccessKey>().cloned().collect();
    for key in keys {
        if let Some(sealed) = key.sealed(root)? {
            tx.put(sealed);
        }
    }
    if tx.account(&owner).is_none() {
        tx.put(Account {
            id: owner.clone(),
            name: OPERATOR.to_owned(),
            created_at: tx.now(),
        });
    }
    settle(tx, layout)?;
    let accounts: Vec<String> = tx.all::<Account>().map(|account| account.id.clone()).collect();
    let regions: Vec<Region> = tx.all::<Region>().cloned().collect();
    for account in &accounts {
        for region in &regions {
            furnish(tx, account, region, layout.vpc_cidr);
        }
    }
    Ok(owner)
}

/// Makes the home region as it is configured. It may have got another name: what is in it gets that too, and so does what is
/// of before regions.
fn settle(tx: &mut Tx<'_>, layout: &Layout) -> Result<(), BootstrapError> {
    let (name, zones) = (&layout.region, &layout.zones);
    let home = tx.get::<Cloud>(Cloud::ID).map(|cloud| cloud.home_region.clone());
    let home = home.unwrap_or_default();
    if home != *name {
        if tx.region(name).is_some() {
            let region = name.clone();
            return Err(BootstrapError::Region { region, home });
        }
        tx.remove::<Region>(&home);
        tx.update::<Cloud>(Cloud::ID, |cloud| cloud.home_region.clone_from(name));
        tx.move_all(&home, name);
    }
    tx.move_all("", name);
    if let Some(zone) = zones.iter().find(|zone| tx.is_abroad(zone, name)) {
        let region = tx.region_of_zone(zone).map(|region| region.name.clone());
        return Err(BootstrapError::Zone {
            zone: zone.clone(),
            region: region.unwrap_or_default(),
        });
    }
    let found = tx.region(name).cloned();
    if found.as_ref().is_none_or(|found| found.zones != *zones) {
        tx.put(Region {
            name: name.clone(),
            zones: zones.clone(),
            created_at: found.map_or(tx.now(), |found| found.created_at),
        });
    }
    Ok(())
}

/// Makes what an account begins with in a region and has not had yet: a default VPC with its group and its way to the internet,
/// and a default subnet in each zone. `cidr`: of a VPC that is new.
pub fn furnish(tx: &mut Tx<'_>, account_id: &str, region: &Region, cidr: Ipv4Net) {
    let within = Scope::new(account_id, &region.name);
    let mut settings = tx.account_settings(&within);
    let had = &settings.furnished_zones;
    let vpc = match tx.default_vpc(&within) {
        Some(vpc) => Some(vpc.clone()),
        None if had.is_empty() => Some(make_default_vpc(tx, &within, cidr)),
        // It was deleted.
        None => None,
    };
    if let Some(vpc) = &vpc
        && tx.main_table(&vpc.id).is_none()
    {
        // Of a database of before there were routes.
        open_up(tx, vpc);
    }
    let new = region.zones.iter().filter(|zone| !had.contains(zone));
    let new: Vec<String> = new.cloned().collect();
    if new.is_empty() {
        return;
    }
    if let Some(vpc) = &vpc {
        make_default_subnets(tx, vpc, &new);
    }
    settings.furnished_zones.extend(new);
    tx.put(settings);
}

/// Makes a default VPC with its way to the internet.
pub fn make_default_vpc(tx: &mut Tx<'_>, within: &Scope, cidr: Ipv4Net) -> Vpc {
    let mut vpc = new_vpc(tx, within, cidr);
    vpc.is_default = true;
    vpc.dns_hostnames = true;
    make_vpc(tx, &vpc);
    open_up(tx, &vpc);
    vpc
}

/// Makes a default subnet in each of some zones that has none, as far as there is room.
pub fn make_default_subnets(tx: &mut Tx<'_>, vpc: &Vpc, zones: &[String]) {
    for zone in zones {
        let has_one = |subnet: &Subnet| subnet.default_for_az && subnet.availability_zone == *zone;
        if tx.by(&Subnet::BY_VPC, &vpc.id).any(has_one) {
            continue;
        }
        let Some(subnet) = default_subnet(tx, vpc, zone) else {
            tracing::warn!(
                zone,
                vpc = %vpc.cidr,
                "no room in the default VPC for this zone's subnet"
            );
            continue;
        };
        tx.put(subnet);
    }
}

/// A default subnet with the first block of the default size that is free.
pub fn default_subnet(tx: &Tx<'_>, vpc: &Vpc, zone: &str) -> Option<Subnet> {
    let taken: Vec<Ipv4Net> = tx.by(&Subnet::BY_VPC, &vpc.id).map(|s| s.cidr).collect();
    let candidates = vpc.cidr.subnets(SUBNET_PREFIX.max(vpc.cidr.prefix_len())).ok()?;
    let is_free = |block: &Ipv4Net| !taken.iter().any(|cidr| overlap(cidr, block));
    let cidr = candidates.into_iter().find(is_free)?;
    Some(Subnet {
        id: Id::new(Kind::Subnet).to_string(),
        account_id: vpc.account_id.clone(),
        region: vpc.region.clone(),
        vpc_id: vpc.id.clone(),
        cidr,
        availability_zone: zone.to_owned(),
        default_for_az: true,
        map_public_ip_on_launch: true,
        created_at: tx.now(),
        tags: Tags::new(),
    })
}

/// Whether two blocks have addresses in common.
pub fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.contains(other) || other.contains(one)
}

fn owner_id(tx: &mut Tx<'_>, root: &SealingKey) -> Result<String, Broken> {
    if let Some(cloud) = tx.get::<Cloud>(Cloud::ID).cloned() {
        let owner_id = cloud.owner_id.clone();
        // Of a database of before epochs, or seals.
        let mut whole = cloud.clone();
        if whole.epoch.is_empty() {
            whole.epoch = Cloud::new_epoch();
        }
        match whole.seal.plain() {
            Some(Secret(plain)) if plain.is_empty() => whole.seal = Cloud::new_seal(root)?,
            Some(plain) => whole.seal = SealedSecret::seal(root, Cloud::SEAL, &plain)?,
            None => {}
        }
        if whole != cloud {
            tx.put(whole);
        }
        return Ok(owner_id);
    }
    let owner_id = Account::new_id();
    tx.put(Cloud {
        owner_id: owner_id.clone(),
        home_region: String::new(),
        epoch: Cloud::new_epoch(),
        seal: Cloud::new_seal(root)?,
    });
    Ok(owner_id)
}

/// A VPC that nothing leads out of, not yet in the state.
pub fn new_vpc(tx: &Tx<'_>, within: &Scope, cidr: Ipv4Net) -> Vpc {
    Vpc {
        id: Id::new(Kind::Vpc).to_string(),
        account_id: within.account_id().to_owned(),
        region: within.region().to_owned(),
        cidr: cidr.trunc(),
        is_default: false,
        dns_support: true,
        dns_hostnames: false,
        created_at: tx.now(),
        tags: Tags::new(),
    }
}

/// A route table without routes of its own, not yet in the state.
pub fn new_table(tx: &Tx<'_>, vpc: &Vpc) -> RouteTable {
    RouteTable {
        id: Id::new(Kind::RouteTable).to_string(),
        account_id: vpc.account_id.clone(),
        region: vpc.region.clone(),
        vpc_id: vpc.id.clone(),
        routes: BTreeMap::new(),
        associations: Vec::new(),
        created_at: tx.now(),
        tags: Tags::new(),
    }
}

/// Puts a VPC into the state, with its main route table and its default group.
pub fn make_vpc(tx: &mut Tx<'_>, vpc: &Vpc) {
    tx.put(vpc.clone());
    let main = vec![Association::new(None)];
    tx.put(RouteTable {
        associations: main,
        ..new_table(tx, vpc)
    });
    let group = SecurityGroup {
        id: Id::new(Kind::SecurityGroup).to_string(),
        account_id: vpc.account_id.clone(),
        region: vpc.region.clone(),
        vpc_id: vpc.id.clone(),
        name: DEFAULT_GROUP.into(),
        description: "default VPC security group".into(),
        created_at: tx.now(),
        tags: Tags::new(),
    };
    tx.put(group.clone());
    let egress = allow_all_egress(&group, tx.now());
    tx.put(SecurityGroupRule {
        id: Id::new(Kind::SecurityGroupRule).to_string(),
        is_egress: false,
        cidr: String::new(),
        referenced_group_id: Some(group.id.clone()),
        ..egress.clone()
    });
    tx.put(egress);
}

/// Gives a VPC without an internet gateway one, and its main table, which it may not have, the route there.
fn open_up(tx: &mut Tx<'_>, vpc: &Vpc) {
    let gateway = InternetGateway {
        id: Id::new(Kind::InternetGateway).to_string(),
        account_id: vpc.account_id.clone(),
        region: vpc.region.clone(),
        vpc_id: Some(vpc.id.clone()),
        created_at: tx.now(),
        tags: Tags::new(),
    };
    let mut table = tx.main_table(&vpc.id).cloned().unwrap_or_else(|| RouteTable {
        associations: vec![Association::new(None)],
        ..new_table(tx, vpc)
    });
    table.routes.insert(Ipv4Net::default(), gateway.id.clone());
    tx.put(gateway);
    tx.put(table);
}

/// The rule that every new group begins with.
pub fn allow_all_egress(group: &SecurityGroup, now: i64) -> SecurityGroupRule {
    SecurityGroupRule {
        id: Id::new(Kind::SecurityGroupRule).to_string(),
        account_id: group.account_id.clone(),
        region: group.region.clone(),
        group_id: group.id.clone(),
        is_egress: true,
        protocol: -1,
        from_port: -1,
        to_port: -1,
        cidr: "0.0.0.0/0".into(),
        referenced_group_id: None,
        description: String::new(),
        created_at: now,
        tags: Tags::new(),
    }
}
