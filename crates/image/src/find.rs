//! Looking for what a disk boots, in the order in which boot loaders are likely to be the real one.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::entry::{BootEntry, Variables, bls, extlinux, grub};
use crate::filesystem::{File, FileSystem, FsError};
use crate::kernel::{self, UnpackError, unpack};
use crate::meter::{MeteredDisk, SharedDisk};
use crate::partitions::{Region, TableError, has_ext_magic, regions};
use crate::{BootFiles, ReadSeek};

/// Bytes.
const MAX_CONFIG: u64 = 1 << 20;
/// Bytes.
const MAX_BLS_ENTRY: u64 = 64 << 10;
/// Files in `loader/entries`; distributions keep two to five.
const MAX_BLS_ENTRIES: usize = 128;
/// Bytes, packed.
const MAX_KERNEL: u64 = 256 << 20;
/// Bytes, of all initrds together.
const MAX_INITRD: u64 = 512 << 20;
/// An entry with more is refused; boot loaders' configurations name one to three.
const MAX_INITRDS: usize = 16;
/// Bytes of what an error tells of one region: names come from the disk.
const MAX_OUTCOME: usize = 300;

/// Bytes that loading what a disk boots may read and produce: the largest kernel and initrd, and as much again and
/// more for a fragmented file system's structures.
const BOOT_BUDGET: u64 = (2 << 30) + MAX_KERNEL + MAX_INITRD;
/// Bytes that an inspection may read. The group descriptors of 16 TiB take 8 MiB; the rest is for a journal that has
/// to be looked through, at most 64 MiB on disks of up to 16 GiB.
pub(crate) const INSPECTION_BUDGET: u64 = 128 << 20;

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
    #[error(
        "the disk's partition table is refused: more than {} partitions are in use",
        crate::partitions::MAX_PARTITIONS
    )]
    TooManyPartitions,
    #[error(
        "looking for a kernel took more than {} MiB of reads from the disk, which is all that is allowed. Its file \
         system is damaged, or has a large journal that was not replayed: run e2fsck on it",
        budget >> 20
    )]
    TooMuch { budget: u64 },
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
    guarded(|| {
        let files = search(disk, BOOT_BUDGET, load)?;
        let kernel = unpack(files.kernel).map_err(|source| FindError::Kernel {
            path: files.kernel_path.clone(),
            source,
        })?;
        Ok(BootFiles { kernel, ..files })
    })
}

/// What the disk's default boot entry names, without its content.
pub(crate) struct Described {
    pub(crate) kernel_path: String,
    pub(crate) cmdline: String,
    pub(crate) has_initrd: bool,
}

/// As [`find_boot`], but reads no more than headers: the kernel is not decompressed and initrds are not read.
pub(crate) fn describe_boot(disk: impl ReadSeek + 'static) -> Result<Described, FindError> {
    guarded(|| {
        let (described, examined) = search(disk, INSPECTION_BUDGET, describe)?;
        match examined {
            Ok(()) => Ok(described),
            Err(source) => Err(FindError::Kernel {
                path: described.kernel_path,
                source,
            }),
        }
    })
}

/// The parsers are other people's and meet hostile bytes: a panic in one is an answer about the disk, no reason to
/// take the process down. Nothing that was borrowed outlives it.
fn guarded<T>(look: impl FnOnce() -> Result<T, FindError>) -> Result<T, FindError> {
    catch_unwind(AssertUnwindSafe(look)).unwrap_or(Err(FindError::Damaged))
}

/// Looks through the regions of a disk in order, and gives the first boot entry whose files are there to `take`.
fn search<T>(
    disk: impl ReadSeek + 'static,
    budget: u64,
    take: impl Fn(Located) -> Result<T, FsError>,
) -> Result<T, FindError> {
    let disk = MeteredDisk::new(disk, budget);
    let disk: SharedDisk = Rc::new(RefCell::new(disk));
    let found = search_regions(&disk, take);
    // Whatever else went wrong went wrong because of it.
    match disk.borrow().exhausted() {
        Some(budget) if found.is_err() => Err(FindError::TooMuch { budget }),
        _ => found,
    }
}

fn search_regions<T>(
    disk: &SharedDisk,
    take: impl Fn(Located) -> Result<T, FsError>,
) -> Result<T, FindError> {
    let regions = regions(&mut *disk.borrow_mut()).map_err(|error| match error {
        TableError::Io(error) => FindError::Io(error),
        TableError::TooMany => FindError::TooManyPartitions,
    })?;
    let mut looked = Vec::new();
    for (i, region) in regions.iter().enumerate() {
        let before = regions[..i].iter().find(|before| region.overlaps(before));
        let outcome = match before {
            // No partitioning tool makes such a table, and each name for the same bytes would cost as much again.
            Some(before) => format!("overlaps {}", before.name),
            None => match look_into(disk, region, &take) {
                Ok(Found::Boot(taken)) => return Ok(taken),
                Ok(Found::Nothing(outcome)) => outcome,
                // A disk that fails would make each further region fail in the same way.
                Err(FsError::Io(e)) => return Err(FindError::Io(e)),
                Err(_) if disk.borrow().exhausted().is_some() => break,
                Err(e) => e.to_string(),
            },
        };
        looked.push(Looked {
            region: region.name.clone(),
            outcome: shortened(outcome),
        });
    }
    Err(FindError::NothingBootable(looked))
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_OUTCOME {
        text.truncate(text.floor_char_boundary(MAX_OUTCOME));
        text.push_str("...");
    }
    text
}

enum Found<T> {
    Boot(T),
    /// For people: why not.
    Nothing(String),
}

fn look_into<T>(
    disk: &SharedDisk,
    region: &Region,
    take: &impl Fn(Located) -> Result<T, FsError>,
) -> Result<Found<T>, FsError> {
    if !has_ext_magic(&mut *disk.borrow_mut(), region.start)? {
        return Err(FsError::NotExt);
    }
    let fs = FileSystem::open(disk, region)?;
    let mut outcome = "ext4 without a boot entry".to_owned();
    for source in [from_extlinux, from_bls, from_grub] {
        let Some((config, entry)) = source(&fs)? else {
            continue;
        };
        match locate(&fs, entry)? {
            Ok(located) => return Ok(Found::Boot(take(located)?)),
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
        let mut names = fs.list(&entries_dir)?;
        names.retain(|name| name.ends_with(".conf"));
        if names.len() > MAX_BLS_ENTRIES {
            return Err(FsError::TooManyEntries {
                path: entries_dir,
                limit: MAX_BLS_ENTRIES,
            });
        }
        let mut variables = grub_environment(fs)?;
        let mut entries = Vec::new();
        for name in &names {
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

/// A boot entry whose files are there.
struct Located {
    kernel_path: String,
    kernel: File,
    initrds: Vec<File>,
    cmdline: String,
}

/// Opens what an entry names; the inner error is the path that is missing.
fn locate(fs: &FileSystem, entry: BootEntry) -> Result<Result<Located, String>, FsError> {
    let Some((kernel_path, kernel)) = open_either(fs, &entry.kernel, MAX_KERNEL)? else {
        return Ok(Err(entry.kernel));
    };
    if entry.initrds.len() > MAX_INITRDS {
        return Err(FsError::TooManyInitrds(entry.initrds.len()));
    }
    let mut initrds = Vec::new();
    let mut room = MAX_INITRD;
    for path in entry.initrds {
        let Some((_, file)) = open_either(fs, &path, room)? else {
            return Ok(Err(path));
        };
        room -= file.len();
        initrds.push(file);
    }
    Ok(Ok(Located {
        kernel_path,
        kernel,
        initrds,
        cmdline: entry.cmdline,
    }))
}

/// Reads everything, the kernel as it lies on the disk.
fn load(located: Located) -> Result<BootFiles, FsError> {
    let kernel = located.kernel.read()?;
    let mut initrd: Option<Vec<u8>> = None;
    for file in located.initrds {
        let joined = initrd.get_or_insert_default();
        // The kernel looks for the next archive at a multiple of four.
        joined.resize(joined.len().next_multiple_of(4), 0);
        file.append_to(joined)?;
    }
    Ok(BootFiles {
        kernel_path: located.kernel_path,
        kernel,
        initrd,
        cmdline: located.cmdline,
    })
}

/// Reads the kernel's headers; the inner error is what is wrong with them.
fn describe(mut located: Located) -> Result<(Described, Result<(), UnpackError>), FsError> {
    let examined = examine(&mut located.kernel)?;
    let described = Described {
        kernel_path: located.kernel_path,
        cmdline: located.cmdline,
        has_initrd: !located.initrds.is_empty(),
    };
    Ok((described, examined))
}

fn examine(file: &mut File) -> Result<Result<(), UnpackError>, FsError> {
    let mut head = [0; kernel::HEAD];
    let got = file.read_at(0, &mut head)?;
    let payload = match kernel::examine(&head[..got], file.len() as usize) {
        Ok(Some(payload)) => payload,
        examined => return Ok(examined.map(drop)),
    };
    let (mut first, mut last) = ([0; 4], [0; 4]);
    file.read_at(payload.start as u64, &mut first)?;
    file.read_at(payload.end.saturating_sub(4).max(payload.start) as u64, &mut last)?;
    Ok(kernel::examine_payload(first, last))
}

/// A separate /boot partition may be spelled from its own root or from the system's.
fn open_either(fs: &FileSystem, path: &str, limit: u64) -> Result<Option<(String, File)>, FsError> {
    let path = format!("/{}", path.trim_start_matches('/'));
    let other = match path.strip_prefix("/boot/") {
        Some(below) => format!("/{below}"),
        None => format!("/boot{path}"),
    };
    for spelled in [path, other] {
        if let Some(file) = fs.file(&spelled, limit)? {
            return Ok(Some((spelled, file)));
        }
    }
    Ok(None)
}
