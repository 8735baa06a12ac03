//! Joins simulated hosts to a cloud, and lets them live until it is interrupted: to try the control plane, its operators'
//! commands and its clients with thousands of hosts.
//!
//! ```text
//! cargo run --release -p hearth-tests --bin simulated-agents -- --hosts 1000
//! ```

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use hearth_api::client::Client;
use hearth_api::endpoint::DEFAULT_ENDPOINT;
use hearth_api::v1;
use hearth_tests::simulated::{Behaviour, Fleet};

/// Simulated hosts of a cloud. They run no machines: each instance is said to run, after a while.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where hearthd listens.
    #[arg(long, env = "HEARTH_ENDPOINT", default_value = DEFAULT_ENDPOINT)]
    endpoint: String,
    /// How many hosts join, evenly over the cloud's availability zones.
    #[arg(long, default_value_t = 100)]
    hosts: usize,
    /// Milliseconds until an instance runs, has ended, or is gone.
    #[arg(long, default_value_t = 1000)]
    acts_after: u64,
    /// Milliseconds until intents are acknowledged.
    #[arg(long, default_value_t = 0)]
    acknowledges_after: u64,
    /// The share of intents that are forgotten, as by a host whose disk is full: 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    forgets: f64,
    /// Seconds that a session lasts on average before it is cut; 0: for ever.
    #[arg(long, default_value_t = 0)]
    session: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let client = Client::connect(&arguments.endpoint).await?;
    let zones = v1::DescribeAvailabilityZonesRequest::default();
    let zones = client.regions.clone().describe_availability_zones(zones).await?;
    let zones: Vec<String> = zones
        .into_inner()
        .availability_zones
        .into_iter()
        .map(|zone| zone.zone_name)
        .collect();
    let behaviour = Behaviour {
        acts_after: Duration::from_millis(arguments.acts_after),
        acknowledges_after: Duration::from_millis(arguments.acknowledges_after),
        forgets: arguments.forgets,
        session: (arguments.session > 0).then(|| Duration::from_secs(arguments.session)),
        ..Behaviour::default()
    };
    let identities = tempfile::tempdir()?;
    let fleet = Fleet::join(&client, identities.path(), arguments.hosts, &zones, behaviour).await?;
    eprintln!("{} hosts are connected; Ctrl-C ends them", arguments.hosts);
    tokio::signal::ctrl_c().await?;
    let counters = fleet.counters();
    eprintln!(
        "{} sessions, {} messages, {} bytes, {} instances began to run",
        counters.sessions.load(Relaxed),
        counters.messages.load(Relaxed),
        counters.bytes.load(Relaxed),
        counters.running.load(Relaxed)
    );
    Ok(())
}
