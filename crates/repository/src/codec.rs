//! A chunk as it is stored: one byte that says how, then its bytes.

use bytes::Bytes;

use crate::CHUNK;
use crate::name::Id;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// Several hundred MiB per second and core, at most of what higher levels save.
const LEVEL: i32 = 1;
/// What compression must save to be worth undoing.
const WORTH: usize = CHUNK / 16;

pub(crate) fn encode_chunk(chunk: &[u8]) -> Bytes {
    let stored = |how: u8, bytes: &[u8]| {
        let mut stored = Vec::with_capacity(bytes.len() + 1);
        stored.push(how);
        stored.extend_from_slice(bytes);
        Bytes::from(stored)
    };
    match zstd::bulk::compress(chunk, LEVEL) {
        Ok(small) if small.len() + WORTH <= chunk.len() => stored(ZSTD, &small),
        _ => stored(PLAIN, chunk),
    }
}

/// What was stored is read as hostile: it never becomes larger than a chunk, and is what its name says or an error.
pub(crate) fn decode_chunk(id: Id, stored: &Bytes) -> Result<Bytes, String> {
    let chunk = match stored.first() {
        Some(&PLAIN) => stored.slice(1..),
        Some(&ZSTD) => match zstd::bulk::decompress(&stored[1..], CHUNK) {
            Ok(chunk) => chunk.into(),
            Err(error) => return Err(format!("it cannot be decompressed: {error}")),
        },
        Some(how) => return Err(format!("it is stored in the unknown way {how}")),
        None => return Err("it is empty".to_owned()),
    };
    if chunk.len() != CHUNK || Id::of_chunk(&chunk) != id {
        return Err("its bytes are not those of its name".to_owned());
    }
    Ok(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_back_and_a_flipped_bit_does_not() {
        let mut noise = vec![0; CHUNK];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        for (chunk, is_small) in [(noise, false), (vec![7; CHUNK], true)] {
            let (id, stored) = (Id::of_chunk(&chunk), encode_chunk(&chunk));
            assert_eq!(stored.len() < CHUNK / 2, is_small);
            assert_eq!(decode_chunk(id, &stored).unwrap(), chunk);
            for at in [0, 1, stored.len() / 2, stored.len() - 1] {
                let mut flipped = stored.to_vec();
                flipped[at] ^= 1;
                assert!(decode_chunk(id, &flipped.into()).is_err(), "byte {at}");
            }
            for cut in [0, 1, stored.len() - 1] {
                assert!(decode_chunk(id, &stored.slice(..cut)).is_err(), "{cut} bytes");
            }
        }
    }

    #[test]
    fn a_bomb_is_no_chunk() {
        let large = vec![0; 64 << 20];
        let mut stored = vec![ZSTD];
        stored.extend(zstd::bulk::compress(&large, LEVEL).unwrap());
        assert!(decode_chunk(Id::of_chunk(&large), &stored.into()).is_err());
    }
}
