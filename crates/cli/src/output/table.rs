//! Tables for people.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use serde_json::Value;

use crate::terminal::sanitize;

/// Any JSON, as a query may find it. Structures of a list are rows, with their keys in the order of their appearance.
pub(super) fn of_value(value: &Value) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic);
    match value {
        Value::Array(items) if items.is_empty() => return String::new(),
        Value::Array(items) if items.iter().all(Value::is_object) => {
            let mut columns: Vec<&String> = Vec::new();
            for key in items
                .iter()
                .filter_map(Value::as_object)
                .flat_map(|map| map.keys())
            {
                if !columns.contains(&key) {
                    columns.push(key);
                }
            }
            table.set_header(columns.iter().map(|column| sanitize(column)));
            for item in items {
                table.add_row(columns.iter().map(|column| cell(&item[*column])));
            }
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Array(cells) => table.add_row(cells.iter().map(cell)),
                    other => table.add_row([cell(other)]),
                };
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                table.add_row([sanitize(key), cell(value)]);
            }
        }
        scalar => return cell(scalar),
    }
    table.to_string()
}

/// Scalars as they are; lists and structures within a cell as YAML-like lines.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => sanitize(text),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join("\n"),
        Value::Object(map) => {
            let members = map
                .iter()
                .map(|(key, value)| format!("{}: {}", sanitize(key), cell(value)));
            members.collect::<Vec<_>>().join("\n")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn queries_become_tables() {
        let instances = json!([{"State": {"Name": "running"}, "Id": "i-1"}, {"Id": "i-2\u{1b}[31m"}]);
        insta::assert_snapshot!(of_value(&instances), @r"
        ┌───────────────┬─────┐
        │ State         ┆ Id  │
        ╞═══════════════╪═════╡
        │ Name: running ┆ i-1 │
        │               ┆ i-2 │
        └───────────────┴─────┘
        ");
        insta::assert_snapshot!(of_value(&json!([["i-1", 1], ["i-2", null]])), @r"
        ┌─────┬───┐
        │ i-1 ┆ 1 │
        │ i-2 ┆   │
        └─────┴───┘
        ");
        assert_eq!(of_value(&json!("text")), "text");
        assert_eq!(of_value(&json!([])), "");
    }
}
