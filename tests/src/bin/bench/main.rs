//! Benchmarks: ratios against named peers, all in one run. `scripts/bench` builds and starts this.

mod boot;
mod disk;
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
mod streams;
mod stub;
mod wire;

use anyhow::{Result, bail};

use monitors::Monitor;

fn main() -> Result<()> {
    let which = std::env::args().nth(1).unwrap_or_default();
    match which.as_str() {
        "boot" => boot::run(&Monitor::all(false)?).and_then(|()| launch::run()),
        "launch" => launch::run(),
        "disk" => disk::run(&Monitor::all(true)?),
        "limits" => limits::run(),
        "net" => networks(&Monitor::all(true)?),
        "snapshot" => snapshot::run(&Monitor::all(true)?),
        "vmm" => {
            let monitors = Monitor::all(true)?;
            boot::run(&monitors)?;
            snapshot::run(&monitors)?;
            disk::run(&monitors)?;
            networks(&monitors)
        }
        _ => bail!("usage: scripts/bench boot|launch|vmm|disk|net|limits|snapshot"),
    }
}

fn networks(monitors: &[Monitor]) -> Result<()> {
    net::run(monitors)?;
    if boot::with_linux() {
        linux::run(monitors)?;
    }
    Ok(())
}
