//! Tables for people.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use serde_json::Value;

use crate::terminal::sanitize;

/// A table with a head line.
pub(super) fn of_rows<'a>(
    head: impl Iterator<Item = &'a str>,
    rows: impl Iterator<Item = Vec<String>>,
) -> String {
    let mut table = new();
    table.set_header(head);
    for row in rows {
        table.add_row(row.iter().map(|cell| sanitize(cell)));
    }
    table.to_string()
}

/// Any JSON, as a query may find it.
pub(super) fn of_value(value: &Value) -> String {
    match value {
        Value::Array(items) if items.iter().all(Value::is_object) && !items.is_empty() => {
            let mut columns: Vec<&String> = items
                .iter()
                .filter_map(Value::as_object)
                .flat_map(|m| m.keys())
                .collect();
            columns.sort_unstable();
            columns.dedup();
            let mut table = new();
            table.set_header(columns.iter().map(|c| sanitize(c)));
            for item in items {
                table.add_row(
                    columns
                        .iter()
                        .map(|c| item.get(c.as_str()).map(cell).unwrap_or_default()),
                );
            }
            table.to_string()
        }
        Value::Array(items) if !items.is_empty() => {
            let mut table = new();
            for item in items {
                match item {
                    Value::Array(cells) => table.add_row(cells.iter().map(cell)),
                    other => table.add_row([cell(other)]),
                };
            }
            table.to_string()
        }
        Value::Object(map) => {
            let mut table = new();
            for (key, value) in map {
                table.add_row([sanitize(key), cell(value)]);
            }
            table.to_string()
        }
        Value::Array(_) => String::new(),
        scalar => cell(scalar),
    }
}

fn new() -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// Scalars as they are; lists and structures within a cell as YAML-like lines.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => sanitize(text),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join("\n"),
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| format!("{}: {}", sanitize(k), cell(v)))
            .collect::<Vec<_>>()
            .join("\n"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn queries_become_tables() {
        let instances = json!([{"Id": "i-1", "State": {"Name": "running"}}, {"Id": "i-2\u{1b}[31m"}]);
        insta::assert_snapshot!(of_value(&instances), @r"
        ┌─────┬───────────────┐
        │ Id  ┆ State         │
        ╞═════╪═══════════════╡
        │ i-1 ┆ Name: running │
        │ i-2 ┆               │
        └─────┴───────────────┘
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
