//! The commands that are no calls, one file each, and how they meet those that are ([`crate::calls`]).

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{ArgMatches, FromArgMatches, Parser, Subcommand};
use hearth_api::endpoint::{DEFAULT_ENDPOINT, ENDPOINT_VARIABLE};

use crate::calls::{Call, waiters};
use crate::context::Context;
use crate::error::CliError;
use crate::output::{Format, Printer};

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
pub(crate) struct Cli {
    /// The Unix socket of hearthd, as unix:PATH.
    #[arg(long, global = true, help_heading = "Global options", env = ENDPOINT_VARIABLE, default_value = DEFAULT_ENDPOINT, value_name = "unix:PATH")]
    endpoint_url: String,

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

    #[command(subcommand)]
    command: Any,
}

/// A command of any origin.
enum Any {
    ByHand(Command),
    /// A call, and what was given for it.
    Call(&'static Call, ArgMatches),
    Wait(ArgMatches),
}

impl Any {
    async fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::ByHand(command) => command.run(context).await,
            Self::Call(call, matches) => call.run(&matches, context).await,
            Self::Wait(matches) => waiters::run(&matches, context).await,
        }
    }
}

impl FromArgMatches for Any {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand() {
            Some(("wait", given)) => Ok(Self::Wait(given.clone())),
            Some((name, given)) if !Command::has_subcommand(name) => Call::named(name)
                .map(|call| Self::Call(call, given.clone()))
                .ok_or_else(|| clap::Error::new(ErrorKind::InvalidSubcommand)),
            _ => Command::from_arg_matches(matches).map(Self::ByHand),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Subcommand for Any {
    fn augment_subcommands(parent: clap::Command) -> clap::Command {
        let parent = Command::augment_subcommands(parent).subcommand(waiters::command());
        Call::all().fold(parent, |parent, call| parent.subcommand(call.clap()))
    }

    fn augment_subcommands_for_update(parent: clap::Command) -> clap::Command {
        Self::augment_subcommands(parent)
    }

    fn has_subcommand(name: &str) -> bool {
        name == "wait" || Command::has_subcommand(name) || Call::named(name).is_some()
    }
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

/// A command line whose `help` after a call or a waiter is `--help`, as aws has it.
pub(crate) fn with_help_asked(line: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut line: Vec<OsString> = line.collect();
    let is_asked = match line.as_slice() {
        [_, call, help] => help == "help" && call.to_str().is_some_and(|call| Call::named(call).is_some()),
        [_, wait, _, help] => wait == "wait" && help == "help",
        _ => false,
    };
    if is_asked && let Some(help) = line.last_mut() {
        *help = "--help".into();
    }
    line
}

impl Cli {
    pub(crate) async fn run(self) -> Result<(), CliError> {
        let printer = Printer::new(self.output, self.query.as_deref())?;
        let context = Context::new(&self.endpoint_url, printer, !self.no_paginate)?;
        self.command.run(&context).await
    }
}
