//! A form's parameters into a message's bytes.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use prost::encoding::{WireType, encode_key};

use crate::parameters::Node;
use crate::refusal::Refusal;
use crate::table::{Call, Field, Index, Kind, Table};
use crate::wire::{delimited, encoded_time, varint};

/// The number of a list's last possible item. Numbers may be left out.
pub const LARGEST_INDEX: u32 = 10_000;

/// What is said of the request itself, and of its signature.
const ABOUT_THE_REQUEST: [&str; 9] = [
    "Action",
    "Version",
    "AWSAccessKeyId",
    "SecurityToken",
    "Signature",
    "SignatureMethod",
    "SignatureVersion",
    "Timestamp",
    "Expires",
];
const ABOUT_THE_SIGNATURE: &str = "X-Amz-";

/// The bytes of a call's input message.
///
/// # Errors
/// A parameter that the call does not have, or whose value is of another type.
pub fn message<'a>(
    table: &Table,
    call: &Call,
    parameters: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
) -> Result<Vec<u8>, Refusal> {
    let fields = table.fields(call.input);
    let own = parameters.filter(|(name, _)| {
        let is_about = ABOUT_THE_REQUEST.contains(&&**name) && fields.named(name).is_none();
        !is_about && !name.starts_with(ABOUT_THE_SIGNATURE)
    });
    let root = Node::of(own)?;
    let mut reader = Reader {
        table,
        path: String::new(),
    };
    let mut bytes = Vec::new();
    reader.structure(call.input, &root, &mut bytes)?;
    Ok(bytes)
}

struct Reader<'a> {
    table: &'a Table,
    /// Of the parameter that is read.
    path: String,
}

impl Reader<'_> {
    /// Does something with a parameter below the present one.
    fn below<T>(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut Self) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        let done = work(self);
        self.path.truncate(length);
        done
    }

    fn structure(&mut self, shape: Index, node: &Node<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let table = self.table;
        for (name, child) in &node.children {
            self.below(name, |reader| {
                let field = table.fields(shape).named(name);
                let field = field.ok_or_else(|| Refusal::UnknownParameter(reader.path.clone()))?;
                reader.field(field, child, out)
            })?;
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, node: &Node<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let Some(list) = &field.list else {
            return self.value(field, node, out);
        };
        if let Some(value) = &node.value {
            // How an empty list is said.
            return match value.is_empty() {
                true => Ok(()),
                false => Err(Refusal::Index(self.path.clone())),
            };
        }
        let Some(infix) = &list.infix else {
            return self.items(field, node, out);
        };
        for (name, items) in &node.children {
            self.below(name, |reader| match name == infix {
                true => reader.items(field, items, out),
                false => Err(Refusal::UnknownParameter(reader.path.clone())),
            })?;
        }
        Ok(())
    }

    fn items(&mut self, field: &Field, node: &Node<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let mut items = Vec::with_capacity(node.children.len());
        for (number, item) in &node.children {
            let index: Option<u32> = number.parse().ok();
            match index.filter(|index| (1..=LARGEST_INDEX).contains(index)) {
                Some(index) if !number.starts_with(['0', '+']) => items.push((index, number, item)),
                _ => return self.below(number, |reader| Err(Refusal::Index(reader.path.clone()))),
            }
        }
        items.sort_by_key(|(index, ..)| *index);
        for (_, number, item) in items {
            self.below(number, |reader| reader.value(field, item, out))?;
        }
        Ok(())
    }

    fn value(&mut self, field: &Field, node: &Node<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
        if let Kind::Structure(shape) = field.kind {
            if node.value.is_some() {
                return Err(Refusal::UnknownParameter(self.path.clone()));
            }
            let mut inner = Vec::new();
            self.structure(shape, node, &mut inner)?;
            delimited(field.number, &inner, out);
            return Ok(());
        }
        let (Some(text), true) = (&node.value, node.children.is_empty()) else {
            return Err(Refusal::UnknownParameter(self.path.clone()));
        };
        scalar(field, text, out).map_err(|expected| Refusal::InvalidValue {
            parameter: self.path.clone(),
            value: text.chars().take(MOST_SHOWN).collect(),
            expected,
        })
    }
}

/// Characters of a value that a refusal repeats.
const MOST_SHOWN: usize = 100;

/// # Errors
/// What would have been right.
pub(crate) fn scalar(field: &Field, text: &str, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let number = field.number;
    match field.kind {
        Kind::String | Kind::Encoded => delimited(number, text.as_bytes(), out),
        Kind::Blob => {
            let bytes = BASE64_STANDARD.decode(text).map_err(|_| "Base64 is expected.")?;
            delimited(number, &bytes, out);
        }
        Kind::Integer => {
            let value: i32 = text.parse().map_err(|_| "An integer of 32 bits is expected.")?;
            varint(number, i64::from(value).cast_unsigned(), out);
        }
        Kind::Long => {
            let value: i64 = text.parse().map_err(|_| "An integer of 64 bits is expected.")?;
            varint(number, value.cast_unsigned(), out);
        }
        Kind::Boolean => {
            let is_true = text.eq_ignore_ascii_case("true");
            if !is_true && !text.eq_ignore_ascii_case("false") {
                return Err("'true' or 'false' is expected.");
            }
            varint(number, is_true.into(), out);
        }
        Kind::Float => {
            let value: f32 = text.parse().map_err(|_| "A number is expected.")?;
            encode_key(number, WireType::ThirtyTwoBit, out);
            out.extend(value.to_le_bytes());
        }
        Kind::Double => {
            let value: f64 = text.parse().map_err(|_| "A number is expected.")?;
            encode_key(number, WireType::SixtyFourBit, out);
            out.extend(value.to_le_bytes());
        }
        Kind::Timestamp => {
            let at: Timestamp = text
                .parse()
                .map_err(|_| "A time as 2026-11-26T07:00:00Z is expected.")?;
            delimited(number, &encoded_time(at), out);
        }
        Kind::Structure(_) => return Err("A structure is expected."),
    }
    Ok(())
}
