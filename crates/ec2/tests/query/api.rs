//! The protos of Hearth's API mirror EC2's model.

use anyhow::Result;
use hearth_ec2::{Model, Service, Table};
use prost_reflect::DescriptorPool;

/// Services of calls that EC2 does not have.
const OWN: [&str; 3] = ["hearth.v1.Hosts", "hearth.v1.ImageDisks", "hearth.v1.Watch"];

#[test]
fn the_api_mirrors_ec2() -> Result<()> {
    let pool = DescriptorPool::decode(hearth_api::DESCRIPTORS)?;
    let services = pool
        .services()
        .filter(|service| service.package_name() == "hearth.v1" && !OWN.contains(&service.full_name()));
    let (table, differences) = Table::join(&Model::of(Service::Ec2)?, services);
    let found: Vec<String> = differences.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{found:#?}");
    println!(
        "FIGURE protos: {} calls of EC2 as its model has them",
        table.calls().count()
    );
    Ok(())
}
