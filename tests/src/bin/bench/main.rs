//! Benchmarks: ratios against named peers, all in one run. `scripts/bench` builds and starts this.

mod boot;
mod control;
mod disk;
mod face;
mod firecracker;
mod hearth;
mod launch;
mod limits;
mod linux;
mod monitors;
mod net;
mod resident;
mod running;
mod snapshot;
mod stats;
mod storage;
mod streams;
mod stub;
mod wire;

use anyhow::{Result, bail};

use monitors::Monitor;

fn main() -> Result<()> {
    let which = std::env::args().nth(1).unwrap_or_default();
    match which.as_str() {
        "boot" => boot::run(&Monitor::all()?).and_then(|()| launch::run()),
        "launch" => launch::run(),
        "control" => control::run(),
        "disk" => disk::run(&Monitor::all()?),
        "face" => face::run(),
        "limits" => limits::run(),
        "net" => networks(&Monitor::all()?),
        "snapshot" => snapshot::run(&Monitor::all()?),
        "storage" => storage::run(&std::env::args().skip(2).collect::<Vec<_>>()),
        "vmm" => {
            let monitors = Monitor::all()?;
            boot::run(&monitors)?;
            snapshot::run(&monitors)?;
            disk::run(&monitors)?;
            networks(&monitors)
        }
        _ => bail!("usage: scripts/bench boot|control|launch|vmm|disk|face|net|limits|snapshot|storage"),
    }
}

fn networks(monitors: &[Monitor]) -> Result<()> {
    net::run(monitors)?;
    if boot::with_linux() {
        linux::run(monitors)?;
    }
    Ok(())
}
