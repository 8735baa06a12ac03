//! What a new cloud begins with: an owner, the default VPC, its default subnets and its default security group.

use hearth_api::{Id, Kind};
use ipnet::Ipv4Net;
use sqlx::SqliteConnection;

use super::networks::{self, SubnetRow, VpcRow};
use super::security_groups::{self, GroupRow, RuleRow};
use super::{Result, WriteTransaction};

/// How a new cloud is laid out.
#[derive(Debug, Clone)]
pub struct Layout {
    pub zones: Vec<String>,
    pub vpc_cidr: Ipv4Net,
}

/// The prefix length of default subnets, as in EC2.
pub const SUBNET_PREFIX: u8 = 20;

/// The name of the group that interfaces are in when nobody says another. Reserved.
pub const DEFAULT_GROUP: &str = "default";

/// Makes what is missing; a cloud that exists keeps its VPC, and gets subnets for zones that are new. Answers the
/// owner's account id.
pub async fn bootstrap(tx: &mut WriteTransaction, layout: &Layout) -> Result<String> {
    let c = tx.connection();
    let owner = owner_id(c).await?;
    let vpc = match networks::vpcs(c).await?.into_iter().find(|vpc| vpc.is_default) {
        Some(vpc) => vpc,
        None => make_vpc(c, layout.vpc_cidr).await?,
    };
    let subnets = networks::subnets(c).await?;
    let cidr: Option<Ipv4Net> = vpc.cidr.parse().ok();
    let candidates = cidr.and_then(|cidr| cidr.subnets(SUBNET_PREFIX.max(cidr.prefix_len())).ok());
    let mut free = candidates
        .into_iter()
        .flatten()
        .filter(|candidate| !subnets.iter().any(|s| s.cidr == candidate.to_string()));
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
                vpc = vpc.cidr,
                "no room in the default VPC for this zone's subnet"
            );
            continue;
        };
        let subnet = SubnetRow {
            id: Id::new(Kind::Subnet).to_string(),
            vpc_id: vpc.id.clone(),
            cidr: cidr.to_string(),
            availability_zone: zone.clone(),
            default_for_az: true,
            map_public_ip_on_launch: true,
        };
        networks::insert_subnet(c, &subnet).await?;
    }
    Ok(owner)
}

async fn owner_id(c: &mut SqliteConnection) -> Result<String> {
    let known: Option<String> = sqlx::query_scalar("SELECT value FROM settings WHERE name = 'owner-id'")
        .fetch_optional(&mut *c)
        .await?;
    if let Some(owner) = known {
        return Ok(owner);
    }
    let owner = format!(
        "{:012}",
        rand::random_range(100_000_000_000u64..1_000_000_000_000)
    );
    sqlx::query("INSERT INTO settings (name, value) VALUES ('owner-id', ?)")
        .bind(&owner)
        .execute(c)
        .await?;
    Ok(owner)
}

async fn make_vpc(c: &mut SqliteConnection, cidr: Ipv4Net) -> Result<VpcRow> {
    let vpc = VpcRow {
        id: Id::new(Kind::Vpc).to_string(),
        cidr: cidr.trunc().to_string(),
        is_default: true,
    };
    networks::insert_vpc(c, &vpc).await?;
    let group = GroupRow {
        id: Id::new(Kind::SecurityGroup).to_string(),
        vpc_id: vpc.id.clone(),
        name: DEFAULT_GROUP.into(),
        description: "default VPC security group".into(),
    };
    security_groups::insert(c, &group).await?;
    let members = RuleRow {
        is_egress: false,
        cidr: String::new(),
        referenced_group_id: Some(group.id.clone()),
        ..allow_all_egress(&group.id)
    };
    security_groups::insert_rule(c, &members).await?;
    security_groups::insert_rule(c, &allow_all_egress(&group.id)).await?;
    Ok(vpc)
}

/// The rule that every new group begins with.
pub fn allow_all_egress(group_id: &str) -> RuleRow {
    RuleRow {
        id: Id::new(Kind::SecurityGroupRule).to_string(),
        group_id: group_id.to_owned(),
        is_egress: true,
        protocol: -1,
        from_port: -1,
        to_port: -1,
        cidr: "0.0.0.0/0".into(),
        referenced_group_id: None,
        description: String::new(),
    }
}
