//! JSON with four spaces, as aws cli prints it. Characters that a terminal obeys are escaped, so that it reads the same
//! on a terminal and in a file.

use serde::Serialize as _;
use serde_json::ser::PrettyFormatter;
use serde_json::{Serializer, Value};

use crate::error::CliError;
use crate::terminal::drives_terminals;

pub(super) fn pretty(value: &Value) -> Result<String, CliError> {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    "));
    let failed = |e: &dyn std::fmt::Display| CliError::Failed(format!("turning the answer into JSON: {e}"));
    value.serialize(&mut serializer).map_err(|e| failed(&e))?;
    let json = String::from_utf8(bytes).map_err(|e| failed(&e))?;
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // Between strings; within them it is escaped already.
            '\n' => safe.push(c),
            // All of them are in the basic multilingual plane.
            c if drives_terminals(c) => safe.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => safe.push(c),
        }
    }
    Ok(safe)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strings_cannot_drive_a_terminal_and_stay_the_same() {
        let value = json!({ "a": ["\x1b[2J\x7f \u{9b}31m \u{202e}x\u{2066} \u{2028} \"ü\" \\ 猫", [], {}] });
        let json = pretty(&value).unwrap();
        assert_eq!(
            json,
            "{\n    \"a\": [\n        \"\\u001b[2J\\u007f \\u009b31m \\u202ex\\u2066 \\u2028 \\\"ü\\\" \\\\ 猫\",\n        \
             [],\n        {}\n    ]\n}"
        );
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
    }
}
