//! Files of other formats than raw: the jailed process reads them, and its pipe carries what they hold.
//!
//! A frame is `d`, the offset of data (64 bits, little-endian), its length (32 bits) and the data; or `e` and the disk's size (64
//! bits), the last one. An answer as [`super::Answer`] stands in their place.

use std::fs::File;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use hearth_image::PIECE;
use prost::bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::SemaphorePermit;

use super::jail::Limits;
use super::{Answer, COMMAND, InspectError, Inspections, MAX_ANSWER, warden};

/// Files at the same time. They take minutes.
pub(super) const AT_ONCE: usize = 2;
/// For windows of 128 MiB, the largest that zstd writes without being told to.
pub(super) const LIMITS: Limits = Limits {
    memory: 256 << 20,
    cpu_seconds: 3600,
};
/// How long a piece may take.
const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const DATA: u8 = b'd';
pub(super) const END: u8 = b'e';

/// A part of what a file holds.
#[derive(Debug)]
pub enum Piece {
    /// Data at an offset. Offsets grow; what is skipped is zero, and data without bytes says that there are zeros up to there.
    Data(u64, Bytes),
    /// It was all. Bytes of the disk.
    End(u64),
}

/// A file that is being read.
pub struct Unpacking<'a> {
    child: Child,
    output: ChildStdout,
    _permit: SemaphorePermit<'a>,
}

impl Inspections {
    /// Begins to read a file of another format than raw, which may hold so many bytes. Dropping what is answered ends it.
    ///
    /// # Errors
    /// No process can be made.
    pub async fn unpack(&self, file: File, most: u64) -> Result<Unpacking<'_>, InspectError> {
        let io = |source| InspectError::Io {
            doing: "starting",
            source,
        };
        let permit = self.unpackings.acquire().await;
        let permit = permit.map_err(|error| io(io::Error::other(error)))?;
        let mut child = Command::new("/proc/self/exe")
            .args([COMMAND, "--unpack", &most.to_string()])
            .env_clear()
            .current_dir("/")
            .stdin(file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(io)?;
        let output = child.stdout.take().ok_or(InspectError::Garbled)?;
        Ok(Unpacking {
            child,
            output,
            _permit: permit,
        })
    }
}

impl Unpacking<'_> {
    /// The next part of what the file holds.
    ///
    /// # Errors
    /// The file is damaged or needs more than reading it may take.
    pub async fn next(&mut self) -> Result<Piece, InspectError> {
        match tokio::time::timeout(PATIENCE, self.piece()).await {
            Ok(Ok(piece)) => piece,
            Ok(Err(_)) => {
                let status = self.child.wait().await;
                let status = status.map_err(|source| InspectError::Io {
                    doing: "waiting for",
                    source,
                })?;
                Err(InspectError::UnpackingExceeded {
                    ended: warden::told(status),
                })
            }
            Err(_) => Err(InspectError::UnpackingExceeded {
                ended: "no answer came".to_owned(),
            }),
        }
    }

    /// Fails where the pipe ends.
    async fn piece(&mut self) -> io::Result<Result<Piece, InspectError>> {
        match self.output.read_u8().await? {
            DATA => {
                let offset = self.output.read_u64_le().await?;
                let length = self.output.read_u32_le().await? as usize;
                if length > PIECE {
                    return Ok(Err(InspectError::Garbled));
                }
                let mut data = vec![0; length];
                self.output.read_exact(&mut data).await?;
                Ok(Ok(Piece::Data(offset, data.into())))
            }
            END => Ok(Ok(Piece::End(self.output.read_u64_le().await?))),
            first => {
                let mut answer = vec![first];
                (&mut self.output)
                    .take(MAX_ANSWER)
                    .read_to_end(&mut answer)
                    .await?;
                Ok(Err(match serde_json::from_slice(&answer) {
                    Ok(Answer::Refused(why)) => InspectError::Refused(why),
                    Ok(Answer::NoJail(why)) => InspectError::NoJail(why),
                    _ => InspectError::Garbled,
                }))
            }
        }
    }
}
