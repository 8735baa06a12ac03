//! aws cli's text format: tabs between scalars, one line per structure, for `cut`, `grep` and shell variables.
//!
//! A structure is a line of its scalars in the order of their names, with its own name in capitals in front unless it
//! is outermost; the structures and lists in it follow on lines of their own. Structures of one list have the same
//! columns. <https://docs.aws.amazon.com/cli/latest/userguide/cli-usage-output-format.html#text-output>

use std::collections::BTreeSet;

use serde_json::{Map, Value};

pub(super) fn format(value: &Value) -> String {
    let mut value = value.clone();
    value.sort_all_objects();
    let mut out = String::new();
    any(&value, None, None, &mut out);
    out
}

fn any(value: &Value, name: Option<&str>, columns: Option<&BTreeSet<&str>>, out: &mut String) {
    match value {
        Value::Object(map) => structure(map, name, columns, out),
        Value::Array(items) => list(items, name, out),
        scalar => line(&[word(scalar)], out),
    }
}

fn list(items: &[Value], name: Option<&str>, out: &mut String) {
    if items.iter().any(Value::is_object) {
        let maps = items.iter().filter_map(Value::as_object);
        let scalars = maps.flatten().filter(|(_, value)| is_scalar(value));
        let columns: BTreeSet<&str> = scalars.map(|(key, _)| key.as_str()).collect();
        for item in items {
            any(item, name, Some(&columns), out);
        }
        return;
    }
    let (scalars, lists): (Vec<&Value>, Vec<&Value>) = items.iter().partition(|item| is_scalar(item));
    let words: Vec<String> = scalars.into_iter().map(word).collect();
    match name {
        Some(name) => words
            .into_iter()
            .for_each(|word| line(&[name.to_uppercase(), word], out)),
        None if words.is_empty() => {}
        None => line(&words, out),
    }
    for inner in lists {
        any(inner, name, None, out);
    }
}

fn structure(
    map: &Map<String, Value>,
    name: Option<&str>,
    columns: Option<&BTreeSet<&str>>,
    out: &mut String,
) {
    let mut words: Vec<String> = match columns {
        Some(columns) => columns
            .iter()
            .map(|c| map.get(*c).filter(|v| is_scalar(v)).map(word).unwrap_or_default())
            .collect(),
        None => map.values().filter(|value| is_scalar(value)).map(word).collect(),
    };
    if !words.is_empty() {
        if let Some(name) = name {
            words.insert(0, name.to_uppercase());
        }
        line(&words, out);
    }
    for (key, value) in map.iter().filter(|(_, value)| !is_scalar(value)) {
        any(value, Some(key), None, out);
    }
}

fn is_scalar(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

/// A scalar as Python writes it: scripts compare with `None` and `True`.
fn word(scalar: &Value) -> String {
    match scalar {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn line(words: &[String], out: &mut String) {
    out.push_str(&words.join("\t"));
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn as_aws_cli_prints_it() {
        for (value, expected) in [
            (json!(null), "None\n"),
            (json!("text"), "text\n"),
            (json!(true), "True\n"),
            (json!([]), ""),
            (json!(["a", "b", 3]), "a\tb\t3\n"),
            (json!([["a", "b"], ["c", null]]), "a\tb\nc\tNone\n"),
            (json!({"B": 1, "A": "x"}), "x\t1\n"),
            (
                json!({"Reservations": [{"OwnerId": "1", "Instances": [{"InstanceId": "i-1", "State": {"Code": 16, "Name": "running"}}]}]}),
                "RESERVATIONS\t1\nINSTANCES\ti-1\nSTATE\t16\trunning\n",
            ),
            (
                json!({"Tags": [{"Key": "a", "Value": "1"}, {"Key": "b"}]}),
                "TAGS\ta\t1\nTAGS\tb\t\n",
            ),
            (json!({"Names": ["a", "b"]}), "NAMES\ta\nNAMES\tb\n"),
        ] {
            assert_eq!(format(&value), expected, "{value}");
        }
    }
}
