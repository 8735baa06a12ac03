//! The data key of an encrypted disk, and what is done with it.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use crate::CHUNK;
use crate::name::Id;

const NAMES: &str = "Hearth 2026-11-28 names of an encrypted disk's chunks";
const CONTENTS: &str = "Hearth 2026-11-28 contents of an encrypted disk's chunks";
const FINGERPRINT: &str = "Hearth 2026-11-28 which data key a snapshot is under";

/// The content cannot be sealed or opened under the key.
#[derive(Debug)]
pub(crate) struct Broken;

/// Chunks of a disk with a data key are named by keyed BLAKE3 and sealed by AES-256-GCM, under keys that are derived from it. A
/// chunk has another name under each key: equal chunks are stored once under one key, and nobody without it learns that they
/// are equal to others.
pub struct DataKey {
    names: Zeroizing<[u8; 32]>,
    contents: RandomizedNonceKey,
    /// Hex.
    fingerprint: String,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

impl DataKey {
    /// Bytes of one: the two keys of AES-256-XTS, by which hosts encrypt.
    pub const LENGTH: usize = 64;

    #[must_use]
    pub fn new(key: &[u8; Self::LENGTH]) -> Self {
        let contents = Zeroizing::new(blake3::derive_key(CONTENTS, key));
        let Ok(contents) = RandomizedNonceKey::new(&AES_256_GCM, &*contents) else {
            unreachable!("a key of AES-256 has 32 bytes")
        };
        Self {
            names: Zeroizing::new(blake3::derive_key(NAMES, key)),
            contents,
            fingerprint: Id::from_bytes(blake3::derive_key(FINGERPRINT, key)).to_string(),
        }
    }

    /// Tells data keys apart, and says nothing else of them.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The name of a chunk.
    pub(crate) fn name(&self, chunk: &[u8]) -> Id {
        Id::from_bytes(*blake3::keyed_hash(&self.names, chunk).as_bytes())
    }

    /// Nonce, ciphertext and tag of a chunk's content, which is bound to its name.
    pub(crate) fn seal(&self, id: Id, mut content: Vec<u8>) -> Result<Vec<u8>, Broken> {
        let sealed = self
            .contents
            .seal_in_place_append_tag(Aad::from(id.as_bytes()), &mut content);
        let nonce = sealed.map_err(|_| Broken)?;
        let mut whole = Vec::with_capacity(NONCE_LEN + content.len());
        whole.extend_from_slice(nonce.as_ref());
        whole.append(&mut content);
        Ok(whole)
    }

    /// What [`Self::seal`] has sealed.
    pub(crate) fn open(&self, id: Id, sealed: &[u8]) -> Result<Vec<u8>, Broken> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or(Broken)?;
        if sealed.len() > 2 * CHUNK {
            return Err(Broken);
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Broken)?;
        let mut content = sealed.to_vec();
        let opened = self
            .contents
            .open_in_place(nonce, Aad::from(id.as_bytes()), &mut content);
        let length = opened.map_err(|_| Broken)?.len();
        content.truncate(length);
        Ok(content)
    }
}
