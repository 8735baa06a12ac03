//! Printing answers: JSON in EC2's shape, YAML and text as aws cli writes them, or a table for people.

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use jpx_core::Expression;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::query;
use crate::terminal::sanitize;

mod columns;
mod json;
mod table;
mod text;
mod yaml;

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Json,
    Yaml,
    /// A list of pages, each as soon as it is there.
    YamlStream,
    Text,
    Table,
}

/// How answers are printed that come in pages, as aws cli does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pieces {
    /// All pages as one answer.
    Whole,
    /// Page by page, as lists that go on.
    Lists,
    /// Page by page, as the service answers them.
    Pages,
}

pub(crate) struct Printer {
    format: Format,
    /// A JMESPath expression that picks what is printed.
    query: Option<Expression<'static>>,
    to_terminal: bool,
}

impl Printer {
    /// Unless told otherwise, people (a terminal) get tables and pipes get JSON.
    pub(crate) fn new(format: Option<Format>, query: Option<&str>) -> Result<Self, CliError> {
        let to_terminal = std::io::stdout().is_terminal();
        let format = format.unwrap_or(if to_terminal { Format::Table } else { Format::Json });
        let query = query.map(query::compile).transpose()?;
        Ok(Self {
            format,
            query,
            to_terminal,
        })
    }

    pub(crate) fn pieces(&self) -> Pieces {
        match self.format {
            Format::Text => Pieces::Lists,
            Format::YamlStream => Pieces::Pages,
            Format::Json | Format::Yaml | Format::Table => Pieces::Whole,
        }
    }

    /// Prints an operation's answer in EC2's shape.
    pub(crate) fn print(&self, operation: &str, answer: &Value) -> Result<(), CliError> {
        let found = match &self.query {
            Some(expression) => &query::search(expression, answer)?,
            None => answer,
        };
        let printed = match self.format {
            Format::Json => json::pretty(found)?,
            Format::Yaml => yaml::format(found)?,
            Format::YamlStream => yaml::format(&json!([found]))?,
            Format::Text => text::format(found),
            Format::Table if self.query.is_some() => table::of_value(found),
            Format::Table => columns::table(operation, answer),
        };
        self.write(&printed)
    }

    /// Prints something that has no JSON shape; ends the last line if it has no end.
    pub(crate) fn write(&self, printed: &str) -> Result<(), CliError> {
        let end = if printed.is_empty() || printed.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        self.write_piece(printed)?;
        self.write_piece(end)
    }

    /// Prints a piece of something, and at once.
    pub(crate) fn write_piece(&self, printed: &str) -> Result<(), CliError> {
        let safe;
        let printed = if self.to_terminal {
            safe = sanitize(printed);
            safe.as_str()
        } else {
            printed
        };
        self.write_bytes(printed.as_bytes())
    }

    /// Prints a piece of something as it is, and at once: for those who asked for it.
    pub(crate) fn write_bytes(&self, printed: &[u8]) -> Result<(), CliError> {
        let mut out = std::io::stdout().lock();
        out.write_all(printed)
            .and_then(|()| out.flush())
            .map_err(|e| CliError::io("writing to standard output", e))
    }
}
