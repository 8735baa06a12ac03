//! Things that a program in jail may try.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    OpenFile,
    OpenDevice,
    ListRoot,
    /// From the working directory upwards.
    Climb,
    WriteFile,
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
    LoadBpf,
    /// Touches a GiB.
    TakeMemory,
    /// Two threads for a second; says how many milliseconds of CPU time they got.
    BurnCpu,
    /// Makes the file that is standard error a GiB long, without taking so much room.
    GrowFile,
    /// Stays until standard input ends.
    Stay,
}

/// Nobody has one; connecting is refused or there is no way.
const SOMEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);
const GIB: usize = 1 << 30;
const PAGE: usize = 4096;

impl Attempt {
    /// They neither last nor need a cgroup to stop them.
    pub(super) const HARMLESS: [Self; 17] = [
        Self::OpenFile,
        Self::OpenDevice,
        Self::ListRoot,
        Self::Climb,
        Self::WriteFile,
        Self::SeeProcesses,
        Self::SignalProcesses,
        Self::InetSocket,
        Self::UnixSocket,
        Self::Execute,
        Self::Fork,
        Self::Trace,
        Self::Mount,
        Self::BecomeRoot,
        Self::UserNamespace,
        Self::ExecutableMemory,
        Self::LoadBpf,
    ];
    const LASTING: [Self; 4] = [Self::TakeMemory, Self::BurnCpu, Self::GrowFile, Self::Stay];

    /// As an argument: `open-file`.
    pub(super) fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }

    /// What was reached, in words; an error is a wall.
    pub(super) fn make(self) -> io::Result<String> {
        match self {
            Self::OpenFile => File::open("/etc/passwd").map(|_| "opened".into()),
            Self::OpenDevice => File::open("/dev/kvm").map(|_| "opened".into()),
            Self::ListRoot => Ok(format!("{} entries", fs::read_dir("/")?.count())),
            Self::Climb => Ok(format!("{} entries", fs::read_dir("../../../../..")?.count())),
            Self::WriteFile => File::create("/file").map(|_| "created".into()),
            Self::SeeProcesses => Ok(format!("{} entries", fs::read_dir("/proc")?.count())),
            Self::SignalProcesses => signal_processes(),
            Self::InetSocket => TcpStream::connect(SOMEWHERE).map(|_| "connected".into()),
            // SAFETY: numbers only.
            Self::UnixSocket => call("made", || unsafe {
                libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)
            }),
            Self::Execute => Err(Command::new("/bin/sh").exec()),
            Self::Fork => fork(),
            // SAFETY: numbers only; this process waits for no tracer.
            Self::Trace => call("traced", || unsafe {
                libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) as i32
            }),
            Self::Mount => {
                let none = ptr::null();
                // SAFETY: strings that end in zero, and absent ones.
                call("mounted", || unsafe {
                    libc::mount(none, c"/".as_ptr(), c"tmpfs".as_ptr(), 0, none.cast())
                })
            }
            // SAFETY: numbers only.
            Self::BecomeRoot => call("root", || unsafe { libc::setuid(0) }),
            // SAFETY: numbers only; nothing here minds.
            Self::UserNamespace => call("made", || unsafe { libc::unshare(libc::CLONE_NEWUSER) }),
            Self::ExecutableMemory => executable_memory(),
            // SAFETY: an absent attribute of no length is refused, if nothing is before.
            Self::LoadBpf => call("loaded", || unsafe {
                libc::syscall(libc::SYS_bpf, 5, 0, 0) as i32
            }),
            Self::TakeMemory => take_memory(),
            Self::BurnCpu => burn_cpu(),
            Self::GrowFile => {
                let end = rustix::io::pwrite(io::stderr(), b"!", GIB as u64)?;
                Ok(format!("{end} byte written"))
            }
            Self::Stay => io::stdin().read(&mut [0]).map(|_| "stayed".into()),
        }
    }
}

impl FromStr for Attempt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::HARMLESS.into_iter().chain(Self::LASTING);
        all.find(|attempt| attempt.name() == text)
            .ok_or_else(|| format!("no attempt {text:?}"))
    }
}

fn call(reached: &str, call: impl FnOnce() -> i32) -> io::Result<String> {
    if call() < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(reached.to_owned())
}

/// Of the pids that a host gives to its first processes.
fn signal_processes() -> io::Result<String> {
    let mut error = io::Error::from_raw_os_error(libc::ESRCH);
    for pid in 2..1000 {
        // SAFETY: numbers only; signal 0 is a question.
        if unsafe { libc::kill(pid, 0) } == 0 {
            return Ok(format!("reached {pid}"));
        }
        error = io::Error::last_os_error();
    }
    Err(error)
}

fn fork() -> io::Result<String> {
    // SAFETY: the child ends at once.
    match unsafe { libc::fork() } {
        0 => std::process::exit(0),
        pid if pid < 0 => Err(io::Error::last_os_error()),
        pid => {
            // SAFETY: an absent place for the status.
            call("forked", || unsafe { libc::waitpid(pid, ptr::null_mut(), 0) })
        }
    }
}

fn map(len: usize, protection: i32) -> io::Result<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, of nothing that exists.
    let at = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(at.cast())
}

fn executable_memory() -> io::Result<String> {
    map(PAGE, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC).map(|_| "mapped".into())
}

fn take_memory() -> io::Result<String> {
    let at = map(GIB, libc::PROT_READ | libc::PROT_WRITE)?;
    for offset in (0..GIB).step_by(PAGE) {
        // SAFETY: within the mapping, which is ours.
        unsafe { at.add(offset).write_volatile(1) };
    }
    Ok("a GiB".into())
}

fn burn_cpu() -> io::Result<String> {
    const WHILE: Duration = Duration::from_secs(1);
    let burn = || {
        let start = Instant::now();
        while start.elapsed() < WHILE {
            std::hint::spin_loop();
        }
    };
    let other = std::thread::spawn(burn);
    burn();
    let _ = other.join();
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(format!("{}", used.tv_sec * 1000 + used.tv_nsec / 1_000_000))
}
