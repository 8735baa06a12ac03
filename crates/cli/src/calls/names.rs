//! Names as the protos, EC2 and the command line have them.

use prost_reflect::FieldDescriptor;

/// `create-placement-group` of `CreatePlacementGroup`.
pub(crate) fn kebab_of_pascal(name: &str) -> String {
    let mut kebab = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.push(c.to_ascii_lowercase());
    }
    kebab
}

/// A field as EC2 calls it: `GroupName`.
pub(super) fn member(field: &FieldDescriptor) -> String {
    let mut characters = field.json_name().chars();
    let first = characters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(characters).collect()
}

/// `group-name` of `group_name`.
pub(super) fn kebab(name: &str) -> String {
    name.replace('_', "-")
}
