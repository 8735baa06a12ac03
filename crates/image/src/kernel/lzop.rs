//! The file format of lzop, as Linux's `lib/decompress_unlzo.c` reads it.

use std::io;

const MAGIC: &[u8] = b"\x89LZO\0\r\n\x1a\n";
/// Bytes that a block unpacks to at most.
const MAX_BLOCK: usize = 256 << 10;
/// The first version with the level, the needed version and the upper half of the time in the header.
const VERSION: u16 = 0x0940;
const ADLER32_OF_CONTENT: u32 = 1;
const ADLER32_OF_PACKED: u32 = 2;
const CRC32_OF_CONTENT: u32 = 0x100;
const CRC32_OF_PACKED: u32 = 0x200;
const FILTER: u32 = 0x800;

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.0 = rest;
        Ok(taken)
    }

    fn be_u32(&mut self) -> io::Result<u32> {
        let bytes = self.take(4)?.first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// Skips the header and returns its flags.
    fn header(&mut self) -> io::Result<u32> {
        if self.take(MAGIC.len())? != MAGIC {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let version = self.take(2)?;
        let recent = u16::from_be_bytes([version[0], version[1]]) >= VERSION;
        // The library's version and the needed one; the method and the level.
        self.take(if recent { 6 } else { 3 })?;
        let flags = self.be_u32()?;
        if flags & FILTER != 0 {
            return Err(io::Error::other("a filter"));
        }
        // Mode and time.
        self.take(if recent { 12 } else { 8 })?;
        let name = usize::from(self.take(1)?[0]);
        self.take(name + 4)?;
        Ok(flags)
    }
}

/// Unpacks up to the capacity of `out`.
pub(super) fn unpack(packed: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut packed = Cursor(packed);
    let flags = packed.header()?;
    let count = |of: [u32; 2]| of.iter().filter(|flag| flags & **flag != 0).count() * 4;
    let of_content = count([ADLER32_OF_CONTENT, CRC32_OF_CONTENT]);
    let of_packed = count([ADLER32_OF_PACKED, CRC32_OF_PACKED]);
    let total = out.capacity();
    loop {
        let len = packed.be_u32()? as usize;
        if len == 0 {
            return Ok(());
        }
        if len > MAX_BLOCK || out.len() + len > total {
            return Err(io::Error::other("a block that is too long"));
        }
        let packed_len = packed.be_u32()? as usize;
        packed.take(of_content)?;
        if packed_len >= len {
            // Stored.
            out.extend_from_slice(packed.take(len)?);
            continue;
        }
        packed.take(of_packed)?;
        let body = packed.take(packed_len)?;
        let begin = out.len();
        out.resize(begin + len, 0);
        let got = lzo::decompress_into(body, &mut out[begin..])
            .map_err(|error| io::Error::other(error.to_string()))?;
        if got != len {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}
