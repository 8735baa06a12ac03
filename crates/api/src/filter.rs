//! Filters of Describe calls: which items they let through.
//!
//! The values of one filter are alternatives, several filters must all match, and values are case-sensitive
//! patterns: `*` stands for any text, `?` for one character, and a backslash takes the next character literally.

use std::borrow::Cow;

use crate::error::{ApiError, ErrorCode};
use crate::v1::{Filter, Tag};

/// EC2 admits this many values per filter.
pub const MAX_VALUES: usize = 200;

/// The values that an item has under a filter's name; several for lists such as its security groups.
pub type Values<'a> = Vec<Cow<'a, str>>;

/// Filters that were checked against the names that a call knows.
#[derive(Debug, Clone, Copy)]
pub struct Filters<'f>(&'f [Filter]);

impl<'f> Filters<'f> {
    /// Checks filter names against `known`. `tag:KEY` and `tag-key` are known where `known` has `tag`.
    ///
    /// # Errors
    /// `InvalidParameterValue` for an unknown name, no values or too many.
    pub fn new(filters: &'f [Filter], known: &[&str]) -> Result<Self, ApiError> {
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
            if values.is_empty() || values.len() > MAX_VALUES {
                let message = format!("The filter '{name}' must have 1 to {MAX_VALUES} values");
                return Err(ApiError::new(ErrorCode::InvalidParameterValue, message));
            }
        }
        Ok(Self(filters))
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
                None => values_of(&filter.name),
            };
            has.iter().any(|value| {
                filter
                    .values
                    .iter()
                    .any(|pattern| pattern_matches(pattern, value))
            })
        })
    }
}

/// One element of a pattern.
enum Element {
    Any,
    One,
    Literal(char),
}

/// Whether `text` matches `pattern` as a whole. Linear in memory, and at most the product of both lengths in time.
pub fn pattern_matches(pattern: &str, text: &str) -> bool {
    let mut elements = Vec::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        elements.push(match c {
            '*' => Element::Any,
            '?' => Element::One,
            // A backslash at the end has nothing to escape and is itself.
            '\\' => Element::Literal(characters.next().unwrap_or('\\')),
            c => Element::Literal(c),
        });
    }
    let text: Vec<char> = text.chars().collect();

    // Greedy with one way back: only the last `*` ever needs to take more, for it can take what an earlier one would.
    let (mut e, mut t) = (0, 0);
    let mut last_any: Option<(usize, usize)> = None;
    loop {
        match (elements.get(e), text.get(t)) {
            (Some(Element::Any), _) => {
                last_any = Some((e, t));
                e += 1;
            }
            (Some(Element::One), Some(_)) => (e, t) = (e + 1, t + 1),
            (Some(Element::Literal(l)), Some(c)) if l == c => (e, t) = (e + 1, t + 1),
            (None, None) => return true,
            _ => match last_any {
                Some((any, taken)) if taken < text.len() => {
                    last_any = Some((any, taken + 1));
                    (e, t) = (any + 1, taken + 1);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests;
