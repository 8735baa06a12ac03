use std::path::Path;

use crate::name::Name;

/// Why the repository could not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{doing} {object} of the snapshot repository")]
    Store {
        doing: &'static str,
        object: String,
        source: object_store::Error,
    },
    #[error("the snapshot {0} is not in the repository")]
    NoSuchSnapshot(String),
    #[error("a snapshot {0} with other contents is in the repository already")]
    Exists(String),
    /// It is encrypted under another data key than the one that was given, or is not encrypted.
    #[error("the snapshot {0} of the repository is not under the data key that was given")]
    OtherKey(String),
    /// Each would remove what the other one needs.
    #[error("the snapshot repository is that of another cloud, of account {owner}: name another place")]
    Foreign { owner: String },
    #[error("'{0}' cannot name a snapshot: 1 to 64 lower-case letters, digits and dashes can")]
    BadName(String),
    /// The object is not there, or is not what was stored.
    #[error("{object} of the snapshot repository is damaged: {reason}")]
    Damaged { object: String, reason: String },
    #[error("chunk {index} lies outside of the disk")]
    Outside { index: u64 },
    #[error("a chunk has {found} bytes instead of {}", crate::CHUNK)]
    ChunkSize { found: usize },
    /// What was written so far may have been collected.
    #[error("the writer was silent for too long: begin the snapshot again")]
    Expired,
    /// A collection ended in the middle and is not resumed.
    #[error("a collection of the repository has not ended for {minutes} minutes: try again later")]
    Collecting { minutes: u64 },
}

impl Error {
    /// Whether there is no room where the objects are.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<std::io::Error>()
                && matches!(
                    error.kind(),
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
                )
            {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// Whether it may be otherwise in a while: the store cannot be reached, or is busy.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Store {
                source: object_store::Error::Generic { .. },
                ..
            }
        )
    }

    pub(crate) fn directory(doing: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Store {
            doing,
            object: path.display().to_string(),
            source: object_store::Error::Generic {
                store: "directory",
                source: source.into(),
            },
        }
    }

    pub(crate) fn damaged(name: &Name, reason: impl Into<String>) -> Self {
        Self::Damaged {
            object: name.path().to_string(),
            reason: reason.into(),
        }
    }

    pub(crate) fn missing(name: &Name) -> Self {
        Self::damaged(name, "it is not there")
    }
}
