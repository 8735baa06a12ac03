//! Looking for what a disk boots, in the order in which boot loaders are likely to be the real one.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::entry::{BootEntry, Variables, bls, extlinux, grub};
use crate::filesystem::{FileSystem, FsError, SharedDisk};
use crate::kernel::{UnpackError, unpack};
use crate::partitions::{Region, has_ext_magic, regions};
use crate::{BootFiles, ReadSeek};

/// Bytes.
const MAX_CONFIG: u64 = 1 << 20;
/// Bytes.
const MAX_BLS_ENTRY: u64 = 64 << 10;
/// Bytes, packed.
const MAX_KERNEL: u64 = 256 << 20;
/// Bytes, of all initrds together.
const MAX_INITRD: u64 = 512 << 20;

const EXTLINUX: &[&str] = &[
    "/boot/extlinux/extlinux.conf",
    "/extlinux/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
];
const BLS: &[&str] = &["/boot/loader", "/loader"];
const GRUB: &[&str] = &[
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/grub/grub.cfg",
    "/grub2/grub.cfg",
];
const GRUBENV: &[&str] = &[
    "/boot/grub2/grubenv",
    "/grub2/grubenv",
    "/boot/grub/grubenv",
    "/grub/grubenv",
];

/// Why nothing can be booted from a disk.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("reading the disk")]
    Io(#[source] io::Error),
    #[error(
        "no kernel to boot was found on the disk. Looked for extlinux.conf, loader/entries and grub.cfg in /boot and / of {}",
        listed(.0)
    )]
    NothingBootable(Vec<Looked>),
    #[error("unpacking the kernel {path}")]
    Kernel { path: String, source: UnpackError },
    #[error("the disk's file system is damaged in a way that its reader did not expect")]
    Damaged,
}

/// What was found wrong in one region of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// "partition 1", "the whole disk".
    pub region: String,
    pub outcome: String,
}

fn listed(looked: &[Looked]) -> String {
    let mut list = String::new();
    for (i, Looked { region, outcome }) in looked.iter().enumerate() {
        let separator = if i == 0 { "" } else { "; " };
        // Writing to a string cannot fail.
        let _ = write!(list, "{separator}{region} ({outcome})");
    }
    list
}

/// Finds and unpacks what the disk's default boot entry names. Takes the disk by value, for the file system's reader keeps it.
///
/// # Errors
/// The disk cannot be read, or there is nothing on it that Hearth can boot; the error says where it looked.
pub fn find_boot(disk: impl ReadSeek + 'static) -> Result<BootFiles, FindError> {
    // The parsers below are other people's and meet hostile bytes: a panic in one is an answer about the disk, no
    // reason to take the process down. Nothing that was borrowed outlives it.
    catch_unwind(AssertUnwindSafe(|| search(disk))).unwrap_or(Err(FindError::Damaged))
}

fn search(mut disk: impl ReadSeek + 'static) -> Result<BootFiles, FindError> {
    let regions = regions(&mut disk).map_err(FindError::Io)?;
    let disk: SharedDisk = Rc::new(RefCell::new(disk));
    let mut looked = Vec::new();
    for region in regions {
        match look_into(&disk, &region) {
            Ok(Found::Boot(files)) => return unpacked(*files),
            Ok(Found::Nothing(outcome)) => looked.push(Looked {
                region: region.name,
                outcome,
            }),
            // A disk that fails would make each further region fail in the same way.
            Err(FsError::Io(e)) => return Err(FindError::Io(e)),
            Err(e) => looked.push(Looked {
                region: region.name,
                outcome: e.to_string(),
            }),
        }
    }
    Err(FindError::NothingBootable(looked))
}

fn unpacked(files: BootFiles) -> Result<BootFiles, FindError> {
    let BootFiles {
        kernel_path,
        kernel,
        initrd,
        cmdline,
    } = files;
    match unpack(kernel) {
        Ok(kernel) => Ok(BootFiles {
            kernel_path,
            kernel,
            initrd,
            cmdline,
        }),
        Err(source) => Err(FindError::Kernel {
            path: kernel_path,
            source,
        }),
    }
}

enum Found {
    /// With the kernel as it lies on the disk.
    Boot(Box<BootFiles>),
    /// For people: why not.
    Nothing(String),
}

fn look_into(disk: &SharedDisk, region: &Region) -> Result<Found, FsError> {
    if !has_ext_magic(&mut *disk.borrow_mut(), region.start)? {
        return Err(FsError::NotExt);
    }
    let fs = FileSystem::open(disk, region)?;
    let mut outcome = "ext4 without a boot entry".to_owned();
    for source in [from_extlinux, from_bls, from_grub] {
        let Some((config, entry)) = source(&fs)? else {
            continue;
        };
        match load(&fs, entry)? {
            Ok(files) => return Ok(Found::Boot(Box::new(files))),
            Err(missing) => outcome = format!("ext4; {config} names {missing}, which is not there"),
        }
    }
    Ok(Found::Nothing(outcome))
}

/// A configuration's path, and what it boots by default.
type Configured = Option<(String, BootEntry)>;

fn from_extlinux(fs: &FileSystem) -> Result<Configured, FsError> {
    for path in EXTLINUX {
        let Some(text) = read_text(fs, path, MAX_CONFIG)? else {
            continue;
        };
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        if let Some(entry) = extlinux::parse(&text, dir) {
            return Ok(Some(((*path).to_owned(), entry)));
        }
    }
    Ok(None)
}

fn from_bls(fs: &FileSystem) -> Result<Configured, FsError> {
    for dir in BLS {
        let entries_dir = format!("{dir}/entries");
        let names = fs.list(&entries_dir)?;
        let mut variables = grub_environment(fs)?;
        let mut entries = Vec::new();
        for name in names.iter().filter(|name| name.ends_with(".conf")) {
            let text = read_text(fs, &format!("{entries_dir}/{name}"), MAX_BLS_ENTRY)?.unwrap_or_default();
            entries.extend(bls::parse(name, &text, &mut variables));
        }
        let loader = read_text(fs, &format!("{dir}/loader.conf"), MAX_CONFIG)?.unwrap_or_default();
        let default = bls::loader_default(&loader).or_else(|| variables.get("saved_entry"));
        if let Some(entry) = bls::choose(entries, default) {
            return Ok(Some((entries_dir, entry)));
        }
    }
    Ok(None)
}

fn from_grub(fs: &FileSystem) -> Result<Configured, FsError> {
    for path in GRUB {
        let Some(text) = read_text(fs, path, MAX_CONFIG)? else {
            continue;
        };
        let mut variables = grub_environment(fs)?;
        variables.set("menuentry_id_option", "--id");
        if let Some(entry) = grub::parse(&text, variables) {
            return Ok(Some(((*path).to_owned(), entry)));
        }
    }
    Ok(None)
}

fn grub_environment(fs: &FileSystem) -> Result<Variables, FsError> {
    for path in GRUBENV {
        if let Some(text) = read_text(fs, path, MAX_CONFIG)? {
            return Ok(Variables::from_grubenv(&text));
        }
    }
    Ok(Variables::new())
}

fn read_text(fs: &FileSystem, path: &str, limit: u64) -> Result<Option<String>, FsError> {
    Ok(fs
        .read(path, limit)?
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Reads what an entry names; the inner error is the path that is missing.
fn load(fs: &FileSystem, entry: BootEntry) -> Result<Result<BootFiles, String>, FsError> {
    let Some((kernel_path, kernel)) = read_either(fs, &entry.kernel, MAX_KERNEL)? else {
        return Ok(Err(entry.kernel));
    };
    let mut initrd: Option<Vec<u8>> = None;
    for path in entry.initrds {
        let joined = initrd.get_or_insert_default();
        let Some((_, next)) = read_either(fs, &path, MAX_INITRD.saturating_sub(joined.len() as u64))? else {
            return Ok(Err(path));
        };
        if joined.is_empty() {
            *joined = next;
        } else {
            // The kernel looks for the next archive at a multiple of four.
            joined.resize(joined.len().next_multiple_of(4), 0);
            joined.extend_from_slice(&next);
        }
    }
    Ok(Ok(BootFiles {
        kernel_path,
        kernel,
        initrd,
        cmdline: entry.cmdline,
    }))
}

/// A separate /boot partition may be spelled from its own root or from the system's.
fn read_either(fs: &FileSystem, path: &str, limit: u64) -> Result<Option<(String, Vec<u8>)>, FsError> {
    let path = format!("/{}", path.trim_start_matches('/'));
    let other = match path.strip_prefix("/boot/") {
        Some(below) => format!("/{below}"),
        None => format!("/boot{path}"),
    };
    for spelled in [path, other] {
        if let Some(content) = fs.read(&spelled, limit)? {
            return Ok(Some((spelled, content)));
        }
    }
    Ok(None)
}
