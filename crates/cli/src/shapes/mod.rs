//! EC2's JSON shapes: what answers look like when printed.
//!
//! Field names are those of EC2's API model; what Hearth does not have is left out, and so is what is empty, as in
//! EC2's answers.

pub(crate) mod hosts;
pub(crate) mod images;
pub(crate) mod instance_status;
pub(crate) mod instance_types;
pub(crate) mod instances;
pub(crate) mod key_pairs;
pub(crate) mod places;
pub(crate) mod security_groups;
pub(crate) mod tags;

use hearth_api::v1;
use prost_types::Timestamp;
use serde::Serialize;

use crate::output::Answer;
use crate::output::table;

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Tag {
    pub(crate) key: String,
    pub(crate) value: String,
}

pub(crate) fn tags(tags: Vec<v1::Tag>) -> Vec<Tag> {
    tags.into_iter()
        .map(|v1::Tag { key, value }| Tag { key, value })
        .collect()
}

/// The `Name` tag, which consoles show first.
pub(crate) fn name_of(tags: &[Tag]) -> String {
    tags.iter()
        .find(|tag| tag.key == "Name")
        .map(|tag| tag.value.clone())
        .unwrap_or_default()
}

/// What calls answer that have nothing to tell but that it was done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Done {
    r#return: bool,
    #[serde(skip)]
    sentence: String,
}

impl Done {
    /// `sentence` is what people get.
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self {
            r#return: true,
            sentence: sentence.into(),
        }
    }
}

impl Answer for Done {
    fn table(&self) -> String {
        self.sentence.clone()
    }
}

/// A point in time as aws cli prints it; empty for none.
pub(crate) fn time(timestamp: Option<Timestamp>) -> String {
    formatted(timestamp, "%Y-%m-%dT%H:%M:%S+00:00")
}

/// A point in time as EC2 writes it where its model says it is a string.
pub(crate) fn time_as_string(timestamp: Option<Timestamp>) -> String {
    formatted(timestamp, "%Y-%m-%dT%H:%M:%S.000Z")
}

fn formatted(timestamp: Option<Timestamp>, format: &str) -> String {
    let time = timestamp.and_then(|t| jiff::Timestamp::new(t.seconds, t.nanos).ok());
    time.map(|time| time.strftime(format).to_string())
        .unwrap_or_default()
}

/// For people: without seconds' fractions and the `T`.
fn readable(time: &str) -> String {
    time.get(..19).unwrap_or(time).replace('T', " ")
}

/// Bytes for people, in powers of 1024.
pub(crate) fn readable_size(bytes: i64) -> String {
    indicatif::BinaryBytes(bytes.try_into().unwrap_or(0)).to_string()
}
