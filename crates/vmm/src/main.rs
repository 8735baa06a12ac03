//! `hearth-vmm`: an instance's monitor, started by the agent with `--spec-fd`; or, with `run`, a virtual
//! machine on the terminal for whoever develops or learns.

mod probe;
mod run;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

use clap::{Parser, Subcommand};
use hearth_vmm::jail::{self, Role};
use hearth_vmm::lifecycle::{self, Surroundings, chain};
use hearth_vmm::open;
use hearth_vmm::spec::{Outcome, VmSpec};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(
    version,
    about = "Runs one virtual machine",
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    /// The inherited descriptor that the machine's description is read from, as JSON
    #[arg(long, required = true)]
    spec_fd: Option<RawFd>,
    /// Be confined: own namespaces, an empty root, no privileges, and this number as user and group
    #[arg(long, value_name = "UID", requires = "spec_fd")]
    jail: Option<u32>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run a machine on this terminal until it powers off
    Run(run::Arguments),
    /// Show what a guest could do that has broken out into its monitor
    ProbeJail(probe::Arguments),
}

/// Where the outcome goes, also from a panic in whatever thread.
static OUTCOME: OnceLock<File> = OnceLock::new();

fn main() -> ExitCode {
    let started = Instant::now();
    one_heap();
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn")))
        .with_writer(io::stderr)
        .init();
    end_on_panic();
    match arguments.command {
        Some(Command::Run(arguments)) => run::run(arguments, started),
        Some(Command::ProbeJail(arguments)) => probe::probe(&arguments),
        None => monitor(arguments.spec_fd.unwrap_or(-1), arguments.jail, started),
    }
}

fn monitor(spec_fd: RawFd, uid: Option<u32>, started: Instant) -> ExitCode {
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
            eprintln!("hearth-vmm: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Ends the process from a thread that must not wait for the others.
fn abandon(outcome: &Outcome) -> ! {
    let failed = report(outcome) != ExitCode::SUCCESS;
    std::process::exit(i32::from(failed))
}

/// Threads share one heap: none allocates while a guest runs, and a heap for each takes memory and time.
fn one_heap() {
    // SAFETY: sets a number in the allocator; no other thread exists yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
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
