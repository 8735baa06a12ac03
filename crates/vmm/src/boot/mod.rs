//! From kernel, initrd and command line to a guest that can be entered.
//!
//! We enter an ELF kernel by Linux's 64-bit boot protocol. Every x86-64 kernel has that entry, whether or
//! not it was built with PVH, and it starts in long mode: PVH's 32-bit prologue, which only builds these
//! page tables again, is saved. What the kernel file says about addresses is a stranger's word: a segment
//! that does not fit into RAM, or that would overwrite the low megabyte, is refused.
//!
//! Where it is not certain what a disk's loader boots, a UEFI [`firmware`] is entered in place of a kernel, and runs that
//! loader.

pub mod firmware;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod fuzz;
mod params;
pub mod tables;

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use hearth_block::{Disk, DiskReader};
use hearth_image::{Construct, Road};
use linux_loader::loader::{Elf, KernelLoader};
use vm_memory::{Bytes, GuestAddress, ReadVolatile};

use crate::memory::release::release;
use crate::memory::{GuestMemory, Layout, MIB, advise_huge_pages};
use hearth_log::chain;

/// Linux reads at most this many bytes of command line on x86 (`COMMAND_LINE_SIZE`), the NUL included.
pub const COMMAND_LINE_SIZE: usize = hearth_image::kernel::MAX_COMMAND_LINE + 1;
/// Kernels without `XLF_CAN_BE_LOADED_ABOVE_4G` want their initrd below this.
const INITRD_LIMIT: u64 = 0x8000_0000;
/// Larger kernel files are refused before they are read.
const KERNEL_FILE_LIMIT: u64 = 512 * MIB;
const PAGE: u64 = 4096;
/// The low megabyte belongs to firmware tables and to what we put there.
const FIRST_KERNEL_ADDRESS: u64 = MIB;
/// Where x86-64 kernels are linked to be (`CONFIG_PHYSICAL_START`), and about as large as they are. Faulting
/// in thousands of small pages takes longer than reading the file.
const USUAL_KERNEL_ADDRESS: u64 = 16 * MIB;
const USUAL_KERNEL_SIZE: u64 = 12 * MIB;
const HUGE_PAGE: u64 = 2 * MIB;
const ELF_MAGIC: &[u8; 4] = b"\x7fELF";

#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("finding a kernel on the root disk")]
    Find(#[source] hearth_image::FindError),
    #[error(
        "the root disk boots by its own loader from firmware only ({0}), and the machine has no firmware: its host has none, \
         or the boot mode of its AMI is legacy-bios"
    )]
    NeedsFirmware(Construct),
    #[error("reading the {what}")]
    Read {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("unpacking the kernel")]
    Unpack(#[source] hearth_image::kernel::UnpackError),
    #[error("loading the kernel: {0}")]
    Load(linux_loader::loader::Error),
    #[error("the kernel ends at {end:#x}, beyond the {ram:#x} bytes of low RAM")]
    KernelTooLarge { end: u64, ram: u64 },
    #[error(
        "the initrd of {size} bytes does not fit between the kernel's end at {kernel_end:#x} and {limit:#x}"
    )]
    InitrdTooLarge { size: u64, kernel_end: u64, limit: u64 },
    #[error("the command line has {0} bytes; Linux takes {max}", max = COMMAND_LINE_SIZE - 1)]
    CommandLineTooLong(usize),
    #[error("loading the firmware")]
    Firmware(#[from] firmware::FirmwareError),
    #[error("clearing guest memory")]
    Clear(#[source] io::Error),
    #[error("writing boot parameters into guest memory")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

/// What to boot, opened but not read.
#[derive(Clone)]
pub enum Source {
    /// The kernel that the disk's boot loader boots; where that is not certain, or it cannot be loaded, the firmware runs the
    /// disk's EFI boot loader.
    Disk {
        disk: Arc<dyn Disk>,
        firmware: Option<Arc<File>>,
    },
    /// Whatever the disks' EFI loaders do.
    Firmware(Arc<File>),
    Files {
        kernel: Arc<File>,
        initrd: Option<Arc<File>>,
        cmdline: String,
    },
}

/// Where the boot processor starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Linux {
        /// Guest physical address of the kernel's 64-bit entry.
        address: u64,
        /// Guest physical address of `struct boot_params`.
        boot_params: u64,
    },
    Firmware {
        /// Guest physical address of the 32-bit PVH entry.
        address: u32,
        /// Guest physical address of `struct hvm_start_info`.
        start_info: u32,
    },
}

/// Puts kernel, initrd, command line and tables, or the firmware, into fresh guest memory.
///
/// # Errors
/// See [`BootError`]; the memory is then to be thrown away.
pub fn load(source: &Source, layout: &Layout, memory: &GuestMemory) -> Result<Entry, BootError> {
    let read_error = |what| move |source| BootError::Read { what, source };
    match source {
        Source::Disk { disk, firmware } => load_from_disk(disk, firmware.as_deref(), layout, memory),
        Source::Firmware(file) => firmware::load(file, layout, memory),
        Source::Files {
            kernel,
            initrd,
            cmdline,
        } => {
            let initrd = match initrd.as_deref() {
                Some(mut file) => {
                    let size = file.metadata().map_err(read_error("initrd"))?.len();
                    file.seek(SeekFrom::Start(0)).map_err(read_error("initrd"))?;
                    Some((file, size))
                }
                None => None,
            };
            if is_elf(kernel).map_err(read_error("kernel"))? {
                return place(kernel.as_ref(), initrd, cmdline, layout, memory);
            }
            let packed = read_all(kernel).map_err(read_error("kernel"))?;
            let kernel = hearth_image::kernel::unpack(packed).map_err(BootError::Unpack)?;
            place(Cursor::new(kernel), initrd, cmdline, layout, memory)
        }
    }
}

/// Enters the disk's kernel where what its loader boots is certain, and the firmware where it is not, or where the kernel
/// cannot be loaded and the disk has an EFI boot loader.
fn load_from_disk(
    disk: &Arc<dyn Disk>,
    firmware: Option<&File>,
    layout: &Layout,
    memory: &GuestMemory,
) -> Result<Entry, BootError> {
    let road = hearth_image::find_road(DiskReader::new(Arc::clone(disk))).map_err(BootError::Find)?;
    let (because, firmware) = match (road, firmware) {
        (Road::Direct(files), firmware) => {
            let initrd = files.initrd.as_deref();
            let kernel = Cursor::new(files.kernel);
            let initrd = initrd.map(|bytes| (bytes, bytes.len() as u64));
            match (place(kernel, initrd, &files.cmdline, layout, memory), firmware) {
                (Err(error), Some(firmware)) if files.has_efi_loader => (chain(&error), firmware),
                (placed, _) => return placed,
            }
        }
        (Road::Firmware { because }, Some(firmware)) => (because.to_string(), firmware),
        (Road::Firmware { because }, None) => return Err(BootError::NeedsFirmware(because)),
    };
    tracing::info!(because, "booting by firmware");
    clear(memory).map_err(BootError::Clear)?;
    firmware::load(firmware, layout, memory)
}

/// Makes memory zero again that a kernel was loaded into and that no guest has run in.
fn clear(memory: &GuestMemory) -> io::Result<()> {
    release(memory, GuestAddress(0), u64::MAX)?;
    Ok(())
}

fn place<K, I>(
    mut kernel: K,
    initrd: Option<(I, u64)>,
    cmdline: &str,
    layout: &Layout,
    memory: &GuestMemory,
) -> Result<Entry, BootError>
where
    K: Read + ReadVolatile + Seek,
    I: ReadVolatile,
{
    let ram = layout.low_ram_end();
    let size = kernel.seek(SeekFrom::End(0)).map_err(|source| BootError::Read {
        what: "kernel",
        source,
    })?;
    // None that it would not fill: one takes as long to clear as hundreds of small ones.
    let huge = size.min(USUAL_KERNEL_SIZE).min(ram / 4) / HUGE_PAGE * HUGE_PAGE;
    if huge > 0 {
        advise_huge_pages(memory, USUAL_KERNEL_ADDRESS, huge);
    }
    let lowest = Some(GuestAddress(FIRST_KERNEL_ADDRESS));
    let loaded = Elf::load(memory, None, &mut kernel, lowest).map_err(BootError::Load)?;
    if loaded.kernel_end > ram {
        let end = loaded.kernel_end;
        return Err(BootError::KernelTooLarge { end, ram });
    }
    let initrd = match initrd {
        Some((mut bytes, size)) => {
            let address = initrd_address(size, loaded.kernel_end, ram)?;
            memory.read_exact_volatile_from(
                GuestAddress(address),
                &mut bytes,
                usize::try_from(size).unwrap_or(usize::MAX),
            )?;
            Some((address, size))
        }
        None => None,
    };
    // After the kernel: what its segments put into the low megabyte is overwritten.
    tables::write(memory)?;
    let boot_params = params::write(memory, layout, cmdline, initrd)?;
    Ok(Entry::Linux {
        address: loaded.kernel_load.0,
        boot_params,
    })
}

/// As high as low RAM goes, out of the way of a kernel that unpacks itself upwards.
fn initrd_address(size: u64, kernel_end: u64, ram: u64) -> Result<u64, BootError> {
    let limit = ram.min(INITRD_LIMIT);
    limit
        .checked_sub(size)
        .map(|address| address & !(PAGE - 1))
        .filter(|&address| address >= kernel_end.max(FIRST_KERNEL_ADDRESS))
        .ok_or(BootError::InitrdTooLarge {
            size,
            kernel_end,
            limit,
        })
}

fn is_elf(kernel: &File) -> io::Result<bool> {
    let mut magic = [0; 4];
    kernel.read_exact_at(&mut magic, 0)?;
    Ok(&magic == ELF_MAGIC)
}

fn read_all(mut file: &File) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(KERNEL_FILE_LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
