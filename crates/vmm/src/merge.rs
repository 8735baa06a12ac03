//! `hearth-vmm merge-snapshot`: a diff and its base become one snapshot.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use argh::FromArgs;
use hearth_log::chain;
use hearth_vmm::snapshot::{Snapshot, merge};

/// Make a full snapshot of one and the diffs that followed it
#[derive(FromArgs)]
#[argh(subcommand, name = "merge-snapshot")]
pub(crate) struct Arguments {
    /// the state file of the snapshot that the first diff is a diff to
    #[argh(option, arg_name = "file")]
    base_state: PathBuf,
    /// its memory file
    #[argh(option, arg_name = "file")]
    base_memory: PathBuf,
    /// a diff's state file; give it again for the diff to that one, and so on
    #[argh(option, arg_name = "file")]
    diff_state: Vec<PathBuf>,
    /// a diff's memory file, in the same order
    #[argh(option, arg_name = "file")]
    diff_memory: Vec<PathBuf>,
    /// where the merged state goes, a file that does not exist yet
    #[argh(option, arg_name = "file")]
    state: PathBuf,
    /// where the merged memory goes, a file that does not exist yet
    #[argh(option, arg_name = "file")]
    memory: PathBuf,
}

type Error = Box<dyn std::error::Error>;

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match merge_all(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hearth-vmm: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// The results have their names only once they are whole and on the disk; the inputs stay as they are.
fn merge_all(arguments: &Arguments) -> Result<(), Error> {
    if arguments.diff_state.is_empty() {
        return Err("a snapshot alone has nothing to be merged with: --diff-state is needed".into());
    }
    if arguments.diff_state.len() != arguments.diff_memory.len() {
        return Err("as many --diff-memory as --diff-state are needed".into());
    }
    for result in [&arguments.state, &arguments.memory] {
        if result.exists() {
            return Err(format!("{} exists already", result.display()).into());
        }
    }
    let (state, memory) = (
        Unfinished::new(&arguments.state)?,
        Unfinished::new(&arguments.memory)?,
    );
    let mut base = read(&arguments.base_state)?;
    copy(&arguments.base_memory, &memory)?;
    for (diff_state, diff_memory) in arguments.diff_state.iter().zip(&arguments.diff_memory) {
        let diff = read(diff_state)?;
        let merged = merge(&base, &diff, &open(diff_memory)?, &memory.file, &state.file);
        merged.map_err(|error| format!("merging {}: {}", diff_state.display(), chain(&error)))?;
        base = Snapshot::read(&state.file)?;
    }
    memory.finish()?;
    state.finish()
}

fn read(path: &Path) -> Result<Snapshot, Error> {
    let snapshot = Snapshot::read(&open(path)?);
    snapshot.map_err(|error| format!("reading {}: {}", path.display(), chain(&error)).into())
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|error| format!("opening {}: {error}", path.display()).into())
}

/// Holes stay holes.
fn copy(from: &Path, to: &Unfinished) -> Result<(), Error> {
    let failed = |error: io::Error| format!("copying {}: {error}", from.display());
    hearth_vmm::snapshot::image::copy(&open(from)?, &to.file).map_err(failed)?;
    Ok(())
}

/// A file under a temporary name beside its own, removed unless it is finished.
struct Unfinished {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
}

impl Unfinished {
    fn new(path: &Path) -> Result<Self, Error> {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = PathBuf::from(name);
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        let file = options
            .open(&temporary)
            .map_err(|error| format!("making {}: {error}", temporary.display()))?;
        Ok(Self {
            file,
            temporary,
            path: path.to_owned(),
        })
    }

    fn finish(self) -> Result<(), Error> {
        let failed = |error: io::Error| format!("finishing {}: {error}", self.path.display());
        self.file.sync_all().map_err(failed)?;
        fs::rename(&self.temporary, &self.path).map_err(failed)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))
            .and_then(|directory| directory.sync_all())
            .map_err(failed)?;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Once finished it has another name.
        let _ = fs::remove_file(&self.temporary);
    }
}
