//! What lies in files.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

/// Whether a file below a directory holds a text. Files may come and go meanwhile; what grep skips are holes.
///
/// # Panics
/// The directory is not there, or there is no grep.
pub fn holds(dir: &Path, text: &str) -> bool {
    assert!(dir.is_dir(), "{} is no directory", dir.display());
    let mut grep = Command::new("grep");
    grep.args(["-rqsaF", "--", text]).arg(dir);
    grep.status().unwrap().success()
}
