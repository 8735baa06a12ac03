//! `hearth`: the command line, reading like `aws ec2`.
//!
//! Each call is a command that [`calls`] makes from the API's descriptors; what is no call is one file under [`commands`].
//! [`output`] prints answers as JSON, text or a table. Exit codes are those of aws cli v2, see [`error`].

#![cfg_attr(test, allow(clippy::unwrap_used))]
// What comes from elsewhere must not drive a terminal: `output` and `terminal::say` are the ways out.
#![deny(clippy::print_stderr, clippy::print_stdout)]

use std::process::ExitCode;

mod calls;
mod commands;
mod context;
mod download;
mod error;
mod home;
mod output;
mod parameters;
mod profile;
mod query;
mod reach;
mod shorthand;
mod ssh;
mod terminal;
mod upload;
mod usage;

use error::CliError;

fn main() -> ExitCode {
    let matches = match commands::parse(std::env::args_os()) {
        Ok(matches) => matches,
        Err(usage) if usage.use_stderr() => {
            terminal::say(&usage::explained(&usage).trim_end());
            return ExitCode::from(error::USAGE);
        }
        Err(help) => {
            // A closed pipe is no reason to complain.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    match run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, CliError::BrokenPipe) {
                terminal::say(&error);
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(matches: &clap::ArgMatches) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::io("starting the asynchronous runtime", e))?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = commands::run(matches) => outcome,
            // Dropping the other branch cancels the call and clears progress displays.
            _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
        }
    });
    // A thread that still reads a file must not hold up the end.
    runtime.shutdown_background();
    outcome
}
