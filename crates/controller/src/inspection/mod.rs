//! Looking into disk images that strangers sent, in a process that can do nothing else.
//!
//! `hearthd` starts itself as `hearthd inspect-image`, with the disk as standard input and a pipe as standard output.
//! That process ([`warden`]) makes namespaces and an empty root, and a child in them: the inspector. The inspector gives
//! up its user, its capabilities and what limits take ([`jail`]), puts on a seccomp filter ([`filter`]), and only then
//! reads the disk. The warden reads nothing: it ends the inspector when `hearthd` is gone, and tells how the inspector
//! ended. Files of other formats are read in the same way, and come out of the pipe as raw disks ([`unpacking`]); of disks
//! that are in no file the inspector asks for what it reads ([`asking`]).
//! `hearthd probe-inspection` shows what a disk would find that has taken the inspector over ([`probe`]).

mod asking;
mod filter;
mod jail;
mod probe;
mod unpacking;
mod warden;

use std::fs::File;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use hearth_image::BootMode;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::sync::{Semaphore, SemaphorePermit};

pub use probe::probe;
pub use unpacking::{Piece, Unpacking};
pub use warden::{Attempt, Task, run};

/// Inspections at the same time. Each takes up to [`jail::INSPECTION`] and a processor.
const AT_ONCE: usize = 2;
/// From its start to its end. The inspector's processor time has a limit of its own.
const DEADLINE: Duration = Duration::from_secs(20);
/// Bytes of an answer. A path has 4 KiB, an error names 128 regions.
const MAX_ANSWER: u64 = 256 << 10;
/// How the program is told to be the inspector.
pub const COMMAND: &str = "inspect-image";

/// What the inspector writes, as JSON.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Image {
        info: Info,
        /// KiB.
        peak_kib: i64,
        cpu_ms: u64,
        /// Why the jail lacks namespaces, if it does.
        without_namespaces: Option<String>,
    },
    /// Why the disk cannot become an AMI.
    Refused(String),
    /// The jail could not be made: nothing was read.
    NoJail(String),
    /// What came of an attempt to break out.
    Tried(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Info {
    /// In EC2's words.
    boot_mode: String,
    /// Empty where only firmware boots it.
    kernel_path: String,
    /// Why the direct road is closed; empty where it is open.
    because: String,
}

/// What a disk holds that can become an AMI.
#[derive(Debug)]
pub struct Inspected {
    /// What the disk can do.
    pub boot_mode: BootMode,
    /// The kernel that the direct road boots; empty where only firmware boots the disk.
    pub kernel_path: String,
    /// The construct that closes the direct road; empty where it is open.
    pub because: String,
}

#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// For the caller: what is wrong with the disk.
    #[error("{0}")]
    Refused(String),
    #[error(
        "looking into it took more than {} MiB of memory, {} seconds of processor time or {} seconds, or was broken \
         off ({ended}). Its file system or its boot loader's configuration is damaged: run e2fsck on it",
        jail::INSPECTION.memory >> 20,
        jail::INSPECTION.cpu_seconds,
        DEADLINE.as_secs()
    )]
    Exceeded { ended: String },
    #[error(
        "reading it took more than {} MiB of memory or {} seconds of processor time, or was broken off ({ended}). It is \
         damaged, or compressed with more memory than that",
        unpacking::LIMITS.memory >> 20,
        unpacking::LIMITS.cpu_seconds
    )]
    UnpackingExceeded { ended: String },
    #[error("{doing} the process that inspects disk images")]
    Io { doing: &'static str, source: io::Error },
    #[error("reading the disk that is inspected")]
    Repository(#[from] hearth_repository::Error),
    #[error("the process that inspects disk images cannot be confined: {0}")]
    NoJail(String),
    #[error("the process that inspects disk images answered what is no answer")]
    Garbled,
}

/// Admits a few inspections at a time.
#[derive(Debug)]
pub struct Inspections {
    inspections: Semaphore,
    unpackings: Semaphore,
}

impl Default for Inspections {
    fn default() -> Self {
        Self {
            inspections: Semaphore::new(AT_ONCE),
            unpackings: Semaphore::new(unpacking::AT_ONCE),
        }
    }
}

impl Inspections {
    /// Looks into a disk. Dropping the future ends the inspection.
    ///
    /// # Errors
    /// The disk cannot become an AMI, the inspection took more than it may, or none can be made.
    pub async fn inspect(&self, disk: File) -> Result<Inspected, InspectError> {
        let _permit = self.admit().await?;
        let ended = tokio::time::timeout(DEADLINE, ask(disk, &[])).await;
        let (status, answer) = match ended {
            Ok(ended) => ended.map_err(|source| InspectError::Io {
                doing: "running",
                source,
            })?,
            Err(_) => {
                let ended = "no answer came".to_owned();
                return Err(InspectError::Exceeded { ended });
            }
        };
        told(status, answer)
    }

    async fn admit(&self) -> Result<SemaphorePermit<'_>, InspectError> {
        let permit = self.inspections.acquire().await;
        permit.map_err(|error| InspectError::Io {
            doing: "waiting for",
            source: io::Error::other(error),
        })
    }
}

/// What an inspector has found, by its end and its answer.
fn told(status: ExitStatus, answer: Option<Answer>) -> Result<Inspected, InspectError> {
    match (status, answer) {
        (
            _,
            Some(Answer::Image {
                info,
                peak_kib,
                cpu_ms,
                without_namespaces,
            }),
        ) => {
            if let Some(why) = without_namespaces {
                tracing::warn!(
                    why,
                    "a disk image was inspected without namespaces of its own, which this host refuses; a seccomp \
                     filter and limits confine the inspection"
                );
            }
            tracing::info!(peak_kib, cpu_ms, "a disk image was inspected");
            if !info.because.is_empty() {
                let because = info.because.as_str();
                tracing::info!(because, "a disk image boots by firmware only");
            }
            Ok(Inspected {
                boot_mode: info.boot_mode.parse().map_err(|_| InspectError::Garbled)?,
                kernel_path: info.kernel_path,
                because: info.because,
            })
        }
        (_, Some(Answer::Refused(why))) => Err(InspectError::Refused(why)),
        (_, Some(Answer::NoJail(why))) => Err(InspectError::NoJail(why)),
        (status, None) if !status.success() => Err(InspectError::Exceeded {
            ended: warden::told(status),
        }),
        _ => Err(InspectError::Garbled),
    }
}

/// Runs the program as the inspector, and reads its answer.
async fn ask(disk: File, arguments: &[String]) -> io::Result<(ExitStatus, Option<Answer>)> {
    let mut child = Command::new("/proc/self/exe")
        .arg(COMMAND)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(disk)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut answer = Vec::new();
    if let Some(output) = child.stdout.as_mut() {
        output.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    }
    let status = child.wait().await?;
    Ok((status, serde_json::from_slice(&answer).ok()))
}
