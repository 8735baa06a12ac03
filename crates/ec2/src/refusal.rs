//! What is wrong with a request, in EC2's words. [`crate::json::code`] has those of other services.

use crate::form::LARGEST_INDEX;

/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html>
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("The action {0} is not valid for this web service.")]
    InvalidAction(String),
    #[error("The parameter {0} is not recognized")]
    UnknownParameter(String),
    #[error("Value ({value}) for parameter {parameter} is invalid. {expected}")]
    InvalidValue {
        parameter: String,
        value: String,
        expected: &'static str,
    },
    #[error("The parameter {0} is there twice")]
    Twice(String),
    #[error("The parameter {0} has a value and members. It can have one of them.")]
    ValueAndMembers(String),
    #[error("The parameter {0} is malformed. Items of a list are numbered from 1 to {LARGEST_INDEX}.")]
    Index(String),
    #[error("{0} are more parameters than a request may have")]
    TooMany(usize),
    #[error("The body of the request is not the JSON that is expected: {0}")]
    NotJson(String),
}

impl Refusal {
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::InvalidAction(_) => "InvalidAction",
            Refusal::UnknownParameter(_) => "UnknownParameter",
            Refusal::InvalidValue { .. } => "InvalidParameterValue",
            Refusal::Twice(_) | Refusal::ValueAndMembers(_) => "InvalidParameterCombination",
            Refusal::NotJson(_) => "SerializationException",
            Refusal::Index(_) | Refusal::TooMany(_) => "MalformedQueryString",
        }
    }
}
