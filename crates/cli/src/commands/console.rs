//! `hearth console`: what an instance wrote to its console, safe to read.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use serde_json::json;
use tokio::time::sleep;

use crate::calls::ask;
use crate::context::Context;
use crate::error::CliError;
use crate::terminal::{Sanitizer, news};

/// Prints what an instance wrote to its console, without what would drive your terminal.
///
/// Escape sequences are left out (colours too), other control characters are made visible, and each carriage return ends
/// a line.
#[derive(Args)]
pub(super) struct Console {
    #[arg(value_name = "INSTANCE")]
    instance_id: String,
    /// Goes on printing what comes, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// Prints every byte as the instance wrote it: it can then move the cursor, retitle the window or worse.
    #[arg(long)]
    raw: bool,
}

impl Console {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let mut sanitizer = Sanitizer::default();
        let mut before = Vec::new();
        loop {
            let request = json!({ "InstanceId": self.instance_id });
            let answer = ask("GetConsoleOutput", request, context).await?;
            let now = BASE64_STANDARD.decode(answer["Output"].as_str().unwrap_or_default());
            let now = now.map_err(|error| {
                CliError::Failed(format!(
                    "The console of {} is no base64: {error}",
                    self.instance_id
                ))
            })?;
            let piece = news(&before, &now);
            match self.raw {
                true => context.printer.write_bytes(piece)?,
                false => context.printer.write_piece(&sanitizer.feed(piece))?,
            }
            if !self.follow {
                return Ok(());
            }
            before = now;
            sleep(Duration::from_secs(1)).await;
        }
    }
}
