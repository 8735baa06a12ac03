//! What can be wrong with an overlay's files.

use std::io;

/// Which of an overlay's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Data,
    Map,
    Base,
    Dirty,
    Frozen,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Data => "data file",
            Part::Map => "chunk map",
            Part::Base => "base",
            Part::Dirty => "dirty map",
            Part::Frozen => "frozen contents",
        })
    }
}

/// Why an overlay could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error(
        "an overlay of {size} bytes is impossible: its size must be a multiple of 512, above 0 and at most 64 TiB"
    )]
    Size { size: u64 },
    #[error(
        "an overlay of {size} bytes cannot hold its base of {base_size} bytes; make it at least as large"
    )]
    BaseLarger { size: u64, base_size: u64 },
    #[error("a chunk of {chunk_size} bytes is impossible: it must be a power of two from 4 KiB to 16 MiB")]
    ChunkSize { chunk_size: u64 },
    #[error("{doing} the overlay's {part}")]
    Io {
        doing: &'static str,
        part: Part,
        source: io::Error,
    },
}

/// Why an overlay could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{doing} the overlay's {part}")]
    Io {
        doing: &'static str,
        part: Part,
        source: io::Error,
    },
    #[error("the file is no chunk map of an overlay, or its creation was cut short (no magic at its start)")]
    Magic,
    #[error(
        "the chunk map has format version {found}, and this program knows versions up to {known}; use a newer one"
    )]
    Version { found: u32, known: u32 },
    #[error("the chunk map's header is damaged (checksum {found:#010x}, computed {computed:#010x})")]
    Checksum { found: u32, computed: u32 },
    #[error(
        "the chunk map's header names impossible sizes ({size} bytes in chunks of {chunk_size} over {base_size})"
    )]
    Geometry {
        size: u64,
        base_size: u64,
        chunk_size: u64,
    },
    #[error("the overlay's {part} has {found} bytes, but its chunk map says {expected}")]
    Length { part: Part, found: u64, expected: u64 },
    #[error("the overlay is open in another process")]
    Busy,
}
