//! Boot Loader Specification, type 1 (uapi-group.org): one small file per kernel in `loader/entries`, read by the
//! specification alone. GRUB's `blscfg` reads them in its own way ([`super::grub`]).

use std::rc::Rc;

use super::version::compare_uapi;
use super::{BootEntry, Undecided, directive};
use crate::fs::Volume;
use crate::volumes::Place;

/// Bytes of a file.
pub(crate) const MAX_ENTRY: u64 = 64 << 10;
/// Files in a directory; distributions keep two to five.
pub(crate) const MAX_ENTRIES: usize = 128;
/// Bytes of `loader.conf`.
const MAX_LOADER: u64 = 64 << 10;

/// A file of `loader/entries`.
#[derive(Debug)]
pub(crate) struct BlsEntry {
    /// The file's name without its boot counter.
    id: String,
    /// No tries left.
    bad: bool,
    sort_key: Option<String>,
    machine_id: String,
    version: String,
    linux: String,
    initrds: Vec<String>,
    options: Vec<String>,
    /// A key that changes how it boots and that is not followed.
    unknown: Option<String>,
}

/// Reads one file; none if it names no Linux kernel.
pub(crate) fn parse(file_name: &str, text: &str) -> Option<BlsEntry> {
    let (id, bad) = id_of(file_name);
    let mut entry = BlsEntry {
        id,
        bad,
        sort_key: None,
        machine_id: String::new(),
        version: String::new(),
        linux: String::new(),
        initrds: Vec::new(),
        options: Vec::new(),
        unknown: None,
    };
    let mut other_kind = false;
    for (name, value) in text.lines().filter_map(directive) {
        match name {
            "linux" => value.clone_into(&mut entry.linux),
            "initrd" => entry.initrds.push(value.to_owned()),
            "options" => entry.options.push(value.to_owned()),
            "version" => value.clone_into(&mut entry.version),
            "machine-id" => value.clone_into(&mut entry.machine_id),
            "sort-key" => entry.sort_key = Some(value.to_owned()),
            "efi" | "uki" | "uki-url" => other_kind = true,
            "architecture" if !value.eq_ignore_ascii_case("x64") => return None,
            "title" | "architecture" | "grub_users" | "grub_arg" | "grub_class" | "grub_hotkey" | "id" => {}
            // Device trees, profiles, and keys to come.
            _ => entry.unknown = Some(name.to_owned()),
        }
    }
    (!entry.linux.is_empty() || other_kind).then_some(entry)
}

/// Reads all entries of a directory such as `/loader` and picks the default.
pub(crate) fn read(
    volume: &Rc<Volume>,
    part: usize,
    directory: &str,
) -> Result<Option<BootEntry>, Undecided> {
    let entries_directory = format!("{directory}/entries");
    let mut names = volume.list(&entries_directory)?;
    names.retain(|name| name.ends_with(".conf"));
    if names.len() > MAX_ENTRIES {
        return Err(Undecided::because(
            entries_directory,
            format!("more than {MAX_ENTRIES} entries"),
        ));
    }
    let mut entries = Vec::new();
    for name in &names {
        let content = volume
            .read(&format!("{entries_directory}/{name}"), MAX_ENTRY)?
            .unwrap_or_default();
        entries.extend(parse(name, &String::from_utf8_lossy(&content)));
    }
    if entries.is_empty() {
        return Ok(None);
    }
    let loader = volume
        .read(&format!("{directory}/loader.conf"), MAX_LOADER)?
        .unwrap_or_default();
    let default = loader_default(&String::from_utf8_lossy(&loader)).map(str::to_owned);
    choose(entries, default.as_deref(), part, &entries_directory).map(Some)
}

/// The entry to boot: the first that `default` (a glob over file names, from `loader.conf`) matches, else the first in
/// the specification's order.
pub(crate) fn choose(
    mut entries: Vec<BlsEntry>,
    default: Option<&str>,
    part: usize,
    place: &str,
) -> Result<BootEntry, Undecided> {
    entries.sort_by(|a, b| {
        let bad = a.bad.cmp(&b.bad);
        let keyless = a.sort_key.is_none().cmp(&b.sort_key.is_none());
        let order = bad.then(keyless);
        let order = match (&a.sort_key, &b.sort_key) {
            (Some(key_a), Some(key_b)) => order
                .then_with(|| key_a.cmp(key_b))
                .then_with(|| a.machine_id.cmp(&b.machine_id))
                .then_with(|| compare_uapi(&b.version, &a.version)),
            _ => order,
        };
        order.then_with(|| compare_uapi(&b.id, &a.id))
    });
    let chosen = match default {
        Some(default) if default.starts_with('@') => {
            return Err(Undecided::because(
                place,
                format!("the default {default} of loader.conf"),
            ));
        }
        Some(pattern) => {
            let position = |pattern: &str| entries.iter().position(|entry| glob(pattern, &entry.id));
            let found = position(pattern);
            // Old loaders match names without the extension.
            if found.is_none() && position(&format!("{pattern}.conf")).is_some() {
                let what = format!("the default {pattern} of loader.conf, without .conf");
                return Err(Undecided::because(place, what));
            }
            found
        }
        None => None,
    };
    let entry = entries.swap_remove(chosen.unwrap_or(0));
    let place = format!("{place}/{}", entry.id);
    if let Some(unknown) = entry.unknown {
        return Err(Undecided::because(place, format!("the key {unknown}")));
    }
    if entry.linux.is_empty() {
        return Err(Undecided::because(place, "an entry that is no Linux kernel"));
    }
    let options = entry.options.join(" ");
    if options.contains('$') {
        return Err(Undecided::because(
            place,
            "a variable, and no grub.cfg nor grubenv that sets it",
        ));
    }
    let absolute = |path: &str| Place {
        part,
        path: format!("/{}", path.trim_start_matches('/')),
    };
    Ok(BootEntry {
        kernel: absolute(&entry.linux),
        initrds: entry.initrds.iter().map(|path| absolute(path)).collect(),
        cmdline: options,
    })
}

/// The value of `default` in `loader.conf`; the last counts.
pub(crate) fn loader_default(text: &str) -> Option<&str> {
    let mut directives = text.lines().filter_map(directive);
    let default = directives.rfind(|(name, _)| *name == "default");
    default.map(|(_, value)| value)
}

/// A file's name without its boot counter, and whether no tries are left: `NAME+3-1.conf` has three, one used.
fn id_of(file_name: &str) -> (String, bool) {
    let stem = file_name.strip_suffix(".conf").unwrap_or(file_name);
    let Some((id, counter)) = stem.rsplit_once('+') else {
        return (file_name.to_owned(), false);
    };
    let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
    let number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    if number(left) && number(done) {
        return (format!("{id}.conf"), left.trim_start_matches('0').is_empty());
    }
    (file_name.to_owned(), false)
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
