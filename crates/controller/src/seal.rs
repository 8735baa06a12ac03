//! Sealing: AES-256-GCM under a key. What is sealed for one purpose is never opened for another.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hearth_api::ApiError;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// It cannot be sealed or opened: a fault of the program, or a text that was not sealed under this key for this purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the seal is broken")]
pub struct Broken;

impl From<Broken> for ApiError {
    fn from(broken: Broken) -> Self {
        Self::internal(&broken)
    }
}

/// What nobody but its owner may read.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A key of AES-256. In texts it is 64 hex digits.
pub struct SealingKey(RandomizedNonceKey);

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

impl SealingKey {
    /// A key that there has never been, as a text.
    pub fn generate() -> Secret {
        Secret(hex::encode(rand::random::<[u8; 32]>()))
    }

    /// # Errors
    /// The text is no key.
    pub fn read(text: &Secret) -> Result<Self, Broken> {
        let bytes = Zeroizing::new(hex::decode(&text.0).map_err(|_| Broken)?);
        Self::of(&bytes)
    }

    /// # Errors
    /// These are not 32 bytes.
    pub fn of(bytes: &[u8]) -> Result<Self, Broken> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes).map_err(|_| Broken)?;
        Ok(Self(key))
    }

    /// The content sealed: nonce, ciphertext and tag, in base64.
    ///
    /// # Errors
    /// The content is larger than AES-GCM admits.
    pub fn seal(&self, purpose: &str, content: Vec<u8>) -> Result<String, Broken> {
        let whole = self.seal_bytes(purpose.as_bytes(), content)?;
        Ok(BASE64_STANDARD.encode(whole))
    }

    /// What [`Self::seal`] has sealed.
    ///
    /// # Errors
    /// It has sealed no such thing.
    pub fn open(&self, purpose: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, Broken> {
        let whole = BASE64_STANDARD.decode(sealed).map_err(|_| Broken)?;
        self.open_bytes(purpose.as_bytes(), whole)
    }

    /// The content sealed: nonce, ciphertext and tag.
    ///
    /// # Errors
    /// The content is larger than AES-GCM admits.
    pub fn seal_bytes(&self, purpose: &[u8], mut content: Vec<u8>) -> Result<Vec<u8>, Broken> {
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(purpose), &mut content)
            .map_err(|_| Broken)?;
        let mut whole = nonce.as_ref().to_vec();
        whole.append(&mut content);
        Ok(whole)
    }

    /// What [`Self::seal_bytes`] has sealed.
    ///
    /// # Errors
    /// It has sealed no such thing.
    pub fn open_bytes(&self, purpose: &[u8], whole: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, Broken> {
        let mut whole = Zeroizing::new(whole);
        let (nonce, sealed) = whole.split_at_mut_checked(NONCE_LEN).ok_or(Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Broken)?;
        let opened = self
            .0
            .open_in_place(nonce, Aad::from(purpose), sealed)
            .map_err(|_| Broken)?;
        Ok(Zeroizing::new(opened.to_vec()))
    }
}

/// A secret as the database keeps it: `sealed:` and what [`SealingKey::seal`] answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret(String);

/// No secret of before seals has a colon.
const MARK: &str = "sealed:";

impl SealedSecret {
    /// # Errors
    /// The secret is larger than AES-GCM admits.
    pub fn seal(key: &SealingKey, purpose: &str, secret: &Secret) -> Result<Self, Broken> {
        let sealed = key.seal(purpose, secret.0.clone().into_bytes())?;
        Ok(Self(format!("{MARK}{sealed}")))
    }

    /// # Errors
    /// It was sealed under another key or for another purpose, or not at all.
    pub fn open(&self, key: &SealingKey, purpose: &str) -> Result<Secret, Broken> {
        let sealed = self.0.strip_prefix(MARK).ok_or(Broken)?;
        let mut opened = key.open(purpose, sealed)?;
        String::from_utf8(std::mem::take(&mut opened))
            .map(Secret)
            .map_err(|_| Broken)
    }

    /// The secret itself, in a database of before seals; empty where there was none.
    pub fn plain(&self) -> Option<Secret> {
        (!self.0.starts_with(MARK)).then(|| Secret(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_opened_for_its_purpose_under_its_key_alone() {
        let text = SealingKey::generate();
        let (key, other) = (
            SealingKey::read(&text).unwrap(),
            SealingKey::read(&SealingKey::generate()).unwrap(),
        );
        let secret = Secret("wJalrXUtnFEMI".into());
        let sealed = SealedSecret::seal(&key, "a", &secret).unwrap();
        assert_eq!(sealed.open(&key, "a"), Ok(secret.clone()));
        assert_eq!(
            sealed.open(&SealingKey::read(&text).unwrap(), "a"),
            Ok(secret.clone())
        );
        assert_eq!(sealed.open(&key, "b"), Err(Broken));
        assert_eq!(sealed.open(&other, "a"), Err(Broken));
        assert_eq!(sealed.plain(), None);
        // Never the same twice, and nothing in it is the secret.
        assert_ne!(sealed, SealedSecret::seal(&key, "a", &secret).unwrap());
        let stored = serde_json::to_string(&sealed).unwrap();
        assert!(!stored.contains(&secret.0), "{stored}");
        // One bit.
        let damaged = SealedSecret(sealed.0.replacen(char::is_lowercase, "A", 6));
        assert_eq!(damaged.open(&key, "a"), Err(Broken));
        for text in ["", "00", &"g".repeat(64), &"0".repeat(66)] {
            assert!(SealingKey::read(&Secret(text.into())).is_err(), "{text}");
        }
    }

    #[test]
    fn a_database_of_before_seals_is_told_apart() {
        let old: SealedSecret = serde_json::from_str("\"wJalrXUtnFEMI/K7MDENG\"").unwrap();
        assert_eq!(old.plain(), Some(Secret("wJalrXUtnFEMI/K7MDENG".into())));
        let key = SealingKey::read(&SealingKey::generate()).unwrap();
        assert_eq!(old.open(&key, "a"), Err(Broken));
        assert_eq!(SealedSecret::default().plain(), Some(Secret::default()));
    }
}
