//! Names as the protos, EC2 and the command line have them.

/// `create-placement-group` of `CreatePlacementGroup`.
pub(super) fn kebab_of_pascal(name: &str) -> String {
    let mut kebab = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.push(c.to_ascii_lowercase());
    }
    kebab
}

/// `GroupName` of `group_name`.
pub(super) fn pascal(name: &str) -> String {
    let capitalized = |word: &str| {
        let mut characters = word.chars();
        let first = characters.next().map(|c| c.to_ascii_uppercase());
        first.into_iter().chain(characters).collect::<String>()
    };
    name.split('_').map(capitalized).collect()
}

/// `group-name` of `group_name`.
pub(super) fn kebab(name: &str) -> String {
    name.replace('_', "-")
}
