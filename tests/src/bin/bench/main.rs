//! Benchmarks: ratios against a named peer, both in one run. `scripts/bench` builds and starts this.

mod boot;
mod launch;
mod stats;
mod stub;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let which = std::env::args().nth(1).unwrap_or_default();
    match which.as_str() {
        "boot" => boot::run().and_then(|()| launch::run()),
        "launch" => launch::run(),
        _ => bail!("usage: scripts/bench boot|launch"),
    }
}
