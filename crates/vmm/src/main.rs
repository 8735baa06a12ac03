//! `hearth-vmm`: an instance's monitor, started by the agent with `--spec-fd`; or, with `run`, a virtual
//! machine on the terminal for whoever develops or learns.

mod log;
mod merge;
mod probe;
mod run;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

use argh::FromArgs;
use hearth_log::chain;
use hearth_vmm::jail::{self, Role};
use hearth_vmm::lifecycle::{self, Surroundings};
use hearth_vmm::open;
use hearth_vmm::spec::{Outcome, VmSpec};
use rustix::process::DumpableBehavior;

/// Runs one virtual machine.
#[derive(FromArgs)]
struct Arguments {
    /// the inherited descriptor that the machine's description is read from, as JSON
    #[argh(option, arg_name = "fd")]
    spec_fd: Option<RawFd>,
    /// be confined: own namespaces, an empty root, no privileges, and this number as user and group
    #[argh(option, arg_name = "uid")]
    jail: Option<u32>,
    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Run(run::Arguments),
    ProbeJail(probe::Arguments),
    MergeSnapshot(merge::Arguments),
}

/// Bytes of the error that is written to standard error.
const MAX_ERROR: usize = 4000;

/// Where the outcome goes, also from a panic in whatever thread.
static OUTCOME: OnceLock<File> = OnceLock::new();

fn main() -> ExitCode {
    let started = Instant::now();
    one_heap();
    outlive_full_files();
    let arguments = arguments();
    log::to_stderr();
    end_on_panic();
    match (arguments.command, arguments.spec_fd) {
        (Some(Command::Run(arguments)), _) => run::run(arguments, started),
        (Some(Command::ProbeJail(arguments)), _) => probe::probe(&arguments),
        (Some(Command::MergeSnapshot(arguments)), _) => merge::run(&arguments),
        (None, Some(spec_fd)) => monitor(spec_fd, arguments.jail, started),
        (None, None) => {
            eprintln!("hearth-vmm: --spec-fd or a command is needed; --help says more");
            ExitCode::FAILURE
        }
    }
}

/// Also takes `--option=value`, which argh does not know.
fn arguments() -> Arguments {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .flat_map(|word| match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => vec![option.to_owned(), value.to_owned()],
            _ => vec![word],
        })
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Arguments::from_args(&["hearth-vmm"], &words).unwrap_or_else(|exit| match exit.status {
        Ok(()) => {
            println!("{}", exit.output);
            std::process::exit(0)
        }
        Err(()) => {
            eprintln!("{}\nhearth-vmm --help says more", exit.output.trim_end());
            std::process::exit(1)
        }
    })
}

fn monitor(spec_fd: RawFd, uid: Option<u32>, started: Instant) -> ExitCode {
    if let Err(error) = keep_memory_in() {
        eprintln!("hearth-vmm: becoming undumpable: {error}");
        return ExitCode::FAILURE;
    }
    let spec: VmSpec = match read_spec(spec_fd) {
        Ok(spec) => spec,
        Err(error) => {
            eprintln!("hearth-vmm: reading the machine's description from descriptor {spec_fd}: {error}");
            return ExitCode::FAILURE;
        }
    };
    match open::adopt(spec.outcome_fd) {
        Ok(fd) => {
            let _ = OUTCOME.set(fd.into());
        }
        Err(error) => {
            eprintln!("hearth-vmm: outcome descriptor {}: {error}", spec.outcome_fd);
            return ExitCode::FAILURE;
        }
    }
    let outcome = run_confined(spec, spec_fd, uid, started).unwrap_or_else(|error| Outcome::StartFailed {
        message: chain(error.as_ref()),
    });
    report(&outcome)
}

/// What the spec's descriptors hold is the guest's: it is read only after the doors are shut. The spec's own is
/// the last of those that the agent hands over.
fn run_confined(
    spec: VmSpec,
    last_fd: RawFd,
    uid: Option<u32>,
    started: Instant,
) -> Result<Outcome, Box<dyn std::error::Error>> {
    let began = Instant::now();
    if let Some(uid) = uid {
        jail::enter(uid, last_fd, spec.vsock.as_ref().map(|vsock| vsock.directory_fd))?;
    }
    let entered = began.elapsed();
    jail::filter_threads(Role::Control)?;
    tracing::info!(?entered, filtered = ?began.elapsed(), "in jail");
    let opened = open::open(spec)?;
    let surroundings = Surroundings {
        started,
        control: Some(opened.control),
        console: opened.console,
        abandon,
    };
    Ok(lifecycle::run(opened.plan, surroundings))
}

fn read_spec(fd: RawFd) -> io::Result<VmSpec> {
    let file = File::from(open::adopt(fd)?);
    Ok(serde_json::from_reader(io::BufReader::new(file))?)
}

/// Writes the outcome for the agent, and to standard error if it is a failure.
fn report(outcome: &Outcome) -> ExitCode {
    if let Some(mut file) = OUTCOME.get() {
        let written = serde_json::to_vec(outcome)
            .map_err(io::Error::from)
            .and_then(|json| file.write_all(&json));
        if let Err(error) = written {
            eprintln!("hearth-vmm: writing the outcome: {error}");
        }
    }
    match outcome {
        Outcome::GuestPowerOff | Outcome::Stopped => ExitCode::SUCCESS,
        Outcome::Killed { .. } => ExitCode::FAILURE,
        Outcome::StartFailed { message } | Outcome::Crashed { message } => {
            // A guest's disk may be quoted in it.
            eprintln!("hearth-vmm: {}", hearth_log::escaped(message, MAX_ERROR));
            ExitCode::FAILURE
        }
    }
}

/// Ends the process from a thread that must not wait for the others.
fn abandon(outcome: &Outcome) -> ! {
    let failed = report(outcome) != ExitCode::SUCCESS;
    std::process::exit(i32::from(failed))
}

/// No core dump holds the guest's memory and the keys of its disks, and nobody but root traces the process. The jail says so
/// again, after it has changed the user.
fn keep_memory_in() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(
        DumpableBehavior::NotDumpable,
    )?)
}

/// Threads share one heap: none allocates while a guest runs, and a heap for each takes memory and time.
fn one_heap() {
    // SAFETY: sets a number in the allocator; no other thread exists yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// A file that may not grow any more refuses what is written to it, which the guest is told; it does not end the
/// machine.
fn outlive_full_files() {
    // SAFETY: no handler is run; no other thread exists yet.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// A panic in any thread is the end of the machine: a device without its worker only looks alive.
fn end_on_panic() {
    const EXIT_CODE: i32 = 101;
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(&Outcome::Crashed {
            message: format!("the monitor panicked: {panic}"),
        });
        // A backtrace, if one is wanted, reads files: a filter may end it.
        default(panic);
        std::process::exit(EXIT_CODE);
    }));
}
