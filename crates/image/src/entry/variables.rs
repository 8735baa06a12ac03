//! GRUB's variables.

use std::collections::HashMap;

/// Bytes that expansions may produce together: variables can double at each assignment.
const EXPANSION_BUDGET: usize = 1 << 20;

/// Names and values. An unknown name is empty, as in GRUB.
#[derive(Debug, Clone)]
pub(crate) struct Variables {
    values: HashMap<String, String>,
    budget: usize,
}

impl Variables {
    pub(crate) fn new() -> Variables {
        Variables {
            values: HashMap::new(),
            budget: EXPANSION_BUDGET,
        }
    }

    /// Reads an environment block (`grubenv`): `name=value` lines, comments, and a padding of `#`.
    pub(crate) fn from_grubenv(text: &str) -> Variables {
        let mut variables = Variables::new();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            variables.set(name, value);
        }
        variables
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.values.insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Replaces `$name` and `${name}`. A value that the budget does not hold any more is left out.
    pub(crate) fn expand(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            let (name, tail) = match after.strip_prefix('{') {
                Some(braced) => braced.split_once('}').unwrap_or((braced, "")),
                None => after.split_at(after.find(|c: char| !is_name(c)).unwrap_or(after.len())),
            };
            match self.values.get(name) {
                _ if name.is_empty() => out.push('$'),
                Some(value) if value.len() <= self.budget => {
                    self.budget -= value.len();
                    out.push_str(value);
                }
                _ => {}
            }
            rest = tail;
        }
        out.push_str(rest);
        out
    }
}

pub(super) fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
