//! Where things are: regions, availability zones, VPCs and subnets.

use hearth_api::v1;
use serde::Serialize;

use super::{Tag, table, tags};
use crate::output::Answer;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Regions {
    regions: Vec<Region>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Region {
    opt_in_status: String,
    region_name: String,
    endpoint: String,
}

impl From<v1::DescribeRegionsResponse> for Regions {
    fn from(answer: v1::DescribeRegionsResponse) -> Self {
        let shape = |r: v1::Region| Region {
            opt_in_status: r.opt_in_status,
            region_name: r.region_name,
            endpoint: r.endpoint,
        };
        Self {
            regions: answer.regions.into_iter().map(shape).collect(),
        }
    }
}

impl Answer for Regions {
    fn table(&self) -> String {
        let row = |r: &Region| [r.region_name.clone(), r.endpoint.clone(), r.opt_in_status.clone()];
        table::of_rows(
            ["Region", "Endpoint", "Opt-in"],
            self.regions.iter().map(row).collect(),
            "No regions.",
        )
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AvailabilityZones {
    availability_zones: Vec<AvailabilityZone>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct AvailabilityZone {
    opt_in_status: String,
    messages: Vec<Message>,
    region_name: String,
    zone_name: String,
    zone_id: String,
    zone_type: String,
    state: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Message {
    message: String,
}

impl From<v1::DescribeAvailabilityZonesResponse> for AvailabilityZones {
    fn from(answer: v1::DescribeAvailabilityZonesResponse) -> Self {
        let shape = |z: v1::AvailabilityZone| AvailabilityZone {
            opt_in_status: z.opt_in_status,
            messages: z
                .messages
                .into_iter()
                .map(|message| Message { message })
                .collect(),
            region_name: z.region_name,
            zone_name: z.zone_name,
            zone_id: z.zone_id,
            zone_type: z.zone_type,
            state: z.state,
        };
        Self {
            availability_zones: answer.availability_zones.into_iter().map(shape).collect(),
        }
    }
}

impl Answer for AvailabilityZones {
    fn table(&self) -> String {
        let row = |z: &AvailabilityZone| {
            let messages: Vec<&str> = z.messages.iter().map(|m| m.message.as_str()).collect();
            [
                z.zone_name.clone(),
                z.zone_id.clone(),
                z.region_name.clone(),
                z.state.clone(),
                messages.join("\n"),
            ]
        };
        let rows = self.availability_zones.iter().map(row).collect();
        table::of_rows(
            ["Zone", "Id", "Region", "State", "Messages"],
            rows,
            "No availability zones.",
        )
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Vpcs {
    vpcs: Vec<Vpc>,
    #[serde(skip_serializing_if = "String::is_empty")]
    next_token: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Vpc {
    owner_id: String,
    instance_tenancy: String,
    is_default: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Tag>,
    vpc_id: String,
    state: String,
    cidr_block: String,
}

impl From<v1::DescribeVpcsResponse> for Vpcs {
    fn from(answer: v1::DescribeVpcsResponse) -> Self {
        let shape = |v: v1::Vpc| Vpc {
            owner_id: v.owner_id,
            instance_tenancy: v.instance_tenancy,
            is_default: v.is_default,
            tags: tags(v.tags),
            vpc_id: v.vpc_id,
            state: v.state,
            cidr_block: v.cidr_block,
        };
        Self {
            vpcs: answer.vpcs.into_iter().map(shape).collect(),
            next_token: answer.next_token,
        }
    }
}

impl Answer for Vpcs {
    fn table(&self) -> String {
        let row = |v: &Vpc| {
            [
                v.vpc_id.clone(),
                v.cidr_block.clone(),
                v.state.clone(),
                yes(v.is_default),
            ]
        };
        table::of_rows(
            ["VPC", "CIDR", "State", "Default"],
            self.vpcs.iter().map(row).collect(),
            "No VPCs.",
        )
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Subnets {
    subnets: Vec<Subnet>,
    #[serde(skip_serializing_if = "String::is_empty")]
    next_token: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Subnet {
    owner_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Tag>,
    subnet_id: String,
    state: String,
    vpc_id: String,
    cidr_block: String,
    available_ip_address_count: i32,
    availability_zone: String,
    default_for_az: bool,
    map_public_ip_on_launch: bool,
}

impl From<v1::DescribeSubnetsResponse> for Subnets {
    fn from(answer: v1::DescribeSubnetsResponse) -> Self {
        let shape = |s: v1::Subnet| Subnet {
            owner_id: s.owner_id,
            tags: tags(s.tags),
            subnet_id: s.subnet_id,
            state: s.state,
            vpc_id: s.vpc_id,
            cidr_block: s.cidr_block,
            available_ip_address_count: s.available_ip_address_count,
            availability_zone: s.availability_zone,
            default_for_az: s.default_for_az,
            map_public_ip_on_launch: s.map_public_ip_on_launch,
        };
        Self {
            subnets: answer.subnets.into_iter().map(shape).collect(),
            next_token: answer.next_token,
        }
    }
}

impl Answer for Subnets {
    fn table(&self) -> String {
        let row = |s: &Subnet| {
            [
                s.subnet_id.clone(),
                s.availability_zone.clone(),
                s.cidr_block.clone(),
                s.available_ip_address_count.to_string(),
                yes(s.map_public_ip_on_launch),
                s.vpc_id.clone(),
            ]
        };
        let head = ["Subnet", "Zone", "CIDR", "Free addresses", "Public", "VPC"];
        table::of_rows(head, self.subnets.iter().map(row).collect(), "No subnets.")
    }
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}
