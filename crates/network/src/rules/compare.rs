//! Whether what `nft` lists is what was asked for.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::expr::network;
use super::table::Table;

/// Objects of a table by kind and name, with the elements of sets in order; and the rules of each chain.
#[derive(Default)]
struct Contents {
    named: BTreeMap<(String, String), Map<String, Value>>,
    rules: BTreeMap<String, Vec<Value>>,
}

/// The first difference between the wanted tables and the listed objects; `None` when there is none.
///
/// The listing may say more of an object than was asked for (handles, counts): later versions of `nft` do.
pub(super) fn difference(wanted: &[Table], listed: &[Value]) -> Result<Option<String>, serde_json::Error> {
    for table in wanted {
        let objects = listed
            .iter()
            .filter(|object| belongs(object, "table", table))
            .cloned();
        if let Some(difference) = between(contents_of_wanted(table)?, contents(objects)) {
            return Ok(Some(format!("table {}: {difference}", table.name)));
        }
    }
    let mut tables = listed.iter().filter(|object| object.get("table").is_some());
    let unknown = tables.find(|object| !wanted.iter().any(|table| belongs(object, "name", table)));
    Ok(unknown.map(|object| format!("an unknown table: {object}")))
}

/// The elements that are loaded in a set or map.
pub(super) fn listed_elements<'l>(listed: &'l [Value], set: &str) -> &'l [Value] {
    let objects = listed
        .iter()
        .filter_map(|object| object.get("set").or(object.get("map")));
    let named = objects.filter(|object| object.get("name").is_some_and(|name| name == set));
    let mut elements = named.filter_map(|object| object.get("elem")?.as_array());
    elements.next().map_or(&[], Vec::as_slice)
}

fn between(wanted: Contents, listed: Contents) -> Option<String> {
    for (key @ (kind, name), wanted) in &wanted.named {
        let Some(listed) = listed.named.get(key) else {
            return Some(format!("no {kind} {name}"));
        };
        let differs = wanted
            .iter()
            .any(|(property, value)| listed.get(property) != Some(value));
        if differs {
            return Some(format!(
                "{kind} {name} is {} instead of {}",
                short(&listed.clone().into()),
                short(&wanted.clone().into())
            ));
        }
    }
    if let Some((kind, name)) = listed.named.keys().find(|key| !wanted.named.contains_key(*key)) {
        return Some(format!("an unknown {kind} {name}"));
    }
    let none = Vec::new();
    for chain in wanted.rules.keys().chain(listed.rules.keys()) {
        let wanted = wanted.rules.get(chain).unwrap_or(&none);
        let listed = listed.rules.get(chain).unwrap_or(&none);
        if wanted.len() != listed.len() {
            return Some(format!(
                "chain {chain} has {} rules instead of {}",
                listed.len(),
                wanted.len()
            ));
        }
        if let Some((index, (wanted, listed))) = wanted
            .iter()
            .zip(listed)
            .enumerate()
            .find(|(_, (wanted, listed))| wanted != listed)
        {
            return Some(format!(
                "rule {} of chain {chain} is {} instead of {}",
                index + 1,
                short(listed),
                short(wanted)
            ));
        }
    }
    None
}

fn contents_of_wanted(table: &Table) -> Result<Contents, serde_json::Error> {
    let objects: Vec<Value> = table
        .objects()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()?;
    let mut contents = contents(objects.into_iter());
    for (set, elements) in &table.elements {
        let elements = elements.iter().map(|net| serde_json::to_value(network(net)));
        let mut elements: Vec<Value> = elements.collect::<Result<_, _>>()?;
        sort(&mut elements);
        if let Some(set) = contents.named.get_mut(&("set".to_owned(), set.clone())) {
            set.insert("elem".to_owned(), elements.into());
        }
    }
    for set in &table.of_packets {
        if let Some(set) = contents.named.get_mut(&("set".to_owned(), set.clone())) {
            // Later versions of `nft` list a flag more, `dynamic`.
            set.retain(|property, _| !matches!(property.as_str(), "elem" | "flags"));
        }
    }
    Ok(contents)
}

fn contents(objects: impl Iterator<Item = Value>) -> Contents {
    let mut contents = Contents::default();
    for object in objects {
        let Value::Object(object) = object else { continue };
        for (kind, properties) in object {
            let Value::Object(mut properties) = properties else {
                continue;
            };
            let text = |property: &str| {
                properties
                    .get(property)
                    .and_then(Value::as_str)
                    .map(str::to_owned)
            };
            match kind.as_str() {
                "table" | "metainfo" => {}
                "rule" => {
                    let (Some(chain), Some(mut statements)) = (text("chain"), properties.remove("expr"))
                    else {
                        continue;
                    };
                    sort_sets(&mut statements);
                    contents.rules.entry(chain).or_default().push(statements);
                }
                _ => {
                    let Some(name) = text("name") else { continue };
                    // An empty set or map is listed without elements.
                    let elements = properties
                        .entry("elem")
                        .or_insert_with(|| Value::Array(Vec::new()));
                    if let Value::Array(elements) = elements {
                        sort(elements);
                    }
                    contents.named.insert((kind, name), properties);
                }
            }
        }
    }
    contents
}

/// Whether the object's property `name_in` is the table's name, and its family the table's.
fn belongs(object: &Value, name_in: &str, table: &Table) -> bool {
    let Some(properties) = object.as_object().and_then(|object| object.values().next()) else {
        return false;
    };
    let family = serde_json::to_value(table.family).ok();
    properties.get(name_in).is_some_and(|name| *name == table.name)
        && properties.get("family") == family.as_ref()
}

/// Anonymous sets are listed in an order of the kernel's.
fn sort_sets(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                sort_sets(value);
                if let ("set", Value::Array(elements)) = (key.as_str(), value) {
                    sort(elements);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(sort_sets),
        _ => {}
    }
}

fn sort(elements: &mut [Value]) {
    elements.sort_by_cached_key(Value::to_string);
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
