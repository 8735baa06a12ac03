//! Loading rules with the `nft` program: one transaction for each call, all or nothing.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::NetworkError;
use crate::netns::{Netns, system_error};

/// Loads `text` in `netns`. `what` names the rules in errors.
pub(crate) async fn load(netns: &Netns, what: &str, text: String) -> Result<(), NetworkError> {
    let what = what.to_owned();
    netns.run(move || load_here(what, &text)).await
}

fn load_here(what: String, text: &str) -> Result<(), NetworkError> {
    let failed = |e| system_error("running nft", e);
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        // A service's PATH often lacks sbin.
        .env(
            "PATH",
            "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return written.map_err(failed);
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(NetworkError::Rules { what, message })
}
