//! Messages as JSON with EC2's names of members, and back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Name;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value};
use serde_json::{Map, Value as Json};

use super::{POOL, names};
use crate::error::CliError;
use crate::shapes::time;
use crate::shorthand;

const TIMESTAMP: &str = "google.protobuf.Timestamp";

/// The value of a parameter that is a structure of the API: shorthand, JSON, or `file://` of JSON.
///
/// # Errors
/// It is none, or has a member that the structure does not have.
pub(crate) fn parameter<M: Name + Default>(parameter: &str, value: &str) -> Result<M, CliError> {
    typed(parameter, shorthand::item(parameter, value)?)
}

/// As [`parameter`], for a list of structures.
pub(crate) fn parameters<M: Name + Default>(parameter: &str, values: &[String]) -> Result<Vec<M>, CliError> {
    let items: Vec<Json> = shorthand::items(parameter, values)?;
    items.into_iter().map(|item| typed(parameter, item)).collect()
}

fn typed<M: Name + Default>(parameter: &str, json: Json) -> Result<M, CliError> {
    let descriptor = POOL
        .as_ref()
        .and_then(|pool| pool.get_message_by_name(&M::full_name()));
    let descriptor =
        descriptor.ok_or_else(|| CliError::Failed(format!("{} is not described", M::full_name())))?;
    let message = message(&descriptor, json).map_err(|problem| CliError::parameter(parameter, problem))?;
    message
        .transcode_to()
        .map_err(|error| CliError::parameter(parameter, error))
}

/// A structure of an answer as EC2 prints it.
pub(crate) fn shape<M: Name>(message: &M) -> Json {
    let descriptor = POOL
        .as_ref()
        .and_then(|pool| pool.get_message_by_name(&M::full_name()));
    let told = descriptor.and_then(|descriptor| {
        let mut dynamic = DynamicMessage::new(descriptor);
        dynamic.transcode_from(message).ok()?;
        Some(structure(&dynamic, false))
    });
    told.unwrap_or_default()
}

/// An answer as EC2 prints it: lists of the answer itself are there even if they are empty.
pub(super) fn answer(message: &DynamicMessage) -> Json {
    structure(message, true)
}

fn structure(message: &DynamicMessage, with_empty_lists: bool) -> Json {
    let mut map = Map::new();
    for field in message.descriptor().fields() {
        // As EC2 does: zero and false are told, and what is empty is not.
        let is_scalar = !field.supports_presence() && !matches!(field.kind(), Kind::String | Kind::Bytes);
        let is_told = message.has_field(&field)
            || match field.is_list() {
                true => with_empty_lists,
                false => is_scalar,
            };
        if is_told {
            map.insert(names::pascal(field.name()), json(&message.get_field(&field)));
        }
    }
    Json::Object(map)
}

fn json(value: &Value) -> Json {
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
        Value::List(values) => values.iter().map(json).collect(),
        Value::Message(message) if message.descriptor().full_name() == TIMESTAMP => {
            time(message.transcode_to().ok()).into()
        }
        Value::Message(message) => structure(message, false),
        Value::Map(_) => Json::Null,
    }
}

/// A structure that people or programs wrote. Scalars may be texts: shorthand does not know what they are.
fn message(descriptor: &MessageDescriptor, json: Json) -> Result<DynamicMessage, String> {
    let Json::Object(map) = json else {
        return Err(format!("{json} is no structure"));
    };
    let mut message = DynamicMessage::new(descriptor.clone());
    for (name, json) in map {
        let Some(field) = descriptor
            .fields()
            .find(|field| names::pascal(field.name()) == name)
        else {
            let known: Vec<String> = members(descriptor).collect();
            return Err(format!(
                "unknown field `{name}`, expected one of {}",
                known.join(", ")
            ));
        };
        if !json.is_null() {
            message.set_field(&field, value(&field, json)?);
        }
    }
    Ok(message)
}

/// The value of a field. A list may be its only item: shorthand cannot tell `Values=a` from a scalar.
pub(super) fn value(field: &FieldDescriptor, json: Json) -> Result<Value, String> {
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

fn single(field: &FieldDescriptor, json: Json) -> Result<Value, String> {
    let integer = |json: &Json| match json {
        Json::String(text) => text.parse().ok(),
        other => other.as_i64(),
    };
    let no_integer = |json: &Json| format!("{json} is no integer that fits");
    match (field.kind(), json) {
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

/// How a structure is written: `Key=...,Value=...`.
pub(super) fn syntax(descriptor: &MessageDescriptor) -> String {
    let members: Vec<String> = members(descriptor).map(|name| format!("{name}=...")).collect();
    members.join(",")
}

fn members(descriptor: &MessageDescriptor) -> impl Iterator<Item = String> + use<> {
    let names: Vec<String> = descriptor
        .fields()
        .map(|field| names::pascal(field.name()))
        .collect();
    names.into_iter()
}
