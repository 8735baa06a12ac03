//! The types that an operator defines, in a file of TOML: each type is a table under its name.
//!
//! ```toml
//! ["lab.small"]
//! vcpus = 1
//! memory-mib = 512
//!
//! ["lab.scratch"]
//! vcpus = 2
//! memory-mib = 2048
//! instance-store = { disks = 1, size-gb = 20, media = "nvme" }
//! ```

use std::collections::BTreeMap;
use std::io::Read as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{InstanceStore, InstanceType, MAX_DISKS, Media, TABLE};

/// Bytes of the file.
const MAX_FILE: u64 = 1 << 20;
const MAX_TYPES: usize = 500;
/// Characters of a name.
const MAX_NAME: usize = 30;
/// Characters of what is said of the network.
const MAX_NETWORK: usize = 64;
/// What a monitor can build.
const VCPUS: RangeInclusive<u64> = 1..=32;
const MEMORY_MIB: RangeInclusive<u64> = 32..=16 << 20;
const THREADS: RangeInclusive<u64> = 1..=2;
const DISKS: RangeInclusive<u64> = 1..=MAX_DISKS as u64;
/// Of one disk. File systems with blocks of 4 KiB have files of 16 TiB at most.
const SIZE_GB: RangeInclusive<u64> = 1..=17_000;

#[derive(Debug, thiserror::Error)]
pub enum OwnTypesError {
    #[error("reading the instance types in {}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the instance types in {}: {what}", path.display())]
    Content { path: PathBuf, what: String },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Entry {
    vcpus: u64,
    memory_mib: u64,
    #[serde(default = "one")]
    threads_per_core: u64,
    #[serde(default = "moderate")]
    network: String,
    #[serde(default)]
    burstable: bool,
    #[serde(default)]
    instance_store: Option<StoreEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct StoreEntry {
    disks: u64,
    size_gb: u64,
    media: Media,
}

fn one() -> u64 {
    1
}

fn moderate() -> String {
    "Moderate".to_owned()
}

/// Reads an operator's file.
///
/// # Errors
/// It cannot be read, or the line or the member that is wrong.
pub fn read(path: &Path) -> Result<Vec<InstanceType>, OwnTypesError> {
    let mut text = String::new();
    let file = std::fs::File::open(path);
    let read = file.and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
    read.map_err(|source| OwnTypesError::Io {
        path: path.to_owned(),
        source,
    })?;
    parse(&text).map_err(|what| OwnTypesError::Content {
        path: path.to_owned(),
        what,
    })
}

fn parse(text: &str) -> Result<Vec<InstanceType>, String> {
    if text.len() as u64 > MAX_FILE {
        return Err(format!("the file has more than {MAX_FILE} bytes"));
    }
    let entries: BTreeMap<String, Entry> = toml::from_str(text).map_err(|error| located(text, &error))?;
    if entries.len() > MAX_TYPES {
        return Err(format!(
            "{} types; at most {MAX_TYPES} can be defined",
            entries.len()
        ));
    }
    entries
        .into_iter()
        .map(|(name, entry)| kind(name, entry))
        .collect()
}

fn located(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    match before {
        Some(before) => format!("line {}: {}", before.matches('\n').count() + 1, error.message()),
        None => error.message().to_owned(),
    }
}

fn kind(name: String, entry: Entry) -> Result<InstanceType, String> {
    check_name(&name)?;
    let within = |member: &str, value: u64, range: &RangeInclusive<u64>| match range.contains(&value) {
        true => Ok(u32::try_from(value).unwrap_or(u32::MAX)),
        false => Err(format!(
            "{name}: {member} is {value}; expecting {} to {}",
            range.start(),
            range.end()
        )),
    };
    let vcpus = within("vcpus", entry.vcpus, &VCPUS)?;
    let threads_per_core = within("threads-per-core", entry.threads_per_core, &THREADS)?;
    if vcpus % threads_per_core != 0 {
        return Err(format!(
            "{name}: threads-per-core is {threads_per_core}, and vcpus, {vcpus}, is no multiple of it"
        ));
    }
    within("memory-mib", entry.memory_mib, &MEMORY_MIB)?;
    let is_told = !entry.network.is_empty() && entry.network.chars().count() <= MAX_NETWORK;
    if !is_told || entry.network.chars().any(char::is_control) {
        return Err(format!(
            "{name}: network is {:?}; expecting 1 to {MAX_NETWORK} characters",
            entry.network
        ));
    }
    let store = match entry.instance_store {
        None => None,
        Some(store) => Some(InstanceStore {
            disks: within("instance-store.disks", store.disks, &DISKS)?,
            size_gb: within("instance-store.size-gb", store.size_gb, &SIZE_GB)?,
            media: store.media,
        }),
    };
    Ok(InstanceType {
        vcpus,
        threads_per_core,
        memory_mib: entry.memory_mib,
        network: entry.network,
        // An instance has one in this version.
        interfaces: 1,
        addresses_per_interface: 1,
        store,
        ebs_mbps: 0,
        burstable: entry.burstable,
        current_generation: true,
        name,
    })
}

/// As EC2's are made: a family and a size.
fn check_name(name: &str) -> Result<(), String> {
    let is_word = |word: &str| {
        let admitted = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !word.is_empty() && word.bytes().all(admitted)
    };
    let parts = name.split_once('.');
    if name.len() > MAX_NAME || !parts.is_some_and(|(family, size)| is_word(family) && is_word(size)) {
        return Err(format!(
            "{name:?} is no name of a type; expecting a family and a size of lower-case letters, digits and hyphens with a \
             dot between them, such as [\"lab.small\"], of at most {MAX_NAME} characters"
        ));
    }
    match TABLE.contains_key(name) {
        false => Ok(()),
        true => Err(format!(
            "{name} is a type of EC2's, which stays as it is; choose another name"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_defines_types() {
        let text = r#"
            # For the laboratory.
            ["lab.small"]
            vcpus = 1
            memory-mib = 512

            [lab-2."big"]
            vcpus = 4
            memory-mib = 4096
        "#;
        // Tables within tables are none of a type's members.
        assert!(parse(text).is_err());
        let text = r#"
            ["lab.small"]
            vcpus = 1
            memory-mib = 512
            ["lab.scratch"]
            vcpus = 4
            memory-mib = 2048
            threads-per-core = 2
            network = "Up to 1 Gigabit"
            burstable = true
            instance-store = { disks = 2, size-gb = 20, media = "nvme" }
        "#;
        let types = parse(text).unwrap();
        let [scratch, small] = types.as_slice() else {
            panic!("{types:?}")
        };
        assert_eq!(
            (small.name.as_str(), small.vcpus, small.memory_mib),
            ("lab.small", 1, 512)
        );
        assert_eq!((small.store, small.network.as_str()), (None, "Moderate"));
        let store = InstanceStore {
            disks: 2,
            size_gb: 20,
            media: Media::Nvme,
        };
        assert_eq!((scratch.store, scratch.threads_per_core), (Some(store), 2));
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        let with = |members: &str| format!("[\"lab.small\"]\nvcpus = 1\nmemory-mib = 512\n{members}\n");
        let named = |name: &str| format!("[\"{name}\"]\nvcpus = 1\nmemory-mib = 512\n");
        let store = |disks: &str| with(&format!("instance-store = {{ {disks} }}"));
        for (text, told) in [
            (
                "[\"lab.small\"]\nvcpus = 0\nmemory-mib = 512".to_owned(),
                "lab.small: vcpus is 0; expecting 1 to 32",
            ),
            (
                "[\"lab.small\"]\nvcpus = 33\nmemory-mib = 512".to_owned(),
                "vcpus is 33",
            ),
            (
                "[\"lab.small\"]\nvcpus = 1\nmemory-mib = 31".to_owned(),
                "memory-mib is 31",
            ),
            (
                "[\"lab.small\"]\nvcpus = 1\nmemory-mib = 99999999999".to_owned(),
                "memory-mib is 99999999999",
            ),
            (
                "[\"lab.small\"]\nvcpus = -1\nmemory-mib = 1".to_owned(),
                "line 2: ",
            ),
            (
                "[\"lab.small\"]\nvcpus = \"1\"\nmemory-mib = 512".to_owned(),
                "line 2: ",
            ),
            ("[\"lab.small\"]\nmemory-mib = 512".to_owned(), "vcpus"),
            ("[\"lab.small\"]\nvcpus = 1".to_owned(), "memory-mib"),
            (with("threads-per-core = 2"), "no multiple"),
            (with("threads-per-core = 3"), "threads-per-core is 3"),
            (with("network = \"\""), "network is \"\""),
            (with("network = \"a\\nb\""), "network is"),
            (with("gpus = 1"), "line 4: "),
            (with("vcpus = 2"), "line 4: "),
            (with("burstable = 1"), "line 4: "),
            (
                store("disks = 0, size-gb = 1, media = \"ssd\""),
                "instance-store.disks is 0",
            ),
            (
                store("disks = 25, size-gb = 1, media = \"ssd\""),
                "instance-store.disks is 25",
            ),
            (
                store("disks = 1, size-gb = 0, media = \"ssd\""),
                "instance-store.size-gb is 0",
            ),
            (
                store("disks = 1, size-gb = 17001, media = \"ssd\""),
                "instance-store.size-gb is 17001",
            ),
            (store("disks = 1, size-gb = 1, media = \"tape\""), "line 4: "),
            (store("disks = 1, size-gb = 1"), "media"),
            (named("t2.micro"), "t2.micro is a type of EC2's"),
            (named("lab"), "\"lab\" is no name of a type"),
            (named("Lab.small"), "no name"),
            (named("lab."), "no name"),
            (named("lab.small.er"), "no name"),
            (named("lab./etc"), "no name"),
            (named(&format!("lab.{}", "s".repeat(27))), "no name"),
            ("lab = 1".to_owned(), "line 1: "),
            ("[".to_owned(), "line 1: "),
            ("\n\n= 1".to_owned(), "line 3: "),
            ("#".repeat(2 << 20), "more than 1048576 bytes"),
        ] {
            let refused = parse(&text).unwrap_err();
            assert!(refused.contains(told), "{text}: {refused}");
        }
    }
}
