//! `hearthd probe-inspection`: what could a disk image do that has taken its inspector over?

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use clap::ValueEnum;
use nix::sys::signal::kill;
use nix::unistd::{ForkResult, Pid, Uid, fork, setuid};

use super::{Answer, ask, warden};

/// Something that an inspector has no reason to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Attempt {
    OpenFile,
    ListRoot,
    Climb,
    WriteFile,
    WriteDisk,
    SeeProcesses,
    SignalProcesses,
    InetSocket,
    UnixSocket,
    Execute,
    Fork,
    Trace,
    Mount,
    BecomeRoot,
    UserNamespace,
    ExecutableMemory,
    /// Touches 128 MiB.
    TakeMemory,
    /// Until it is ended.
    BurnCpu,
    /// As a parser may: the inspector lives on.
    Panic,
}

impl Attempt {
    /// What was reached, in words; an error is a wall.
    pub(super) fn make(self) -> io::Result<String> {
        match self {
            Self::OpenFile => File::open("/etc/passwd").map(|_| "opened".into()),
            Self::ListRoot => Ok(format!("{} entries", fs::read_dir("/")?.count())),
            Self::Climb => Ok(format!("{} entries", fs::read_dir("../../../../..")?.count())),
            Self::WriteFile => File::create("/file").map(|_| "created".into()),
            Self::WriteDisk => Ok(rustix::io::write(io::stdin(), b"!").map(|_| "written".into())?),
            Self::SeeProcesses => Ok(format!("{} entries", fs::read_dir("/proc")?.count())),
            Self::SignalProcesses => signal_processes(),
            Self::InetSocket => {
                TcpStream::connect((Ipv4Addr::new(192, 0, 2, 1), 9)).map(|_| "connected".into())
            }
            Self::UnixSocket => UnixStream::connect("/run/hearth/api.sock").map(|_| "connected".into()),
            Self::Execute => Err(Command::new("/bin/sh").exec()),
            Self::Fork => {
                // SAFETY: this process has one thread, and the child ends at once.
                match unsafe { fork() }? {
                    ForkResult::Child => std::process::exit(0),
                    ForkResult::Parent { .. } => Ok("forked".into()),
                }
            }
            Self::Trace => {
                // SAFETY: numbers only.
                match unsafe { libc::ptrace(libc::PTRACE_ATTACH, 2, 0, 0) } {
                    0 => Ok("traced".into()),
                    _ => Err(io::Error::last_os_error()),
                }
            }
            Self::Mount => {
                let none: Option<&str> = None;
                nix::mount::mount(none, "/", Some("tmpfs"), nix::mount::MsFlags::empty(), none)?;
                Ok("mounted".into())
            }
            Self::BecomeRoot => Ok(setuid(Uid::from_raw(0)).map(|()| "root".into())?),
            Self::UserNamespace => {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)?;
                Ok("made".into())
            }
            Self::ExecutableMemory => executable_memory(),
            Self::TakeMemory => {
                let mut memory: Vec<u8> = Vec::new();
                memory
                    .try_reserve_exact(128 << 20)
                    .map_err(|_| io::ErrorKind::OutOfMemory)?;
                memory.resize(128 << 20, 1);
                Ok(format!("{} bytes", std::hint::black_box(&memory).len()))
            }
            Self::BurnCpu => loop {
                std::hint::spin_loop();
            },
            Self::Panic => {
                let caught = std::panic::catch_unwind(|| std::hint::black_box(&[0u8; 0][..])[0]);
                Ok(if caught.is_err() { "caught" } else { "no panic" }.into())
            }
        }
    }
}

/// Of the pids that a host gives to its processes.
fn signal_processes() -> io::Result<String> {
    let mut error = io::Error::from_raw_os_error(libc::ESRCH);
    for pid in 2..1000 {
        match kill(Pid::from_raw(pid), None) {
            Ok(()) => return Ok(format!("reached {pid}")),
            Err(errno) => error = errno.into(),
        }
    }
    Err(error)
}

fn executable_memory() -> io::Result<String> {
    let (read_exec, private) = (
        libc::PROT_READ | libc::PROT_EXEC,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a new mapping, of nothing that exists.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, read_exec, private, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok("mapped".into())
}

/// Makes each attempt twice, in the empty root without privileges, and behind the filter as well; and prints a table.
///
/// # Errors
/// Processes cannot be made, or the jail cannot.
pub async fn probe() -> anyhow::Result<()> {
    let mut output = io::stdout();
    writeln!(
        output,
        "{:<20} {:<54} with the filter",
        "attempt", "in the empty root without privileges"
    )?;
    for attempt in Attempt::value_variants() {
        // Its wall is a limit, which takes its time.
        if *attempt == Attempt::BurnCpu {
            continue;
        }
        let name = attempt
            .to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned());
        let [bare, filtered] = [make(&name, false).await?, make(&name, true).await?];
        writeln!(output, "{name:<20} {bare:<54} {filtered}")?;
    }
    Ok(())
}

async fn make(attempt: &str, filtered: bool) -> anyhow::Result<String> {
    let mut arguments = vec!["--attempt".to_owned(), attempt.to_owned()];
    arguments.extend(filtered.then(|| "--filtered".to_owned()));
    let (status, answer) = ask(File::open("/proc/self/exe")?, &arguments).await?;
    Ok(match answer {
        Some(Answer::Tried(what)) => what,
        Some(Answer::NoJail(why)) => anyhow::bail!("the jail cannot be made: {why}"),
        Some(_) => anyhow::bail!("the inspector answered another question"),
        None => format!("killed by {}", warden::told(status)),
    })
}
