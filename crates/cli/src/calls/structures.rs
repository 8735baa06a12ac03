//! Messages as JSON with EC2's names of members, and back.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Name;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value,
};
use serde_json::{Map, Value as Json};

use super::{POOL, names};
use crate::error::CliError;

const TIMESTAMP: &str = "google.protobuf.Timestamp";
/// Of `hearth/v1/presence.proto`.
const WHEN_EMPTY: &str = "hearth.v1.when_empty";
const DOCUMENT: &str = "hearth.v1.percent_encoded";
const REQUIRED: &str = "hearth.v1.required";
const SHOWN: i32 = 1;
const LEFT_OUT: i32 = 2;

/// A message that this program knows, of what people wrote.
///
/// # Errors
/// It has a member that the message does not have.
pub(crate) fn typed<M: Name + Default>(json: Json) -> Result<M, CliError> {
    let message = message(&described::<M>()?, json).map_err(CliError::Usage)?;
    let typed = message.transcode_to();
    typed.map_err(|error| CliError::Failed(format!("{}: {error}", M::full_name())))
}

/// A message that this program knows as EC2 prints it.
///
/// # Errors
/// The descriptors do not have it.
pub(crate) fn json_of<M: Name>(message: &M) -> Result<Json, CliError> {
    let mut dynamic = DynamicMessage::new(described::<M>()?);
    let transcoded = dynamic.transcode_from(message);
    transcoded.map_err(|error| CliError::Failed(format!("{}: {error}", M::full_name())))?;
    Ok(json(&dynamic))
}

fn described<M: Name>() -> Result<MessageDescriptor, CliError> {
    let descriptor = POOL
        .as_ref()
        .and_then(|pool| pool.get_message_by_name(&M::full_name()));
    descriptor.ok_or_else(|| CliError::Failed(format!("{} is not described", M::full_name())))
}

/// A message as EC2 prints it.
pub(crate) fn json(message: &DynamicMessage) -> Json {
    let mut map = Map::new();
    for field in names::fields(&message.descriptor()) {
        if message.has_field(&field) || is_shown_empty(&field) {
            let value = told(&message.get_field(&field));
            map.insert(
                names::member(&field),
                if is_document(&field) { parsed(value) } else { value },
            );
        }
    }
    Json::Object(map)
}

/// Whether aws prints a text as the JSON that it is: IAM's policies.
fn is_document(field: &FieldDescriptor) -> bool {
    option(field, DOCUMENT)
        .and_then(|of| of.as_bool())
        .unwrap_or_default()
}

fn parsed(text: Json) -> Json {
    let document = text.as_str().and_then(|text| serde_json::from_str(text).ok());
    document.unwrap_or(text)
}

/// Whether EC2 tells a field that is empty.
fn is_shown_empty(field: &FieldDescriptor) -> bool {
    match option(field, WHEN_EMPTY).and_then(|of| of.as_enum_number()) {
        Some(SHOWN) => true,
        Some(LEFT_OUT) => false,
        _ => field.is_list() || !(field.supports_presence() || matches!(field.kind(), Kind::String)),
    }
}

/// Whether there is no request without a field.
pub(super) fn is_required(field: &FieldDescriptor) -> bool {
    option(field, REQUIRED)
        .and_then(|of| of.as_bool())
        .unwrap_or_default()
}

fn option(field: &FieldDescriptor, name: &str) -> Option<Value> {
    let extension = field.parent_pool().get_extension_by_name(name)?;
    Some(field.options().get_extension(&extension).into_owned())
}

fn told(value: &Value) -> Json {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::I32(value) => (*value).into(),
        Value::I64(value) => (*value).into(),
        Value::U32(value) => (*value).into(),
        Value::U64(value) => (*value).into(),
        Value::F32(value) => (*value).into(),
        Value::F64(value) => (*value).into(),
        Value::EnumNumber(value) => (*value).into(),
        Value::String(value) => value.as_str().into(),
        Value::Bytes(value) => STANDARD.encode(value).into(),
        Value::List(values) => values.iter().map(told).collect(),
        Value::Message(message) if message.descriptor().full_name() == TIMESTAMP => time(message).into(),
        Value::Message(message) => json(message),
        Value::Map(entries) => {
            let entry = |(key, value): (&MapKey, &Value)| Some((key.as_str()?.to_owned(), told(value)));
            // In the order of their names.
            let entries: BTreeMap<_, _> = entries.iter().filter_map(entry).collect();
            Json::Object(entries.into_iter().collect())
        }
    }
}

/// A point in time as aws cli prints it, which tells fractions of a second only where there are some.
fn time(message: &DynamicMessage) -> String {
    let timestamp: prost_types::Timestamp = message.transcode_to().unwrap_or_default();
    let time = jiff::Timestamp::new(timestamp.seconds, timestamp.nanos).unwrap_or_default();
    let format = match time.subsec_microsecond() == 0 && time.subsec_millisecond() == 0 {
        true => "%Y-%m-%dT%H:%M:%S+00:00",
        false => "%Y-%m-%dT%H:%M:%S%.6f+00:00",
    };
    time.strftime(format).to_string()
}

/// A structure that people or programs wrote. Scalars may be texts: shorthand does not know what they are.
///
/// # Errors
/// A sentence: it is none, or has a member that the structure does not have.
pub(super) fn message(descriptor: &MessageDescriptor, json: Json) -> Result<DynamicMessage, String> {
    let Json::Object(map) = json else {
        return Err(format!("{json} is no structure"));
    };
    let mut message = DynamicMessage::new(descriptor.clone());
    for (name, json) in map {
        let Some(field) = descriptor.fields().find(|field| names::member(field) == name) else {
            let known = members(descriptor).join(", ");
            return Err(format!("unknown field `{name}`, expected one of {known}"));
        };
        if !json.is_null() {
            message.set_field(&field, value(&field, json)?);
        }
    }
    Ok(message)
}

/// The value of a field. A list may be its only item: shorthand cannot tell `Values=a` from a scalar.
///
/// # Errors
/// A sentence: it is another type's.
pub(super) fn value(field: &FieldDescriptor, json: Json) -> Result<Value, String> {
    if field.is_map() {
        return map(field, json);
    }
    if !field.is_list() {
        return single(field, json);
    }
    let items = match json {
        Json::Array(items) => items,
        item => vec![item],
    };
    let items = items.into_iter().map(|item| single(field, item));
    Ok(Value::List(items.collect::<Result<_, _>>()?))
}

/// Texts by their names, which are whoever's that writes them.
fn map(field: &FieldDescriptor, json: Json) -> Result<Value, String> {
    let (Kind::Message(entry), Json::Object(map)) = (field.kind(), json) else {
        return Err("pairs of names and values are expected".to_owned());
    };
    let of_value = entry.map_entry_value_field();
    let entries = map.into_iter().map(|(name, json)| {
        let value = single(&of_value, json)?;
        Ok((MapKey::String(name), value))
    });
    Ok(Value::Map(entries.collect::<Result<_, String>>()?))
}

fn single(field: &FieldDescriptor, json: Json) -> Result<Value, String> {
    let integer = |json: &Json| match json {
        Json::String(text) => text.parse().ok(),
        other => other.as_i64(),
    };
    let no_integer = |json: &Json| format!("{json} is no integer that fits");
    match (field.kind(), json) {
        (Kind::Message(descriptor), Json::String(text)) if descriptor.full_name() == TIMESTAMP => {
            instant(descriptor, &text)
        }
        (Kind::Message(descriptor), json) => message(&descriptor, json).map(Value::Message),
        (Kind::String, Json::String(text)) => Ok(Value::String(text)),
        (Kind::String, Json::Number(number)) => Ok(Value::String(number.to_string())),
        (Kind::Bytes, Json::String(text)) => match STANDARD.decode(&text) {
            Ok(bytes) => Ok(Value::Bytes(bytes.into())),
            Err(error) => Err(format!("no base64: {error}")),
        },
        (Kind::Bool, Json::Bool(value)) => Ok(Value::Bool(value)),
        (Kind::Bool, Json::String(text)) if text.eq_ignore_ascii_case("true") => Ok(Value::Bool(true)),
        (Kind::Bool, Json::String(text)) if text.eq_ignore_ascii_case("false") => Ok(Value::Bool(false)),
        (Kind::Bool, json) => Err(format!("{json} is neither true nor false")),
        (Kind::Int32, json) => {
            let number = integer(&json).and_then(|number| i32::try_from(number).ok());
            number.map(Value::I32).ok_or_else(|| no_integer(&json))
        }
        (Kind::Int64, json) => integer(&json).map(Value::I64).ok_or_else(|| no_integer(&json)),
        (kind, json) => Err(format!("{json} is no {kind:?}")),
    }
}

fn instant(timestamp: MessageDescriptor, text: &str) -> Result<Value, String> {
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|error| format!("'{text}' is no time as 2026-11-27T09:30:00Z: {error}"))?;
    let mut message = DynamicMessage::new(timestamp);
    message.set_field_by_name("seconds", Value::I64(time.as_second()));
    message.set_field_by_name("nanos", Value::I32(time.subsec_nanosecond()));
    Ok(Value::Message(message))
}

/// How a structure is written: `Key=...,Value=...`.
pub(super) fn syntax(descriptor: &MessageDescriptor) -> String {
    let each = members(descriptor).into_iter().map(|name| format!("{name}=..."));
    each.collect::<Vec<_>>().join(",")
}

/// A message with all its members, each empty as its type is.
pub(super) fn skeleton(descriptor: &MessageDescriptor) -> Json {
    let member = |field: FieldDescriptor| {
        let one = match field.kind() {
            Kind::Message(structure) if structure.full_name() == TIMESTAMP => "1970-01-01T00:00:00Z".into(),
            Kind::Message(_) if field.is_map() => Json::Object(Map::new()),
            Kind::Message(structure) => skeleton(&structure),
            Kind::Bool => true.into(),
            Kind::String | Kind::Bytes => "".into(),
            _ => 0.into(),
        };
        let value = match field.is_list() {
            true => Json::Array(vec![one]),
            false => one,
        };
        (names::member(&field), value)
    };
    Json::Object(names::fields(descriptor).map(member).collect())
}

fn members(descriptor: &MessageDescriptor) -> Vec<String> {
    names::fields(descriptor)
        .map(|field| names::member(&field))
        .collect()
}
