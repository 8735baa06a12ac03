//! From a kernel file to a bootable ELF, on the host: cheaper than letting the guest decompress itself.
//!
//! A bzImage is real-mode setup code followed by a protected-mode part, in which the compressed ELF lies at
//! `payload_offset` (Linux's `Documentation/arch/x86/boot.rst`). This runs at each launch, so every payload is
//! decoded in one pass into a vector of the final size.

use std::io::{self, Read};
use std::ops::Range;

use crate::bytes::le_u32;

mod lzop;
#[cfg(test)]
mod tests;

/// Bytes. A kernel with all its debug information is smaller.
const MAX_KERNEL: usize = 512 << 20;
/// Bytes that the xz decoder may take; the kernel's own build uses dictionaries up to 128 MiB.
const XZ_MEMORY: u64 = 256 << 20;
/// Bytes of output per block of a legacy lz4 frame.
const LZ4_BLOCK: usize = 8 << 20;

/// Offsets in the setup header.
const SETUP_SECTS: usize = 0x1f1;
const HEADER_MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const XLOADFLAGS: usize = 0x236;
const CMDLINE_SIZE: usize = 0x238;
/// The kernel can be entered in 64-bit mode (in `xloadflags`, since protocol 2.12).
const XLF_KERNEL_64: u8 = 1;

/// Bytes of a command line that Linux on x86 and the monitor take (`COMMAND_LINE_SIZE` without the NUL).
pub const MAX_COMMAND_LINE: usize = 2047;

/// Bytes at the start of a kernel file that [`examine`] looks at.
pub(crate) const HEAD: usize = PAYLOAD_LENGTH + 4;

/// Why a file cannot be booted as a kernel.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("the kernel is neither an ELF file nor a bzImage")]
    Unknown,
    #[error("the kernel is an ELF file, but not one for x86-64")]
    NotX86,
    #[error("the bzImage speaks boot protocol {major}.{minor:02}, and a payload can be found from 2.08 on")]
    Protocol { major: u8, minor: u8 },
    #[error("the bzImage is cut short: its payload ends at byte {end}, the file at {len}")]
    Short { end: u64, len: usize },
    #[error("the bzImage's payload begins with no compressor's magic ({0:02x?})")]
    NoMagic([u8; 4]),
    #[error("the kernel has {0} bytes unpacked, more than the {MAX_KERNEL} that are allowed")]
    TooLarge(usize),
    #[error("decompressing the kernel ({0})")]
    Decompress(&'static str, #[source] io::Error),
    #[error("the kernel's payload has {found} bytes, but says that it has {expected}")]
    Length { found: usize, expected: usize },
    #[error("the bzImage's payload is no ELF file for x86-64")]
    Payload,
    #[error("the bzImage is a 32-bit kernel")]
    Kernel32,
}

/// Unpacks a bzImage; an ELF file passes as it is.
///
/// # Errors
/// It is neither, or not for x86-64, or damaged.
pub fn unpack(kernel: Vec<u8>) -> Result<Vec<u8>, UnpackError> {
    if kernel.starts_with(b"\x7fELF") {
        return if is_x86_64(&kernel) {
            Ok(kernel)
        } else {
            Err(UnpackError::NotX86)
        };
    }
    let range = payload_range(&kernel, kernel.len())?;
    let elf = decompress(kernel.get(range).unwrap_or_default())?;
    if is_x86_64(&elf) {
        Ok(elf)
    } else {
        Err(UnpackError::Payload)
    }
}

/// Whether it starts like a bzImage.
pub(crate) fn is_bzimage(head: &[u8]) -> bool {
    head.get(HEADER_MAGIC..HEADER_MAGIC + 4) == Some(b"HdrS")
}

/// 64-bit, little-endian, machine 62, executable or shared object (the ELF specification's e_ident, e_type, e_machine).
fn is_x86_64(elf: &[u8]) -> bool {
    elf.len() >= 64
        && elf.starts_with(b"\x7fELF\x02\x01")
        && matches!(elf.get(16..20), Some([2 | 3, 0, 62, 0]))
}

/// What a kernel's headers tell.
pub(crate) struct Head {
    /// Where a bzImage's payload lies, which [`examine_payload`] takes; none for an ELF file.
    pub(crate) payload: Option<Range<usize>>,
    /// Bytes of a command line that it takes.
    pub(crate) cmdline_size: usize,
}

/// Bytes of a command line that a kernel takes, by its first [`HEAD`] bytes. ELF files do not tell.
pub(crate) fn cmdline_size(head: &[u8]) -> usize {
    if is_bzimage(head) && head.len() >= HEAD {
        le_u32(head, CMDLINE_SIZE) as usize
    } else {
        MAX_COMMAND_LINE
    }
}

/// What [`unpack`] would say of a kernel, as far as its headers tell: nothing is decompressed. `head` is the first
/// [`HEAD`] bytes of the file and `len` its length.
pub(crate) fn examine(head: &[u8], len: usize) -> Result<Head, UnpackError> {
    if head.starts_with(b"\x7fELF") {
        return if is_x86_64(head) {
            Ok(Head {
                payload: None,
                cmdline_size: cmdline_size(head),
            })
        } else {
            Err(UnpackError::NotX86)
        };
    }
    let range = payload_range(head, len)?;
    let version = (head[VERSION + 1], head[VERSION]);
    if version >= (2, 12) && head[XLOADFLAGS] & XLF_KERNEL_64 == 0 {
        return Err(UnpackError::Kernel32);
    }
    Ok(Head {
        payload: Some(range),
        cmdline_size: cmdline_size(head),
    })
}

/// As [`examine`], of the first and the last four bytes of a payload.
pub(crate) fn examine_payload(first: [u8; 4], last: [u8; 4]) -> Result<(), UnpackError> {
    compressor(first)?;
    unpacked_size(last).map(drop)
}

/// The bytes of a bzImage of `len` bytes in which the compressed kernel lies. `head` is at least its first [`HEAD`] bytes.
fn payload_range(head: &[u8], len: usize) -> Result<Range<usize>, UnpackError> {
    if !is_bzimage(head) {
        return Err(UnpackError::Unknown);
    }
    let short = |end: u64| UnpackError::Short { end, len };
    let header = head.get(..HEAD).ok_or_else(|| short(HEAD as u64))?;
    let (minor, major) = (header[VERSION], header[VERSION + 1]);
    if (major, minor) < (2, 8) {
        return Err(UnpackError::Protocol { major, minor });
    }
    // Zero stands for four, for the sake of very old kernels.
    let setup_sects = match header[SETUP_SECTS] {
        0 => 4,
        sects => u64::from(sects),
    };
    let offset = u64::from(le_u32(header, PAYLOAD_OFFSET));
    let length = u64::from(le_u32(header, PAYLOAD_LENGTH));
    let start = (setup_sects + 1) * 512 + offset;
    let end = start + length;
    if end > len as u64 {
        return Err(short(end));
    }
    Ok(start as usize..end as usize)
}

#[derive(Debug, Clone, Copy)]
enum Compressor {
    Gzip,
    Xz,
    Zstd,
    Lz4,
    Lzma,
    Lzo,
    Bzip2,
}

fn compressor(magic: [u8; 4]) -> Result<Compressor, UnpackError> {
    match magic {
        [0x1f, 0x8b, ..] => Ok(Compressor::Gzip),
        [0xfd, b'7', b'z', b'X'] => Ok(Compressor::Xz),
        [0x28, 0xb5, 0x2f, 0xfd] => Ok(Compressor::Zstd),
        [0x02, 0x21, 0x4c, 0x18] => Ok(Compressor::Lz4),
        [0x5d, 0, 0, _] => Ok(Compressor::Lzma),
        [0x89, b'L', b'Z', b'O'] => Ok(Compressor::Lzo),
        [b'B', b'Z', b'h', _] => Ok(Compressor::Bzip2),
        other => Err(UnpackError::NoMagic(other)),
    }
}

/// Bytes. Gzip puts its content's size behind it; for the other compressors the kernel's build does.
fn unpacked_size(last: [u8; 4]) -> Result<usize, UnpackError> {
    let size = u32::from_le_bytes(last) as usize;
    if size > MAX_KERNEL {
        return Err(UnpackError::TooLarge(size));
    }
    Ok(size)
}

fn decompress(payload: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let (Some(first), Some((body, last))) = (payload.first_chunk(), payload.split_last_chunk()) else {
        return Err(UnpackError::NoMagic([0; 4]));
    };
    let compressor = compressor(*first)?;
    let expected = unpacked_size(*last)?;
    let mut elf = Vec::with_capacity(expected);
    let (name, decoded) = match compressor {
        Compressor::Gzip => ("gzip", drain(flate2::bufread::GzDecoder::new(payload), &mut elf)),
        Compressor::Xz => ("xz", unpack_xz(body, &mut elf)),
        Compressor::Zstd => ("zstd", unpack_zstd(body, &mut elf)),
        Compressor::Lz4 => ("lz4", unpack_lz4(body.get(4..).unwrap_or_default(), &mut elf)),
        Compressor::Lzma => ("lzma", unpack_lzma(body, &mut elf)),
        Compressor::Lzo => ("lzo", lzop::unpack(body, &mut elf)),
        Compressor::Bzip2 => ("bzip2", drain(bzip2::bufread::BzDecoder::new(body), &mut elf)),
    };
    decoded.map_err(|e| UnpackError::Decompress(name, e))?;
    if elf.len() != expected {
        return Err(UnpackError::Length {
            found: elf.len(),
            expected,
        });
    }
    Ok(elf)
}

/// Fills `out` up to its capacity and looks whether there is more: the length check then fails.
fn drain(decoder: impl Read, out: &mut Vec<u8>) -> io::Result<()> {
    let limit = out.capacity() as u64 + 1;
    decoder.take(limit).read_to_end(out).map(drop)
}

fn unpack_xz(body: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0)?;
    drain(liblzma::bufread::XzDecoder::new_stream(body, stream), out)
}

/// The format of LZMA Utils, without a checksum.
fn unpack_lzma(body: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let stream = liblzma::stream::Stream::new_lzma_decoder(XZ_MEMORY)?;
    drain(liblzma::bufread::XzDecoder::new_stream(body, stream), out)
}

/// Straight into `out`: no window, no copy.
fn unpack_zstd(body: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    zstd::bulk::Decompressor::new()?
        .decompress_to_buffer(body, out)
        .map(drop)
}

/// A legacy frame: blocks of 8 MiB, each behind its compressed length.
fn unpack_lz4(mut blocks: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let total = out.capacity();
    out.resize(total, 0);
    let mut done = 0;
    while let Some((length, rest)) = blocks.split_first_chunk() {
        let length = u32::from_le_bytes(*length) as usize;
        let (block, rest) = rest
            .split_at_checked(length)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let space = &mut out[done..total.min(done + LZ4_BLOCK)];
        done += lz4_flex::block::decompress_into(block, space).map_err(io::Error::other)?;
        blocks = rest;
    }
    out.truncate(done);
    Ok(())
}
