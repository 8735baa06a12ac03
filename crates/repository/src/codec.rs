//! A chunk as it is stored: one byte that says how, then its bytes. An encrypted one is compressed, sealed under its data key,
//! and followed by a sum of what is stored and of its name: so it is checked without the key, too.

use bytes::Bytes;

use crate::CHUNK;
use crate::key::DataKey;
use crate::name::Id;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
const SEALED: u8 = 2;
/// Several hundred MiB per second and core, at most of what higher levels save.
const LEVEL: i32 = 1;
/// What compression must save to be worth undoing.
const WORTH: usize = CHUNK / 16;
/// Bytes of the sum.
const SUM: usize = 32;
const SUM_CONTEXT: &str = "Hearth 2026-11-28 sum of a sealed chunk as it is stored";

/// # Errors
/// It cannot be sealed.
pub(crate) fn encode_chunk(id: Id, chunk: &[u8], key: Option<&DataKey>) -> Result<Bytes, String> {
    let packed = pack(chunk);
    let Some(key) = key else {
        return Ok(packed.into());
    };
    let sealed = key.seal(id, packed).map_err(|_| "it cannot be sealed")?;
    let mut stored = Vec::with_capacity(1 + sealed.len() + SUM);
    stored.push(SEALED);
    stored.extend_from_slice(&sealed);
    let sum = sum(id, &stored);
    stored.extend_from_slice(&sum);
    Ok(stored.into())
}

fn pack(chunk: &[u8]) -> Vec<u8> {
    let stored = |how: u8, bytes: &[u8]| {
        let mut stored = Vec::with_capacity(bytes.len() + 1);
        stored.push(how);
        stored.extend_from_slice(bytes);
        stored
    };
    match zstd::bulk::compress(chunk, LEVEL) {
        Ok(small) if small.len() + WORTH <= chunk.len() => stored(ZSTD, &small),
        _ => stored(PLAIN, chunk),
    }
}

/// What was stored is read as hostile: it never becomes larger than a chunk, and is what its name says or an error. What is to be
/// read under a key was sealed under it, and what is to be read without one was not sealed.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode_chunk(id: Id, stored: &Bytes, key: Option<&DataKey>) -> Result<Bytes, String> {
    let (chunk, name) = match (key, stored.first()) {
        (Some(key), Some(&SEALED)) => {
            let sealed = summed(id, stored)?;
            let opened = key.open(id, &sealed[1..]);
            let packed = opened.map_err(|_| "its seal is broken")?;
            let chunk = unpack(&packed.into())?;
            let name = key.name(&chunk);
            (chunk, name)
        }
        (Some(_), Some(_)) => return Err("it is not encrypted".to_owned()),
        (None, Some(&SEALED)) => return Err("it is encrypted, and no key was given".to_owned()),
        (None, _) => {
            let chunk = unpack(stored)?;
            let name = Id::of_chunk(&chunk);
            (chunk, name)
        }
        (Some(_), None) => return Err("it is empty".to_owned()),
    };
    if chunk.len() != CHUNK || name != id {
        return Err("its bytes are not those of its name".to_owned());
    }
    Ok(chunk)
}

/// What can be said of a chunk without a key: an encrypted one is as it was stored.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_chunk(id: Id, stored: &Bytes) -> Result<(), String> {
    match stored.first() {
        Some(&SEALED) => summed(id, stored).map(drop),
        _ => decode_chunk(id, stored, None).map(drop),
    }
}

/// What stands before the sum.
fn summed(id: Id, stored: &Bytes) -> Result<&[u8], String> {
    let (sealed, found) = stored
        .split_last_chunk::<SUM>()
        .filter(|(sealed, _)| !sealed.is_empty())
        .ok_or("it is cut short")?;
    match sum(id, sealed) == *found {
        true => Ok(sealed),
        false => Err("its bytes are not those that were stored".to_owned()),
    }
}

fn sum(id: Id, sealed: &[u8]) -> [u8; SUM] {
    let mut hasher = blake3::Hasher::new_derive_key(SUM_CONTEXT);
    hasher.update(id.as_bytes()).update(sealed);
    *hasher.finalize().as_bytes()
}

fn unpack(stored: &Bytes) -> Result<Bytes, String> {
    match stored.first() {
        Some(&PLAIN) => Ok(stored.slice(1..)),
        Some(&ZSTD) => match zstd::bulk::decompress(&stored[1..], CHUNK) {
            Ok(chunk) => Ok(chunk.into()),
            Err(error) => Err(format!("it cannot be decompressed: {error}")),
        },
        Some(how) => Err(format!("it is stored in the unknown way {how}")),
        None => Err("it is empty".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise() -> Vec<u8> {
        let mut noise = vec![0; CHUNK];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        noise
    }

    #[test]
    fn chunks_come_back_and_a_flipped_bit_does_not() {
        let key = DataKey::new(&[7; DataKey::LENGTH]);
        for key in [None, Some(&key)] {
            for (chunk, is_small) in [(noise(), false), (vec![7; CHUNK], true)] {
                let id = Id::under(key, &chunk);
                let stored = encode_chunk(id, &chunk, key).unwrap();
                assert_eq!(stored.len() < CHUNK / 2, is_small);
                assert_eq!(decode_chunk(id, &stored, key).unwrap(), chunk);
                check_chunk(id, &stored).unwrap();
                for at in [0, 1, stored.len() / 2, stored.len() - 1] {
                    let mut flipped = stored.to_vec();
                    flipped[at] ^= 1;
                    let flipped = flipped.into();
                    assert!(decode_chunk(id, &flipped, key).is_err(), "byte {at}");
                    assert!(check_chunk(id, &flipped).is_err(), "byte {at}");
                }
                for cut in [0, 1, stored.len() - 1] {
                    let cut = stored.slice(..cut);
                    assert!(decode_chunk(id, &cut, key).is_err(), "{} bytes", cut.len());
                    assert!(check_chunk(id, &cut).is_err(), "{} bytes", cut.len());
                }
            }
        }
    }

    #[test]
    fn a_sealed_chunk_is_opened_under_its_key_and_name_alone() {
        let (own, other) = (
            DataKey::new(&[1; DataKey::LENGTH]),
            DataKey::new(&[2; DataKey::LENGTH]),
        );
        let chunk = vec![9; CHUNK];
        let id = own.name(&chunk);
        assert_ne!(id, other.name(&chunk));
        assert_ne!(id, Id::of_chunk(&chunk));
        let stored = encode_chunk(id, &chunk, Some(&own)).unwrap();
        assert!(decode_chunk(id, &stored, None).is_err());
        assert!(decode_chunk(id, &stored, Some(&other)).is_err());
        // In another's place, with a sum that is made anew.
        let place = own.name(&noise());
        let mut moved = stored[..stored.len() - SUM].to_vec();
        let sum = sum(place, &moved);
        moved.extend_from_slice(&sum);
        let moved = moved.into();
        check_chunk(place, &moved).unwrap();
        assert_eq!(
            decode_chunk(place, &moved, Some(&own)).unwrap_err(),
            "its seal is broken"
        );
        // What is not encrypted is not taken for what is.
        let plain = encode_chunk(id, &chunk, None).unwrap();
        assert!(decode_chunk(id, &plain, Some(&own)).is_err());
        // Nonces are never the same twice.
        assert_ne!(stored, encode_chunk(id, &chunk, Some(&own)).unwrap());
    }

    #[test]
    fn a_bomb_is_no_chunk() {
        let large = vec![0; 64 << 20];
        let mut stored = vec![ZSTD];
        stored.extend(zstd::bulk::compress(&large, LEVEL).unwrap());
        assert!(decode_chunk(Id::of_chunk(&large), &stored.into(), None).is_err());
    }
}
