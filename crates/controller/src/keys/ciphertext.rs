//! What keys of KMS encrypt for callers: a few KiB each, with pairs of texts that must be given again to decrypt.
//! <https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html>
//!
//! A ciphertext is a version (1 byte), the key's id (16), the number of its material (4, big-endian), a salt (16), and what
//! AES-256-GCM makes: nonce, ciphertext and tag. Each has an AES key of its own, which HKDF (RFC 5869) makes of material and
//! salt: so many can be made of one material as anybody likes. All that is before the nonce is authenticated, and so are the
//! pairs, in the order of their names, each text behind its length.

use std::collections::{BTreeMap, HashMap};

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

use super::{material_of, uuid_bytes, uuid_text};
use crate::seal::{Broken, SealingKey};
use crate::state::KmsKey;
use crate::vault::Vault;

const VERSION: u8 = 1;
const SALT: usize = 16;
/// Bytes before the nonce.
const HEAD: usize = 1 + 16 + 4 + SALT;
/// What the AES keys are made for, and nothing else is.
const PURPOSE: &[u8] = b"hearth kms ciphertext 1";

/// Pairs that a caller gives.
pub type Context = HashMap<String, String>;

/// What says of itself that a key has encrypted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ciphertext<'b> {
    /// A UUID. There may be no such key.
    pub key_id: String,
    material: usize,
    head: &'b [u8],
    sealed: &'b [u8],
}

/// Why a ciphertext is not decrypted.
#[derive(Debug, thiserror::Error)]
pub enum Undecipherable {
    #[error("the ciphertext is damaged, or its encryption context is another one")]
    Ciphertext,
    #[error("the key's material cannot be opened")]
    Material(#[from] Broken),
}

impl<'b> Ciphertext<'b> {
    /// `None`: it is none, or of a later version.
    pub fn read(blob: &'b [u8]) -> Option<Self> {
        let (head, sealed) = blob.split_at_checked(HEAD)?;
        let (version, rest) = head.split_first()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (material, _) = rest.split_first_chunk::<4>()?;
        (*version == VERSION).then(|| Self {
            key_id: uuid_text(u128::from_be_bytes(*id)),
            material: u32::from_be_bytes(*material) as usize,
            head,
            sealed,
        })
    }

    /// # Errors
    /// It is not what the key has encrypted with these pairs; or the key cannot be opened.
    pub fn decrypt(
        &self,
        vault: &Vault,
        key: &KmsKey,
        context: &Context,
    ) -> Result<Zeroizing<Vec<u8>>, Undecipherable> {
        if self.key_id != key.id || self.material >= key.materials.len() {
            return Err(Undecipherable::Ciphertext);
        }
        let sealing = sealing(vault, key, self.material, self.head)?;
        let opened = sealing.open_bytes(&authenticated(self.head, context), self.sealed.to_vec());
        opened.map_err(|Broken| Undecipherable::Ciphertext)
    }
}

/// Encrypts under the newest material of a key.
///
/// # Errors
/// The key cannot be opened.
pub fn encrypt(vault: &Vault, key: &KmsKey, context: &Context, plain: Vec<u8>) -> Result<Vec<u8>, Broken> {
    let material = key.materials.len().checked_sub(1).ok_or(Broken)?;
    let mut blob = vec![VERSION];
    blob.extend(uuid_bytes(&key.id).ok_or(Broken)?);
    blob.extend(u32::try_from(material).map_err(|_| Broken)?.to_be_bytes());
    blob.extend(rand::random::<[u8; SALT]>());
    let sealing = sealing(vault, key, material, &blob)?;
    blob.extend(sealing.seal_bytes(&authenticated(&blob, context), plain)?);
    Ok(blob)
}

/// The AES key of one ciphertext.
fn sealing(vault: &Vault, key: &KmsKey, material: usize, head: &[u8]) -> Result<SealingKey, Broken> {
    let salt = head.last_chunk::<SALT>().ok_or(Broken)?;
    let material = material_of(vault, key, material)?;
    let mut own = Zeroizing::new([0; 32]);
    let made = Salt::new(HKDF_SHA256, salt).extract(&material);
    let made = made.expand(&[PURPOSE], HKDF_SHA256).map_err(|_| Broken)?;
    made.fill(own.as_mut_slice()).map_err(|_| Broken)?;
    SealingKey::of(own.as_slice())
}

fn authenticated(head: &[u8], context: &Context) -> Vec<u8> {
    let mut all = head.to_vec();
    let sorted: BTreeMap<_, _> = context.iter().collect();
    for text in sorted.into_iter().flat_map(|(name, value)| [name, value]) {
        all.extend((text.len() as u64).to_be_bytes());
        all.extend(text.as_bytes());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::tests::vault;
    use crate::keys::{material, new_key};
    use crate::state::Scope;

    fn pairs(pairs: &[(&str, &str)]) -> Context {
        let owned = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        owned.collect()
    }

    #[test]
    fn ciphertexts_are_decrypted_with_their_pairs_by_their_key_alone() {
        let (vault, scope) = (vault(), Scope::new("1", "local-1"));
        let mut key = new_key(&vault, &scope, 0).unwrap();
        let other = new_key(&vault, &scope, 0).unwrap();
        let context = pairs(&[("a", "1"), ("b", "2")]);
        let plain = b"of nobody's business".to_vec();
        let blob = encrypt(&vault, &key, &context, plain.clone()).unwrap();
        assert_ne!(blob, encrypt(&vault, &key, &context, plain.clone()).unwrap());
        assert!(!blob.windows(6).any(|part| part == b"nobody"));
        let largest = encrypt(&vault, &key, &context, vec![0; 4096]).unwrap();
        assert!(largest.len() <= 6144, "{}", largest.len());
        // Rotations do not matter.
        key.materials.push(material(&vault, &key.id, 1, true).unwrap());
        let read = Ciphertext::read(&blob).unwrap();
        assert_eq!(read.key_id, key.id);
        assert_eq!(*read.decrypt(&vault, &key, &context).unwrap(), plain);
        let refused = |blob: &[u8], key: &KmsKey, context: &Context| {
            let found = Ciphertext::read(blob).map(|read| read.decrypt(&vault, key, context));
            assert!(
                matches!(found, None | Some(Err(Undecipherable::Ciphertext))),
                "{found:?}"
            );
        };
        for context in [
            pairs(&[]),
            pairs(&[("a", "1")]),
            pairs(&[("a", "1"), ("b", "3")]),
            pairs(&[("a", "1b"), ("", "2")]),
            pairs(&[("a", "1"), ("b", "2"), ("c", "")]),
        ] {
            refused(&blob, &key, &context);
        }
        refused(&blob, &other, &context);
        // Each byte counts, and so does each length.
        for at in 0..blob.len() {
            let mut damaged = blob.clone();
            damaged[at] ^= 1;
            refused(&damaged, &key, &context);
            refused(&blob[..at], &key, &context);
        }
        refused(&[blob.clone(), vec![0]].concat(), &key, &context);
        // Another cloud's file.
        let read = Ciphertext::read(&blob).unwrap();
        let stranger = read.decrypt(&crate::keys::tests::vault(), &key, &context);
        assert!(matches!(stranger, Err(Undecipherable::Material(_))));
    }
}
