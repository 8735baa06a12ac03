//! The protos of Hearth's API mirror AWS's models.

use anyhow::Result;
use hearth_ec2::model::{Shape, field_name};
use hearth_ec2::{Model, Service, Table};
use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};

/// Services of calls that AWS does not have.
const OWN: [&str; 6] = [
    "hearth.v1.Accounts",
    "hearth.v1.CloudRegions",
    "hearth.v1.Hosts",
    "hearth.v1.ImageDisks",
    "hearth.v1.Storage",
    "hearth.v1.Watch",
];

#[test]
fn the_api_mirrors_awss_models() -> Result<()> {
    let pool = DescriptorPool::decode(hearth_api::DESCRIPTORS)?;
    for service in Service::ALL {
        let own = pool.services().filter(|own| {
            let is_of_aws = own.package_name() == "hearth.v1" && !OWN.contains(&own.full_name());
            is_of_aws && Service::of(own.name()) == service
        });
        let own: Vec<ServiceDescriptor> = own.collect();
        let model = Model::of(service)?;
        let (table, differences) = Table::join(&model, own.iter().cloned());
        let mut found: Vec<String> = differences.iter().map(ToString::to_string).collect();
        for method in own.iter().flat_map(ServiceDescriptor::methods) {
            found.extend(required_otherwise(&model, &method));
        }
        assert!(found.is_empty(), "{found:#?}");
        println!(
            "FIGURE protos: {} calls of {} as its model has them",
            table.calls().count(),
            service.name()
        );
    }
    Ok(())
}

/// The fields of a call's request that are required in the proto or in the model, and not in both.
fn required_otherwise(model: &Model, method: &MethodDescriptor) -> Vec<String> {
    let input = model
        .operations
        .get(method.name())
        .and_then(|operation| operation.input.as_ref());
    let required: Vec<String> = match input.and_then(|input| model.shapes.get(&input.shape)) {
        Some(Shape::Structure { required, .. }) => required.iter().map(|member| field_name(member)).collect(),
        _ => Vec::new(),
    };
    let extension = method
        .parent_pool()
        .get_extension_by_name("hearth.v1.required")
        .unwrap();
    let request = method.input();
    let differs = request.fields().filter(|field| {
        field.options().get_extension(&extension).as_bool()
            != Some(required.contains(&field.name().to_owned()))
    });
    let unknown = required
        .iter()
        .filter(|name| request.get_field_by_name(name).is_none());
    let differs = differs
        .map(|field| field.name().to_owned())
        .chain(unknown.cloned());
    differs
        .map(|name| {
            format!(
                "{}.{name}: required here or in the model, and not in both",
                request.name()
            )
        })
        .collect()
}
