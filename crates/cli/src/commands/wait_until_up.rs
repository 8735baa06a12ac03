//! `hearth wait-until-up`: for scripts that have just started hearthd.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::calls::ask;
use crate::context::Context;
use crate::error::CliError;

/// Between two tries.
const RETRY: Duration = Duration::from_millis(200);

/// Waits until hearthd answers and, if told, until hosts of some availability zones are connected.
#[derive(Args)]
pub(super) struct WaitUntilUp {
    /// How many availability zones must have a host.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    zones: usize,
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

impl WaitUntilUp {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let mut last = CliError::Failed("hearthd did not answer.".to_owned());
        let up = async {
            loop {
                match available_zones(context).await {
                    Ok(available) if available >= self.zones => return,
                    Ok(available) => {
                        let (zones, seconds) = (self.zones, self.timeout);
                        let message = format!(
                            "Only {available} of {zones} availability zones had a connected host within {seconds} s. \
                             Is hearth-agent running?"
                        );
                        last = CliError::Failed(message);
                    }
                    Err(error) => last = error,
                }
                sleep(RETRY).await;
            }
        };
        let outcome = timeout(Duration::from_secs(self.timeout), up).await;
        outcome.map_err(|_| last)
    }
}

async fn available_zones(context: &Context) -> Result<usize, CliError> {
    let answer = ask("DescribeAvailabilityZones", json!({}), context).await?;
    let zones = answer["AvailabilityZones"].as_array().into_iter().flatten();
    Ok(zones.filter(|zone| zone["State"] == "available").count())
}
