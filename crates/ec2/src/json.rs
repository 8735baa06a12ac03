//! The protocol AWS JSON 1.1: an object into a message's bytes, and a message's bytes into an object.
//! <https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html>

use jiff::Timestamp;
use serde_json::{Map, Number, Value as Json};

use crate::form::scalar;
use crate::refusal::Refusal;
use crate::table::{Call, Field, Index, Kind, Table};
use crate::wire::{Found, Malformed, Value, delimited, encoded_time, is_packable, timestamp, unpack, varint};

/// Of requests and answers.
pub const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
/// The header that says which call a request is: `AmazonSSM.GetParameter`.
pub const TARGET: &str = "x-amz-target";
/// Characters of a value that a refusal repeats.
const MOST_SHOWN: usize = 100;

/// The bytes of a call's input message. A body without bytes is an empty object. Levels are limited by serde_json, to 128.
///
/// # Errors
/// The body is no JSON object, or it has a member that the call does not have or whose value is of another type.
pub fn message(table: &Table, call: &Call, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut reader = Reader {
        table,
        path: Vec::new(),
        out: Vec::new(),
    };
    if body.is_empty() {
        return Ok(reader.out);
    }
    match serde_json::from_slice(body) {
        Ok(Json::Object(members)) => reader.structure(call.input, &members)?,
        Ok(_) => return Err(Refusal::NotJson("it is no object".to_owned())),
        Err(error) => return Err(Refusal::NotJson(error.to_string())),
    }
    Ok(reader.out)
}

struct Reader<'a> {
    table: &'a Table,
    /// Of the member that is read.
    path: Vec<String>,
    out: Vec<u8>,
}

impl Reader<'_> {
    fn structure(&mut self, shape: Index, members: &Map<String, Json>) -> Result<(), Refusal> {
        let table = self.table;
        for (name, value) in members {
            self.path.push(name.clone());
            match table.fields(shape).named(name) {
                Some(field) => self.field(field, value)?,
                None => return Err(Refusal::UnknownParameter(self.path.join("."))),
            }
            self.path.pop();
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, value: &Json) -> Result<(), Refusal> {
        match (&field.list, value) {
            // As if it were not there.
            (_, Json::Null) => Ok(()),
            (Some(list), Json::Object(entries)) if list.is_map => {
                let Kind::Structure(entry) = field.kind else {
                    return Err(self.invalid(value, "A list is expected."));
                };
                for (key, value) in entries {
                    let pair = [("key", Json::from(key.as_str())), ("value", value.clone())];
                    let pair = pair.map(|(half, value)| (half.to_owned(), value));
                    self.path.push(key.clone());
                    self.nested(field.number, entry, &pair.into_iter().collect())?;
                    self.path.pop();
                }
                Ok(())
            }
            (Some(list), Json::Array(items)) if !list.is_map => {
                for (number, item) in (1..).zip(items) {
                    self.path.push(format!("{number}"));
                    self.value(field, item)?;
                    self.path.pop();
                }
                Ok(())
            }
            (Some(list), _) if list.is_map => Err(self.invalid(value, "An object is expected.")),
            (Some(_), _) => Err(self.invalid(value, "A list is expected.")),
            (None, _) => self.value(field, value),
        }
    }

    fn nested(&mut self, number: u32, shape: Index, members: &Map<String, Json>) -> Result<(), Refusal> {
        let outer = std::mem::take(&mut self.out);
        self.structure(shape, members)?;
        let inner = std::mem::replace(&mut self.out, outer);
        delimited(number, &inner, &mut self.out);
        Ok(())
    }

    fn value(&mut self, field: &Field, value: &Json) -> Result<(), Refusal> {
        if let Kind::Structure(shape) = field.kind {
            return match value {
                Json::Object(members) => self.nested(field.number, shape, members),
                _ => Err(self.invalid(value, "An object is expected.")),
            };
        }
        one(field, value, &mut self.out).map_err(|expected| self.invalid(value, expected))
    }

    fn invalid(&self, value: &Json, expected: &'static str) -> Refusal {
        Refusal::InvalidValue {
            parameter: self.path.join("."),
            value: value.to_string().chars().take(MOST_SHOWN).collect(),
            expected,
        }
    }
}

/// # Errors
/// What would have been right.
fn one(field: &Field, value: &Json, out: &mut Vec<u8>) -> Result<(), &'static str> {
    match (field.kind, value) {
        (Kind::String | Kind::Encoded | Kind::Blob, Json::String(text)) => scalar(field, text, out),
        (Kind::String | Kind::Encoded | Kind::Blob, _) => Err("A string is expected."),
        (Kind::Boolean, Json::Bool(value)) => {
            varint(field.number, (*value).into(), out);
            Ok(())
        }
        (Kind::Boolean, _) => Err("true or false is expected."),
        (Kind::Timestamp, Json::Number(seconds)) => {
            let at = moment(seconds).ok_or("Seconds since 1970 are expected.")?;
            delimited(field.number, &encoded_time(at), out);
            Ok(())
        }
        (Kind::Timestamp, _) => Err("Seconds since 1970 are expected."),
        (Kind::Float | Kind::Double, Json::String(text)) => match text.as_str() {
            "NaN" | "Infinity" | "-Infinity" => scalar(field, text, out),
            _ => Err("A number is expected."),
        },
        (_, Json::Number(number)) => scalar(field, &number.to_string(), out),
        _ => Err("A number is expected."),
    }
}

/// As precise as a millisecond.
fn moment(seconds: &Number) -> Option<Timestamp> {
    let millis = match seconds.as_i64() {
        Some(seconds) => seconds.checked_mul(1000)?,
        None => format!("{:.0}", seconds.as_f64()? * 1000.0).parse().ok()?,
    };
    Timestamp::from_millisecond(millis).ok()
}

/// The answer to a call.
///
/// # Errors
/// The bytes are not of the call's output message.
pub fn answer(table: &Table, call: &Call, message: &[u8]) -> Result<String, Malformed> {
    let mut out = String::with_capacity(64 + 2 * message.len());
    structure(table, call.output, message, &mut out)?;
    Ok(out)
}

/// The answer to a request that is refused.
pub fn error(code: &str, message: &str) -> String {
    serde_json::json!({ "__type": code, "message": message }).to_string()
}

fn structure(table: &Table, shape: Index, bytes: &[u8], out: &mut String) -> Result<(), Malformed> {
    let mut found = Found::new();
    found.read(bytes)?;
    let mut separator = "";
    out.push('{');
    // What is Hearth's own has no name in the model.
    for field in &table.fields(shape).fields {
        let values = found.of(field.number);
        if values.len() == 0 && !is_shown(field) {
            continue;
        }
        out.push_str(separator);
        separator = ",";
        text(field.element.name(), out);
        out.push(':');
        members(table, field, values, out)?;
    }
    out.push('}');
    Ok(())
}

/// Whether a field is written that the message does not have.
fn is_shown(field: &Field) -> bool {
    field.always && (field.list.is_some() || !matches!(field.kind, Kind::Timestamp | Kind::Structure(_)))
}

/// A field's values; none: it is as it is by default.
fn members<'a>(
    table: &Table,
    field: &Field,
    values: impl DoubleEndedIterator<Item = Value<'a>>,
    out: &mut String,
) -> Result<(), Malformed> {
    let Some(list) = &field.list else {
        let mut values = values;
        match values.next_back() {
            Some(value) => write(table, field.kind, value, out)?,
            None => out.push_str(match field.kind {
                Kind::Boolean => "false",
                Kind::Integer | Kind::Long => "0",
                Kind::Float | Kind::Double => "0.0",
                _ => "\"\"",
            }),
        }
        return Ok(());
    };
    let mut separator = "";
    out.push(if list.is_map { '{' } else { '[' });
    for value in values {
        match value {
            Value::Bytes(entry) if list.is_map => {
                out.push_str(separator);
                self::entry(table, field.kind, entry, out)?;
                separator = ",";
            }
            Value::Bytes(mut packed) if is_packable(field.kind) => {
                while !packed.is_empty() {
                    out.push_str(separator);
                    write(table, field.kind, unpack(field.kind, &mut packed)?, out)?;
                    separator = ",";
                }
            }
            value => {
                out.push_str(separator);
                write(table, field.kind, value, out)?;
                separator = ",";
            }
        }
    }
    out.push(if list.is_map { '}' } else { ']' });
    Ok(())
}

/// `"key":value`, of a map.
fn entry(table: &Table, kind: Kind, bytes: &[u8], out: &mut String) -> Result<(), Malformed> {
    let Kind::Structure(shape) = kind else {
        return Err(Malformed("a map has no entries"));
    };
    let [key, value] = table.fields(shape).fields.as_slice() else {
        return Err(Malformed("an entry of a map has two halves"));
    };
    let mut found = Found::new();
    found.read(bytes)?;
    members(table, key, found.of(key.number), out)?;
    out.push(':');
    match (found.of(value.number), value.kind) {
        (values, Kind::Structure(shape)) if values.len() == 0 => structure(table, shape, &[], out),
        (values, _) => members(table, value, values, out),
    }
}

fn write(table: &Table, kind: Kind, value: Value<'_>, out: &mut String) -> Result<(), Malformed> {
    match (kind, value) {
        (Kind::Structure(shape), Value::Bytes(bytes)) => structure(table, shape, bytes, out)?,
        (Kind::String | Kind::Encoded, Value::Bytes(bytes)) => {
            let found = std::str::from_utf8(bytes).map_err(|_| Malformed("a text is not UTF-8"))?;
            text(found, out);
        }
        (Kind::Blob, Value::Bytes(bytes)) => {
            use base64::Engine as _;
            out.push('"');
            base64::prelude::BASE64_STANDARD.encode_string(bytes, out);
            out.push('"');
        }
        (Kind::Timestamp, Value::Bytes(bytes)) => {
            let millis = timestamp(bytes)?.as_millisecond();
            let sign = if millis < 0 { "-" } else { "" };
            let (seconds, rest) = (millis.unsigned_abs() / 1000, millis.unsigned_abs() % 1000);
            out.push_str(&format!("{sign}{seconds}.{rest:03}"));
        }
        (Kind::Boolean, Value::Varint(value)) => out.push_str(if value == 0 { "false" } else { "true" }),
        // Negative ones have 64 bits on the wire, too.
        (Kind::Integer | Kind::Long, Value::Varint(value)) => out.push_str(&value.cast_signed().to_string()),
        (Kind::Float, Value::Four(bytes)) => {
            let value = f32::from_le_bytes(bytes);
            number(format!("{value:?}"), value.into(), out);
        }
        (Kind::Double, Value::Eight(bytes)) => {
            let value = f64::from_le_bytes(bytes);
            number(format!("{value:?}"), value, out);
        }
        _ => return Err(Malformed("a field is of another type")),
    }
    Ok(())
}

/// As AWS writes it: `5.0`. JSON has no numbers for what is none.
fn number(shown: String, value: f64, out: &mut String) {
    match value {
        f64::INFINITY => out.push_str("\"Infinity\""),
        f64::NEG_INFINITY => out.push_str("\"-Infinity\""),
        value if value.is_nan() => out.push_str("\"NaN\""),
        _ => out.push_str(&shown),
    }
}

fn text(content: &str, out: &mut String) {
    out.push_str(&Json::from(content).to_string());
}

/// What services of this protocol call an error that all services have.
/// <https://docs.aws.amazon.com/systems-manager/latest/APIReference/CommonErrors.html>
pub fn code(of_query: &str) -> &str {
    match of_query {
        "InvalidAction" | "MissingAction" => "UnknownOperationException",
        "UnknownParameter"
        | "InvalidParameterValue"
        | "InvalidParameterCombination"
        | "MissingParameter"
        | "ValidationError" => "ValidationException",
        "AccessDenied" | "UnauthorizedOperation" => "AccessDeniedException",
        "AuthFailure" | "InvalidClientTokenId" => "UnrecognizedClientException",
        "SignatureDoesNotMatch" => "InvalidSignatureException",
        "MissingAuthenticationToken" => "MissingAuthenticationTokenException",
        "IncompleteSignature" => "IncompleteSignatureException",
        "ExpiredToken" => "ExpiredTokenException",
        "RequestLimitExceeded" => "ThrottlingException",
        "InternalError" => "InternalServerError",
        "Unavailable" => "ServiceUnavailableException",
        other => other,
    }
}
