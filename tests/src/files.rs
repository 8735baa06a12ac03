//! What lies in files.

use std::path::Path;

/// Whether a file below a directory holds a text. Files may come and go meanwhile.
///
/// # Panics
/// The directory is not there.
pub fn holds(dir: &Path, text: &str) -> bool {
    assert!(dir.is_dir(), "{} is no directory", dir.display());
    is_below(dir, text.as_bytes())
}

fn is_below(dir: &Path, text: &[u8]) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => is_below(&path, text),
            Ok(kind) if kind.is_file() => {
                let bytes = std::fs::read(&path).unwrap_or_default();
                bytes.windows(text.len()).any(|window| window == text)
            }
            _ => false,
        }
    })
}
