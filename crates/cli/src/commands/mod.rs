//! The commands that are no calls, one file each, and how they meet those that are ([`crate::calls`]).

use std::ffi::OsString;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::calls::{Call, waiters};
use crate::context::Context;
use crate::error::CliError;
use crate::output::{Format, Printer};
use crate::reach::Reach;

mod completions;
mod console;
mod man_pages;
mod ssh;
mod upload_image;
mod wait_until_up;

/// Virtual machines on your own metal; reads like `aws ec2`.
#[derive(Parser)]
#[command(
    name = "hearth",
    version,
    max_term_width = 110,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Global {
    #[command(flatten)]
    reach: Reach,

    /// How to print answers; unless told, a table on a terminal and JSON elsewhere.
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        env = "HEARTH_OUTPUT",
        value_enum
    )]
    output: Option<Format>,

    /// A JMESPath expression that picks what of the answer is printed.
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "EXPRESSION"
    )]
    query: Option<String>,

    /// Makes one call, also where the answer comes in pages.
    #[arg(long, global = true, help_heading = "Global options")]
    no_paginate: bool,
}

macro_rules! commands {
    ($($name:ident($arguments:ty),)*) => {
        #[derive(Subcommand)]
        enum Command {
            $($name($arguments),)*
        }

        impl Command {
            async fn run(self, context: &Context) -> Result<(), CliError> {
                match self {
                    $(Self::$name(arguments) => arguments.run(context).await,)*
                }
            }
        }
    };
}

commands! {
    UploadImage(upload_image::UploadImage),
    Ssh(ssh::Ssh),
    Console(console::Console),
    WaitUntilUp(wait_until_up::WaitUntilUp),
    Completions(completions::Completions),
    ManPages(man_pages::ManPages),
}

/// All commands, of any origin.
pub(crate) fn all() -> clap::Command {
    let all = Command::augment_subcommands(Global::command()).subcommand(waiters::command());
    Call::all().fold(all, |all, call| all.subcommand(call.clap()))
}

/// Understands a command line, in which `help` after a call or a waiter is `--help`, as aws has it.
pub(crate) fn parse(line: impl Iterator<Item = OsString>) -> Result<ArgMatches, clap::Error> {
    let mut line: Vec<OsString> = line.collect();
    let is_asked = match line.as_slice() {
        [_, call, help] => help == "help" && call.to_str().is_some_and(|call| Call::named(call).is_some()),
        [_, wait, _, help] => wait == "wait" && help == "help",
        _ => false,
    };
    if is_asked && let Some(help) = line.last_mut() {
        *help = "--help".into();
    }
    all().try_get_matches_from(line)
}

pub(crate) async fn run(matches: &ArgMatches) -> Result<(), CliError> {
    let global = Global::from_arg_matches(matches)?;
    let printer = Printer::new(global.output, global.query.as_deref())?;
    let context = Context::new(global.reach, printer, !global.no_paginate)?;
    match matches.subcommand() {
        Some(("wait", given)) => waiters::run(given, &context).await,
        Some((name, given)) if let Some(call) = Call::named(name) => call.run(given, &context).await,
        _ => Command::from_arg_matches(matches)?.run(&context).await,
    }
}
