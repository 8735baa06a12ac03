//! Whether a file can become an AMI: asked by UploadImage before anything is stored.

use std::io::{self, SeekFrom};

use crate::find::describe;
use crate::road::Road;
use crate::{BootMode, Construct, FindError, Format, ReadSeek, sniff};

/// A disk has whole sectors of this many bytes.
const SECTOR: u64 = 512;

/// What a disk image holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// Bytes, whole sectors.
    pub size: u64,
    pub boot_mode: BootMode,
    pub road: Road<DirectBoot>,
}

/// What the direct road boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectBoot {
    pub kernel_path: String,
    pub cmdline: String,
    pub has_initrd: bool,
}

impl ImageInfo {
    /// Why the direct road is closed, if it is.
    #[must_use]
    pub fn because(&self) -> Option<&Construct> {
        match &self.road {
            Road::Direct(_) => None,
            Road::Firmware { because } => Some(because),
        }
    }
}

/// Why a file cannot become an AMI.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("{doing} the disk image")]
    Io { doing: &'static str, source: io::Error },
    #[error("the disk image has {len} bytes, less than one sector")]
    Empty { len: u64 },
    #[error("the file is a {format}, not a raw disk; {}", .format.advice())]
    Foreign { format: Format },
    /// Says itself what was looked for.
    #[error(transparent)]
    Boot(FindError),
}

/// Recognises a raw disk that Hearth can boot, and by which road. Reads headers and the boot loader's configuration
/// only, at most 128 MiB whatever the disk says, and writes nothing.
///
/// # Errors
/// The file cannot be read, is something else than a raw disk, or nothing on it can be booted.
pub fn inspect(mut disk: impl ReadSeek + 'static) -> Result<ImageInfo, ImportError> {
    let io = |doing| move |source| ImportError::Io { doing, source };
    let len = disk.seek(SeekFrom::End(0)).map_err(io("looking at"))?;
    if len < SECTOR {
        return Err(ImportError::Empty { len });
    }
    match sniff(&mut disk).map_err(io("reading"))? {
        Format::Raw => {}
        format => return Err(ImportError::Foreign { format }),
    }
    let found = describe(disk).map_err(ImportError::Boot)?;
    Ok(ImageInfo {
        size: len - len % SECTOR,
        boot_mode: found.mode,
        road: found.road,
    })
}
