//! Commands made from the API's descriptors: one for each call that has no command of its own under
//! [`crate::commands`]. The flags are the request's fields, the help texts are the comments of `proto/hearth/v1`, and the
//! answer is printed in EC2's JSON shape. A new call needs nothing here.

use std::sync::LazyLock;

use clap::{ArgMatches, Command};
use hearth_api::client::{MAX_ANSWER, SERVICES};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor};
use serde::Serialize;
use serde_json::Value;

use crate::context::Context;
use crate::error::CliError;
use crate::output::{Answer, table};
use crate::shapes::Done;

mod codec;
mod comments;
mod flags;
mod names;
pub(crate) mod structures;

static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(hearth_api::DESCRIPTORS).ok());

/// All unary calls of the API, in the order of their services.
static CALLS: LazyLock<Vec<Call>> = LazyLock::new(|| {
    let pool = POOL.as_ref();
    let services = SERVICES.iter().filter_map(|name| pool?.get_service_by_name(name));
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    methods
        .filter(|method| !method.is_client_streaming() && !method.is_server_streaming())
        .map(|method| Call::new(&method))
        .collect()
});

/// A call of the API.
#[derive(Debug)]
pub(crate) struct Call {
    /// EC2's name: `CreatePlacementGroup`.
    operation: String,
    /// As a command: `create-placement-group`.
    pub(crate) command: String,
    about: String,
    /// HTTP/2 path.
    path: String,
    flags: Vec<flags::Flag>,
    input: MessageDescriptor,
    output: MessageDescriptor,
}

impl Call {
    fn new(method: &MethodDescriptor) -> Self {
        let input = method.input();
        Self {
            operation: method.name().to_owned(),
            command: names::kebab_of_pascal(method.name()),
            about: comments::of(&method.parent_file(), method.path()),
            path: format!("/{}/{}", method.parent_service().full_name(), method.name()),
            flags: flags::of(&input),
            output: method.output(),
            input,
        }
    }

    /// The call that a command is for, and that no other command serves.
    pub(crate) fn named(command: &str) -> Option<&'static Self> {
        CALLS.iter().find(|call| call.command == command)
    }

    /// All calls.
    pub(crate) fn all() -> impl Iterator<Item = &'static Self> {
        CALLS.iter()
    }

    pub(crate) fn clap(&'static self) -> Command {
        let command = Command::new(self.command.as_str()).about(self.about.as_str());
        command.args(self.flags.iter().map(flags::Flag::clap))
    }

    pub(crate) async fn run(&'static self, matches: &ArgMatches, context: &Context) -> Result<(), CliError> {
        let mut request = DynamicMessage::new(self.input.clone());
        for flag in &self.flags {
            flag.put(matches, &mut request)?;
        }
        let path = self.path.parse();
        let path = path.map_err(|error| CliError::Failed(format!("{}: {error}", self.path)))?;
        let codec = codec::Dynamic::new(&self.output);
        let mut client =
            tonic::client::Grpc::new(context.channel().await?).max_decoding_message_size(MAX_ANSWER);
        let ready = client.ready().await;
        ready.map_err(|error| CliError::Failed(format!("waiting for hearthd: {error}")))?;
        let answer = client.unary(tonic::Request::new(request), path, codec).await;
        let answer = context.answered(&self.operation, answer)?;
        if self.output.fields().len() == 0 {
            return context.print(&Done::new("Done."));
        }
        context.print(&Told(structures::answer(&answer)))
    }
}

/// An answer in EC2's JSON shape.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Told(Value);

impl Answer for Told {
    /// Most answers are one list, and perhaps a token.
    fn table(&self) -> String {
        let lists = self.0.as_object().into_iter().flatten();
        let mut lists = lists.filter(|(_, value)| value.is_array());
        match (lists.next(), lists.next()) {
            (Some((name, Value::Array(items))), None) if items.is_empty() => {
                format!("No {}.", names::kebab_of_pascal(name).replace('-', " "))
            }
            (Some((_, list)), None) => table::of_value(list),
            _ => table::of_value(&self.0),
        }
    }
}
