//! Boot loaders' configurations, reduced to the entry that they would boot by default.

pub(crate) mod bls;
pub(crate) mod extlinux;
pub(crate) mod grub;
mod shell;
mod variables;
mod version;

pub(crate) use variables::Variables;

/// One way to boot, as configured. Paths are as the configuration spells them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BootEntry {
    pub(crate) kernel: String,
    pub(crate) initrds: Vec<String>,
    pub(crate) cmdline: String,
}

/// A directive's name and the rest of its line.
fn directive(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (name, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    Some((name, value.trim()))
}

/// Joins command lines with one space, leaving out empty ones.
fn join<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut joined = String::new();
    for part in parts.into_iter().map(str::trim).filter(|part| !part.is_empty()) {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(part);
    }
    joined
}

#[cfg(test)]
mod tests;
