//! Messages and a service as a model has them: Hearth has few of AWS's calls, and the tables are proved with all.

use anyhow::{Context as _, Result, bail, ensure};
use hearth_ec2::Table;
use hearth_ec2::model::{Model, Protocol, Service, Shape, field_name};
use prost_reflect::{DescriptorPool, MessageDescriptor};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, MessageOptions, MethodDescriptorProto,
    OneofDescriptorProto, ServiceDescriptorProto,
};

const PACKAGE: &str = "mirror";
const TIMESTAMP: &str = ".google.protobuf.Timestamp";
const NOTHING: &str = "Nothing";

/// Their JSON has the model's names.
fn pool(model: &Model) -> Result<DescriptorPool> {
    let structures = model.shapes.iter().filter_map(|(name, shape)| match shape {
        Shape::Structure { members, .. } => Some((name, members)),
        _ => None,
    });
    let mut messages = vec![DescriptorProto {
        name: Some(NOTHING.to_owned()),
        ..Default::default()
    }];
    for (name, members) in structures {
        let mut message = DescriptorProto {
            name: Some(message_name(name)),
            ..Default::default()
        };
        let sayable = members.iter().filter(|(_, of)| !is_nested(model, &of.shape));
        // Numbers in another order than the members.
        let count = i32::try_from(sayable.clone().count())?;
        for (number, (member, of)) in (1..=count).rev().zip(sayable) {
            add_field(model, &mut message, number, member, &of.shape)?;
        }
        messages.push(message);
    }
    let type_name =
        |shape: Option<&str>| format!(".{PACKAGE}.{}", shape.map_or(NOTHING.to_owned(), message_name));
    let methods = model
        .operations
        .iter()
        .map(|(name, operation)| MethodDescriptorProto {
            name: Some(name.clone()),
            input_type: Some(type_name(
                operation.input.as_ref().map(|input| input.shape.as_str()),
            )),
            output_type: Some(type_name(
                operation.output.as_ref().map(|output| output.shape.as_str()),
            )),
            ..Default::default()
        });
    let file = FileDescriptorProto {
        name: Some("mirror.proto".to_owned()),
        package: Some(PACKAGE.to_owned()),
        syntax: Some("proto3".to_owned()),
        dependency: vec!["google/protobuf/timestamp.proto".to_owned()],
        service: vec![ServiceDescriptorProto {
            name: Some("Service".to_owned()),
            method: methods.collect(),
            ..Default::default()
        }],
        message_type: messages,
        ..Default::default()
    };
    let mut pool = DescriptorPool::global();
    pool.add_file_descriptor_proto(file)?;
    Ok(pool)
}

/// Lists and maps of lists and maps: protos have none. No call that Hearth has needs one (api.rs), and of EC2, IAM and STS no
/// call at all (cases.rs).
fn is_nested(model: &Model, shape: &str) -> bool {
    let inner = match &model.shapes[shape] {
        Shape::List { member } => member,
        Shape::Map { value, .. } => value,
        _ => return false,
    };
    matches!(model.shapes[&inner.shape], Shape::List { .. } | Shape::Map { .. })
}

/// Models have shapes that differ in the case of their first letter only.
fn message_name(shape: &str) -> String {
    format!("S{shape}")
}

fn add_field(
    model: &Model,
    message: &mut DescriptorProto,
    number: i32,
    member: &str,
    shape: &str,
) -> Result<()> {
    let mut field = FieldDescriptorProto {
        name: Some(field_name(member)),
        json_name: Some(member.to_owned()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        ..Default::default()
    };
    let of = &model.shapes[shape];
    let item = match of {
        Shape::List { member } => {
            field.label = Some(Label::Repeated.into());
            &member.shape
        }
        Shape::Map { key, value } => {
            let entry = format!("{}Entry", heck::AsUpperCamelCase(field_name(member)));
            let mut nested = DescriptorProto {
                name: Some(entry.clone()),
                options: Some(MessageOptions {
                    map_entry: Some(true),
                    ..Default::default()
                }),
                ..Default::default()
            };
            for (number, name, half) in [(1, "key", key), (2, "value", value)] {
                let mut field = FieldDescriptorProto {
                    name: Some(name.to_owned()),
                    number: Some(number),
                    label: Some(Label::Optional.into()),
                    ..Default::default()
                };
                set_type(model, &mut field, &half.shape)?;
                nested.field.push(field);
            }
            field.label = Some(Label::Repeated.into());
            field.set_type(Type::Message);
            let outer = message.name();
            field.type_name = Some(format!(".{PACKAGE}.{outer}.{entry}"));
            message.nested_type.push(nested);
            message.field.push(field);
            return Ok(());
        }
        _ => shape,
    };
    set_type(model, &mut field, item)?;
    // Presence: what is not in the message is not in the answer.
    if field.label() == Label::Optional && field.r#type() != Type::Message {
        field.proto3_optional = Some(true);
        field.oneof_index = Some(i32::try_from(message.oneof_decl.len())?);
        message.oneof_decl.push(OneofDescriptorProto {
            name: Some(format!("_{}", field.name())),
            ..Default::default()
        });
    }
    message.field.push(field);
    Ok(())
}

fn set_type(model: &Model, field: &mut FieldDescriptorProto, shape: &str) -> Result<()> {
    let kind = match model.shapes.get(shape).context("no such shape")? {
        Shape::String {} => Type::String,
        Shape::Integer {} => Type::Int32,
        Shape::Long {} => Type::Int64,
        Shape::Boolean {} => Type::Bool,
        Shape::Float {} => Type::Float,
        Shape::Double {} => Type::Double,
        Shape::Blob {} => Type::Bytes,
        Shape::Timestamp {} => {
            field.type_name = Some(TIMESTAMP.to_owned());
            Type::Message
        }
        Shape::Structure { .. } => {
            field.type_name = Some(format!(".{PACKAGE}.{}", message_name(shape)));
            Type::Message
        }
        Shape::List { .. } | Shape::Map { .. } => bail!("{shape} is a list in a list"),
    };
    field.set_type(kind);
    Ok(())
}

pub struct Mirror {
    pub table: Table,
    /// Of the model.
    pub operations: usize,
    pub protocol: Protocol,
    pool: DescriptorPool,
}

impl Mirror {
    pub fn of(service: Service) -> Result<Mirror> {
        Self::of_model(&Model::of(service)?)
    }

    pub fn of_model(model: &Model) -> Result<Mirror> {
        let pool = pool(model)?;
        let services = pool
            .services()
            .filter(|service| service.package_name() == PACKAGE);
        let (table, differences) = Table::join(model, services);
        ensure!(differences.is_empty(), "{differences:?}");
        Ok(Mirror {
            table,
            operations: model.operations.len(),
            protocol: model.metadata.protocol,
            pool,
        })
    }

    /// What goes into a call, and what comes out of it.
    pub fn messages(&self, call: &str) -> Result<(MessageDescriptor, MessageDescriptor)> {
        let service = self
            .pool
            .services()
            .find(|service| service.package_name() == PACKAGE);
        let method = service
            .and_then(|service| service.methods().find(|method| method.name() == call))
            .context("no such method")?;
        Ok((method.input(), method.output()))
    }
}
