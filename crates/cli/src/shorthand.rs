//! aws cli's shorthand syntax: `Name=tag:Name,Values=a,b` or `ResourceType=instance,Tags=[{Key=k,Value=v}]`, and JSON
//! in its place.
//!
//! ```text
//! parameter = keyval *("," keyval)
//! keyval    = key "=" value
//! value     = scalar *("," scalar) / "[" [item *("," item)] "]" / "{" keyval *("," keyval) "}"
//! scalar    = *(any but "," / "\,") / "'" ... "'" / DQUOTE ... DQUOTE
//! ```
//!
//! The grammar is ambiguous at a comma: `a=1,2,b=3` is read as `a=[1,2]` and `b=3`, since what stands before an
//! equals sign must be a key. <https://docs.aws.amazon.com/cli/latest/userguide/cli-usage-shorthand.html>

use serde_json::{Map, Value};

use crate::error::CliError;
use crate::parameters::load_text;

/// Reads the values of a list parameter: each is one item in shorthand or JSON, or a JSON list of items, or
/// `file://` of JSON.
pub(crate) fn items(parameter: &str, values: &[String]) -> Result<Vec<Value>, CliError> {
    let mut items = Vec::new();
    for value in values {
        match item(parameter, value)? {
            Value::Array(list) => items.extend(list),
            item => items.push(item),
        }
    }
    Ok(items)
}

/// Reads the value of a structure parameter.
pub(crate) fn item(parameter: &str, value: &str) -> Result<Value, CliError> {
    let text = load_text(parameter, value)?;
    match text.trim_start().as_bytes().first() {
        Some(b'{' | b'[') => serde_json::from_str(&text)
            .map_err(|e| CliError::parameter(parameter, format!("Invalid JSON: {e}"))),
        _ => parse(&text).map_err(|e| CliError::parameter(parameter, e)),
    }
}

/// What was expected, and where it was not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Expected {expected}, received {}:\n{text}\n{:>column$}", .received.map_or("the end".into(), |c| format!("'{c}'")), "^", column = .at + 1)]
pub(crate) struct ShorthandError {
    expected: &'static str,
    received: Option<char>,
    text: String,
    /// In characters from the start.
    at: usize,
}

/// Parses one shorthand parameter. Scalars stay strings: only their reader knows what they should be.
pub(crate) fn parse(text: &str) -> Result<Value, ShorthandError> {
    let mut parser = Parser {
        characters: text.trim_end().chars().collect(),
        at: 0,
    };
    let map = parser.keyvals(None)?;
    Ok(Value::Object(map))
}

struct Parser {
    characters: Vec<char>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn take(&mut self, c: char) -> bool {
        let is_there = self.peek() == Some(c);
        self.at += usize::from(is_there);
        is_there
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn expected<T>(&self, expected: &'static str) -> Result<T, ShorthandError> {
        let text = self
            .characters
            .iter()
            .map(|c| if c.is_control() { ' ' } else { *c })
            .collect();
        Err(ShorthandError {
            expected,
            received: self.peek(),
            text,
            at: self.at,
        })
    }

    /// Pairs up to `end`, which is consumed; or to the end of the text.
    fn keyvals(&mut self, end: Option<char>) -> Result<Map<String, Value>, ShorthandError> {
        let mut map = Map::new();
        loop {
            self.skip_spaces();
            let key_at = self.at;
            let key = self.key()?;
            self.skip_spaces();
            if !self.take('=') {
                return self.expected("'='");
            }
            self.skip_spaces();
            let value = self.value(end)?;
            if map.insert(key, value).is_some() {
                self.at = key_at;
                return self.expected("a key that was not there before");
            }
            self.skip_spaces();
            match (self.peek(), end) {
                (Some(','), _) => self.at += 1,
                (None, None) => return Ok(map),
                (c, Some(_)) if c == end => {
                    self.at += 1;
                    return Ok(map);
                }
                (_, Some(_)) => return self.expected("',' or '}'"),
                (_, None) => return self.expected("',' or the end"),
            }
        }
    }

    fn key(&mut self) -> Result<String, ShorthandError> {
        let start = self.at;
        while self
            .peek()
            .is_some_and(|c| c.is_ascii_alphanumeric() || "_.#/:-".contains(c))
        {
            self.at += 1;
        }
        match self.at - start {
            0 => self.expected("a key"),
            _ => Ok(self.characters[start..self.at].iter().collect()),
        }
    }

    /// The value of a pair; `end` closes the structure that the pair is in.
    fn value(&mut self, end: Option<char>) -> Result<Value, ShorthandError> {
        match self.peek() {
            Some('[') => self.list(),
            Some('{') => self.structure(),
            _ => self.scalars(end),
        }
    }

    fn structure(&mut self) -> Result<Value, ShorthandError> {
        self.at += 1;
        self.skip_spaces();
        if self.take('}') {
            return Ok(Value::Object(Map::new()));
        }
        self.keyvals(Some('}')).map(Value::Object)
    }

    fn list(&mut self) -> Result<Value, ShorthandError> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.skip_spaces();
            // Also after a comma, as aws cli has it.
            if self.take(']') {
                return Ok(Value::Array(items));
            }
            items.push(match self.peek() {
                Some('[') => self.list()?,
                Some('{') => self.structure()?,
                _ => Value::String(self.scalar(Some(']'))?),
            });
            self.skip_spaces();
            if self.take(']') {
                return Ok(Value::Array(items));
            }
            if !self.take(',') {
                return self.expected("',' or ']'");
            }
        }
    }

    /// One scalar, or several with commas between them: a list without brackets.
    fn scalars(&mut self, end: Option<char>) -> Result<Value, ShorthandError> {
        let first = self.scalar(end)?;
        let mut more = Vec::new();
        while self.peek() == Some(',') {
            let comma = self.at;
            self.at += 1;
            self.skip_spaces();
            if self.at_keyval() {
                self.at = comma;
                break;
            }
            if matches!(self.peek(), None | Some(',')) {
                return self.expected("a value");
            }
            more.push(self.scalar(end)?);
        }
        Ok(match more.len() {
            0 => Value::String(first),
            _ => std::iter::once(first).chain(more).map(Value::String).collect(),
        })
    }

    /// Whether a key and an equals sign come next.
    fn at_keyval(&mut self) -> bool {
        let start = self.at;
        let found = self.key().is_ok() && {
            self.skip_spaces();
            self.peek() == Some('=')
        };
        self.at = start;
        found
    }

    /// A quoted or a bare scalar, which ends before a comma, before `end`, or at the end of the text.
    fn scalar(&mut self, end: Option<char>) -> Result<String, ShorthandError> {
        match self.peek() {
            Some(quote @ ('\'' | '"')) => self.quoted(quote),
            _ => Ok(self.bare(end)),
        }
    }

    fn bare(&mut self, end: Option<char>) -> String {
        let mut text = String::new();
        while let Some(c) = self.peek() {
            // As in aws cli a backslash is itself unless a comma follows.
            let escapes = c == '\\' && self.characters.get(self.at + 1) == Some(&',');
            if c == ',' || Some(c) == end {
                break;
            }
            text.push(if escapes { ',' } else { c });
            self.at += if escapes { 2 } else { 1 };
        }
        text.truncate(text.trim_end().len());
        text
    }

    fn quoted(&mut self, quote: char) -> Result<String, ShorthandError> {
        self.at += 1;
        let mut text = String::new();
        while let Some(c) = self.peek() {
            self.at += 1;
            match (c, self.peek()) {
                (c, _) if c == quote => return Ok(text),
                ('\\', Some(next)) if next == quote || next == '\\' => {
                    self.at += 1;
                    text.push(next);
                }
                _ => text.push(c),
            }
        }
        self.expected("a closing quote")
    }
}

#[cfg(test)]
mod tests;
