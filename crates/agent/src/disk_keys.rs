//! Keys of what lies encrypted on this host: asked of the control plane whenever they are needed, and handed on.
//!
//! None is written down. The agent has the key of a volume in memory until it is in the pipe that the volume's monitor reads
//! it from, or as long as a snapshot of it is sent; that of a base, as long as the base comes. A monitor keeps its keys
//! until it ends, so that neither the control plane's absence nor a restart of the agent concerns it.
//!
//! What lies encrypted says so by an empty file `encrypted` beside it, for whoever does not have the intent.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use hearth_api::agent::FetchKeyRequest;
use hearth_block::{Cipher, Key};
use rustix::pipe::{PipeFlags, pipe_with};
use tonic::{Code, Status};
use zeroize::Zeroizing;

use crate::link::Link;

/// The file beside what lies encrypted.
pub const MARK: &str = "encrypted";

/// A control plane that takes longer is asked again.
const DEADLINE: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why a key is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the control plane does not give the key of {id}: {}", status.message())]
    Refused { id: String, status: Box<Status> },
    #[error("the control plane's key of {id} is none of AES-256-XTS")]
    Malformed { id: String },
    #[error("{doing} the key of {id}")]
    Io {
        id: String,
        doing: &'static str,
        source: io::Error,
    },
}

/// Asks for the key of a volume, a snapshot or an AMI, until the control plane gives it or refuses it.
///
/// # Errors
/// What trying again would not mend.
pub async fn fetch(link: &Link, id: &str) -> Result<Key, KeyError> {
    let mut delays = ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .build();
    loop {
        let mut client = link.client().await;
        let request = FetchKeyRequest { id: id.to_owned() };
        let answer = tokio::time::timeout(DEADLINE, client.fetch_key(request)).await;
        let status = match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("it takes too long"))) {
            Ok(told) => {
                let bytes = Zeroizing::new(told.into_inner().key);
                return Key::new(&bytes).ok_or_else(|| KeyError::Malformed { id: id.to_owned() });
            }
            Err(status) => status,
        };
        if !may_pass(status.code()) {
            return Err(KeyError::Refused {
                id: id.to_owned(),
                status: Box::new(status),
            });
        }
        tracing::warn!(id, %status, "asking for a key; trying again");
        tokio::time::sleep(delays.next().unwrap_or(LONGEST_PAUSE)).await;
    }
}

/// Whether the same may succeed later.
fn may_pass(code: Code) -> bool {
    !matches!(
        code,
        Code::NotFound
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::DataLoss
    )
}

/// The same, in a pipe for a monitor ([`hearth_vmm::spec::KeySpec`]).
///
/// # Errors
/// As [`fetch`], or no descriptor is left.
pub async fn fetch_into_pipe(link: &Link, id: &str) -> Result<File, KeyError> {
    let key = fetch(link, id).await?;
    let piped = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from);
    // It takes the few bytes without anybody who reads.
    let piped = piped.and_then(|(reader, writer)| {
        File::from(writer).write_all(key.bytes())?;
        Ok(File::from(reader))
    });
    piped.map_err(|source| KeyError::Io {
        id: id.to_owned(),
        doing: "putting into a pipe",
        source,
    })
}

/// The same, ready for use by this process.
///
/// # Errors
/// As [`fetch`], or it is no key of XTS.
pub async fn fetch_cipher(link: &Link, id: &str) -> Result<Arc<Cipher>, KeyError> {
    let key = fetch(link, id).await?;
    let cipher = Cipher::new(&key).map_err(|source| KeyError::Io {
        id: id.to_owned(),
        doing: "preparing",
        source,
    })?;
    Ok(Arc::new(cipher))
}
