//! What a new cloud begins with: an owner with an access key, the default VPC, its default subnets and its default security group.

use hearth_api::{Id, Kind};
use ipnet::Ipv4Net;

use crate::config::Config;
use crate::seal::{Broken, SealedSecret, SealingKey, Secret};
use crate::state::{AccessKey, Account, Cloud, SecurityGroup, SecurityGroupRule, Subnet, Tags, Tx, Vpc};

/// How a new cloud is laid out.
#[derive(Debug, Clone)]
pub struct Layout {
    pub zones: Vec<String>,
    pub vpc_cidr: Ipv4Net,
}

impl Layout {
    pub fn of(config: &Config) -> Self {
        Self {
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

/// Makes what is missing; a cloud that exists keeps its VPCs, and gets subnets for zones that are new. Answers the
/// owner's account id. Secrets are sealed under `root`; those that are not, of a database of before seals, as well.
///
/// # Errors
/// As [`SealedSecret::seal`].
pub fn bootstrap(tx: &mut Tx<'_>, layout: &Layout, root: &SealingKey) -> Result<String, Broken> {
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
    let accounts: Vec<String> = tx.all::<Account>().map(|account| account.id.clone()).collect();
    for account in accounts {
        furnish(tx, &account, layout);
    }
    Ok(owner)
}

/// Makes what an account begins with and does not have: a default VPC with its group, and a default subnet in each zone.
pub fn furnish(tx: &mut Tx<'_>, account_id: &str, layout: &Layout) {
    let vpc = match tx.default_vpc(account_id) {
        Some(vpc) => vpc.clone(),
        None => make_vpc(tx, account_id, layout.vpc_cidr),
    };
    let subnets: Vec<Subnet> = tx
        .all::<Subnet>()
        .filter(|subnet| subnet.vpc_id == vpc.id)
        .cloned()
        .collect();
    let candidates = vpc.cidr.subnets(SUBNET_PREFIX.max(vpc.cidr.prefix_len()));
    let mut free = candidates
        .into_iter()
        .flatten()
        .filter(|candidate| !subnets.iter().any(|s| s.cidr == *candidate));
    for zone in &layout.zones {
        if subnets
            .iter()
            .any(|s| s.default_for_az && s.availability_zone == *zone)
        {
            continue;
        }
        let Some(cidr) = free.next() else {
            tracing::warn!(
                zone,
                vpc = %vpc.cidr,
                "no room in the default VPC for this zone's subnet"
            );
            continue;
        };
        tx.put(Subnet {
            id: Id::new(Kind::Subnet).to_string(),
            account_id: account_id.to_owned(),
            vpc_id: vpc.id.clone(),
            cidr,
            availability_zone: zone.clone(),
            default_for_az: true,
            map_public_ip_on_launch: true,
            created_at: tx.now(),
            tags: Tags::new(),
        });
    }
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
        epoch: Cloud::new_epoch(),
        seal: Cloud::new_seal(root)?,
    });
    Ok(owner_id)
}

fn make_vpc(tx: &mut Tx<'_>, owner: &str, cidr: Ipv4Net) -> Vpc {
    let vpc = Vpc {
        id: Id::new(Kind::Vpc).to_string(),
        account_id: owner.to_owned(),
        cidr: cidr.trunc(),
        is_default: true,
        created_at: tx.now(),
        tags: Tags::new(),
    };
    tx.put(vpc.clone());
    let group = SecurityGroup {
        id: Id::new(Kind::SecurityGroup).to_string(),
        account_id: owner.to_owned(),
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
    vpc
}

/// The rule that every new group begins with.
pub fn allow_all_egress(group: &SecurityGroup, now: i64) -> SecurityGroupRule {
    SecurityGroupRule {
        id: Id::new(Kind::SecurityGroupRule).to_string(),
        account_id: group.account_id.clone(),
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
