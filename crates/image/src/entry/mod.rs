//! Boot loaders' configurations, reduced to the entry that they would boot by default.
//!
//! A reader answers an entry only if it understands everything that decides it. Otherwise it names the construct.

pub(crate) mod bls;
pub(crate) mod extlinux;
pub(crate) mod grub;
mod version;

use crate::fs::FsError;
use crate::road::Construct;
use crate::volumes::Place;

/// One way to boot, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootEntry {
    pub(crate) kernel: Place,
    pub(crate) initrds: Vec<Place>,
    pub(crate) cmdline: String,
}

/// Why no entry is certain.
#[derive(Debug)]
pub(crate) enum Undecided {
    Because(Construct),
    /// The disk cannot be read.
    Io(std::io::Error),
}

impl Undecided {
    pub(crate) fn because(place: impl Into<String>, what: impl Into<String>) -> Undecided {
        Undecided::Because(Construct::new(place, what))
    }

    fn text(&self) -> String {
        match self {
            Undecided::Because(construct) => construct.to_string(),
            Undecided::Io(error) => error.to_string(),
        }
    }
}

impl From<FsError> for Undecided {
    fn from(error: FsError) -> Undecided {
        match error {
            FsError::Io(error) => Undecided::Io(error),
            other => Undecided::because("", other.to_string()),
        }
    }
}

/// A directive's name and the rest of its line.
fn directive(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (name, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    Some((name, value.trim()))
}

#[cfg(test)]
mod tests;
