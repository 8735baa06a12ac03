//! A monitor's questions for chunks of bases ([`hearth_vmm::bases`]).
//!
//! A monitor is not trusted: what it asks for in vain is refused, and no more than a number of its questions are open at a
//! time. That it may ask for chunks of bases that are not its own gives it nothing: it has no descriptor of theirs.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hearth_vmm::bases::{Answer, Ask};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};

use super::Images;
use crate::chain;
use crate::unix;

/// The socket in the launch's directory.
pub const SOCKET: &str = "bases.sock";

/// Questions of one monitor that are open: a full queue of each of many disks.
const OPEN: usize = 4096;
/// Bytes; no question comes near it.
const MAX_LINE: usize = 1 << 10;
/// Characters of a reason: the guest's log has it.
const MAX_REASON: usize = 500;
/// Before a monitor is called again that hung up.
const PAUSE: Duration = Duration::from_millis(500);

impl Images {
    /// Answers the monitor of a launch as long as it lives, and whatever it was asked before by an agent that is gone.
    pub async fn serve(self, launch_dir: &Path) {
        loop {
            match unix::connect(launch_dir, SOCKET).await {
                Ok(stream) => self.converse(stream).await,
                // It is gone, or an older one.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                    ) =>
                {
                    return;
                }
                Err(error) => tracing::warn!(%error, "connecting to a monitor that may wait for a base"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn converse(&self, stream: UnixStream) {
        let (reader, mut writer) = stream.into_split();
        let (answers, mut outbox) = mpsc::channel::<Answer>(16);
        let writing = async move {
            while let Some(answer) = outbox.recv().await {
                let Ok(mut line) = serde_json::to_vec(&answer) else {
                    return;
                };
                line.push(b'\n');
                if writer.write_all(&line).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = writing => {}
            () = self.hear(reader, answers) => {}
        }
    }

    async fn hear(&self, reader: impl tokio::io::AsyncRead + Unpin, answers: mpsc::Sender<Answer>) {
        let mut reader = BufReader::new(reader);
        let open = Arc::new(Semaphore::new(OPEN));
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut limited = (&mut reader).take(MAX_LINE as u64);
            let read = limited.read_until(b'\n', &mut line).await;
            if !matches!(read, Ok(1..)) || line.last() != Some(&b'\n') {
                return;
            }
            let Ok(ask) = serde_json::from_slice::<Ask>(&line) else {
                tracing::warn!("a monitor asked for what is no chunk of a base");
                return;
            };
            let Ok(place) = Arc::clone(&open).acquire_owned().await else {
                return;
            };
            let (images, answers) = (self.clone(), answers.clone());
            tokio::spawn(async move {
                let come = tokio::select! {
                    come = images.demand(&ask.base, ask.chunk) => come,
                    () = answers.closed() => return,
                };
                let error = come
                    .err()
                    .map(|error| chain(&*error).chars().take(MAX_REASON).collect());
                let answer = Answer {
                    base: ask.base,
                    chunk: ask.chunk,
                    error,
                };
                // The monitor may be gone.
                let _ = answers.send(answer).await;
                drop(place);
            });
        }
    }
}
