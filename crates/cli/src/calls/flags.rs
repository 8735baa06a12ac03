//! The fields of a request as flags of a command.

use clap::{Arg, ArgAction, ArgMatches};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::{comments, names, structures};
use crate::error::CliError;
use crate::{parameters, shorthand};

/// A flag, and where its value goes.
#[derive(Debug)]
pub(super) struct Flag {
    name: String,
    /// What stands for the value in help texts.
    value_name: String,
    help: String,
    field: FieldDescriptor,
}

/// The flags for the fields of a request.
pub(super) fn of(request: &MessageDescriptor) -> Vec<Flag> {
    request.fields().map(Flag::new).collect()
}

impl Flag {
    fn new(field: FieldDescriptor) -> Self {
        let value_name = match field.kind() {
            Kind::Message(structure) => structures::syntax(&structure),
            Kind::String | Kind::Bytes => field.name().to_uppercase(),
            Kind::Bool => "true|false".to_owned(),
            _ => "NUMBER".to_owned(),
        };
        Self {
            name: names::kebab(field.name()),
            value_name,
            help: comments::of(&field.parent_message().parent_file(), field.path()),
            field,
        }
    }

    /// A flag without a value: off unless given.
    fn is_switch(&self) -> bool {
        matches!(self.field.kind(), Kind::Bool) && !self.field.supports_presence()
    }

    pub(super) fn clap(&'static self) -> Arg {
        let arg = Arg::new(self.name.as_str())
            .long(self.name.as_str())
            .help(self.help.as_str());
        if self.is_switch() {
            return arg.action(ArgAction::SetTrue);
        }
        let is_number = matches!(self.field.kind(), Kind::Int32 | Kind::Int64);
        let arg = arg
            .value_name(self.value_name.as_str())
            .allow_negative_numbers(is_number);
        match self.field.is_list() {
            true => arg.num_args(1..).action(ArgAction::Append),
            false => arg.action(ArgAction::Set),
        }
    }

    /// Puts what was given into the request.
    pub(super) fn put(&self, matches: &ArgMatches, request: &mut DynamicMessage) -> Result<(), CliError> {
        let value = if self.is_switch() {
            matches.get_flag(&self.name).then_some(Value::Bool(true))
        } else {
            let given = matches.get_many::<String>(&self.name);
            let given: Vec<String> = given.into_iter().flatten().cloned().collect();
            self.value(&given)?
        };
        if let Some(value) = value {
            request.set_field(&self.field, value);
        }
        Ok(())
    }

    fn value(&self, given: &[String]) -> Result<Option<Value>, CliError> {
        let parameter = format!("--{}", self.name);
        let Some(first) = given.first() else {
            return Ok(None);
        };
        let structured = matches!(self.field.kind(), Kind::Message(_));
        let json: Vec<serde_json::Value> = match (structured, self.field.is_list()) {
            (true, true) => shorthand::items(&parameter, given)?,
            (true, false) => vec![shorthand::item(&parameter, first)?],
            (false, _) if matches!(self.field.kind(), Kind::Bytes) => {
                let bytes = parameters::load_bytes(&parameter, first)?;
                return Ok(Some(Value::Bytes(bytes.into())));
            }
            (false, _) => {
                let texts = given.iter().map(|text| parameters::load_text(&parameter, text));
                texts
                    .map(|text| text.map(serde_json::Value::String))
                    .collect::<Result<_, _>>()?
            }
        };
        let json = match self.field.is_list() {
            true => serde_json::Value::Array(json),
            false => json.into_iter().next().unwrap_or_default(),
        };
        structures::value(&self.field, json)
            .map(Some)
            .map_err(|problem| CliError::parameter(&parameter, problem))
    }
}
