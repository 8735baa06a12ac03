//! What is known about a request: condition keys and their values.

use std::collections::BTreeMap;

use crate::pattern::fold;

/// Condition keys and their values. Names of keys are case-insensitive. A key may have several values.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html>
///
/// Values are text: dates in ISO 8601 or as seconds of the epoch, binary values in base64.
#[derive(Debug, Clone, Default)]
pub struct Context {
    values: BTreeMap<String, Vec<String>>,
}

impl Context {
    /// Gives a key one value, in place of those that it has.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.values.insert(fold(key), vec![value.into()]);
    }

    /// Gives a key one more value.
    pub fn add(&mut self, key: &str, value: impl Into<String>) {
        self.values.entry(fold(key)).or_default().push(value.into());
    }

    /// `None`: the request has no such key.
    pub fn get(&self, key: &str) -> Option<&[String]> {
        self.folded(&fold(key))
    }

    /// `key` is folded already.
    pub(crate) fn folded(&self, key: &str) -> Option<&[String]> {
        self.values.get(key).map(Vec::as_slice)
    }

    /// Keys with several values cannot be variables.
    pub(crate) fn single(&self, key: &str) -> Option<&str> {
        match self.folded(key)? {
            [value] => Some(value),
            _ => None,
        }
    }
}
