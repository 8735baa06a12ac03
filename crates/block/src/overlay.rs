//! A sparse data file and a chunk map over a read-only base.

use std::fs::File;
use std::io;

use crate::Disk;

/// Why an overlay could not be created.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct CreateError {
    doing: &'static str,
    source: io::Error,
}

/// Why an overlay could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{doing}")]
    Io { doing: &'static str, source: io::Error },
}

/// What a chunk map says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverlayInfo {
    /// Bytes.
    pub size: u64,
    /// Bytes.
    pub base_size: u64,
    /// Bytes.
    pub chunk_size: u64,
    pub present_chunks: u64,
}

/// Lays an empty overlay of `size` bytes into two empty files; durable on return.
///
/// # Errors
/// Either file cannot be written.
pub fn create(data: &File, map: &File, base_size: u64, size: u64) -> Result<(), CreateError> {
    let _ = (map, base_size);
    data.set_len(size).map_err(|source| CreateError {
        doing: "setting the data file's size",
        source,
    })
}

pub struct Overlay {
    size: u64,
}

impl Overlay {
    /// # Errors
    /// A file cannot be read, or the map is not one of `data` and `base`.
    pub fn open(data: File, map: File, base: File) -> Result<Overlay, OpenError> {
        let _ = (data, map, base);
        Err(OpenError::Io {
            doing: "opening",
            source: io::ErrorKind::Unsupported.into(),
        })
    }

    /// # Errors
    /// The file cannot be read, or is no chunk map.
    pub fn inspect(map: &File) -> Result<OverlayInfo, OpenError> {
        let _ = map;
        Err(OpenError::Io {
            doing: "opening",
            source: io::ErrorKind::Unsupported.into(),
        })
    }
}

impl Disk for Overlay {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn flush(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
