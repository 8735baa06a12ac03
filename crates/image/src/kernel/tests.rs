use std::io::Write;

use proptest::prelude::*;

use super::*;

/// An ELF header for x86-64 and some text that compresses.
pub(crate) fn elf(len: usize) -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0".to_vec();
    elf.extend((elf.len()..len).map(|i| (i / 64 * 31 % 251) as u8));
    elf
}

fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 2 * 512];
    image[SETUP_SECTS] = 1;
    image[HEADER_MAGIC..][..4].copy_from_slice(b"HdrS");
    image[VERSION..][..2].copy_from_slice(&0x020f_u16.to_le_bytes());
    image[PAYLOAD_OFFSET..][..4].copy_from_slice(&32_u32.to_le_bytes());
    image[PAYLOAD_LENGTH..][..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    image.extend([0x90; 32]);
    image.extend(payload);
    image.extend(b"what lies behind the payload");
    image
}

fn with_size(mut packed: Vec<u8>, size: usize) -> Vec<u8> {
    packed.extend((size as u32).to_le_bytes());
    packed
}

fn lz4_legacy(content: &[u8]) -> Vec<u8> {
    let mut packed = 0x184c_2102_u32.to_le_bytes().to_vec();
    for block in content.chunks(LZ4_BLOCK) {
        let block = lz4_flex::block::compress(block);
        packed.extend((block.len() as u32).to_le_bytes());
        packed.extend(block);
    }
    packed
}

/// As `lzop` stores what does not get smaller. The corpus of the fuzz target has what it packed.
fn lzop(content: &[u8]) -> Vec<u8> {
    let mut packed = b"\x89LZO\0\r\n\x1a\n".to_vec();
    // Version, library, needed version, method, level, flags (Adler-32 of the content), mode, times, no name, checksum.
    packed.extend([0x10, 0x40, 0x20, 0xa0, 0x09, 0x40, 3, 9, 3, 0, 0, 1]);
    packed.extend([0; 4 + 4 + 4 + 1 + 4]);
    for block in content.chunks(256 << 10) {
        packed.extend((block.len() as u32).to_be_bytes());
        packed.extend((block.len() as u32).to_be_bytes());
        packed.extend([0; 4]);
        packed.extend(block);
    }
    packed.extend([0; 4]);
    packed
}

fn packed_by_all(content: &[u8]) -> [(&'static str, Vec<u8>); 7] {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(content).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(content).unwrap();
    let len = content.len();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(content).unwrap();
    let options = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
    let lzma = liblzma::stream::Stream::new_lzma_encoder(&options).unwrap();
    let mut lzma = liblzma::write::XzEncoder::new_stream(Vec::new(), lzma);
    lzma.write_all(content).unwrap();
    [
        ("gzip", gzip.finish().unwrap()),
        ("xz", with_size(xz.finish().unwrap(), len)),
        ("zstd", with_size(zstd::bulk::compress(content, 3).unwrap(), len)),
        ("lz4", with_size(lz4_legacy(content), len)),
        ("bzip2", with_size(bzip2.finish().unwrap(), len)),
        ("lzma", with_size(lzma.finish().unwrap(), len)),
        ("lzo", with_size(lzop(content), len)),
    ]
}

#[test]
fn a_payload_of_a_few_bytes_is_refused() {
    for (name, payload) in packed_by_all(&elf(1000)) {
        for len in 0..8 {
            let image = bzimage(&payload[..len]);
            assert!(unpack(image).is_err(), "{len} bytes of {name}");
        }
    }
}

#[test]
fn every_compressor_gives_the_elf_back() {
    // More than one block of lz4.
    let elf = elf(LZ4_BLOCK + 12_345);
    for (name, payload) in packed_by_all(&elf) {
        assert!(unpack(bzimage(&payload)).unwrap() == elf, "{name}");
    }
    assert!(unpack(elf.clone()).unwrap() == elf);
}

/// Packed by lzop, LZMA Utils and bzip2 themselves.
#[test]
fn what_other_tools_packed_is_unpacked() {
    for name in ["lzo", "lzma", "bzip2"] {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/kernel_image");
        let image = std::fs::read(format!("{corpus}/{name}")).unwrap();
        assert!(unpack(image).unwrap() == elf(3000), "{name}");
    }
}

#[test]
fn a_size_that_lies_is_refused() {
    let elf = elf(100_000);
    for (name, mut payload) in packed_by_all(&elf) {
        for (lie, too_large) in [
            (99_999_u32, false),
            (100_001, false),
            (0, false),
            (u32::MAX, true),
        ] {
            let at = payload.len() - 4;
            payload[at..].copy_from_slice(&lie.to_le_bytes());
            match unpack(bzimage(&payload)).unwrap_err() {
                UnpackError::TooLarge(_) => assert!(too_large, "{name} {lie}"),
                UnpackError::Decompress(..) | UnpackError::Length { .. } => {
                    assert!(!too_large, "{name} {lie}")
                }
                other => panic!("{name} {lie}: {other}"),
            }
        }
    }
}

#[test]
fn what_cannot_be_booted_is_named() {
    let refused = |kernel: Vec<u8>| unpack(kernel).unwrap_err();
    assert!(matches!(refused(Vec::new()), UnpackError::Unknown));
    assert!(matches!(refused(b"#!/bin/sh\n".to_vec()), UnpackError::Unknown));
    let mut arm = elf(100);
    arm[18] = 183;
    assert!(matches!(refused(arm.clone()), UnpackError::NotX86));
    let payload = with_size(zstd::bulk::compress(&arm, 3).unwrap(), arm.len());
    assert!(matches!(refused(bzimage(&payload)), UnpackError::Payload));
    let mut old = bzimage(b"....");
    old[VERSION..][..2].copy_from_slice(&0x0207_u16.to_le_bytes());
    assert!(refused(old).to_string().contains("2.07"));
    let mut cut = bzimage(&payload);
    cut.truncate(1024 + 32 + payload.len() - 1);
    assert!(matches!(refused(cut), UnpackError::Short { .. }));
}

proptest! {
    #[test]
    fn mutated_kernels_never_panic(
        which in 0..7usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut image = bzimage(&packed_by_all(&elf(3000))[which].1);
        for (at, byte) in changes {
            let at = at.index(image.len());
            image[at] = byte;
        }
        image.truncate(cut.index(image.len()).max(300));
        let _ = unpack(image);
    }
}
