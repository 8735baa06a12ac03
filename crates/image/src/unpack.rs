//! The raw disk that a file of another format holds, told piece by piece.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;

use imago::qcow2::Qcow2;
use imago::{FormatAccess, Mapping};

use crate::format::VHD_FOOTER;
use crate::{Format, is_zero, sniff};

/// Bytes of the largest piece.
pub const PIECE: usize = 1 << 20;

/// Takes data at an offset, or none. Offsets grow, and what is skipped is zero.
pub trait Sink {
    /// # Errors
    /// Nobody wants more of it.
    fn take(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;
}

/// Why a file holds no disk that can be used.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("reading the {format}")]
    Read { format: Format, source: io::Error },
    #[error("handing on what the file holds")]
    Give(#[source] io::Error),
    #[error("it holds more than may be: {size} bytes of {most}")]
    TooLarge { size: u64, most: u64 },
    #[error("the file is a {0}; {advice}", advice = .0.advice())]
    Foreign(Format),
    #[error(
        "the qcow2 image is an overlay of '{0}', which is not in it. Flatten it first: qemu-img convert -O qcow2 IN OUT"
    )]
    Backed(String),
    #[error(
        "the qcow2 image keeps its data in a file of its own. Flatten it first: qemu-img convert -O qcow2 IN OUT"
    )]
    ExternalData,
    #[error(
        "the qcow2 image is encrypted. Decrypt it first, with its key: qemu-img convert --image-opts --object secret,... OUT"
    )]
    Encrypted,
    #[error(
        "the VHD image is a dynamic one, and only fixed ones are read. Convert it first: qemu-img convert -f vpc -O qcow2 IN \
         OUT"
    )]
    DynamicVhd,
}

impl Format {
    /// Whether [`unpack`] reads it.
    #[must_use]
    pub fn can_be_unpacked(self) -> bool {
        self.is_compression() || matches!(self, Format::Qcow2 | Format::Vhd)
    }

    /// Whether it may hold a disk of any format.
    #[must_use]
    pub fn is_compression(self) -> bool {
        matches!(self, Format::Gzip | Format::Xz | Format::Zstd | Format::Bzip2)
    }
}

/// Reads a file of another format than raw to its end, and answers how many bytes the disk in it has, which are at most `most`.
/// What a compressed
/// file holds is told as it is, and may be of any format.
///
/// # Errors
/// The file is damaged, needs other files, or is none that is read; or nobody takes what it holds.
pub fn unpack(mut file: File, most: u64, sink: &mut dyn Sink) -> Result<u64, UnpackError> {
    let format = sniff(&mut file).map_err(|source| UnpackError::Read {
        format: Format::Raw,
        source,
    })?;
    let read = |source| UnpackError::Read { format, source };
    file.seek(SeekFrom::Start(0)).map_err(read)?;
    match format {
        Format::Qcow2 => qcow2(file, most, sink),
        Format::Vhd => vhd(file, most, sink),
        Format::Gzip => stream(
            flate2::bufread::MultiGzDecoder::new(buffered(file)),
            (format, most),
            sink,
        ),
        Format::Xz => stream(
            liblzma::bufread::XzDecoder::new_multi_decoder(buffered(file)),
            (format, most),
            sink,
        ),
        Format::Bzip2 => stream(
            bzip2::bufread::MultiBzDecoder::new(buffered(file)),
            (format, most),
            sink,
        ),
        Format::Zstd => {
            let decoder = zstd::Decoder::with_buffer(buffered(file)).map_err(read)?;
            stream(decoder, (format, most), sink)
        }
        format => Err(UnpackError::Foreign(format)),
    }
}

fn buffered(file: File) -> BufReader<File> {
    BufReader::with_capacity(PIECE, file)
}

/// Zeros are told as well, without bytes: whoever waits sees that it goes on.
fn give(sink: &mut dyn Sink, offset: u64, data: &[u8]) -> Result<(), UnpackError> {
    let told = match is_zero(data) {
        true => &[],
        false => data,
    };
    sink.take(offset, told).map_err(UnpackError::Give)
}

fn fits(size: u64, most: u64) -> Result<(), UnpackError> {
    match size <= most {
        true => Ok(()),
        false => Err(UnpackError::TooLarge { size, most }),
    }
}

fn stream(
    mut from: impl Read,
    (format, most): (Format, u64),
    sink: &mut dyn Sink,
) -> Result<u64, UnpackError> {
    let mut piece = vec![0; PIECE];
    let (mut offset, mut filled) = (0, 0);
    loop {
        let came = from
            .read(&mut piece[filled..])
            .map_err(|source| UnpackError::Read { format, source })?;
        filled += came;
        if came == 0 || filled == PIECE {
            fits(offset + filled as u64, most)?;
            give(sink, offset, &piece[..filled])?;
            offset += filled as u64;
            filled = 0;
        }
        if came == 0 {
            return Ok(offset);
        }
    }
}

/// A fixed VHD is a raw disk with a footer; a dynamic one begins with a copy of the footer.
fn vhd(mut file: File, most: u64, sink: &mut dyn Sink) -> Result<u64, UnpackError> {
    let read = |source| UnpackError::Read {
        format: Format::Vhd,
        source,
    };
    let mut head = [0; 8];
    file.read_exact(&mut head).map_err(read)?;
    if &head == b"conectix" {
        return Err(UnpackError::DynamicVhd);
    }
    let end = file.seek(SeekFrom::End(0)).map_err(read)?;
    file.seek(SeekFrom::Start(0)).map_err(read)?;
    stream(
        file.take(end.saturating_sub(VHD_FOOTER)),
        (Format::Vhd, most),
        sink,
    )
}

/// Bytes into a qcow2 image where the number of its encryption stands, 32 bits, big-endian; 0: none.
/// <https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.rst>, "Header".
const CRYPT_METHOD: u64 = 32;

fn qcow2(file: File, most: u64, sink: &mut dyn Sink) -> Result<u64, UnpackError> {
    let read = |source| UnpackError::Read {
        format: Format::Qcow2,
        source,
    };
    let mut method = [0; 4];
    file.read_exact_at(&mut method, CRYPT_METHOD).map_err(read)?;
    // The library takes ciphertext for data.
    if method != [0; 4] {
        return Err(UnpackError::Encrypted);
    }
    let file = imago::file::File::try_from(file).map_err(read)?;
    let image = Qcow2::<imago::file::File>::open_image(file, false).map_err(read)?;
    if let Some(backing) = image.implicit_backing_file() {
        return Err(UnpackError::Backed(backing.chars().take(200).collect()));
    }
    if image.requires_external_data_file() {
        return Err(UnpackError::ExternalData);
    }
    let disk = FormatAccess::new(image);
    fits(disk.size(), most)?;
    let mut piece = vec![0; PIECE];
    let mut offset = 0;
    while offset < disk.size() {
        let left = disk.size() - offset;
        let (mapping, length) = disk.get_mapping(offset, left).map_err(read)?;
        let length = length.min(left);
        match mapping {
            _ if length == 0 => {
                let source = io::Error::new(io::ErrorKind::UnexpectedEof, "its clusters end before its size");
                return Err(read(source));
            }
            Mapping::Zero { .. } => {}
            _ => {
                let mut at = offset;
                while at < offset + length {
                    let part = usize::try_from(offset + length - at).unwrap_or(PIECE).min(PIECE);
                    disk.read(&mut piece[..part], at).map_err(read)?;
                    give(sink, at, &piece[..part])?;
                    at += part as u64;
                }
            }
        }
        offset += length;
    }
    Ok(disk.size())
}
