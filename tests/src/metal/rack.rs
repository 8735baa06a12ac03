//! Where machines stand: their files, what is common to them, and who removes both.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::janitor::Janitor;
use crate::metal::Machine;
use crate::skip::skipped;

/// The machines of one test.
#[derive(Debug)]
pub struct Rack {
    /// What `images/metal/build` made.
    pub(super) image: PathBuf,
    /// The tiny AMI with the kernel for real hardware.
    pub(super) ami: PathBuf,
    pub(super) dir: PathBuf,
    /// Directories that machines see, beside those that all of them do, by their tags.
    pub(super) shares: Vec<(String, PathBuf)>,
    /// Ends and removes what is left. Dropped before the directory's name goes.
    _janitor: Janitor,
}

/// Arguments: the rack's directory, in which each machine has its process id in `NAME.pid`.
const CLEAN: &str = r#"
cat >/dev/null
for file in "$1"/*.pid; do
    [ ! -f "$file" ] || kill -KILL "$(cat "$file")"
done
rm -rf "$1"
"#;

impl Rack {
    /// `None`, said loudly, where there is no image of a machine.
    pub fn new(test: &str) -> Result<Option<Self>> {
        let (Some(image), Some(ami)) = (
            std::env::var_os("HEARTH_METAL"),
            std::env::var_os("HEARTH_METAL_AMI"),
        ) else {
            skipped(test, "HEARTH_METAL is not set (scripts/test sets it)");
            return Ok(None);
        };
        let dir = TempDir::with_prefix("hearth-metal-")?.keep();
        let janitor = Janitor::new(CLEAN, [dir.as_os_str()])?;
        Ok(Some(Self {
            image: image.into(),
            ami: ami.into(),
            dir,
            shares: Vec::new(),
            _janitor: janitor,
        }))
    }

    /// Lets machines that come see one more directory, read-only and under the same path. It takes the place of a network.
    pub fn share(&mut self, directory: &Path) {
        let tag = format!("share{}", self.shares.len());
        self.shares.push((tag, directory.to_path_buf()));
    }

    /// A machine of this name, up a few seconds after its boot. `name` becomes its host name.
    pub fn machine(&self, name: &str) -> Result<Machine> {
        Machine::resume(self, name)
    }

    /// The tiny AMI, here and in each machine.
    pub fn ami(&self) -> &Path {
        &self.ami
    }

    /// The directory of Hearth's programs.
    pub(super) fn binaries() -> Result<PathBuf> {
        let any = crate::binary("hearthd")?;
        any.parent()
            .map(Path::to_path_buf)
            .context("a binary without a directory")
    }
}
