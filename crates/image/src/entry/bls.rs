//! Boot Loader Specification, type 1: one small file per kernel in `loader/entries`.

use super::version::compare;
use super::{BootEntry, Variables, directive, join};

/// A file of `loader/entries`.
#[derive(Debug)]
pub(crate) struct BlsEntry {
    /// The file's name without `.conf` and without its boot counter.
    id: String,
    sort_key: Option<String>,
    version: String,
    boot: BootEntry,
}

/// Reads one file; none if it names no kernel. `variables` is GRUB's environment, in which Fedora's entries find `$kernelopts`.
pub(crate) fn parse(file_name: &str, text: &str, variables: &mut Variables) -> Option<BlsEntry> {
    let mut entry = BlsEntry {
        id: id_of(file_name).to_owned(),
        sort_key: None,
        version: String::new(),
        boot: BootEntry::default(),
    };
    let mut options = Vec::new();
    for (name, value) in text.lines().filter_map(directive) {
        match name {
            "linux" => entry.boot.kernel = value.to_owned(),
            "initrd" => {
                // Variables here name optional initrds of a user's own.
                entry
                    .boot
                    .initrds
                    .extend(variables.expand(value).split_whitespace().map(str::to_owned));
            }
            "options" => options.push(variables.expand(value)),
            "version" => entry.version = value.to_owned(),
            "sort-key" => entry.sort_key = Some(value.to_owned()),
            _ => {}
        }
    }
    entry.boot.cmdline = join(options.iter().map(String::as_str));
    (!entry.boot.kernel.is_empty()).then_some(entry)
}

/// The entry to boot: the one that `default` (a glob over ids, from `loader.conf` or GRUB's `saved_entry`) matches, else the
/// first in the specification's order.
pub(crate) fn choose(mut entries: Vec<BlsEntry>, default: Option<&str>) -> Option<BootEntry> {
    entries.sort_by(|a, b| {
        let keyless = a.sort_key.is_none().cmp(&b.sort_key.is_none());
        keyless
            .then_with(|| a.sort_key.cmp(&b.sort_key))
            .then_with(|| compare(&b.version, &a.version))
            .then_with(|| compare(&b.id, &a.id))
    });
    let wanted = default.map(|pattern| pattern.trim_end_matches(".conf"));
    let chosen = wanted
        .and_then(|pattern| entries.iter().position(|entry| glob(pattern, &entry.id)))
        .unwrap_or(0);
    (chosen < entries.len()).then(|| entries.swap_remove(chosen).boot)
}

/// The value of `default` in `loader.conf`.
pub(crate) fn loader_default(text: &str) -> Option<&str> {
    text.lines()
        .filter_map(directive)
        .find(|(name, _)| *name == "default")
        .map(|(_, value)| value)
}

/// `NAME+3-1.conf`: three tries left, one used.
fn id_of(file_name: &str) -> &str {
    let stem = file_name.strip_suffix(".conf").unwrap_or(file_name);
    match stem.rsplit_once('+') {
        Some((id, counter)) if counter.chars().all(|c| c.is_ascii_digit() || c == '-') => id,
        _ => stem,
    }
}

/// `*` and `?` only; linear in practice, for it backtracks to the last star alone.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}
