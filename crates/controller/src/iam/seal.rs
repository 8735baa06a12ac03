//! What a caller keeps for the cloud and cannot read or change: AES-256-GCM under the cloud's key.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::state::{Cloud, State};

/// What is sealed. One kind is never taken for another.
pub trait Sealed: Serialize + DeserializeOwned {
    const KIND: &'static str;
}

/// It cannot be sealed or opened: a fault of the program, or a text that this cloud has not sealed.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the seal is broken")
    }
}

impl std::error::Error for Broken {}

fn key(state: &State) -> Option<RandomizedNonceKey> {
    let key = hex::decode(&state.get::<Cloud>(Cloud::ID)?.seal.0).ok()?;
    RandomizedNonceKey::new(&AES_256_GCM, &key).ok()
}

/// # Errors
/// The cloud has no key yet.
pub fn seal<T: Sealed>(state: &State, content: &T) -> Result<String, Broken> {
    let key = key(state).ok_or(Broken)?;
    let mut bytes = serde_json::to_vec(content).map_err(|_| Broken)?;
    let nonce = key
        .seal_in_place_append_tag(Aad::from(T::KIND), &mut bytes)
        .map_err(|_| Broken)?;
    let mut whole = nonce.as_ref().to_vec();
    whole.append(&mut bytes);
    Ok(BASE64_STANDARD.encode(whole))
}

/// # Errors
/// This cloud has sealed no such thing.
pub fn open<T: Sealed>(state: &State, sealed: &str) -> Result<T, Broken> {
    let key = key(state).ok_or(Broken)?;
    let mut bytes = BASE64_STANDARD.decode(sealed).map_err(|_| Broken)?;
    let (nonce, sealed) = bytes.split_at_mut_checked(NONCE_LEN).ok_or(Broken)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Broken)?;
    let opened = key
        .open_in_place(nonce, Aad::from(T::KIND), sealed)
        .map_err(|_| Broken)?;
    serde_json::from_slice(opened).map_err(|_| Broken)
}
