//! YAML 1.2 in blocks, with the keys in their order, as aws cli prints it.

use std::sync::LazyLock;

use libyaml_safer::{Emitter, Encoding, Event, MappingStyle, ScalarStyle, SequenceStyle};
use regex::Regex;
use serde_json::Value;

use crate::error::CliError;

pub(super) fn format(value: &Value) -> Result<String, CliError> {
    if !value.is_array() && !value.is_object() {
        return super::json::pretty(value);
    }
    let mut value = value.clone();
    value.sort_all_objects();
    let failed = |e: &dyn std::fmt::Display| CliError::Failed(format!("turning the answer into YAML: {e}"));
    let mut bytes = Vec::new();
    document(&value, &mut bytes).map_err(|e| failed(&e))?;
    String::from_utf8(bytes).map_err(|e| failed(&e))
}

fn document(value: &Value, out: &mut Vec<u8>) -> Result<(), libyaml_safer::Error> {
    let mut emitter = Emitter::new();
    emitter.set_output_string(out);
    emitter.set_unicode(true);
    emitter.emit(Event::stream_start(Encoding::Utf8))?;
    emitter.emit(Event::document_start(None, &[], true))?;
    node(value, &mut emitter)?;
    emitter.emit(Event::document_end(true))?;
    emitter.emit(Event::stream_end())?;
    emitter.flush()
}

fn node(value: &Value, emitter: &mut Emitter<'_>) -> Result<(), libyaml_safer::Error> {
    match value {
        Value::Object(map) => {
            emitter.emit(Event::mapping_start(None, None, true, MappingStyle::Block))?;
            for (key, value) in map {
                emitter.emit(string(key))?;
                node(value, emitter)?;
            }
            emitter.emit(Event::mapping_end())
        }
        Value::Array(items) => {
            emitter.emit(Event::sequence_start(None, None, true, SequenceStyle::Block))?;
            for item in items {
                node(item, emitter)?;
            }
            emitter.emit(Event::sequence_end())
        }
        Value::String(text) => emitter.emit(string(text)),
        other => emitter.emit(Event::scalar(
            None,
            None,
            &other.to_string(),
            true,
            false,
            ScalarStyle::Plain,
        )),
    }
}

/// In quotes where it would be read as something else.
fn string(text: &str) -> Event {
    let is_string = NO_STRING.as_ref().is_none_or(|other| !other.is_match(text));
    Event::scalar(None, None, text, is_string, true, ScalarStyle::Any)
}

/// Plain scalars that are no strings, as YAML 1.2 resolves them, with timestamps and the merge key.
static NO_STRING: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let number =
        r"[-+]?(0b[01_]+|0o?[0-7_]+|[0-9_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?)";
    let fraction = r"[-+]?\.[0-9_]+([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)";
    let zone = r"[ \t]*(Z|[-+][0-9]{1,2}(:[0-9]{2})?)";
    let time = format!(r"[0-9]{{1,2}}:[0-9]{{2}}:[0-9]{{2}}(\.[0-9]*)?({zone})?");
    let timestamp =
        format!(r"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}|[0-9]{{4}}-[0-9]{{1,2}}-[0-9]{{1,2}}([Tt]|[ \t]+){time}");
    let word = "true|True|TRUE|false|False|FALSE|~|null|Null|NULL||<<|=";
    Regex::new(&format!("^({number}|{fraction}|{timestamp}|{word})$")).ok()
});

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn any_text_can_be_printed(text in any::<String>(), key in "[\\PC\n\t ]{0,200}") {
            let printed = format(&json!({ key: [text] })).unwrap();
            prop_assert!(printed.ends_with('\n'));
        }
    }

    #[test]
    fn as_aws_cli_prints_it() {
        let value = json!({
            "Vpcs": [
                { "State": "available", "OwnerId": "000000000000", "Cidr": "10.0.0.0/8", "At": "2014-10-16T16:03:09+00:00" },
                { "Name": "no: thing", "Empty": "", "Truth": true, "Text": "true", "Nothing": null, "Size": 8, "Off": "off" },
            ],
            "Lists": [[], {}, ["a", ["1.5", "1.5.1", "猫", "\u{7}"]]],
            "Long": "word ".repeat(20),
            "Lines": "one\ntwo\n",
        });
        insta::assert_snapshot!(format(&value).unwrap());
        assert_eq!(format(&json!("text")).unwrap(), "\"text\"");
        assert_eq!(format(&json!(null)).unwrap(), "null");
    }
}
