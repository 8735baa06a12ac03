//! Disks that are in the repository: the jailed process asks for parts of them by its pipe, so that nothing of them lies in a file.
//!
//! A question is `r`, an offset (64 bits, little-endian) and a length (32 bits); so many bytes come back. The last is an answer as
//! [`super::Answer`].

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use hearth_repository::{CHUNK, Error, Reader};
use prost::bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::warden::write_all;
use super::{Answer, COMMAND, InspectError, Inspected, Inspections, MAX_ANSWER};

const READ: u8 = b'r';
/// Bytes that come back, at most.
const MOST: usize = 64 << 10;
/// From the start to the end. A repository may be far away.
const DEADLINE: Duration = Duration::from_secs(120);
/// Chunks that are kept, because they will be asked for again.
const KEPT: usize = 16;

impl Inspections {
    /// Looks into a disk in the repository. Dropping the future ends the inspection.
    ///
    /// # Errors
    /// As [`Inspections::inspect`]; the repository fails.
    pub async fn inspect_stored(&self, reader: &Reader) -> Result<Inspected, InspectError> {
        let _permit = self.admit().await?;
        let (status, answer) = match tokio::time::timeout(DEADLINE, talk(reader)).await {
            Ok(ended) => ended?,
            Err(_) => {
                let ended = "no answer came".to_owned();
                return Err(InspectError::Exceeded { ended });
            }
        };
        super::told(status, answer)
    }
}

/// Runs the program as the inspector, answers its questions, and reads its answer.
async fn talk(reader: &Reader) -> Result<(ExitStatus, Option<Answer>), InspectError> {
    let io = |source| InspectError::Io {
        doing: "talking to",
        source,
    };
    let size = reader.snapshot().size;
    let mut child = Command::new("/proc/self/exe")
        .args([COMMAND, "--size", &size.to_string()])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(io)?;
    let (Some(mut input), Some(mut output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(InspectError::Garbled);
    };
    let mut parts = Parts {
        reader,
        kept: VecDeque::new(),
    };
    let mut answer = Vec::new();
    // It ends without an answer where it took more than it may.
    while let Ok(first) = output.read_u8().await {
        if first != READ {
            answer.push(first);
            (&mut output)
                .take(MAX_ANSWER)
                .read_to_end(&mut answer)
                .await
                .map_err(io)?;
            break;
        }
        let offset = output.read_u64_le().await.map_err(io)?;
        let length = output.read_u32_le().await.map_err(io)? as usize;
        if length > MOST || offset.saturating_add(length as u64) > size {
            return Err(InspectError::Garbled);
        }
        let part = parts.read(offset, length).await?;
        if input.write_all(&part).await.is_err() {
            break;
        }
    }
    let status = child.wait().await.map_err(io)?;
    Ok((status, serde_json::from_slice(&answer).ok()))
}

/// A disk of whose chunks some are kept.
struct Parts<'r> {
    reader: &'r Reader,
    /// By their numbers; `None`: zeros.
    kept: VecDeque<(u64, Option<Bytes>)>,
}

impl Parts<'_> {
    /// So many bytes from an offset on.
    async fn read(&mut self, mut offset: u64, mut length: usize) -> Result<Vec<u8>, Error> {
        let mut part = Vec::with_capacity(length);
        while length > 0 {
            let begin = usize::try_from(offset % CHUNK as u64).unwrap_or_default();
            let here = length.min(CHUNK - begin);
            let chunk = self.chunk(offset / CHUNK as u64).await?;
            let found = chunk.as_ref().and_then(|chunk| chunk.get(begin..begin + here));
            match found {
                Some(found) => part.extend_from_slice(found),
                None => part.resize(part.len() + here, 0),
            }
            offset += here as u64;
            length -= here;
        }
        Ok(part)
    }

    async fn chunk(&mut self, index: u64) -> Result<Option<Bytes>, Error> {
        if let Some((_, kept)) = self.kept.iter().find(|(number, _)| *number == index) {
            return Ok(kept.clone());
        }
        let chunk = self.reader.chunk(index).await?;
        self.kept.truncate(KEPT - 1);
        self.kept.push_front((index, chunk.clone()));
        Ok(chunk)
    }
}

/// A disk of so many bytes, as the jailed process sees it.
pub(super) struct Asked {
    size: u64,
    at: u64,
}

impl Asked {
    pub(super) fn of(size: u64) -> Self {
        Self { size, at: 0 }
    }
}

impl Read for Asked {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let length = buf.len().min(MOST).min(left);
        let Some(buf) = buf.get_mut(..length).filter(|buf| !buf.is_empty()) else {
            return Ok(0);
        };
        let mut question = vec![READ];
        question.extend(self.at.to_le_bytes());
        question.extend(u32::try_from(length).map_err(io::Error::other)?.to_le_bytes());
        write_all(&question)?;
        let mut come = 0;
        while let Some(rest) = buf.get_mut(come..).filter(|rest| !rest.is_empty()) {
            match rustix::io::read(io::stdin(), rest)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => come += count,
            }
        }
        self.at += length as u64;
        Ok(length)
    }
}

impl Seek for Asked {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let at = match position {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
