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
pub type Values<'i> = Vec<Cow<'i, str>>;

/// Appends the values that an item has under a filter's name.
pub type Get<T> = for<'i> fn(&'i T, &mut Values<'i>);

/// The filters that a Describe call knows. Made by [`known!`](crate::known).
#[derive(Debug)]
pub struct Known<T: 'static> {
    pub names: &'static [(&'static str, Get<T>)],
    /// Where an item has its tags; `tag:KEY`, `tag-key` and `tag-value` are known where it has some.
    pub tags: Option<fn(&T) -> &[Tag]>,
}

impl<T> Known<T> {
    /// What a caller may filter by, in the order of names.
    pub fn told(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.names.iter().map(|(name, _)| *name).collect();
        if self.tags.is_some() {
            names.extend(["tag:<key>", "tag-key"]);
        }
        names.sort_unstable();
        names
    }
}

/// Filters that were checked against the names that a call knows.
#[derive(Debug, Clone)]
pub struct Filters<'f, T: 'static>(Vec<Checked<'f, T>>);

#[derive(Debug, Clone)]
struct Checked<'f, T: 'static> {
    name: &'f str,
    patterns: Vec<Pattern>,
    by: By<'f, T>,
}

/// What of an item a filter looks at.
#[derive(Debug, Clone)]
enum By<'f, T: 'static> {
    Member(Get<T>),
    /// The value of the tag with a key.
    Tag(&'f str, fn(&T) -> &[Tag]),
    TagKey(fn(&T) -> &[Tag]),
    /// The value of any tag. EC2 takes it without documenting it any more.
    TagValue(fn(&T) -> &[Tag]),
}

impl<'f, T> By<'f, T> {
    fn new(name: &'f str, known: &Known<T>) -> Option<Self> {
        if name == "tag-key" {
            return known.tags.map(By::TagKey);
        }
        if name == "tag-value" {
            return known.tags.map(By::TagValue);
        }
        if let Some(key) = name.strip_prefix("tag:").filter(|key| !key.is_empty()) {
            return known.tags.map(|tags| By::Tag(key, tags));
        }
        let (_, get) = known.names.iter().find(|(known, _)| *known == name)?;
        Some(By::Member(*get))
    }

    fn values<'i>(&self, item: &'i T) -> Values<'i> {
        let mut values = Values::new();
        match self {
            By::Member(get) => get(item, &mut values),
            By::Tag(key, tags) => {
                let tags = tags(item).iter().filter(|tag| tag.key == *key);
                values.extend(tags.map(|tag| Cow::from(&tag.value)));
            }
            By::TagKey(tags) => values.extend(tags(item).iter().map(|tag| Cow::from(&tag.key))),
            By::TagValue(tags) => values.extend(tags(item).iter().map(|tag| Cow::from(&tag.value))),
        }
        values
    }
}

impl<'f, T> Filters<'f, T> {
    /// Checks filters against those that a call knows.
    ///
    /// # Errors
    /// `InvalidParameterValue` for an unknown name, no values or one that is too long, `FilterLimitExceeded` for too
    /// many values.
    pub fn new(filters: &'f [Filter], known: &Known<T>) -> Result<Self, ApiError> {
        if filters.iter().map(|filter| filter.values.len()).sum::<usize>() > MAX_VALUES {
            let message =
                format!("The maximum number of filter values specified on a single call is {MAX_VALUES}");
            return Err(ApiError::new(ErrorCode::FilterLimitExceeded, message));
        }
        let mut checked = Vec::with_capacity(filters.len());
        for Filter { name, values } in filters {
            let Some(by) = By::new(name, known) else {
                let names = known.told().join(", ");
                let message = format!("The filter '{name}' is invalid: this call knows {names}");
                return Err(ApiError::new(ErrorCode::InvalidParameterValue, message));
            };
            if values.is_empty() {
                let message = format!("The filter '{name}' has no values");
                return Err(ApiError::new(ErrorCode::InvalidParameterValue, message));
            }
            let patterns: Option<Vec<Pattern>> = values.iter().map(|value| Pattern::new(value)).collect();
            let Some(patterns) = patterns else {
                let message = format!("A value of the filter '{name}' has more than {MAX_LENGTH} characters");
                return Err(ApiError::new(ErrorCode::InvalidParameterValue, message));
            };
            checked.push(Checked { name, patterns, by });
        }
        Ok(Self(checked))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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

    /// Whether an item passes.
    pub fn matches(&self, item: &T) -> bool {
        self.0.iter().all(|filter| {
            let has = filter.by.values(item);
            has.iter()
                .any(|value| filter.patterns.iter().any(|pattern| pattern.matches(value)))
        })
    }
}

/// The values of a message's member, as filters have them.
pub trait Leaves {
    fn leaves<'i>(&'i self, into: &mut Values<'i>);
}

/// An empty text is an absent one.
impl Leaves for String {
    fn leaves<'i>(&'i self, into: &mut Values<'i>) {
        if !self.is_empty() {
            into.push(Cow::Borrowed(self));
        }
    }
}

impl<L: Leaves> Leaves for Option<L> {
    fn leaves<'i>(&'i self, into: &mut Values<'i>) {
        self.iter().for_each(|leaf| leaf.leaves(into));
    }
}

impl<L: Leaves> Leaves for Vec<L> {
    fn leaves<'i>(&'i self, into: &mut Values<'i>) {
        self.iter().for_each(|leaf| leaf.leaves(into));
    }
}

macro_rules! displayed {
    ($($kind:ty)*) => {
        $(impl Leaves for $kind {
            fn leaves<'i>(&'i self, into: &mut Values<'i>) {
                into.push(Cow::Owned(self.to_string()));
            }
        })*
    };
}

displayed!(bool i32 i64 f64);

/// `2021-09-29T11:04:43.305Z`.
impl Leaves for prost_types::Timestamp {
    fn leaves<'i>(&'i self, into: &mut Values<'i>) {
        if let Ok(time) = jiff::Timestamp::new(self.seconds, self.nanos) {
            into.push(Cow::Owned(format!("{time:.3}")));
        }
    }
}

/// The value of a member that Hearth does not tell, and that is false of all items.
pub fn no<T>(_: &T, into: &mut Values<'_>) {
    into.push(Cow::Borrowed("false"));
}

/// [`Known`]: names and where in an item their values are.
///
/// ```
/// # use hearth_api::{filter::Known, known, v1};
/// const FILTERS: Known<v1::Image> = known! {
///     tags: |image| &image.tags;
///     "name" => name,
///     // All device names.
///     "block-device-mapping.device-name" => block_device_mappings.device_name,
///     // No item has a value.
///     "ramdisk-id" => none,
///     // What a function appends.
///     "is-public" => (hearth_api::filter::no),
/// };
/// ```
#[macro_export]
macro_rules! known {
    (tags: $tags:expr; $($name:literal => $($at:tt).+),+ $(,)?) => {
        $crate::filter::Known {
            names: $crate::known!(@names $($name => $($at).+),+),
            tags: Some($tags),
        }
    };
    (@names $($name:literal => $($at:tt).+),+) => {
        &[$(($name, $crate::known!(@get $($at).+))),+]
    };
    (@get none) => { |_, _| {} };
    (@get ($function:expr)) => { $function };
    (@get $($at:ident).+) => { |item, into| $crate::known!(@leaves item, into, $($at).+) };
    (@leaves $item:expr, $into:expr, $member:ident) => {
        $crate::filter::Leaves::leaves(&$item.$member, $into)
    };
    (@leaves $item:expr, $into:expr, $member:ident . $($rest:ident).+) => {
        $item.$member.iter().for_each(|inner| {
            $crate::known!(@leaves inner, $into, $($rest).+);
        })
    };
    ($($name:literal => $($at:tt).+),+ $(,)?) => {
        $crate::filter::Known {
            names: $crate::known!(@names $($name => $($at).+),+),
            tags: None,
        }
    };
}

#[cfg(test)]
mod tests;
