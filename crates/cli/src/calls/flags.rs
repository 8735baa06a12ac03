//! The fields of a request as flags of a command.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{Arg, ArgAction, ArgMatches};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::{comments, input, names, structures};
use crate::error::CliError;
use crate::{parameters, shorthand};

/// A flag, and where its value goes.
#[derive(Debug)]
pub(super) struct Flag {
    name: String,
    /// Of a truth value, and of a structure of one: the flag that says that it is not.
    negation: Option<String>,
    /// What stands for the value in help texts.
    value_name: String,
    help: String,
    is_required: bool,
    field: FieldDescriptor,
}

/// The flags for the fields of a request, without those that others replace.
pub(super) fn of(request: &MessageDescriptor, replaced: &[&str]) -> Vec<Flag> {
    let fields = names::fields(request).filter(|field| !replaced.contains(&field.name()));
    fields.map(Flag::new).collect()
}

/// A structure of one truth value, of which `aws` makes a switch that may be given the structure, too.
fn is_truth_structure(field: &FieldDescriptor) -> bool {
    let Kind::Message(structure) = field.kind() else {
        return false;
    };
    structure.name() == "AttributeBooleanValue" && !field.is_list()
}

impl Flag {
    fn new(field: FieldDescriptor) -> Self {
        let name = names::kebab(field.name());
        let value_name = match field.kind() {
            Kind::Message(_) if field.is_map() => "NAME=VALUE,...".to_owned(),
            Kind::Message(structure) => structures::syntax(&structure),
            Kind::String | Kind::Bytes => field.name().to_uppercase(),
            _ => "NUMBER".to_owned(),
        };
        let is_required = structures::is_required(&field);
        let help = comments::of(&field.parent_message().parent_file(), field.path());
        let is_truth = is_truth_structure(&field) || matches!(field.kind(), Kind::Bool) && !field.is_list();
        Self {
            negation: is_truth.then(|| format!("no-{name}")),
            name,
            value_name,
            help: if is_required {
                format!("{help} [required]")
            } else {
                help
            },
            is_required,
            field,
        }
    }

    pub(super) fn clap(&'static self) -> Vec<Arg> {
        let arg = Arg::new(self.name.as_str())
            .long(self.name.as_str())
            .help(self.help.as_str());
        let arg = match self.is_required {
            true => arg.required_unless_present_any(input::WHOLE),
            false => arg,
        };
        if let Some(negation) = &self.negation {
            let no = Arg::new(negation.as_str()).long(negation.as_str()).hide(true);
            let arg = match is_truth_structure(&self.field) {
                true => arg
                    .value_name(self.value_name.as_str())
                    .num_args(0..=1)
                    .default_missing_value("Value=true"),
                false => arg.action(ArgAction::SetTrue),
            };
            return vec![
                arg.overrides_with(negation.as_str()),
                no.action(ArgAction::SetTrue),
            ];
        }
        let is_number = matches!(self.field.kind(), Kind::Int32 | Kind::Int64);
        let arg = arg
            .value_name(self.value_name.as_str())
            .allow_negative_numbers(is_number);
        vec![match self.field.is_list() {
            true => arg.num_args(1..).action(ArgAction::Append),
            false => arg.action(ArgAction::Set),
        }]
    }

    /// Puts what was given into the request.
    pub(super) fn put(&self, matches: &ArgMatches, request: &mut Map<String, Value>) -> Result<(), CliError> {
        let is_structure = is_truth_structure(&self.field);
        let value = match &self.negation {
            Some(negation) if matches.get_flag(negation) => Some(match is_structure {
                true => json!({ "Value": false }),
                false => false.into(),
            }),
            Some(_) if !is_structure => matches.get_flag(&self.name).then(|| true.into()),
            _ => {
                let given = matches.get_many::<String>(&self.name);
                let given: Vec<String> = given.into_iter().flatten().cloned().collect();
                self.value(&given)?
            }
        };
        if let Some(value) = value {
            // Told here, a fault is told with its flag.
            structures::value(&self.field, value.clone())
                .map_err(|problem| CliError::parameter(&format!("--{}", self.name), problem))?;
            request.insert(names::member(&self.field), value);
        }
        match names::member(&self.field) {
            member if self.is_required && !request.contains_key(&member) => Err(CliError::Usage(format!(
                "Parameter validation failed:\nMissing required parameter in input: \"{member}\""
            ))),
            _ => Ok(()),
        }
    }

    fn value(&self, given: &[String]) -> Result<Option<Value>, CliError> {
        let parameter = format!("--{}", self.name);
        let Some(first) = given.first() else {
            return Ok(None);
        };
        let is_structure = matches!(self.field.kind(), Kind::Message(_));
        let text = |text| parameters::load_text(&parameter, text).map(Value::String);
        let value = match (is_structure, self.field.is_list()) {
            (true, true) => Value::Array(shorthand::items(&parameter, given)?),
            (true, false) => shorthand::item(&parameter, first)?,
            (false, true) => Value::Array(given.iter().map(|given| text(given)).collect::<Result<_, _>>()?),
            (false, false) if matches!(self.field.kind(), Kind::Bytes) => BASE64_STANDARD
                .encode(parameters::load_bytes(&parameter, first)?)
                .into(),
            (false, false) => text(first)?,
        };
        Ok(Some(value))
    }
}
