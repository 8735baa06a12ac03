//! The process between `hearthd` and the inspector, and the inspector.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};

use hearth_image::{ReadSeek, Sink};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::PidfdFlags;

use super::asking::Asked;
use super::jail::{self, Namespaces};
pub use super::probe::Attempt;
use super::{Answer, Info, filter, unpacking};

/// The warden's exit code when a signal ended the inspector, plus the signal's number (as shells have it).
const BY_SIGNAL: u8 = 128;

/// What an inspector is for.
#[derive(Debug, Clone, Copy)]
pub enum Task {
    /// Of so many bytes, of which it asks for parts; `None`: standard input is the disk.
    Inspect(Option<u64>),
    /// Say what a file of another format than raw holds, if it is no more than so many bytes.
    Unpack(u64),
    /// Something that a disk might do that has taken it over; with the filter or without.
    Try(Attempt, bool),
}

/// Looks into the disk that is standard input, in jail, and answers on standard output. The process must have a single
/// thread.
#[must_use]
pub fn run(task: Task) -> ExitCode {
    let done = jail::close_descriptors()
        .and_then(|()| jail::make_namespaces())
        .map_err(|error| error.to_string())
        .and_then(|namespaces| {
            confine(task, &namespaces).map_err(|error| format!("making a process: {error}"))
        });
    done.unwrap_or_else(|why| answer(&Answer::NoJail(why)))
}

fn confine(task: Task, namespaces: &Namespaces) -> io::Result<ExitCode> {
    // SAFETY: this process has one thread, so that its child may do anything.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => guard(child),
        ForkResult::Child => {
            let written = inside(task, namespaces);
            // SAFETY: the process ends here. What a program does by itself at its end, the filter forbids.
            unsafe { libc::_exit(i32::from(!written)) }
        }
    }
}

/// Waits for the inspector, or until nobody reads its answer any more. It ends with this process either way.
fn guard(inspector: Pid) -> io::Result<ExitCode> {
    let pid = rustix::process::Pid::from_raw(inspector.as_raw()).ok_or(io::ErrorKind::NotFound)?;
    let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let output = io::stdout();
    let mut polled = [
        PollFd::new(&ended, PollFlags::IN),
        // A pipe without a reader is an error, asked for or not.
        PollFd::from_borrowed_fd(output.as_fd(), PollFlags::empty()),
    ];
    poll(&mut polled, None)?;
    if polled[0].revents().is_empty() {
        let _ = nix::sys::signal::kill(inspector, nix::sys::signal::Signal::SIGKILL);
    }
    Ok(match waitpid(inspector, None)? {
        WaitStatus::Signaled(_, signal, _) => ExitCode::from(BY_SIGNAL.wrapping_add(signal as u8)),
        WaitStatus::Exited(_, 0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// How the inspector ended, by its warden's exit.
pub fn told(status: ExitStatus) -> String {
    let signal = match status.code() {
        Some(code) => u8::try_from(code)
            .ok()
            .and_then(|code| code.checked_sub(BY_SIGNAL)),
        None => status.signal().and_then(|signal| u8::try_from(signal).ok()),
    };
    match signal {
        Some(signal) => match nix::sys::signal::Signal::try_from(i32::from(signal)) {
            Ok(signal) => signal.as_str().to_owned(),
            Err(_) => format!("signal {signal}"),
        },
        None => status.to_string(),
    }
}

/// Answers whether the answer was written.
fn inside(task: Task, namespaces: &Namespaces) -> bool {
    // A parser's panic is an answer about the disk, and its message would go nowhere.
    std::panic::set_hook(Box::new(|_| {}));
    let limits = match task {
        Task::Unpack(_) => unpacking::LIMITS,
        Task::Inspect(_) | Task::Try(..) => jail::INSPECTION,
    };
    let made = jail::give_up(namespaces, limits).map_err(|error| error.to_string());
    let made = made.and_then(|()| match task {
        Task::Try(_, false) => Ok(()),
        _ => filter::put_on(matches!(task, Task::Unpack(_)))
            .map_err(|error| format!("putting on the seccomp filter: {error}")),
    });
    let answer = match (made, task) {
        (Err(why), _) => Answer::NoJail(why),
        (Ok(()), Task::Try(attempt, _)) => {
            Answer::Tried(attempt.make().unwrap_or_else(|error| error.to_string()))
        }
        (Ok(()), Task::Inspect(None)) => inspect(namespaces, Disk),
        (Ok(()), Task::Inspect(Some(size))) => inspect(namespaces, Asked::of(size)),
        (Ok(()), Task::Unpack(most)) => match unpack(most) {
            Ok(()) => return true,
            Err(error) => Answer::Refused(hearth_log::chain(&error)),
        },
    };
    write(&answer).is_ok()
}

fn inspect(namespaces: &Namespaces, disk: impl ReadSeek + 'static) -> Answer {
    let info = match hearth_image::inspect(disk) {
        Ok(info) => info,
        Err(error) => return Answer::Refused(hearth_log::chain(&error)),
    };
    let usage = rusage();
    Answer::Image {
        info: Info {
            boot_mode: info.boot_mode.as_str().to_owned(),
            because: info.because().map(ToString::to_string).unwrap_or_default(),
            kernel_path: match info.road {
                hearth_image::Road::Direct(direct) => direct.kernel_path,
                hearth_image::Road::Firmware { .. } => String::new(),
            },
        },
        peak_kib: usage.0,
        cpu_ms: usage.1,
        without_namespaces: match namespaces {
            Namespaces::Host(why) => Some(why.clone()),
            _ => None,
        },
    }
}

fn unpack(most: u64) -> Result<(), hearth_image::UnpackError> {
    // SAFETY: the descriptor is open, and in this process nothing else uses it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(libc::STDIN_FILENO) });
    let size = hearth_image::unpack(file, most, &mut Pipe)?;
    let mut frame = vec![unpacking::END];
    frame.extend(size.to_le_bytes());
    write_all(&frame).map_err(hearth_image::UnpackError::Give)
}

/// Standard output, in frames.
struct Pipe;

impl Sink for Pipe {
    fn take(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut head = vec![unpacking::DATA];
        head.extend(offset.to_le_bytes());
        let length = u32::try_from(data.len()).map_err(io::Error::other)?;
        head.extend(length.to_le_bytes());
        write_all(&head)?;
        write_all(data)
    }
}

/// To standard output, unbuffered.
pub(super) fn write_all(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = rustix::io::write(io::stdout(), bytes)?;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Standard input, unbuffered.
struct Disk;

impl Read for Disk {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(io::stdin(), buf)?)
    }
}

impl Seek for Disk {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let position = match position {
            SeekFrom::Start(offset) => rustix::fs::SeekFrom::Start(offset),
            SeekFrom::End(offset) => rustix::fs::SeekFrom::End(offset),
            SeekFrom::Current(offset) => rustix::fs::SeekFrom::Current(offset),
        };
        Ok(rustix::fs::seek(io::stdin(), position)?)
    }
}

/// KiB that were in memory at most, and milliseconds of processor time.
fn rusage() -> (i64, u64) {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike as _;
    match getrusage(UsageWho::RUSAGE_SELF) {
        Ok(usage) => {
            let time = usage.user_time() + usage.system_time();
            (usage.max_rss(), time.num_milliseconds().unsigned_abs())
        }
        Err(_) => (0, 0),
    }
}

fn answer(answer: &Answer) -> ExitCode {
    match write(answer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn write(answer: &Answer) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(&serde_json::to_vec(answer)?)?;
    output.flush()
}
