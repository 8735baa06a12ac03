//! Commands made from the API's descriptors: one for each call. The flags are the request's fields, the help texts are the
//! comments of `proto/hearth/v1`, and the answer is printed in EC2's JSON shape. A new call needs nothing here; what aws
//! customises of some calls, and what Hearth adds to them, is in [`customs`].

use std::sync::LazyLock;

use clap::{ArgMatches, Args as _, Command};
use hearth_api::client::{MAX_ANSWER, SERVICES};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor};
use serde_json::{Map, Value};

use self::customs::Custom;
use self::pages::{Paged, Pages};
use crate::context::Context;
use crate::error::CliError;

pub(crate) use names::kebab_of_pascal;

mod codec;
mod comments;
mod customs;
mod flags;
mod input;
mod names;
mod pages;
pub(crate) mod structures;
pub(crate) mod waiters;
mod waiting;

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
    command: String,
    about: String,
    /// HTTP/2 path.
    path: String,
    flags: Vec<flags::Flag>,
    input: MessageDescriptor,
    output: MessageDescriptor,
    custom: Option<&'static Custom>,
    /// `None`: its answers come whole.
    paged: Option<Paged>,
}

impl Call {
    fn new(method: &MethodDescriptor) -> Self {
        let input = method.input();
        let custom = customs::of(method.name());
        let paged = Paged::of(&input, &method.output());
        let mut replaced = custom.map_or(&[][..], |custom| custom.replaces).to_vec();
        replaced.extend(paged.iter().flat_map(|paged| paged.members().replaces));
        Self {
            operation: method.name().to_owned(),
            command: names::kebab_of_pascal(method.name()),
            about: comments::of(&method.parent_file(), method.path()),
            path: format!("/{}/{}", method.parent_service().full_name(), method.name()),
            flags: flags::of(&input, &replaced),
            paged,
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
        let mut command = self.with_flags(Command::new(self.command.as_str()).about(self.about.as_str()));
        if let Some(custom) = self.custom {
            command = (custom.flags)(command);
        }
        if waiting::of(&self.operation).is_some() {
            command = waiting::Waiting::augment_args(command);
        }
        if let Some(paged) = &self.paged {
            let hidden = paged.members().hides.iter();
            command = hidden.fold(pages::Paging::augment_args(command), |command, name| {
                command.mut_arg(name, |arg| arg.hide(true))
            });
        }
        command
    }

    /// Adds the flags of the request's fields.
    fn with_flags(&'static self, command: Command) -> Command {
        input::flags(command.args(self.flags.iter().flat_map(flags::Flag::clap)))
    }

    /// What these flags say.
    fn request(&self, matches: &ArgMatches) -> Result<Map<String, Value>, CliError> {
        let mut request = input::given(matches)?;
        for flag in &self.flags {
            flag.put(matches, &mut request)?;
        }
        Ok(request)
    }

    pub(crate) async fn run(&'static self, matches: &ArgMatches, context: &Context) -> Result<(), CliError> {
        if input::asks_for_skeleton(matches) {
            let skeleton = structures::skeleton(&self.input);
            return context.printer.print(&self.operation, &skeleton);
        }
        let mut request = self.request(matches)?;
        if let Some(paged) = &self.paged
            && let Some(pages) = Pages::asked(paged, matches, &request, context)?
        {
            return pages.print(self, context).await;
        }
        let finish = match self.custom {
            Some(custom) => (custom.prepare)(matches, &mut request)?,
            None => None,
        };
        let mut answer = self.call(request, context).await?;
        if let Some(finish) = finish {
            finish(&mut answer)?;
        }
        if let Some(waiter) = waiting::of(&self.operation) {
            waiting::wait(waiter, matches, &mut answer, context).await?;
        }
        match &answer {
            // Nothing to tell but that it was done.
            Value::Object(members) if members.is_empty() => Ok(()),
            answer => context.printer.print(&self.operation, answer),
        }
    }

    /// Makes the call, and answers its answer as EC2 prints it.
    async fn call(&'static self, request: impl Into<Value>, context: &Context) -> Result<Value, CliError> {
        let request = structures::message(&self.input, request.into());
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

/// Makes a call that a command needs which is none.
pub(crate) async fn ask(operation: &str, request: Value, context: &Context) -> Result<Value, CliError> {
    let call = Call::named(&kebab_of_pascal(operation));
    let call = call.ok_or_else(|| CliError::Failed(format!("There is no call {operation}.")))?;
    call.call(request, context).await
}
