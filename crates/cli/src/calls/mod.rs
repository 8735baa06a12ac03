//! Commands made from the API's descriptors: one for each call. The flags are the request's fields, the help texts are the
//! comments of `proto/hearth/v1`, and the answer is printed in EC2's JSON shape. A new call needs nothing here; what aws
//! customises of some calls, and what Hearth adds to them, is in [`customs`].

use std::sync::LazyLock;

use clap::{ArgMatches, Command};
use hearth_api::client::{MAX_ANSWER, SERVICES};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor};
use serde_json::{Map, Value};

use self::customs::Custom;
use crate::context::Context;
use crate::error::CliError;

pub(crate) use names::kebab_of_pascal;

mod codec;
mod comments;
mod customs;
mod flags;
mod input;
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
    custom: Option<&'static dyn Custom>,
}

impl Call {
    fn new(method: &MethodDescriptor) -> Self {
        let input = method.input();
        let custom = customs::of(method.name());
        let replaced = custom.map_or(&[][..], |custom| custom.replaces());
        Self {
            operation: method.name().to_owned(),
            command: names::kebab_of_pascal(method.name()),
            about: comments::of(&method.parent_file(), method.path()),
            path: format!("/{}/{}", method.parent_service().full_name(), method.name()),
            flags: flags::of(&input, replaced),
            output: method.output(),
            input,
            custom,
        }
    }

    /// The call that a command is for.
    pub(crate) fn named(command: &str) -> Option<&'static Self> {
        CALLS.iter().find(|call| call.command == command)
    }

    /// All calls.
    pub(crate) fn all() -> impl Iterator<Item = &'static Self> {
        CALLS.iter()
    }

    pub(crate) fn clap(&'static self) -> Command {
        let command = Command::new(self.command.as_str()).about(self.about.as_str());
        let command = command.args(self.flags.iter().flat_map(flags::Flag::clap));
        let command = match self.custom {
            Some(custom) => custom.flags(command),
            None => command,
        };
        input::flags(command)
    }

    pub(crate) async fn run(&'static self, matches: &ArgMatches, context: &Context) -> Result<(), CliError> {
        if input::asks_for_skeleton(matches) {
            let skeleton = structures::skeleton(&self.input);
            return context.printer.print(&self.operation, &skeleton);
        }
        let mut request = input::given(matches)?;
        for flag in &self.flags {
            flag.put(matches, &mut request)?;
        }
        let answer = match self.custom {
            Some(custom) => custom.run(self, matches, context, request).await?,
            None => self.call(request, context).await?,
        };
        match &answer {
            // Nothing to tell but that it was done.
            Value::Object(members) if members.is_empty() => Ok(()),
            answer => context.printer.print(&self.operation, answer),
        }
    }

    /// Makes the call, and answers its answer as EC2 prints it.
    async fn call(&'static self, request: Map<String, Value>, context: &Context) -> Result<Value, CliError> {
        let request = structures::message(&self.input, Value::Object(request));
        let request = request.map_err(CliError::Usage)?;
        let path = self.path.parse();
        let path = path.map_err(|error| CliError::Failed(format!("{}: {error}", self.path)))?;
        let codec = codec::Dynamic::new(&self.output);
        let mut client =
            tonic::client::Grpc::new(context.channel().await?).max_decoding_message_size(MAX_ANSWER);
        let ready = client.ready().await;
        ready.map_err(|error| CliError::Failed(format!("waiting for hearthd: {error}")))?;
        let answer: Result<_, _> = client.unary(tonic::Request::new(request), path, codec).await;
        let answer: DynamicMessage = context.answered(&self.operation, answer)?;
        Ok(structures::json(&answer))
    }
}
