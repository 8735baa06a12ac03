//! Which road boots a disk, and what the direct one loads.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::entry::{BootEntry, Undecided};
use crate::fs::{FileRef, FsError};
use crate::kernel::{self, UnpackError, unpack};
use crate::loaders::{self, Loader};
use crate::meter::{MeteredDisk, SharedDisk};
use crate::partitions::{TableError, regions};
use crate::road::{BootMode, Construct, Road, shortened};
use crate::volumes::{Content, Place, Volumes};
use crate::{BootFiles, DirectBoot, ReadSeek};

/// Bytes, packed.
const MAX_KERNEL: u64 = 256 << 20;
/// Bytes, of all initrds together.
const MAX_INITRD: u64 = 512 << 20;
/// An entry with more is not booted directly; boot loaders' configurations name one to four.
const MAX_INITRDS: usize = 16;

/// Bytes that loading what a disk boots may read and produce: the largest kernel and initrd, and as much again and
/// more for a fragmented file system's structures.
const BOOT_BUDGET: u64 = (2 << 30) + MAX_KERNEL + MAX_INITRD;
/// Bytes that an inspection may read. The group descriptors of 16 TiB take 8 MiB; the rest is for a journal that has
/// to be looked through, at most 64 MiB on disks of up to 16 GiB.
pub(crate) const INSPECTION_BUDGET: u64 = 128 << 20;

/// Why no road boots a disk.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("reading the disk")]
    Io(#[source] io::Error),
    #[error(
        "no boot loader was found on the disk: no EFI system partition with EFI/BOOT/BOOTX64.EFI, and no extlinux.conf, \
         syslinux.cfg, grub.cfg nor loader/entries in {}",
        listed(.0)
    )]
    NoLoader(Vec<Looked>),
    /// The disk has a loader that only the direct road could stand for, and that road is not certain.
    #[error(
        "the disk cannot be booted. Hearth does not understand its boot loader's configuration well enough to be \
         certain of what it boots ({because}), and there is no EFI system partition with EFI/BOOT/BOOTX64.EFI from \
         which firmware could boot it"
    )]
    Refused { because: Construct },
    #[error("the disk's file system is damaged in a way that its reader did not expect")]
    Damaged,
    #[error("the disk's partition table is refused: {0}")]
    Table(String),
    #[error(
        "looking for a kernel took more than {} MiB of reads from the disk, which is all that is allowed. Its file \
         system is damaged, or has a large journal that was not replayed: run e2fsck on it",
        budget >> 20
    )]
    TooMuch { budget: u64 },
}

/// What was found in one region of a disk.
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

/// Decides how a disk boots, and reads kernel and initrd where the direct road is certain. Takes the disk by value,
/// for the file systems' readers keep it.
///
/// A monitor takes [`Road::Direct`] by loading the files, and [`Road::Firmware`] by entering firmware, which finds the
/// loader on the disk by itself. Nothing else may be booted: where neither road is open this is an error.
///
/// # Errors
/// The disk cannot be read, or neither road boots it; the error says why.
pub fn find_road(disk: impl ReadSeek + 'static) -> Result<Road<BootFiles>, FindError> {
    guarded(|| {
        let found = search(disk, BOOT_BUDGET, load)?;
        let has_efi_loader = found.has_efi_loader;
        Ok(match found.road {
            Road::Direct(files) => Road::Direct(BootFiles {
                has_efi_loader,
                ..files
            }),
            firmware => firmware,
        })
    })
}

/// What a disk boots, without the content of files.
pub(crate) struct Described {
    pub(crate) road: Road<DirectBoot>,
    pub(crate) mode: BootMode,
}

/// As [`find_road`], but reads no more than headers: the kernel is not decompressed and initrds are not read.
pub(crate) fn describe(disk: impl ReadSeek + 'static) -> Result<Described, FindError> {
    guarded(|| {
        let found = search(disk, INSPECTION_BUDGET, examine)?;
        let mode = match (&found.road, found.has_efi_loader) {
            (Road::Firmware { .. }, _) => BootMode::Uefi,
            (Road::Direct(_), true) => BootMode::UefiPreferred,
            (Road::Direct(_), false) => BootMode::LegacyBios,
        };
        Ok(Described {
            road: found.road,
            mode,
        })
    })
}

/// The parsers are other people's and meet hostile bytes: a panic in one is an answer about the disk, no reason to
/// take the process down. Nothing that was borrowed outlives it.
fn guarded<T>(look: impl FnOnce() -> Result<T, FindError>) -> Result<T, FindError> {
    catch_unwind(AssertUnwindSafe(look)).unwrap_or(Err(FindError::Damaged))
}

struct Found<T> {
    road: Road<T>,
    has_efi_loader: bool,
}

/// Takes what the direct road loads; an inner error keeps it closed.
type Take<T> = fn(Located) -> Result<T, Undecided>;

fn search<T>(disk: impl ReadSeek + 'static, budget: u64, take: Take<T>) -> Result<Found<T>, FindError> {
    let disk: SharedDisk = Rc::new(RefCell::new(MeteredDisk::new(disk, budget)));
    let found = search_volumes(&disk, take);
    // Whatever else went wrong went wrong because of it. With firmware it is a reason like others.
    let exhausted = disk.borrow().exhausted();
    match (exhausted, found) {
        (Some(budget), Err(_)) => Err(FindError::TooMuch { budget }),
        (_, found) => found,
    }
}

fn search_volumes<T>(disk: &SharedDisk, take: Take<T>) -> Result<Found<T>, FindError> {
    let regions = regions(&mut *disk.borrow_mut()).map_err(|error| match error {
        TableError::Io(error) => FindError::Io(error),
        other => FindError::Table(other.to_string()),
    })?;
    let volumes = Volumes::open(disk, regions).map_err(io_only)?;
    let loader = loaders::find(&volumes).map_err(io_only)?;
    let has_efi_loader = matches!(loader, Loader::Efi(_));
    let direct = loader
        .entry(&volumes)
        .and_then(|entry| locate(&volumes, entry))
        .and_then(take);
    let because = match direct {
        Ok(taken) => {
            return Ok(Found {
                road: Road::Direct(taken),
                has_efi_loader,
            });
        }
        Err(Undecided::Io(error)) if disk.borrow().exhausted().is_none() => return Err(FindError::Io(error)),
        Err(Undecided::Io(error)) => Construct::new("", error.to_string()),
        Err(Undecided::Because(construct)) => construct,
    };
    match loader {
        Loader::Efi(_) => Ok(Found {
            road: Road::Firmware { because },
            has_efi_loader,
        }),
        Loader::None => Err(FindError::NoLoader(looked(&volumes))),
        _ => Err(FindError::Refused { because }),
    }
}

/// Of what keeps a disk from being looked at, only failing reads come up this far.
fn io_only(error: FsError) -> FindError {
    match error {
        FsError::Io(error) => FindError::Io(error),
        other => FindError::Io(io::Error::other(other)),
    }
}

fn looked(volumes: &Volumes) -> Vec<Looked> {
    let outcome = |content: &Content| match content {
        Content::Open(volume) if volume.is_fat() => "FAT".to_owned(),
        Content::Open(_) => "ext4".to_owned(),
        Content::Nothing => "no file system that boot loaders read".to_owned(),
        Content::Unread(what) => what.clone(),
    };
    let parts = volumes.parts.iter().map(|part| Looked {
        region: part.region.name.clone(),
        outcome: shortened(outcome(&part.content)),
    });
    parts.collect()
}

/// A boot entry whose files are there.
struct Located {
    kernel: FileRef,
    initrds: Vec<FileRef>,
    cmdline: String,
}

fn locate(volumes: &Volumes, entry: BootEntry) -> Result<Located, Undecided> {
    let open = |place: &Place, limit: u64| {
        let missing = || {
            Undecided::because(
                &place.path,
                "a file that the boot entry names and that is not there",
            )
        };
        let volume = volumes.volume(place.part).ok_or_else(missing)?;
        FileRef::find(volume, &place.path, limit)?.ok_or_else(missing)
    };
    let kernel = open(&entry.kernel, MAX_KERNEL)?;
    if entry.initrds.len() > MAX_INITRDS {
        let what = format!("a boot entry with {} initrds", entry.initrds.len());
        return Err(Undecided::because(&kernel.path, what));
    }
    let mut room = MAX_INITRD;
    let mut initrds = Vec::new();
    for place in &entry.initrds {
        let file = open(place, room)?;
        room -= file.len();
        initrds.push(file);
    }
    Ok(Located {
        kernel,
        initrds,
        cmdline: entry.cmdline,
    })
}

/// Reads headers, and answers what [`load`] would load.
fn examine(located: Located) -> Result<DirectBoot, Undecided> {
    let head = examine_kernel(&located.kernel)?.map_err(|error| not_bootable(&located.kernel, &error))?;
    check_cmdline(&located, head.cmdline_size)?;
    Ok(DirectBoot {
        kernel_path: located.kernel.path,
        cmdline: located.cmdline,
        has_initrd: !located.initrds.is_empty(),
    })
}

/// Reads everything. The kernel is unpacked.
fn load(located: Located) -> Result<BootFiles, Undecided> {
    let mut kernel = Vec::new();
    located.kernel.append_to(&mut kernel)?;
    check_cmdline(&located, kernel::cmdline_size(&kernel))?;
    let kernel = unpack(kernel).map_err(|error| not_bootable(&located.kernel, &error))?;
    let mut initrd: Option<Vec<u8>> = None;
    for file in &located.initrds {
        let joined = initrd.get_or_insert_default();
        // The kernel looks for the next archive at a multiple of four.
        joined.resize(joined.len().next_multiple_of(4), 0);
        file.append_to(joined)?;
    }
    Ok(BootFiles {
        kernel_path: located.kernel.path,
        kernel,
        initrd,
        cmdline: located.cmdline,
        has_efi_loader: false,
    })
}

fn not_bootable(kernel: &FileRef, error: &UnpackError) -> Undecided {
    Undecided::because(&kernel.path, hearth_log::chain(error))
}

/// Boot loaders cut a command line that is too long for the kernel; that is not imitated.
fn check_cmdline(located: &Located, kernel_takes: usize) -> Result<(), Undecided> {
    let (len, limit) = (located.cmdline.len(), kernel_takes.min(kernel::MAX_COMMAND_LINE));
    if len > limit {
        let what = format!("a command line of {len} bytes, of which the kernel takes {limit}");
        return Err(Undecided::because(&located.kernel.path, what));
    }
    if located.cmdline.contains('\0') {
        return Err(Undecided::because(
            &located.kernel.path,
            "a command line with a NUL",
        ));
    }
    Ok(())
}

fn examine_kernel(file: &FileRef) -> Result<Result<kernel::Head, UnpackError>, FsError> {
    let mut head = [0; kernel::HEAD];
    let got = file.read_at(0, &mut head)?;
    let head = match kernel::examine(&head[..got], file.len() as usize) {
        Ok(head) => head,
        Err(error) => return Ok(Err(error)),
    };
    let Some(payload) = head.payload.clone() else {
        return Ok(Ok(head));
    };
    let (mut first, mut last) = ([0; 4], [0; 4]);
    file.read_at(payload.start as u64, &mut first)?;
    file.read_at(payload.end.saturating_sub(4).max(payload.start) as u64, &mut last)?;
    Ok(kernel::examine_payload(first, last).map(|()| head))
}
