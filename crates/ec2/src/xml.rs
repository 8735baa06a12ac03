//! A message's bytes into an answer's XML, with the members in the model's order.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::model::Protocol;
use crate::table::{Call, Element, Field, Index, Kind, Table};
use crate::wire::{Found, Malformed, Value, is_packable, timestamp, unpack};

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
/// Of errors of EC2 the element around all; they have no namespace.
const EC2_ERRORS: &str = "Response";

/// What RFC 3986, section 2.3, does not call unreserved.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The answer to a call.
///
/// # Errors
/// The bytes are not of the call's output message.
pub fn answer(table: &Table, call: &Call, message: &[u8], request_id: &str) -> Result<String, Malformed> {
    let mut out = String::with_capacity(512 + 3 * message.len());
    out.push_str(DECLARATION);
    let (action, namespace) = (&call.name, &table.namespace);
    // A `String` takes all that is written.
    let _ = writeln!(out, "<{action}Response xmlns=\"{namespace}\">");
    match table.protocol {
        Protocol::Ec2 => {
            element("requestId", request_id, &mut out);
            if call.answers {
                structure(table, call.output, message, &mut out)?;
            } else {
                element("return", "true", &mut out);
            }
        }
        Protocol::Query | Protocol::Json => {
            if let Some(wrapper) = &call.wrapper {
                out.push_str(&wrapper.open);
                structure(table, call.output, message, &mut out)?;
                out.push_str(&wrapper.close);
            }
            open("ResponseMetadata", &mut out);
            element("RequestId", request_id, &mut out);
            close("ResponseMetadata", &mut out);
        }
    }
    let _ = write!(out, "</{action}Response>");
    Ok(out)
}

/// The answer to a request that is refused. `is_ours`: the service is at fault, and not who called it.
pub fn error(table: &Table, code: &str, message: &str, is_ours: bool, request_id: &str) -> String {
    let mut out = DECLARATION.to_owned();
    let said = |out: &mut String| {
        element("Code", code, out);
        element("Message", message, out);
    };
    match table.protocol {
        Protocol::Ec2 => {
            open(EC2_ERRORS, &mut out);
            out.push_str("<Errors><Error>");
            said(&mut out);
            out.push_str("</Error></Errors>");
            element("RequestID", request_id, &mut out);
            close(EC2_ERRORS, &mut out);
        }
        Protocol::Query | Protocol::Json => {
            let _ = write!(out, "<ErrorResponse xmlns=\"{}\"><Error>", table.namespace);
            element("Type", if is_ours { "Receiver" } else { "Sender" }, &mut out);
            said(&mut out);
            out.push_str("</Error>");
            element("RequestId", request_id, &mut out);
            out.push_str("</ErrorResponse>");
        }
    }
    out
}

fn structure(table: &Table, shape: Index, bytes: &[u8], out: &mut String) -> Result<(), Malformed> {
    let mut found = Found::new();
    found.read(bytes)?;
    // What is Hearth's own has no name in the model.
    for field in &table.fields(shape).fields {
        let values = found.of(field.number);
        if values.len() == 0 {
            absent(field, out);
            continue;
        }
        let Some(list) = &field.list else {
            for value in values {
                one(table, &field.element, field.kind, value, out)?;
            }
            continue;
        };
        out.push_str(&field.element.open);
        for value in values {
            match value {
                Value::Bytes(mut packed) if is_packable(field.kind) => {
                    while !packed.is_empty() {
                        let value = unpack(field.kind, &mut packed)?;
                        one(table, &list.item, field.kind, value, out)?;
                    }
                }
                value => one(table, &list.item, field.kind, value, out)?,
            }
        }
        out.push_str(&field.element.close);
    }
    Ok(())
}

/// A field that the message does not have: unset, or as it is by default.
fn absent(field: &Field, out: &mut String) {
    if !field.always {
        return;
    }
    match field.kind {
        _ if field.list.is_some() => {
            out.push('<');
            out.push_str(field.element.name());
            out.push_str("/>");
        }
        Kind::Boolean => element(field.element.name(), "false", out),
        Kind::Integer | Kind::Long | Kind::Float | Kind::Double => element(field.element.name(), "0", out),
        Kind::String | Kind::Encoded | Kind::Blob => element(field.element.name(), "", out),
        Kind::Timestamp | Kind::Structure(_) => {}
    }
}

fn one(
    table: &Table,
    element: &Element,
    kind: Kind,
    value: Value<'_>,
    out: &mut String,
) -> Result<(), Malformed> {
    out.push_str(&element.open);
    // A `String` takes all that is written.
    let _ = match (kind, value) {
        (Kind::Structure(shape), Value::Bytes(bytes)) => {
            structure(table, shape, bytes, out)?;
            Ok(())
        }
        (Kind::String, Value::Bytes(bytes)) => {
            let text = std::str::from_utf8(bytes).map_err(|_| Malformed("a text is not UTF-8"))?;
            escape(text, out);
            Ok(())
        }
        (Kind::Encoded, Value::Bytes(bytes)) => {
            write!(out, "{}", percent_encode(bytes, UNRESERVED))
        }
        (Kind::Blob, Value::Bytes(bytes)) => {
            BASE64_STANDARD.encode_string(bytes, out);
            Ok(())
        }
        (Kind::Timestamp, Value::Bytes(bytes)) => write!(out, "{:.3}", timestamp(bytes)?),
        (Kind::Boolean, Value::Varint(value)) => {
            out.push_str(if value == 0 { "false" } else { "true" });
            Ok(())
        }
        // Negative ones have 64 bits on the wire, too.
        (Kind::Integer | Kind::Long, Value::Varint(value)) => write!(out, "{}", value.cast_signed()),
        (Kind::Float, Value::Four(bytes)) => {
            let value = f32::from_le_bytes(bytes);
            number(&value, value.into(), out)
        }
        (Kind::Double, Value::Eight(bytes)) => {
            let value = f64::from_le_bytes(bytes);
            number(&value, value, out)
        }
        _ => return Err(Malformed("a field is of another type")),
    };
    out.push_str(&element.close);
    Ok(())
}

/// `Infinity` and `-Infinity` are not what Rust calls them.
fn number(shown: &dyn std::fmt::Display, value: f64, out: &mut String) -> std::fmt::Result {
    match value {
        f64::INFINITY => out.write_str("Infinity"),
        f64::NEG_INFINITY => out.write_str("-Infinity"),
        _ => write!(out, "{shown}"),
    }
}

fn open(name: &str, out: &mut String) {
    out.push('<');
    out.push_str(name);
    out.push('>');
}

fn close(name: &str, out: &mut String) {
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

fn element(name: &str, text: &str, out: &mut String) {
    open(name, out);
    escape(text, out);
    close(name, out);
}

/// Text as XML 1.0 has it. Characters that it cannot have become U+FFFD.
fn escape(text: &str, out: &mut String) {
    let bytes = text.as_bytes();
    let (mut from, mut at) = (0, 0);
    while let Some(found) = bytes[at..].iter().position(|byte| IS_SPECIAL[usize::from(*byte)]) {
        at += found;
        // U+FFFE and U+FFFF are EF BF BE and EF BF BF; other characters begin with EF, too.
        let (written, length) = match &bytes[at..] {
            [b'&', ..] => ("&amp;", 1),
            [b'<', ..] => ("&lt;", 1),
            [b'>', ..] => ("&gt;", 1),
            [b'"', ..] => ("&quot;", 1),
            // Else a parser takes it for a line's end.
            [b'\r', ..] => ("&#xD;", 1),
            [0xef, 0xbf, 0xbe | 0xbf, ..] => ("\u{fffd}", 3),
            [0xef, ..] => {
                at += 3;
                continue;
            }
            _ => ("\u{fffd}", 1),
        };
        out.push_str(&text[from..at]);
        out.push_str(written);
        at += length;
        from = at;
    }
    out.push_str(&text[from..]);
}

/// The bytes at which a character may begin that is not written as it is.
const IS_SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut control = 0;
    while control < b' ' {
        special[control as usize] = control != b'\n' && control != b'\t';
        control += 1;
    }
    special[b'&' as usize] = true;
    special[b'<' as usize] = true;
    special[b'>' as usize] = true;
    special[b'"' as usize] = true;
    special[0xef] = true;
    special
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By characters.
    fn model(text: &str) -> String {
        text.chars()
            .map(|c| match c {
                '&' => "&amp;".to_owned(),
                '<' => "&lt;".to_owned(),
                '>' => "&gt;".to_owned(),
                '"' => "&quot;".to_owned(),
                '\r' => "&#xD;".to_owned(),
                '\n' | '\t' => c.to_string(),
                '\u{fffe}' | '\u{ffff}' | '\0'..' ' => '\u{fffd}'.to_string(),
                c => c.to_string(),
            })
            .collect()
    }

    proptest! {
        #[test]
        fn text_is_escaped_by_its_characters(text in "([a-c&<>\"\r\n\t\u{0}-\u{1f}]|[\u{f000}-\u{ffff}]|.){0,30}") {
            let mut out = String::new();
            escape(&text, &mut out);
            prop_assert_eq!(out, model(&text));
        }
    }
}
