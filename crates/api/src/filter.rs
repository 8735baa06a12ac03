//! Filters of Describe calls: which items they let through.
//!
//! The values of one filter are alternatives, several filters must all match, and values are case-sensitive
//! patterns: `*` stands for any text, `?` for one character, and a backslash takes the next character literally.

use std::borrow::Cow;

use crate::error::{ApiError, ErrorCode};
use crate::v1::{Filter, Tag};

mod pattern;

pub use pattern::{MAX_LENGTH, Pattern};

/// EC2 admits this many values in all filters of a call.
pub const MAX_VALUES: usize = 200;

/// The values that an item has under a filter's name; several for lists such as its security groups.
pub type Values<'a> = Vec<Cow<'a, str>>;

/// Filters that were checked against the names that a call knows.
#[derive(Debug, Clone)]
pub struct Filters<'f>(Vec<Checked<'f>>);

#[derive(Debug, Clone)]
struct Checked<'f> {
    name: &'f str,
    patterns: Vec<Pattern>,
}

impl<'f> Filters<'f> {
    /// Checks filter names against `known`. `tag:KEY` and `tag-key` are known where `known` has `tag`.
    ///
    /// # Errors
    /// `InvalidParameterValue` for an unknown name, no values or one that is too long, `FilterLimitExceeded` for too
    /// many values.
    pub fn new(filters: &'f [Filter], known: &[&str]) -> Result<Self, ApiError> {
        if filters.iter().map(|filter| filter.values.len()).sum::<usize>() > MAX_VALUES {
            let message =
                format!("The maximum number of filter values specified on a single call is {MAX_VALUES}");
            return Err(ApiError::new(ErrorCode::FilterLimitExceeded, message));
        }
        let mut checked = Vec::with_capacity(filters.len());
        for Filter { name, values } in filters {
            let is_tag = name == "tag-key" || name.strip_prefix("tag:").is_some_and(|key| !key.is_empty());
            let is_known = if is_tag {
                known.contains(&"tag")
            } else {
                name != "tag" && known.contains(&name.as_str())
            };
            if !is_known {
                let mut names: Vec<&str> = known
                    .iter()
                    .map(|name| {
                        if *name == "tag" {
                            "tag:<key>, tag-key"
                        } else {
                            *name
                        }
                    })
                    .collect();
                names.sort_unstable();
                let message = format!(
                    "The filter '{name}' is invalid. This call knows: {}",
                    names.join(", ")
                );
                return Err(ApiError::new(ErrorCode::InvalidParameterValue, message));
            }
            if values.is_empty() {
                let message = format!("The filter '{name}' has no values");
                return Err(ApiError::new(ErrorCode::InvalidParameterValue, message));
            }
            let patterns: Option<Vec<Pattern>> = values.iter().map(|value| Pattern::new(value)).collect();
            let Some(patterns) = patterns else {
                let message = format!("A value of the filter '{name}' has more than {MAX_LENGTH} characters");
                return Err(ApiError::new(ErrorCode::InvalidParameterValue, message));
            };
            checked.push(Checked { name, patterns });
        }
        Ok(Self(checked))
    }

    /// The values of a filter that admits nothing else: it is given once, and none of its values is a pattern. Whatever
    /// passes has one of them.
    pub fn literals(&self, name: &str) -> Option<Vec<String>> {
        let filter = self.0.iter().find(|filter| filter.name == name)?;
        filter.patterns.iter().map(Pattern::literal).collect()
    }

    /// The key and the values of the first filter by a tag whose values are no patterns.
    pub fn literal_tag(&self) -> Option<(&str, Vec<String>)> {
        self.0.iter().find_map(|filter| {
            let key = filter.name.strip_prefix("tag:")?;
            let values: Option<Vec<String>> = filter.patterns.iter().map(Pattern::literal).collect();
            Some((key, values?))
        })
    }

    /// Whether an item passes. `values_of` answers what the item has under a known name; tags are looked up in `tags`.
    pub fn matches<'i>(&self, tags: &[Tag], values_of: impl Fn(&str) -> Values<'i>) -> bool {
        self.0.iter().all(|filter| {
            let has: Values<'_> = match filter.name.strip_prefix("tag:") {
                Some(key) => tags
                    .iter()
                    .filter(|t| t.key == key)
                    .map(|t| t.value.as_str().into())
                    .collect(),
                None if filter.name == "tag-key" => tags.iter().map(|t| t.key.as_str().into()).collect(),
                None => values_of(filter.name),
            };
            has.iter()
                .any(|value| filter.patterns.iter().any(|pattern| pattern.matches(value)))
        })
    }
}

#[cfg(test)]
mod tests;
