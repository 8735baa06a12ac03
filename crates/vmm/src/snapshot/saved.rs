//! The saved state of one part of a machine: bytes that only this part can read.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Why a part's state cannot be saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("the state of the {part} is damaged or of another version")]
    Damaged {
        part: &'static str,
        #[source]
        source: postcard::Error,
    },
    #[error("the snapshot is of another machine: {0}")]
    Unfit(String),
    #[error("{doing}")]
    Host {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
}

impl StateError {
    /// Names what was being done when the host refused.
    pub fn host(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { doing, source }
    }
}

/// A part's state, encoded. Empty for a part that has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved(Vec<u8>);

impl Saved {
    /// # Errors
    /// `state` has something in it that cannot be encoded.
    pub fn of<T: Serialize>(part: &'static str, state: &T) -> Result<Self, StateError> {
        let damaged = |source| StateError::Damaged { part, source };
        postcard::to_stdvec(state).map(Self).map_err(damaged)
    }

    /// # Errors
    /// These are not the bytes of a `T`, or not of a `T` alone. It takes memory in proportion to the bytes.
    pub fn read<T: DeserializeOwned>(&self, part: &'static str) -> Result<T, StateError> {
        let damaged = |source| StateError::Damaged { part, source };
        match postcard::take_from_bytes(&self.0).map_err(damaged)? {
            (state, []) => Ok(state),
            _ => Err(damaged(postcard::Error::SerdeDeCustom)),
        }
    }

    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Saved {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_comes_back_and_nothing_may_follow_it() {
        let saved = Saved::of("disk", &(7_u32, vec![1_u8, 2])).unwrap();
        assert_eq!(saved.read::<(u32, Vec<u8>)>("disk").unwrap(), (7, vec![1, 2]));
        let mut longer = saved.as_bytes().to_vec();
        longer.push(0);
        let error = Saved::from(longer).read::<(u32, Vec<u8>)>("disk").unwrap_err();
        assert!(error.to_string().contains("disk"));
    }

    #[test]
    fn a_length_that_the_bytes_do_not_have_allocates_nothing() {
        // A varint of 2^63: "so many elements follow".
        let bytes = vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
        assert!(Saved::from(bytes.clone()).read::<Vec<u8>>("disk").is_err());
        assert!(Saved::from(bytes).read::<Vec<(u64, u64)>>("disk").is_err());
    }
}
