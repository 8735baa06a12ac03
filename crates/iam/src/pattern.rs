//! Text of a policy: literal characters, wildcards, variables.

use crate::context::Context;
use crate::glob::Glob;
use crate::malformed::Malformed;

/// Which characters are special in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Syntax {
    /// `${key}`, since version 2012-10-17.
    pub variables: bool,
    /// `*` and `?`.
    pub wildcards: bool,
    /// Upper and lower case are the same. Texts to match must be folded.
    pub fold: bool,
}

/// Text that is compared with that of a request.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html>
#[derive(Debug, Clone)]
pub(crate) enum Pattern {
    Fixed(Glob),
    Variable { parts: Vec<Part>, fold: bool },
}

#[derive(Debug, Clone)]
pub(crate) enum Part {
    Character(char),
    /// `*`
    Any,
    /// `?`
    One,
    Variable {
        key: String,
        default: Option<String>,
    },
}

impl Pattern {
    pub fn parse(text: &str, syntax: Syntax) -> Result<Self, Malformed> {
        let mut parts = Vec::new();
        let mut rest = text.chars();
        loop {
            let here = rest.as_str();
            if syntax.variables && here.starts_with("${") {
                let (part, after) = variable(here)
                    .ok_or_else(|| Malformed::syntax(format_args!("\"{text}\" has an invalid variable.")))?;
                parts.push(part);
                rest = after.chars();
                continue;
            }
            parts.push(match rest.next() {
                Some('*') if syntax.wildcards => Part::Any,
                Some('?') if syntax.wildcards => Part::One,
                Some(character) => Part::Character(character),
                None => break,
            });
        }
        let fold = syntax.fold;
        if parts.iter().any(|part| matches!(part, Part::Variable { .. })) {
            return Ok(Pattern::Variable { parts, fold });
        }
        // Without variables there is nothing to resolve.
        let glob = resolve(&parts, fold, &Context::default(), usize::MAX);
        Ok(Pattern::Fixed(glob.unwrap_or_else(Glob::new)))
    }

    /// A variable that has no value matches nothing.
    pub fn matches(&self, text: &str, context: &Context) -> bool {
        match self {
            Pattern::Fixed(glob) => glob.matches(text),
            Pattern::Variable { parts, fold } => {
                resolve(parts, *fold, context, text.len()).is_some_and(|glob| glob.matches(text))
            }
        }
    }

    /// Whether all variables have values.
    pub fn resolves(&self, context: &Context) -> bool {
        let Pattern::Variable { parts, .. } = self else {
            return true;
        };
        parts.iter().all(|part| match part {
            Part::Variable { key, default } => default.is_some() || context.single(key).is_some(),
            Part::Character(_) | Part::Any | Part::One => true,
        })
    }

    pub fn has_variables(&self) -> bool {
        matches!(self, Pattern::Variable { .. })
    }
}

/// Values of variables are literal: a `*` in one is no wildcard. `None`: a variable has no value, or there are more than
/// `limit` characters, which a text of so many bytes cannot match.
fn resolve(parts: &[Part], folded: bool, context: &Context, limit: usize) -> Option<Glob> {
    let (mut glob, mut length) = (Glob::new(), 0);
    let mut push = |glob: &mut Glob, character: char| {
        if folded {
            character.to_lowercase().for_each(|lower| glob.push(lower));
        } else {
            glob.push(character);
        }
        length += 1;
        (length <= limit).then_some(())
    };
    for part in parts {
        match part {
            Part::Character(character) => push(&mut glob, *character)?,
            Part::Any => glob.push_any(),
            Part::One => glob.push_one(),
            Part::Variable { key, default } => {
                let value = context.single(key).or(default.as_deref())?;
                value
                    .chars()
                    .try_for_each(|character| push(&mut glob, character))?;
            }
        }
    }
    Some(glob)
}

/// `${key}`, `${key, 'default'}`, or one of the special characters `${*}`, `${?}`, `${$}`; and the text after it.
fn variable(text: &str) -> Option<(Part, &str)> {
    let inside = text.strip_prefix("${")?;
    let (key, rest) = inside.split_at(inside.find(['}', ','])?);
    let (default, after) = match rest.strip_prefix('}') {
        Some(after) => (None, after),
        None => {
            let quoted = rest.strip_prefix(',')?.trim_start().strip_prefix('\'')?;
            let (default, rest) = quoted.split_once('\'')?;
            (Some(default.to_owned()), rest.trim_start().strip_prefix('}')?)
        }
    };
    let part = match (key.trim(), &default) {
        ("", _) => return None,
        ("*", None) => Part::Character('*'),
        ("?", None) => Part::Character('?'),
        ("$", None) => Part::Character('$'),
        (key, _) => {
            let key = fold(key);
            Part::Variable { key, default }
        }
    };
    Some((part, after))
}

/// At most `limit` parts between colons that are not in a variable.
pub(crate) fn split_at_colons(text: &str, limit: usize, variables: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut in_variable) = (0, false);
    for (at, character) in text.char_indices() {
        match character {
            '$' if variables && text[at..].starts_with("${") => in_variable = true,
            '}' => in_variable = false,
            ':' if !in_variable && parts.len() + 1 < limit => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Text in which upper and lower case are the same.
pub(crate) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().flat_map(char::to_lowercase).collect()
}
