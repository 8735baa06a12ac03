//! What the CLI keeps of its own, under `~/.hearth` (or `$HEARTH_HOME`): private keys and known hosts.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use crate::error::CliError;

/// The folder itself; it need not exist.
pub(crate) fn home() -> Result<PathBuf, CliError> {
    let own = std::env::var_os("HEARTH_HOME").map(PathBuf::from);
    own.or_else(|| std::env::home_dir().map(|home| home.join(".hearth")))
        .ok_or_else(|| CliError::Failed("There is no home directory: set HOME or HEARTH_HOME.".to_owned()))
}

/// Where the private key of a key pair is kept; `None` for names that no file can have.
pub(crate) fn key_path(key_name: &str) -> Result<Option<PathBuf>, CliError> {
    let is_file_name = !key_name.is_empty() && !key_name.contains(['/', '\0']);
    Ok(is_file_name.then_some(home()?.join("keys").join(format!("{key_name}.pem"))))
}

/// Makes `folder` under the home, for the user alone.
pub(crate) fn make_private(folder: &PathBuf) -> Result<(), CliError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|e| CliError::io(format!("making {}", folder.display()), e))
}

/// The file of a private key that is about to be made. Unless it is kept, it goes again.
pub(crate) struct NewKeyFile {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl NewKeyFile {
    pub(crate) fn create(key_name: &str) -> Result<Self, CliError> {
        let path = key_path(key_name)?.ok_or_else(|| {
            CliError::parameter(
                "--key-name",
                format!("'{key_name}' cannot be a file's name (--save)"),
            )
        })?;
        make_private(&home()?.join("keys"))?;
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
        {
            Ok(file) => Ok(Self {
                path,
                file,
                kept: false,
            }),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(CliError::Usage(format!(
                "{} exists already and is not overwritten: move it away, or leave out --save.",
                path.display()
            ))),
            Err(e) => Err(CliError::io(format!("making {}", path.display()), e)),
        }
    }

    /// Writes the key, and answers where it is.
    pub(crate) fn keep(mut self, material: &str) -> Result<PathBuf, CliError> {
        // From here on the file may hold the only copy: even half of it is worth keeping.
        self.kept = true;
        let end = if material.ends_with('\n') { "" } else { "\n" };
        write!(self.file, "{material}{end}")
            .and_then(|()| self.file.sync_all())
            .map_err(|e| CliError::io(format!("writing {}", self.path.display()), e))?;
        Ok(self.path.clone())
    }
}

impl Drop for NewKeyFile {
    fn drop(&mut self) {
        if !self.kept {
            // Empty, and nobody knows of it yet: leaving it would only be untidy.
            let _ = fs::remove_file(&self.path);
        }
    }
}
