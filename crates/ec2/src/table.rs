//! A service's model joined with the messages that carry its calls.

use std::collections::HashMap;
use std::fmt;

use prost_reflect::{
    Cardinality, FieldDescriptor, Kind as ProtoKind, MessageDescriptor, ServiceDescriptor, Value,
};

use crate::model::{Member, Model, Protocol, Shape, field_name};

/// Of a shape in [`Table::shapes`]. Shapes may contain themselves.
pub(crate) type Index = usize;

/// What is needed to translate a service's calls.
#[derive(Debug)]
pub struct Table {
    pub(crate) protocol: Protocol,
    /// Of answers in XML.
    pub(crate) namespace: String,
    /// In front of a call's name, in requests that name it in a header.
    pub(crate) target_prefix: String,
    calls: HashMap<String, Call>,
    shapes: Vec<Fields>,
}

/// A call that Hearth has.
#[derive(Debug)]
pub struct Call {
    /// The action.
    pub name: String,
    /// Where gRPC finds it: `/hearth.v1.Vpcs/DescribeVpcs`.
    pub path: String,
    pub(crate) input: Index,
    pub(crate) output: Index,
    /// Whether its answer has members in the model. Others say `<return>true</return>`.
    pub(crate) answers: bool,
    /// The element around the answer's members.
    pub(crate) wrapper: Option<Element>,
}

/// The members of a structure, in the model's order.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    pub(crate) fields: Vec<Field>,
    by_parameter: HashMap<String, usize>,
}

impl Fields {
    pub(crate) fn named(&self, parameter: &str) -> Option<&Field> {
        self.by_parameter.get(parameter).map(|&at| &self.fields[at])
    }
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) number: u32,
    /// Its name in a form.
    pub(crate) parameter: String,
    /// Its name in XML.
    pub(crate) element: Element,
    pub(crate) kind: Kind,
    pub(crate) list: Option<List>,
    /// Whether XML has it when the message does not.
    pub(crate) always: bool,
}

/// An element's two tags.
#[derive(Debug)]
pub(crate) struct Element {
    pub(crate) open: String,
    pub(crate) close: String,
}

impl Element {
    fn new(name: &str) -> Element {
        Element {
            open: format!("<{name}>"),
            close: format!("</{name}>"),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.open[1..self.open.len() - 1]
    }
}

#[derive(Debug)]
pub(crate) struct List {
    /// Between the list's name and an item's number, in a form.
    pub(crate) infix: Option<String>,
    /// The element around an item.
    pub(crate) item: Element,
    /// Whether its items are entries of a map.
    pub(crate) is_map: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    String,
    /// A text that answers write as in a URL.
    Encoded,
    /// 32 bits.
    Integer,
    /// 64 bits.
    Long,
    Boolean,
    Float,
    Double,
    Blob,
    Timestamp,
    Structure(Index),
}

/// Where a message does not mirror the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// A method, or a message's field.
    pub what: String,
    pub why: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

impl Table {
    /// Joins a model with services. What differs from the model is left out, and answered beside the table.
    pub fn join(
        model: &Model,
        services: impl Iterator<Item = ServiceDescriptor>,
    ) -> (Table, Vec<Difference>) {
        let mut join = Join {
            model,
            shapes: Vec::new(),
            known: HashMap::new(),
            differences: Vec::new(),
        };
        let mut calls = HashMap::new();
        for method in services.flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let name = method.name().to_owned();
            let Some(operation) = model.operations.get(&name) else {
                join.differ(method.full_name(), "no such call");
                continue;
            };
            if method.is_client_streaming() || method.is_server_streaming() {
                join.differ(method.full_name(), "a stream, and one message in the model");
                continue;
            }
            let input = operation.input.as_ref().map(|input| input.shape.as_str());
            let output = operation.output.as_ref();
            let call = Call {
                path: format!("/{}/{name}", method.parent_service().full_name()),
                input: join.message(input, &method.input()),
                output: join.message(output.map(|output| output.shape.as_str()), &method.output()),
                answers: output.is_some(),
                wrapper: output.and_then(|output| output.result_wrapper.as_deref().map(Element::new)),
                name: name.clone(),
            };
            calls.insert(name, call);
        }
        let table = Table {
            protocol: model.metadata.protocol,
            namespace: match model.metadata.protocol {
                // With a slash, though the model has none: libcloud looks for it.
                Protocol::Ec2 => format!("{}/", model.metadata.xml_namespace.trim_end_matches('/')),
                Protocol::Query | Protocol::Json => model.metadata.xml_namespace.clone(),
            },
            target_prefix: model.metadata.target_prefix.clone(),
            calls,
            shapes: join.shapes,
        };
        (table, join.differences)
    }

    pub fn call(&self, action: &str) -> Option<&Call> {
        self.calls.get(action)
    }

    /// The action of a header `AmazonSSM.GetParameter`.
    pub(crate) fn action<'t>(&self, target: &'t str) -> Option<&'t str> {
        target
            .strip_prefix(self.target_prefix.as_str())?
            .strip_prefix('.')
    }

    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.values()
    }

    pub(crate) fn fields(&self, of: Index) -> &Fields {
        &self.shapes[of]
    }
}

struct Join<'a> {
    model: &'a Model,
    shapes: Vec<Fields>,
    /// By shape and message.
    known: HashMap<(String, String), Index>,
    differences: Vec<Difference>,
}

impl Join<'_> {
    fn differ(&mut self, what: &str, why: impl Into<String>) {
        self.differences.push(Difference {
            what: what.to_owned(),
            why: why.into(),
        });
    }

    /// A structure of the model, or none at all, and the message that mirrors it.
    fn message(&mut self, shape: Option<&str>, message: &MessageDescriptor) -> Index {
        let name = shape.unwrap_or_default();
        let key = (name.to_owned(), message.full_name().to_owned());
        if let Some(&index) = self.known.get(&key) {
            return index;
        }
        let index = self.shapes.len();
        self.shapes.push(Fields::default());
        self.known.insert(key, index);
        let model = self.model;
        let (members, is_union) = match model.shapes.get(name) {
            Some(Shape::Structure { members, union, .. }) => (Some(members), *union),
            _ => (None, false),
        };
        let mut fields: Vec<Field> = Vec::new();
        let mut mirrored: Vec<String> = Vec::new();
        for (name, member) in members.into_iter().flatten() {
            let Some(field) = message.get_field_by_name(&field_name(name)) else {
                continue;
            };
            mirrored.push(field.name().to_owned());
            // JSON has the model's names, but for the case of their first letter.
            if capitalized(field.json_name()) != capitalized(name) {
                self.differ(
                    field.full_name(),
                    format!("{} in JSON, and {name} in the model", field.json_name()),
                );
            }
            fields.extend(self.field(name, member, &field).map(|field| Field {
                always: field.always && !is_union,
                ..field
            }));
        }
        let declared = message.descriptor_proto().field.iter().map(|field| field.name());
        let (known, unknown): (Vec<&str>, Vec<&str>) =
            declared.partition(|name| mirrored.iter().any(|mirrored| mirrored == name));
        for field in unknown {
            self.differ(
                &format!("{}.{field}", message.full_name()),
                format!("no such member of {name}"),
            );
        }
        if known != mirrored {
            self.differ(
                message.full_name(),
                format!("its order in the model is {}", mirrored.join(", ")),
            );
        }
        self.shapes[index] = Fields::new(fields);
        index
    }

    fn field(&mut self, name: &str, member: &Member, field: &FieldDescriptor) -> Option<Field> {
        let protocol = self.model.metadata.protocol;
        let shape = self.model.shapes.get(&member.shape)?;
        let is_list = field.cardinality() == Cardinality::Repeated;
        let (kind, list) = match shape {
            Shape::List { member: of } if is_list && !field.is_map() => {
                let item = of.location_name.as_deref().unwrap_or("member");
                let list = List {
                    infix: (protocol == Protocol::Query).then(|| item.to_owned()),
                    item: Element::new(item),
                    is_map: false,
                };
                (self.kind(&of.shape, field)?, Some(list))
            }
            Shape::Map { key, value } if field.is_map() => {
                let list = List {
                    infix: Some("entry".to_owned()),
                    item: Element::new("entry"),
                    is_map: true,
                };
                (self.entry(key, value, field)?, Some(list))
            }
            Shape::List { .. } | Shape::Map { .. } => {
                self.differ(field.full_name(), format!("the model has several of {name}"));
                return None;
            }
            _ if is_list => {
                self.differ(field.full_name(), format!("the model has one {name}"));
                return None;
            }
            _ => (self.kind(&member.shape, field)?, None),
        };
        let element = member.location_name.clone().unwrap_or_else(|| name.to_owned());
        let parameter = match protocol {
            Protocol::Ec2 => match &member.query_name {
                Some(name) => name.clone(),
                None => capitalized(&element),
            },
            Protocol::Query | Protocol::Json => element.clone(),
        };
        Some(Field {
            number: field.number(),
            parameter,
            element: Element::new(&element),
            kind,
            always: is_shown_empty(field, kind),
            list,
        })
    }

    /// A map is a list of entries.
    fn entry(&mut self, key: &Member, value: &Member, field: &FieldDescriptor) -> Option<Kind> {
        let ProtoKind::Message(entry) = field.kind() else {
            return None;
        };
        let mut half = |number, name: &str, member: &Member| {
            let field = entry.get_field(number)?;
            let name = member.location_name.as_deref().unwrap_or(name);
            Some(Field {
                number,
                parameter: name.to_owned(),
                element: Element::new(name),
                kind: self.kind(&member.shape, &field)?,
                list: None,
                always: true,
            })
        };
        let fields = vec![half(1, "key", key)?, half(2, "value", value)?];
        self.shapes.push(Fields::new(fields));
        Some(Kind::Structure(self.shapes.len() - 1))
    }

    /// What one value is, if model and message agree.
    fn kind(&mut self, shape: &str, field: &FieldDescriptor) -> Option<Kind> {
        const TIMESTAMP: &str = "google.protobuf.Timestamp";
        let model = self.model.shapes.get(shape)?;
        let kind = match (model, field.kind()) {
            (Shape::String {}, ProtoKind::String) if is_encoded(field) => Kind::Encoded,
            (Shape::String {}, ProtoKind::String) => Kind::String,
            (Shape::Integer {}, ProtoKind::Int32) => Kind::Integer,
            (Shape::Long {}, ProtoKind::Int64) => Kind::Long,
            (Shape::Boolean {}, ProtoKind::Bool) => Kind::Boolean,
            (Shape::Float {}, ProtoKind::Float) => Kind::Float,
            (Shape::Double {}, ProtoKind::Double) => Kind::Double,
            (Shape::Blob {}, ProtoKind::Bytes) => Kind::Blob,
            (Shape::Timestamp {}, ProtoKind::Message(message)) if message.full_name() == TIMESTAMP => {
                Kind::Timestamp
            }
            (Shape::Structure { .. }, ProtoKind::Message(message)) if message.full_name() != TIMESTAMP => {
                Kind::Structure(self.message(Some(shape), &message))
            }
            (_, kind) => {
                self.differ(field.full_name(), format!("{kind:?}, and {shape} in the model"));
                return None;
            }
        };
        Some(kind)
    }
}

impl Fields {
    fn new(fields: Vec<Field>) -> Fields {
        let by_parameter = fields.iter().enumerate();
        Fields {
            by_parameter: by_parameter
                .map(|(at, field)| (field.parameter.clone(), at))
                .collect(),
            fields,
        }
    }
}

/// An option of `hearth/v1/presence.proto`.
fn option<T>(field: &FieldDescriptor, name: &str, read: impl Fn(&Value) -> Option<T>) -> Option<T> {
    let extension = field.parent_pool().get_extension_by_name(name)?;
    read(&field.options().get_extension(&extension))
}

fn is_encoded(field: &FieldDescriptor) -> bool {
    option(field, "hearth.v1.percent_encoded", Value::as_bool).unwrap_or(false)
}

fn is_shown_empty(field: &FieldDescriptor, kind: Kind) -> bool {
    match option(field, "hearth.v1.when_empty", Value::as_enum_number) {
        Some(1) => true,
        Some(2) => false,
        _ if field.is_list() || field.is_map() => true,
        _ => !field.supports_presence() && !matches!(kind, Kind::String | Kind::Encoded),
    }
}

fn capitalized(name: &str) -> String {
    let mut chars = name.chars();
    chars
        .next()
        .map(|first| first.to_ascii_uppercase().to_string() + chars.as_str())
        .unwrap_or_default()
}
