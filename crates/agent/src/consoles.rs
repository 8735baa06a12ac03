//! What instances wrote to their consoles, and what those wrote that are gone: as in EC2 it can be read for an hour after
//! the termination (GetConsoleOutput).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::paths::{DataDir, is_plain_id};

/// How long a console outlives its instance.
const KEPT: Duration = Duration::from_secs(3600);
/// Consoles of instances that are gone, 64 KiB each. Of more, the oldest go.
const MOST: usize = 1024;

/// What an instance wrote last.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Console {
    pub output: Vec<u8>,
    /// Milliseconds since the epoch when it was written; 0 when there is nothing.
    pub written_at: i64,
}

/// Reads an instance's console; empty for one that has said nothing here. Blocks.
///
/// # Errors
/// It cannot be read.
pub fn read(dir: &DataDir, instance_id: &str) -> io::Result<Console> {
    if !is_plain_id(instance_id) {
        return Ok(Console::default());
    }
    let file = match File::open(dir.console(instance_id)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(dir.kept_console(instance_id)),
        opened => opened,
    };
    let file = match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Console::default()),
        opened => opened?,
    };
    let written_at = file.metadata()?.modified()?.duration_since(UNIX_EPOCH);
    Ok(Console {
        output: hearth_vmm::console::read(&file)?,
        written_at: written_at
            .ok()
            .and_then(|since| i64::try_from(since.as_millis()).ok())
            .unwrap_or(0),
    })
}

/// Keeps the console of an instance that is about to be erased, and forgets those whose time is over. Blocks.
///
/// # Errors
/// It cannot be moved.
pub fn keep(dir: &DataDir, instance_id: &str) -> io::Result<()> {
    let kept = dir.kept_console(instance_id);
    match fs::rename(dir.console(instance_id), &kept) {
        // It never ran, or was kept before the agent was killed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // No longer the user's whose monitor wrote it; also the time from which it is kept.
        moved => moved.and_then(|()| std::os::unix::fs::chown(&kept, Some(0), Some(0)))?,
    }
    forget_old(dir)
}

/// Forgets consoles whose time is over. Blocks.
///
/// # Errors
/// They cannot be listed or removed.
pub fn forget_old(dir: &DataDir) -> io::Result<()> {
    sweep(dir, SystemTime::now(), MOST)
}

/// Forgets consoles that were kept for their time, and the oldest of too many.
fn sweep(dir: &DataDir, now: SystemTime, most: usize) -> io::Result<()> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(dir.kept_consoles())? {
        let entry = entry?;
        // Another instance that is erased now may have removed it.
        let Ok(metadata) = entry.metadata() else { continue };
        // The inode's change is the move: what is in the file is as it was written.
        let moved = u64::try_from(metadata.ctime()).unwrap_or(0);
        kept.push((UNIX_EPOCH + Duration::from_secs(moved), entry.path()));
    }
    kept.sort();
    let surplus = kept.len().saturating_sub(most);
    for (number, (moved, path)) in kept.into_iter().enumerate() {
        let is_over = now.duration_since(moved).is_ok_and(|age| age > KEPT);
        if is_over || number < surplus {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_dir() -> (tempfile::TempDir, DataDir) {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::create(root.path()).unwrap();
        (root, dir)
    }

    fn write(dir: &DataDir, id: &str) {
        fs::create_dir(dir.instance(id)).unwrap();
        fs::write(dir.console(id), b"anything").unwrap();
    }

    #[test]
    fn a_console_outlives_its_instance_for_an_hour() {
        let (_root, dir) = data_dir();
        write(&dir, "i-1");
        keep(&dir, "i-1").unwrap();
        assert!(!dir.console("i-1").exists() && dir.kept_console("i-1").exists());
        // A second time, as after a SIGKILL between the steps.
        keep(&dir, "i-1").unwrap();
        let soon = SystemTime::now() + KEPT - Duration::from_secs(60);
        sweep(&dir, soon, MOST).unwrap();
        assert!(dir.kept_console("i-1").exists());
        sweep(&dir, soon + Duration::from_secs(120), MOST).unwrap();
        assert!(!dir.kept_console("i-1").exists());
    }

    #[test]
    fn of_too_many_some_go() {
        let (_root, dir) = data_dir();
        for number in 0..5 {
            let id = format!("i-{number}");
            write(&dir, &id);
            keep(&dir, &id).unwrap();
        }
        sweep(&dir, SystemTime::now(), 3).unwrap();
        assert_eq!(fs::read_dir(dir.kept_consoles()).unwrap().count(), 3);
    }

    #[test]
    fn who_said_nothing_has_an_empty_console() {
        let (_root, dir) = data_dir();
        assert_eq!(read(&dir, "i-1").unwrap(), Console::default());
        assert_eq!(read(&dir, "../i-1").unwrap(), Console::default());
    }
}
