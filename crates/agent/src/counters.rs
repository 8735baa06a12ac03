//! `hearth-agent counters`: what each interface was allowed and refused, from the running agent.
//!
//! The agent answers on a Unix socket in its data directory (0600, in a directory of 0700). Whoever connects gets one
//! JSON document, and the connection ends.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use hearth_network::{InterfaceCounters, RefusedConnections, ServiceCounters};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::networks::Networks;
use crate::paths::DataDir;
use crate::unix;

/// For writing an answer, and for reading one.
const DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read: some 10,000 interfaces.
const MAX_ANSWER: u64 = 8 << 20;

/// Answers until its task ends. One caller at a time: an answer is written in one go, and has a deadline.
///
/// # Errors
/// The socket cannot be made.
pub fn serve(dir: &DataDir, networks: Arc<Networks>) -> io::Result<impl Future<Output = ()> + use<>> {
    let path = dir.root().join(DataDir::COUNTERS);
    // The data directory's lock is held: an older socket is nobody's.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = unix::bind(dir.root(), DataDir::COUNTERS)?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let _ = tokio::time::timeout(DEADLINE, tell(stream, &networks)).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "accepting a question for counters");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}

async fn tell(mut stream: UnixStream, networks: &Networks) -> io::Result<()> {
    let answer = serde_json::to_vec(&networks.counters().await)?;
    stream.write_all(&answer).await?;
    stream.shutdown().await
}

/// Asks the agent of a data directory.
///
/// # Errors
/// No agent runs there, or it does not answer.
pub async fn ask(data_dir: &Path) -> anyhow::Result<Vec<InterfaceCounters>> {
    let asked = async {
        let stream = unix::connect(data_dir, DataDir::COUNTERS)
            .await
            .with_context(|| format!("no agent answers in {}", data_dir.display()))?;
        let mut answer = Vec::new();
        stream
            .take(MAX_ANSWER)
            .read_to_end(&mut answer)
            .await
            .context("reading the agent's answer")?;
        serde_json::from_slice(&answer).context("the agent's answer is not what this program knows")
    };
    tokio::time::timeout(DEADLINE, asked)
        .await
        .context("the agent does not answer")?
}

/// A row for each interface and service.
pub fn table(counters: &[InterfaceCounters]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "VPC",
        "Interface",
        "Address",
        "Service",
        "Admitted",
        "Over rate",
        "Over concurrency",
    ]);
    for interface in counters {
        for (service, counts) in [
            ("DNS", interface.dns),
            ("IMDS", interface.imds),
            ("DHCP", interface.dhcp),
        ] {
            let ServiceCounters {
                admitted,
                over_rate,
                over_concurrency,
            } = counts;
            table.add_row([
                interface.vpc_id.clone(),
                interface.interface_id.clone(),
                interface.address.to_string(),
                service.to_owned(),
                admitted.to_string(),
                over_rate.to_string(),
                over_concurrency.to_string(),
            ]);
        }
        let RefusedConnections { begun, from_outside } = interface.connections;
        for (direction, refused) in [("connections out", begun), ("connections in", from_outside)] {
            table.add_row([
                interface.vpc_id.clone(),
                interface.interface_id.clone(),
                interface.address.to_string(),
                direction.to_owned(),
                // The kernel counts only what it refuses.
                "-".to_owned(),
                "-".to_owned(),
                refused.to_string(),
            ]);
        }
    }
    table.to_string()
}
