//! `hearth completions`: what a shell needs to complete commands.

use clap::Args;
use clap_complete::Shell;

use crate::context::Context;
use crate::error::CliError;

/// Prints the completions of a shell, such as for ~/.local/share/bash-completion/completions/hearth.
#[derive(Args)]
pub(super) struct Completions {
    shell: Shell,
}

impl Completions {
    #[allow(clippy::unused_async)]
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::all(), "hearth", &mut script);
        context.printer.write(&String::from_utf8_lossy(&script))
    }
}
