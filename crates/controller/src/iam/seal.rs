//! What a caller keeps for the cloud and cannot read or change, sealed under the cloud's key.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::seal::Broken;
use crate::vault::Vault;

/// What is sealed. One kind is never taken for another.
pub trait Sealed: Serialize + DeserializeOwned {
    const KIND: &'static str;
}

/// # Errors
/// It cannot be written as JSON.
pub fn seal<T: Sealed>(vault: &Vault, content: &T) -> Result<String, Broken> {
    let bytes = serde_json::to_vec(content).map_err(|_| Broken)?;
    vault.cloud.seal(T::KIND, bytes)
}

/// # Errors
/// This cloud has sealed no such thing.
pub fn open<T: Sealed>(vault: &Vault, sealed: &str) -> Result<T, Broken> {
    let opened = vault.cloud.open(T::KIND, sealed)?;
    serde_json::from_slice(&opened).map_err(|_| Broken)
}
