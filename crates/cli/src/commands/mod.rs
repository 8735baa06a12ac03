//! The commands that are written by hand, one file per EC2 noun, and Hearth's own. The others follow from the API's
//! descriptors ([`crate::calls`]).

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, FromArgMatches, Parser, Subcommand};
use hearth_api::endpoint::{DEFAULT_ENDPOINT, ENDPOINT_VARIABLE};

use crate::calls::Call;
use crate::context::Context;
use crate::error::CliError;
use crate::output::{Format, Printer};

mod completions;
mod console;
mod hosts;
mod images;
mod instance_types;
mod instances;
mod key_pairs;
mod man_pages;
mod places;
mod security_groups;
mod ssh;
mod state_changes;
mod tags;
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

    #[command(subcommand)]
    command: Any,
}

/// A command of any origin.
enum Any {
    ByHand(Command),
    /// A call without a command of its own, and what was given for it.
    Call(&'static Call, ArgMatches),
}

impl Any {
    async fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::ByHand(command) => command.run(context).await,
            Self::Call(call, matches) => call.run(&matches, context).await,
        }
    }
}

impl FromArgMatches for Any {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand() {
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
        let others = Call::all().filter(|call| !Command::has_subcommand(&call.command));
        others.fold(Command::augment_subcommands(parent), |parent, call| {
            parent.subcommand(call.clap())
        })
    }

    fn augment_subcommands_for_update(parent: clap::Command) -> clap::Command {
        Self::augment_subcommands(parent)
    }

    fn has_subcommand(name: &str) -> bool {
        Command::has_subcommand(name) || Call::named(name).is_some()
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
    // The command with the most options by far.
    RunInstances(Box<instances::RunInstances>),
    DescribeInstances(instances::DescribeInstances),
    DescribeInstanceStatus(instances::DescribeInstanceStatus),
    StartInstances(state_changes::StartInstances),
    StopInstances(state_changes::StopInstances),
    RebootInstances(instances::RebootInstances),
    TerminateInstances(state_changes::TerminateInstances),
    ModifyInstanceMaintenanceOptions(instances::ModifyInstanceMaintenanceOptions),
    GetConsoleOutput(instances::GetConsoleOutput),
    RegisterImage(images::RegisterImage),
    DescribeImages(images::DescribeImages),
    DeregisterImage(images::DeregisterImage),
    CreateKeyPair(key_pairs::CreateKeyPair),
    ImportKeyPair(key_pairs::ImportKeyPair),
    DescribeKeyPairs(key_pairs::DescribeKeyPairs),
    DeleteKeyPair(key_pairs::DeleteKeyPair),
    CreateSecurityGroup(security_groups::CreateSecurityGroup),
    DescribeSecurityGroups(security_groups::DescribeSecurityGroups),
    DeleteSecurityGroup(security_groups::DeleteSecurityGroup),
    AuthorizeSecurityGroupIngress(security_groups::AuthorizeSecurityGroupIngress),
    AuthorizeSecurityGroupEgress(security_groups::AuthorizeSecurityGroupEgress),
    RevokeSecurityGroupIngress(security_groups::RevokeSecurityGroupIngress),
    RevokeSecurityGroupEgress(security_groups::RevokeSecurityGroupEgress),
    DescribeInstanceTypes(instance_types::DescribeInstanceTypes),
    DescribeAvailabilityZones(places::DescribeAvailabilityZones),
    CreateTags(tags::CreateTags),
    DeleteTags(tags::DeleteTags),
    DescribeTags(tags::DescribeTags),
    ListHosts(hosts::ListHosts),
    DrainHost(hosts::DrainHost),
    ResumeHost(hosts::ResumeHost),
    ForgetHost(hosts::ForgetHost),
    Ssh(ssh::Ssh),
    Console(console::Console),
    WaitUntilUp(wait_until_up::WaitUntilUp),
    Completions(completions::Completions),
    ManPages(man_pages::ManPages),
}

impl Cli {
    pub(crate) async fn run(self) -> Result<(), CliError> {
        let printer = Printer::new(self.output, self.query.as_deref())?;
        let context = Context::new(&self.endpoint_url, printer)?;
        self.command.run(&context).await
    }
}

#[derive(Args)]
struct DryRun {
    /// Checks whether the request would succeed, without doing anything.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
struct Filtering {
    /// Narrows the answer: all filters must match, any value of each. Wildcards: * and ?.
    #[arg(long, num_args = 1.., value_name = "Name=...,Values=...")]
    filters: Vec<String>,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Args)]
struct Paging {
    /// At most so many items (5 to 1000); the answer has a NextToken when there are more.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    max_results: i32,
    /// The NextToken of the answer before.
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    next_token: String,
}

#[derive(Args)]
struct Tagging {
    /// Tags to put on what is made.
    #[arg(long, num_args = 1.., value_name = "ResourceType=...,Tags=[{Key=...,Value=...}]")]
    tag_specifications: Vec<String>,
}
