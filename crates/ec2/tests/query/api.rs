//! The protos of Hearth's API mirror EC2's model.

use std::collections::BTreeSet;

use anyhow::Result;
use hearth_ec2::{Model, Service, Table};
use prost_reflect::DescriptorPool;

/// Services of calls that EC2 does not have.
const OWN: [&str; 1] = ["hearth.v1.Hosts"];

/// What does not mirror the model yet: a line that is true no more has to go, and none may come.
const DIFFERENCES: &str = include_str!("differences.txt");

#[test]
fn the_api_mirrors_ec2_but_for_known_differences() -> Result<()> {
    let pool = DescriptorPool::decode(hearth_api::DESCRIPTORS)?;
    let services = pool
        .services()
        .filter(|service| service.package_name() == "hearth.v1" && !OWN.contains(&service.full_name()));
    let (table, differences) = Table::join(&Model::of(Service::Ec2)?, services);
    let found: BTreeSet<String> = differences.iter().map(ToString::to_string).collect();
    let known: BTreeSet<String> = DIFFERENCES.lines().map(str::to_owned).collect();
    let new: Vec<_> = found.difference(&known).collect();
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "new: {new:#?}\ngone: {gone:#?}"
    );
    println!(
        "FIGURE protos: {} calls of EC2, {} differences from its model",
        table.calls().count(),
        known.len()
    );
    Ok(())
}
