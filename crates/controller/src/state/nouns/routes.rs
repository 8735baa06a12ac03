//! Internet gateways, and the route tables by which subnets use them.

use std::collections::BTreeMap;

use hearth_api::{ErrorCode, Kind};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{Subnet, Vpc};
use crate::state::noun::resource;
use crate::state::{Bound, Concern, Index, Noun, State, Tags};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InternetGateway {
    pub id: String,
    pub account_id: String,
    pub region: String,
    /// The VPC that it is attached to.
    pub vpc_id: Option<String>,
    pub created_at: i64,
    pub tags: Tags,
}

impl InternetGateway {
    pub const BY_VPC: Index<Self> =
        Index::refers::<Vpc>("vpc", |gateway| gateway.vpc_id.iter().cloned().collect());
}

impl Noun for InternetGateway {
    const KIND: &'static str = "internet-gateway";
    const RESOURCE: Option<Kind> = Some(Kind::InternetGateway);
    const INDEXES: &'static [Index<Self>] = &[
        Self::BY_VPC,
        Index::unique("attachment", |gateway| gateway.vpc_id.iter().cloned().collect()),
    ];
    const BOUND: Option<Bound> = Some(Bound::new(
        100,
        "internet gateways",
        ErrorCode::InternetGatewayLimitExceeded,
    ));

    fn concerns(&self, _: &State) -> Vec<Concern> {
        let vpc = |vpc_id: &String| Concern::Vpc {
            vpc_id: vpc_id.clone(),
        };
        self.vpc_id.iter().map(vpc).collect()
    }

    resource!();
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    pub id: String,
    pub account_id: String,
    pub region: String,
    pub vpc_id: String,
    /// Gateways by destination, without the route `local`. A gateway may be attached elsewhere, or gone.
    pub routes: BTreeMap<Ipv4Net, String>,
    pub associations: Vec<Association>,
    pub created_at: i64,
    pub tags: Tags,
}

/// What a route table is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Association {
    pub id: String,
    /// `None`: all subnets of the VPC that have no other table.
    pub subnet_id: Option<String>,
}

impl Association {
    /// With an id that is new.
    pub fn new(subnet_id: Option<String>) -> Self {
        Self {
            id: format!("rtbassoc-0{:016x}", rand::random::<u64>()),
            subnet_id,
        }
    }
}

impl RouteTable {
    pub const BY_VPC: Index<Self> = Index::refers::<Vpc>("vpc", |table| vec![table.vpc_id.clone()]);
    pub const BY_SUBNET: Index<Self> = Index::refers::<Subnet>("subnet", RouteTable::subnets);
    pub const BY_ASSOCIATION: Index<Self> = Index::unique("association", |table| {
        table.associations.iter().map(|one| one.id.clone()).collect()
    });
    /// The main table of a VPC.
    pub const MAIN: Index<Self> = Index::unique("main", |table| {
        table
            .main_association()
            .map(|_| table.vpc_id.clone())
            .into_iter()
            .collect()
    });

    fn subnets(&self) -> Vec<String> {
        let subnets = self.associations.iter().filter_map(|one| one.subnet_id.clone());
        subnets.collect()
    }

    pub fn main_association(&self) -> Option<&Association> {
        self.associations.iter().find(|one| one.subnet_id.is_none())
    }
}

impl Noun for RouteTable {
    const KIND: &'static str = "route-table";
    const RESOURCE: Option<Kind> = Some(Kind::RouteTable);
    const INDEXES: &'static [Index<Self>] = &[
        Self::BY_VPC,
        Self::BY_SUBNET,
        Index::unique("table-of-subnet", RouteTable::subnets),
        Self::BY_ASSOCIATION,
        Self::MAIN,
    ];

    fn concerns(&self, _: &State) -> Vec<Concern> {
        vec![Concern::Vpc {
            vpc_id: self.vpc_id.clone(),
        }]
    }

    resource!();
}

impl State {
    pub fn main_table(&self, vpc_id: &str) -> Option<&RouteTable> {
        self.first_by(&RouteTable::MAIN, vpc_id)
    }

    /// The routes of a subnet.
    pub fn table_of(&self, subnet: &Subnet) -> Option<&RouteTable> {
        self.first_by(&RouteTable::BY_SUBNET, &subnet.id)
            .or_else(|| self.main_table(&subnet.vpc_id))
    }

    /// The internet gateway of a VPC.
    pub fn gateway_of(&self, vpc_id: &str) -> Option<&InternetGateway> {
        self.first_by(&InternetGateway::BY_VPC, vpc_id)
    }

    /// Where a table leads to the internet: blocks that do not overlap.
    pub fn internet(&self, table: &RouteTable) -> Vec<Ipv4Net> {
        let gateway = self.gateway_of(&table.vpc_id).map(|gateway| gateway.id.as_str());
        let routes = table
            .routes
            .iter()
            .map(|(destination, to)| (*destination, gateway == Some(to.as_str())));
        let local = self.get::<Vpc>(&table.vpc_id).map(|vpc| (vpc.cidr, false));
        leading_out(&routes.chain(local).collect::<Vec<_>>())
    }
}

/// The addresses whose longest prefix among `routes` leads out.
fn leading_out(routes: &[(Ipv4Net, bool)]) -> Vec<Ipv4Net> {
    let mut found = Vec::new();
    descend(Ipv4Net::default(), false, routes, &mut found);
    Ipv4Net::aggregate(&found)
}

/// `routes`: those within `block`. `leads`: whether what is around it leads out.
fn descend(block: Ipv4Net, leads: bool, routes: &[(Ipv4Net, bool)], found: &mut Vec<Ipv4Net>) {
    let own = routes.iter().find(|(destination, _)| *destination == block);
    let leads = own.map_or(leads, |(_, leads)| *leads);
    let halves = block.subnets(block.prefix_len().saturating_add(1));
    let has_inner = routes.iter().any(|(destination, _)| *destination != block);
    match halves {
        Ok(halves) if has_inner => {
            for half in halves {
                let within = |(destination, _): &&(Ipv4Net, bool)| half.contains(destination);
                let within: Vec<_> = routes.iter().filter(within).copied().collect();
                descend(half, leads, &within, found);
            }
        }
        _ if leads => found.push(block),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_decides_what_leads_out() {
        let out = |routes: &[(&str, bool)]| {
            let routes: Vec<_> = routes.iter().map(|(to, leads)| (net(to), *leads)).collect();
            leading_out(&routes)
        };
        assert_eq!(out(&[]), []);
        assert_eq!(out(&[("10.0.0.0/16", false)]), []);
        assert_eq!(out(&[("0.0.0.0/0", true)]), [net("0.0.0.0/0")]);
        assert_eq!(
            out(&[("0.0.0.0/0", true), ("128.0.0.0/2", false)]),
            [net("0.0.0.0/1"), net("192.0.0.0/2")]
        );
        assert_eq!(
            out(&[("8.0.0.0/8", false), ("8.8.8.8/32", true), ("8.8.8.9/32", true)]),
            [net("8.8.8.8/31")]
        );
    }

    proptest! {
        #[test]
        fn blocks_that_lead_out_are_those_of_the_longest_prefix(
            routes in prop::collection::btree_map((0_u32..16, 0_u8..=4), any::<bool>(), 0..8),
            extra in any::<bool>(),
        ) {
            // Four bits of an address are enough, at both ends.
            for shift in [28, 0] {
                let mut table: BTreeMap<Ipv4Net, bool> = routes
                    .iter()
                    .map(|((bits, length), leads)| {
                        let length = 28 - shift + length;
                        (Ipv4Net::new(Ipv4Addr::from(bits << shift), length).unwrap().trunc(), *leads)
                    })
                    .collect();
                table.insert(Ipv4Net::default(), extra);
                let table: Vec<_> = table.into_iter().collect();
                let out = leading_out(&table);
                for bits in 0..16_u32 {
                    let address = Ipv4Addr::from(bits << shift);
                    let best = table.iter().filter(|(to, _)| to.contains(&address)).max_by_key(|(to, _)| to.prefix_len());
                    let leads = best.is_some_and(|(_, leads)| *leads);
                    prop_assert_eq!(out.iter().filter(|block| block.contains(&address)).count(), usize::from(leads));
                }
            }
        }
    }
}
