//! A living monitor, as the agent holds it: its pidfd and its control socket.
//!
//! The agent binds the control socket and the monitor inherits it, so that `connect` succeeds exactly as long
//! as a monitor (or the fork that becomes one) lives. The child calls `listen` again before its exec; the
//! kernel notes the last caller of `listen` as the peer, so SO_PEERCRED names the monitor and not the agent.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use hearth_vmm::control::{Event, Message, Reply, Request, VmState};
use hearth_vmm::spec::Outcome;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// A monitor that does not answer within this is not waited for; its pidfd still is.
const REPLY_PATIENCE: Duration = Duration::from_secs(5);
/// Between two connections to a monitor that hangs up, or says what is no message; doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
/// And a connection that lasts so long makes up for all before it.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// No message of the protocol comes near it.
const MAX_LINE: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    #[error("opening the process descriptor of monitor {pid}")]
    PidFd { pid: i32, source: io::Error },
    #[error("looking for a monitor at {path}")]
    Connect { path: String, source: io::Error },
    #[error("the monitor did not answer")]
    NoAnswer,
    #[error("the monitor refused: {0}")]
    Refused(String),
    #[error("raising the monitor's limit of its files' sizes")]
    FileLimit(#[source] io::Error),
    #[error("sending a signal to the monitor")]
    Signal(#[source] io::Error),
}

/// What the monitor has told of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// The first vCPU has been entered.
    pub entered: bool,
    /// As in [`hearth_vmm::control::Status::by_firmware`], once entered.
    pub by_firmware: Option<bool>,
    /// Grows whenever its devices may have become others of themselves, or news of that may have been missed.
    pub changes: u64,
}

/// A request, the descriptors that it names, and where its answer goes.
#[derive(Debug)]
struct Asked {
    request: Request,
    descriptors: Vec<OwnedFd>,
    answer: oneshot::Sender<Reply>,
}

/// Dropping it lets go of the monitor and leaves it alone.
#[derive(Debug)]
pub struct MonitorHandle {
    pidfd: AsyncFd<OwnedFd>,
    launch_dir: PathBuf,
    requests: mpsc::Sender<Asked>,
    told: watch::Receiver<Told>,
}

impl MonitorHandle {
    /// Takes hold of a process that serves `socket`.
    ///
    /// # Errors
    /// The descriptor cannot be watched.
    pub fn new(pidfd: OwnedFd, launch_dir: &Path) -> Result<MonitorHandle, MonitorError> {
        // SAFETY: an `OwnedFd` names one descriptor, and keeps it open, for as long as it lives.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
        let pidfd = pidfd.map_err(|error| MonitorError::PidFd {
            pid: 0,
            source: error.into(),
        })?;
        let (requests, inbox) = mpsc::channel(4);
        let (tell, told) = watch::channel(Told::default());
        tokio::spawn(converse(launch_dir.to_owned(), inbox, tell));
        Ok(MonitorHandle {
            pidfd,
            launch_dir: launch_dir.to_owned(),
            requests,
            told,
        })
    }

    /// Finds the monitor that serves the launch's control socket, if one lives.
    ///
    /// # Errors
    /// It cannot be told whether one lives.
    pub async fn find(launch_dir: &Path) -> Result<Option<MonitorHandle>, MonitorError> {
        loop {
            let Some(pid) = peer(launch_dir).await? else {
                return Ok(None);
            };
            let pidfd = match open_pidfd(pid) {
                Ok(pidfd) => pidfd,
                // A dead agent's fork on the way to its exec still bears the agent's name.
                Err(MonitorError::PidFd { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            // It lived after the pidfd was opened: the pid had not been given to another.
            if peer(launch_dir).await? == Some(pid) {
                return MonitorHandle::new(pidfd, launch_dir).map(Some);
            }
        }
    }

    pub fn told(&self) -> Told {
        *self.told.borrow()
    }

    /// Waits until the monitor has told something new (false) or its process has ended (true).
    pub async fn ended_or_told(&mut self) -> bool {
        let told = async {
            if self.told.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            // A pidfd is readable from its process's end on; there is nothing to read.
            _ = self.pidfd.readable() => {
                if let Some(signal) = reap(self.pidfd.get_ref().as_fd()) {
                    speak_for_the_dead(&self.launch_dir, signal);
                }
                true
            }
            () = told => false,
        }
    }

    /// # Errors
    /// No answer in time, or a refusal.
    pub async fn ask(&self, request: Request) -> Result<Reply, MonitorError> {
        self.ask_with(request, Vec::new()).await
    }

    /// A request with the descriptors that it names by their place in `descriptors`.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn ask_with(&self, request: Request, descriptors: Vec<OwnedFd>) -> Result<Reply, MonitorError> {
        let (sender, answer) = oneshot::channel();
        let asked = Asked {
            request,
            descriptors,
            answer: sender,
        };
        let exchange = async {
            self.requests.send(asked).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(REPLY_PATIENCE, exchange).await {
            Ok(Some(Reply::Error { message })) => Err(MonitorError::Refused(message)),
            Ok(Some(reply)) => Ok(reply),
            _ => Err(MonitorError::NoAnswer),
        }
    }

    /// Lets the monitor write files of up to `bytes`, if it may not yet; see [`crate::jail`].
    ///
    /// # Errors
    /// The kernel refuses; that the process is already dead is no error.
    pub fn allow_file_size(&self, bytes: u64) -> Result<(), MonitorError> {
        let Some(pid) = pid_of(self.pidfd.get_ref()).map_err(MonitorError::FileLimit)? else {
            return Ok(());
        };
        raise_file_limit(pid, bytes).map_err(MonitorError::FileLimit)
    }

    /// # Errors
    /// The kernel refuses; that the process is already dead is no error.
    pub fn kill(&self) -> Result<(), MonitorError> {
        match pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(MonitorError::Signal(errno.into())),
        }
    }
}

/// # Errors
/// No such process, or no descriptors left.
pub fn open_pidfd(pid: i32) -> Result<OwnedFd, MonitorError> {
    let failed = |errno: rustix::io::Errno| MonitorError::PidFd {
        pid,
        source: errno.into(),
    };
    let pid = Pid::from_raw(pid)
        .ok_or(rustix::io::Errno::SRCH)
        .map_err(failed)?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(failed)
}

/// The process that a pidfd names, as this process numbers it; `None`: it is dead and reaped.
fn pid_of(pidfd: &OwnedFd) -> io::Result<Option<i32>> {
    use std::os::fd::AsRawFd as _;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    let pid = pid.and_then(|pid| pid.trim().parse().ok()).unwrap_or(-1);
    Ok((pid > 0).then_some(pid))
}

fn raise_file_limit(pid: i32, bytes: u64) -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes the one structure and reads none.
    if unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, std::ptr::null(), &mut limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur >= bytes {
        return Ok(());
    }
    let raised = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: bytes.max(limit.rlim_max),
    };
    // SAFETY: the kernel reads the one structure and writes none.
    if unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &raised, std::ptr::null_mut()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The signal that ended it, if one did. An adopted monitor is init's child: then there is nothing for us to reap,
/// and the signal is not known.
fn reap(pidfd: std::os::fd::BorrowedFd<'_>) -> Option<i32> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = waitid(WaitId::PidFd(pidfd), options).ok()??;
    status.terminating_signal()
}

/// Writes the outcome of a monitor that a signal ended, unless it did so itself before.
fn speak_for_the_dead(launch_dir: &Path, signal: i32) {
    let path = launch_dir.join("outcome");
    if std::fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
        return;
    }
    let written = serde_json::to_vec(&Outcome::Killed { signal })
        .map_err(io::Error::from)
        .and_then(|json| std::fs::write(&path, json));
    if let Err(error) = written {
        tracing::warn!(%error, signal, "writing how a monitor ended");
    }
}

/// The process at the other end of the control socket, if any lives.
async fn peer(launch_dir: &Path) -> Result<Option<i32>, MonitorError> {
    match connect(launch_dir).await {
        Ok(stream) => {
            let credentials = stream
                .peer_cred()
                .map_err(|source| connect_error(launch_dir, source))?;
            Ok(credentials.pid())
        }
        Err(error) if nobody_listens(&error) => Ok(None),
        Err(error) => Err(connect_error(launch_dir, error)),
    }
}

fn nobody_listens(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn connect_error(launch_dir: &Path, source: io::Error) -> MonitorError {
    MonitorError::Connect {
        path: launch_dir.display().to_string(),
        source,
    }
}

async fn connect(launch_dir: &Path) -> io::Result<UnixStream> {
    crate::unix::connect(launch_dir, "control.sock").await
}

/// Keeps a connection up until the handle is dropped or the monitor is gone.
async fn converse(launch_dir: PathBuf, mut inbox: mpsc::Receiver<Asked>, tell: watch::Sender<Told>) {
    let delays = || {
        ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(SHORTEST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times()
            .build()
    };
    let mut delay = delays();
    loop {
        let began = Instant::now();
        match connect(&launch_dir).await {
            Ok(stream) => match exchange(stream, &mut inbox, &tell).await {
                Ended::Dropped => return,
                Ended::Closed => {}
            },
            Err(error) if nobody_listens(&error) => return,
            Err(error) => tracing::debug!(%error, "connecting to a monitor"),
        }
        // That it said something is no reason: so does one that babbles.
        if began.elapsed() >= LONGEST_PAUSE {
            delay = delays();
        }
        tokio::time::sleep(delay.next().unwrap_or(LONGEST_PAUSE)).await;
    }
}

enum Ended {
    /// The handle was.
    Dropped,
    /// The connection was, by either side.
    Closed,
}

async fn exchange(
    stream: UnixStream,
    inbox: &mut mpsc::Receiver<Asked>,
    tell: &watch::Sender<Told>,
) -> Ended {
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    // Replies come in the order of the requests; `None` awaits the status that every connection begins with.
    let mut awaited: VecDeque<Option<oneshot::Sender<Reply>>> = VecDeque::from([None]);
    if send(writer.as_ref(), &Request::Status, &[]).await.is_err() {
        return Ended::Closed;
    }
    note_change(tell);
    loop {
        // A monitor is not trusted: it may send a line without end.
        let mut limited = (&mut reader).take((MAX_LINE + 1 - line.len()) as u64);
        tokio::select! {
            request = inbox.recv() => {
                let Some(asked) = request else { return Ended::Dropped };
                if send(writer.as_ref(), &asked.request, &asked.descriptors).await.is_err() {
                    return Ended::Closed;
                }
                awaited.push_back(Some(asked.answer));
            }
            // `read_until` keeps what it has read in `line` when another branch wins.
            read = limited.read_until(b'\n', &mut line) => {
                if !matches!(read, Ok(1..)) || line.len() > MAX_LINE {
                    return Ended::Closed;
                }
                match serde_json::from_slice(&line) {
                    Ok(Message::Reply(reply)) => {
                        if let Reply::Status(status) = &reply
                            && (status.state == VmState::Running
                                || status.state != VmState::Starting && status.first_entry_micros > 0)
                        {
                            note_entered(tell, status.by_firmware);
                        }
                        if let Some(Some(sender)) = awaited.pop_front() {
                            let _ = sender.send(reply);
                        }
                    }
                    Ok(Message::Event(Event::Entered { by_firmware, .. })) => note_entered(tell, by_firmware),
                    Ok(Message::Event(Event::DeviceDetached { .. })) => note_change(tell),
                    Ok(Message::Event(_)) => {}
                    Err(error) => {
                        tracing::warn!(%error, "a monitor said what the control protocol does not know");
                        return Ended::Closed;
                    }
                }
                line.clear();
            }
        }
    }
}

fn note_entered(tell: &watch::Sender<Told>, by_firmware: Option<bool>) {
    tell.send_if_modified(|told| {
        let news = Told {
            entered: true,
            by_firmware,
            ..*told
        };
        std::mem::replace(told, news) != news
    });
}

fn note_change(tell: &watch::Sender<Told>) {
    tell.send_modify(|told| told.changes += 1);
}

async fn send(stream: &UnixStream, request: &Request, descriptors: &[OwnedFd]) -> io::Result<()> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let mut descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut sent = 0;
    while let Some(rest) = line.get(sent..).filter(|rest| !rest.is_empty()) {
        let write = || hearth_vmm::control::send(stream, rest, &descriptors);
        sent += stream.async_io(Interest::WRITABLE, write).await?;
        // They went with the first bytes.
        descriptors.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// A monitor that answers each connection with `words` and hangs up; how many it has had after ten minutes.
    async fn connections(words: &'static [u8]) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let listener = tokio::net::UnixListener::bind(dir.path().join("control.sock")).unwrap();
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = stream.write_all(words).await;
            }
        });
        let (_requests, inbox) = mpsc::channel(1);
        let (tell, _told) = watch::channel(Told::default());
        tokio::spawn(converse(dir.path().to_owned(), inbox, tell));
        tokio::time::sleep(Duration::from_secs(600)).await;
        count.load(Ordering::Relaxed)
    }

    #[test]
    fn a_limit_of_files_sizes_is_raised_and_never_lowered() {
        use std::os::unix::process::CommandExt as _;
        let limit = |soft, hard| libc::rlimit {
            rlim_cur: soft,
            rlim_max: hard,
        };
        let mut command = std::process::Command::new("sleep");
        // SAFETY: it makes one system call.
        unsafe {
            command.arg("60").pre_exec(move || {
                match libc::setrlimit(libc::RLIMIT_FSIZE, &limit(1 << 20, 1 << 40)) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            });
        }
        let mut child = command.spawn().unwrap();
        let pidfd = open_pidfd(child.id() as i32).unwrap();
        assert_eq!(pid_of(&pidfd).unwrap(), Some(child.id() as i32));
        let soft = |child: &std::process::Child| {
            let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
            let line = limits.lines().find_map(|line| line.strip_prefix("Max file size"));
            line.unwrap()
                .split_whitespace()
                .next()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        for (asked, found) in [(1 << 10, 1 << 20), (1 << 30, 1 << 30), (1 << 25, 1 << 30)] {
            raise_file_limit(child.id() as i32, asked).unwrap();
            assert_eq!(soft(&child), found);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(pid_of(&pidfd).unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_monitor_that_babbles_or_hangs_up_is_called_less_and_less_often() {
        for words in [
            b"babble\n".as_slice(),
            b"\"babble\"\n",
            b"{\"reply\":\"ok\"}\n",
            b"{\"event\":{\"reset\":{\"boots\":2}}}\n",
            b"",
        ] {
            let connections = connections(words).await;
            // Seven until the pauses are two seconds long, and half as many seconds again by chance.
            assert!((150..310).contains(&connections), "{words:?}: {connections}");
        }
    }
}
