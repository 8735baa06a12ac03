//! What a process that was killed has left in a directory: files that had not been given their names yet.
//!
//! `object_store` writes an object into `NAME#N` first. It never lists those, and never removes them.

use std::io;
use std::path::Path;
use std::time::Duration;

/// Longer than any object takes to be written.
const OLD: Duration = Duration::from_secs(3600);

/// Removes them. Blocks.
pub(crate) fn remove(room: &Path) -> io::Result<()> {
    let entries = match room.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        } else if entry.file_name().as_encoded_bytes().contains(&b'#') {
            let gone = entry.metadata().and_then(|metadata| {
                match metadata.modified()?.elapsed().unwrap_or_default() >= OLD {
                    true => std::fs::remove_file(entry.path()),
                    false => Ok(()),
                }
            });
            // It has its name by now.
            if let Err(error) = gone
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_files_without_a_name_go() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = dir.path().join("chunks/ab");
        std::fs::create_dir_all(&shelf).unwrap();
        for (name, is_old) in [("cd", true), ("cd#1", true), ("cd#2", false)] {
            let file = std::fs::File::create(shelf.join(name)).unwrap();
            if is_old {
                file.set_modified(std::time::SystemTime::now() - 2 * OLD).unwrap();
            }
        }
        remove(dir.path()).unwrap();
        let mut left: Vec<_> = shelf
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["cd", "cd#2"]);
        remove(&dir.path().join("nowhere")).unwrap();
    }
}
