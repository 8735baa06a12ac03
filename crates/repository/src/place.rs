//! Where a repository is: in a directory, or in a bucket of an object store that speaks S3's protocol.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use crate::{Error, Repository};

const SCHEME: &str = "s3://";
/// Requests are made again for so long while the store cannot be reached or is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between requests, at most.
const PAUSE: Duration = Duration::from_secs(2);
/// Of one request, the largest of which carries a chunk.
const DEADLINE: Duration = Duration::from_secs(20);

/// `s3://BUCKET` or `s3://BUCKET/PREFIX`; all else names a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Directory(PathBuf),
    Bucket { bucket: String, prefix: String },
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a bucket has a name: s3://BUCKET or s3://BUCKET/PREFIX")]
pub struct Nameless;

impl FromStr for Place {
    type Err = Nameless;

    fn from_str(place: &str) -> Result<Self, Nameless> {
        let Some(rest) = place.strip_prefix(SCHEME) else {
            return Ok(Self::Directory(place.into()));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(Nameless);
        }
        Ok(Self::Bucket {
            bucket: bucket.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Bucket { bucket, prefix } if prefix.is_empty() => write!(f, "{SCHEME}{bucket}"),
            Self::Bucket { bucket, prefix } => write!(f, "{SCHEME}{bucket}/{prefix}"),
        }
    }
}

impl Repository {
    /// Opens a repository. A directory is made if it is not there; a bucket is not. The endpoint of a bucket, its region and the
    /// credentials are what the environment says to AWS's tools: `AWS_ENDPOINT_URL_S3`, `AWS_REGION`, `AWS_ACCESS_KEY_ID` and
    /// `AWS_SECRET_ACCESS_KEY`.
    ///
    /// # Errors
    /// The directory cannot be made, or what names the bucket is wrong. That its store cannot be reached is not noticed here.
    pub fn open(place: &Place) -> Result<Self, Error> {
        let (bucket, prefix) = match place {
            Place::Directory(path) => return Self::in_directory(path),
            Place::Bucket { bucket, prefix } => (bucket, prefix),
        };
        let retry = RetryConfig {
            backoff: BackoffConfig {
                max_backoff: PAUSE,
                ..BackoffConfig::default()
            },
            // The time alone counts.
            max_retries: usize::MAX,
            retry_timeout: PATIENCE,
        };
        let client = ClientOptions::new().with_timeout(DEADLINE).with_allow_http(true);
        let failed = |source| Error::Store {
            doing: "opening",
            object: place.to_string(),
            source,
        };
        let store = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_client_options(client)
            .with_retry(retry)
            .build()
            .map_err(failed)?;
        let prefix = Path::parse(prefix).map_err(|source| failed(source.into()))?;
        Ok(Self::new(Arc::new(PrefixStore::new(store, prefix))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_told() {
        let bucket = |bucket: &str, prefix: &str| Place::Bucket {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        for (written, place, told) in [
            ("s3://disks", bucket("disks", ""), "s3://disks"),
            ("s3://disks/", bucket("disks", ""), "s3://disks"),
            ("s3://disks/a/b/", bucket("disks", "a/b"), "s3://disks/a/b"),
            ("/srv/disks", Place::Directory("/srv/disks".into()), "/srv/disks"),
            ("s3:/x", Place::Directory("s3:/x".into()), "s3:/x"),
        ] {
            assert_eq!(written.parse::<Place>().as_ref(), Ok(&place));
            assert_eq!(place.to_string(), told);
        }
    }

    #[test]
    fn a_bucket_needs_a_name() {
        for nameless in ["s3://", "s3:///disks"] {
            assert_eq!(nameless.parse::<Place>(), Err(Nameless));
        }
    }
}
