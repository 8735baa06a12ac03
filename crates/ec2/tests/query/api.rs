//! The protos of Hearth's API mirror the models of EC2, IAM and STS.

use anyhow::Result;
use hearth_ec2::{Model, Service, Table};
use prost_reflect::DescriptorPool;

/// Services of calls that AWS does not have.
const OWN: [&str; 3] = ["hearth.v1.Hosts", "hearth.v1.ImageDisks", "hearth.v1.Watch"];

#[test]
fn the_api_mirrors_awss_models() -> Result<()> {
    let pool = DescriptorPool::decode(hearth_api::DESCRIPTORS)?;
    for service in [Service::Ec2, Service::Iam, Service::Sts] {
        let own = pool.services().filter(|own| {
            let is_of_aws = own.package_name() == "hearth.v1" && !OWN.contains(&own.full_name());
            is_of_aws && Service::of(own.name()) == service
        });
        let (table, differences) = Table::join(&Model::of(service)?, own);
        let found: Vec<String> = differences.iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "{found:#?}");
        println!(
            "FIGURE protos: {} calls of {} as its model has them",
            table.calls().count(),
            service.name()
        );
    }
    Ok(())
}
