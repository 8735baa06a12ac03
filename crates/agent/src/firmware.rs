//! The UEFI firmware's file, which need not be there: most images boot without.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;

/// Where the file may be. The first that exists is used; it is looked for anew each time.
#[derive(Debug, Clone)]
pub struct Firmware(Vec<PathBuf>);

impl Firmware {
    #[must_use]
    pub fn new(places: Vec<PathBuf>) -> Self {
        Self(places)
    }

    #[must_use]
    pub fn exists(&self) -> bool {
        self.0.iter().any(|path| path.exists())
    }

    /// # Errors
    /// `NotFound` where no place has it; or why the first that has it cannot be opened.
    pub fn open(&self) -> io::Result<File> {
        for path in &self.0 {
            match File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => return opened,
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, path) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { " or " };
            write!(f, "{separator}{}", path.display())?;
        }
        Ok(())
    }
}
