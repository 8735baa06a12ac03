//! `hearth-vmm probe-jail`: what could a guest do that has broken out into its monitor?
//!
//! Each attempt is made by a process of its own that goes to jail as a monitor does: first by its namespaces and
//! lost privileges alone, then under the filter of each role of thread as well.

mod attempt;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::thread;

use argh::FromArgs;
use attempt::Attempt;
use hearth_log::chain;
use hearth_vmm::jail::{self, Role};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::fchdir;

/// Show what a guest could do that has broken out into its monitor
#[derive(FromArgs)]
#[argh(subcommand, name = "probe-jail")]
pub(crate) struct Arguments {
    /// user and group of the jailed process
    #[argh(option, default = "1_900_065_535")]
    jail: u32,
    /// make this attempt here and now, in this process
    #[argh(option, hidden_help)]
    attempt: Option<Attempt>,
    /// under the filter of a thread that does this
    #[argh(option, hidden_help)]
    role: Option<Role>,
    /// have this directory as the root, and be in it
    #[argh(option, hidden_help)]
    directory: Option<PathBuf>,
}

pub(crate) fn probe(arguments: &Arguments) -> ExitCode {
    let done = match arguments.attempt {
        Some(attempt) => inside(attempt, arguments),
        None => tabulate(arguments.jail),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hearth-vmm: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

type Error = Box<dyn std::error::Error>;

/// Goes to jail, tries, and says on standard output what came of it.
fn inside(attempt: Attempt, arguments: &Arguments) -> Result<(), Error> {
    let directory = arguments.directory.as_ref().map(File::open).transpose()?;
    let fd = directory.as_ref().map(AsRawFd::as_raw_fd);
    jail::enter(arguments.jail, fd.unwrap_or(libc::STDERR_FILENO), fd)?;
    if let Some(directory) = directory {
        fchdir(directory)?;
    }
    let try_it = move || println!("{}", attempt.make().unwrap_or_else(|error| error.to_string()));
    let Some(role) = arguments.role else {
        try_it();
        return Ok(());
    };
    jail::filter_threads(Role::Control)?;
    if role == Role::Control {
        try_it();
    } else {
        let thread = jail::spawn(role, thread::Builder::new(), try_it)?;
        thread.join().map_err(|_| "the thread panicked")?;
    }
    Ok(())
}

/// All attempts in a table.
fn tabulate(uid: u32) -> Result<(), Error> {
    println!(
        "{:<24} {:<44} with a filter",
        "attempt", "in the empty root without privileges"
    );
    for attempt in Attempt::HARMLESS {
        let bare = run(attempt, uid, None)?;
        let filtered = Role::EXPOSED
            .into_iter()
            .map(|role| run(attempt, uid, Some(role)))
            .collect::<Result<Vec<_>, _>>()?;
        let filtered = match filtered.as_slice() {
            [first, rest @ ..] if rest.iter().all(|other| other == first) => first.clone(),
            _ => Role::EXPOSED
                .iter()
                .zip(&filtered)
                .map(|(role, what)| format!("{}: {what}", role.name()))
                .collect::<Vec<_>>()
                .join("; "),
        };
        println!("{:<24} {bare:<44} {filtered}", attempt.name());
    }
    Ok(())
}

/// Makes an attempt in another process, and says how it went.
fn run(attempt: Attempt, uid: u32, role: Option<Role>) -> io::Result<String> {
    let mut command = Command::new("/proc/self/exe");
    command.args([
        "probe-jail",
        "--jail",
        &uid.to_string(),
        "--attempt",
        &attempt.name(),
    ]);
    if let Some(role) = role {
        command.args(["--role", &role.name()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    // A pid namespace is for the children of the thread that made it.
    let mut child = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWPID)?;
            command.spawn()
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })?;
    let mut said = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut said)?;
    }
    Ok(outcome(child.wait()?, said.trim()))
}

fn outcome(status: ExitStatus, said: &str) -> String {
    match status.signal() {
        Some(libc::SIGSYS) => "killed".to_owned(),
        Some(signal) => format!("signal {signal}"),
        None => said.to_owned(),
    }
}
