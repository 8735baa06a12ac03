//! JSON with four spaces, as aws cli prints it. Characters that a terminal obeys are escaped, so that it reads the same
//! on a terminal and in a file.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

use crate::error::CliError;
use crate::terminal::drives_terminals;

pub(crate) fn pretty(value: &impl Serialize) -> Result<String, CliError> {
    let mut bytes = Vec::new();
    let formatter = Escaping(PrettyFormatter::with_indent(b"    "));
    let mut serializer = Serializer::with_formatter(&mut bytes, formatter);
    let failed = |e: &dyn std::fmt::Display| CliError::Failed(format!("turning the answer into JSON: {e}"));
    value.serialize(&mut serializer).map_err(|e| failed(&e))?;
    String::from_utf8(bytes).map_err(|e| failed(&e))
}

/// Escapes what JSON admits in strings and [`crate::terminal`] does not let through.
struct Escaping(PrettyFormatter<'static>);

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(drives_terminals) {
            let (plain, from) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut characters = from.chars();
            if let Some(c) = characters.next() {
                // All of them are in the basic multilingual plane.
                write!(writer, "\\u{:04x}", u32::from(c))?;
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_cannot_drive_a_terminal_and_stay_the_same() {
        let text = "\x1b[2J\x7f \u{9b}31m \u{202e}x\u{2066} \u{2028} \"ü\" \\ 猫";
        let json = pretty(&[text]).unwrap();
        assert!(
            json.chars().all(|c| c == '\n' || !drives_terminals(c)),
            "{json:?}"
        );
        assert!(
            json.contains("\\u009b31m \\u202ex") && json.contains("ü") && json.contains('猫'),
            "{json}"
        );
        let back: Vec<String> = serde_json::from_str(&json).unwrap();
        assert_eq!(back, [text]);
        let value = serde_json::json!({ "a": [{ "b": 1 }, []], "c": {} });
        assert_eq!(
            pretty(&value).unwrap(),
            "{\n    \"a\": [\n        {\n            \"b\": 1\n        },\n        \
                                             []\n    ],\n    \"c\": {}\n}"
        );
    }
}
