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

fn packed_by_all(content: &[u8]) -> [(&'static str, Vec<u8>); 4] {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(content).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(content).unwrap();
    let len = content.len();
    [
        ("gzip", gzip.finish().unwrap()),
        ("xz", with_size(xz.finish().unwrap(), len)),
        ("zstd", with_size(zstd::bulk::compress(content, 3).unwrap(), len)),
        ("lz4", with_size(lz4_legacy(content), len)),
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
    assert!(refused(bzimage(b"BZh91AY&SY....")).to_string().contains("bzip2"));
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
        which in 0..4usize,
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
