//! What a request's message says, whatever its call: texts, and tags, by their members' names.

use prost_reflect::{DynamicMessage, Value};

/// Members that name what a rule is about, where the rule's group is what is changed; and what is left out.
const BESIDE: &[&str] = &[
    "ip_permissions",
    "referenced_group_id",
    "filters",
    "exclude_data_volume_ids",
];

/// A field that has a text.
pub(super) fn text(message: &DynamicMessage, field: &str) -> Option<String> {
    let value = message.get_field_by_name(field)?;
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A field that has bytes.
pub(super) fn bytes(message: &DynamicMessage, field: &str) -> Option<Vec<u8>> {
    let value = message.get_field_by_name(field)?;
    value.as_bytes().map(|bytes| bytes.to_vec())
}

/// A field that has texts by their names.
pub(super) fn entries(message: &DynamicMessage, field: &str) -> Vec<(String, String)> {
    let Some(value) = message.get_field_by_name(field) else {
        return Vec::new();
    };
    let entries = value.as_map().into_iter().flatten();
    let texts = entries.filter_map(|(name, value)| Some((name.as_str()?, value.as_str()?)));
    texts
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// All texts of a message with the names of their fields.
pub(super) fn texts_of(message: &DynamicMessage, found: &mut Vec<(String, String)>) {
    for (field, value) in message.fields() {
        if BESIDE.contains(&field.name()) {
            continue;
        }
        let values = match value {
            Value::List(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            match value {
                Value::String(text) if !text.is_empty() => {
                    found.push((field.name().to_owned(), text.clone()))
                }
                Value::Message(message) => texts_of(message, found),
                _ => {}
            }
        }
    }
}

/// The tags of a list of them.
pub(super) fn pairs(message: &DynamicMessage, field: &str) -> Vec<(String, String)> {
    pairs_of(message, field, ["key", "value"])
}

/// The tags of a request of KMS.
pub(super) fn tags_of_key(message: &DynamicMessage) -> Vec<(String, String)> {
    pairs_of(message, "tags", ["tag_key", "tag_value"])
}

fn pairs_of(message: &DynamicMessage, field: &str, [key, value]: [&str; 2]) -> Vec<(String, String)> {
    let Some(list) = message.get_field_by_name(field) else {
        return Vec::new();
    };
    let tags = list
        .as_list()
        .unwrap_or_default()
        .iter()
        .filter_map(Value::as_message);
    tags.filter_map(|tag| Some((text(tag, key)?, text(tag, value).unwrap_or_default())))
        .collect()
}

/// Tags for what is made: kind, key, value.
pub(super) fn specified(message: &DynamicMessage) -> Vec<(String, String, String)> {
    let Some(list) = message.get_field_by_name("tag_specifications") else {
        return Vec::new();
    };
    let mut tags = Vec::new();
    for specification in list
        .as_list()
        .unwrap_or_default()
        .iter()
        .filter_map(Value::as_message)
    {
        let kind = text(specification, "resource_type").unwrap_or_default();
        let own = pairs(specification, "tags");
        tags.extend(own.into_iter().map(|(key, value)| (kind.clone(), key, value)));
    }
    tags
}
