//! `hearth man-pages`: for the Debian package.

use std::path::PathBuf;

use clap::Args;

use crate::context::Context;
use crate::error::CliError;

/// Writes a manual page for each command into a directory.
#[derive(Args)]
#[command(hide = true)]
pub(super) struct ManPages {
    directory: PathBuf,
}

impl ManPages {
    #[allow(clippy::unused_async)]
    pub(super) async fn run(self, _: &Context) -> Result<(), CliError> {
        clap_mangen::generate_to(super::all(), &self.directory).map_err(|error| {
            CliError::io(
                format!("writing manual pages to {}", self.directory.display()),
                error,
            )
        })
    }
}
