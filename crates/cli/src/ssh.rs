//! Running ssh for an instance: its key, its own line of known hosts, its address.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};

use crate::error::CliError;
use crate::{home, terminal};

/// An ssh command line.
#[derive(Debug)]
pub(crate) struct Login {
    address: IpAddr,
    arguments: Vec<OsString>,
}

impl Login {
    /// # Errors
    /// When the instance has no address, or `~/.hearth` cannot be made.
    pub(crate) fn new(
        instance: &Value,
        user: String,
        identity: Option<PathBuf>,
        command: Vec<String>,
    ) -> Result<Self, CliError> {
        let id = text(&instance["InstanceId"]);
        let address = match text(&instance["PublicIpAddress"]) {
            "" => text(&instance["PrivateIpAddress"]),
            public => public,
        };
        // Parsed, so that nothing that begins with a dash ever reaches ssh's command line.
        let address: IpAddr = address
            .parse()
            .map_err(|_| CliError::Failed(format!("{id} has no address that ssh could reach.")))?;
        let home = home::home()?;
        home::make_private(&home)?;

        let mut arguments: Vec<OsString> = Vec::new();
        if let Some(key) = identity
            .map(Some)
            .map_or_else(|| kept_key(text(&instance["KeyName"])), Ok)?
        {
            arguments.extend(["-i".into(), key.into(), "-o".into(), "IdentitiesOnly=yes".into()]);
        }
        let mut known_hosts = OsString::from("UserKnownHostsFile=");
        known_hosts.push(home.join("known_hosts"));
        // Addresses come back with other instances; ids never do. So the host's key is remembered by the id.
        let alias = format!("HostKeyAlias={id}");
        for option in [
            known_hosts,
            alias.into(),
            "StrictHostKeyChecking=accept-new".into(),
            "CheckHostIP=no".into(),
        ] {
            arguments.extend(["-o".into(), option]);
        }
        arguments.extend(["-l".into(), user.into(), address.to_string().into()]);
        arguments.extend(command.into_iter().map(OsString::from));
        Ok(Self { address, arguments })
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// Becomes ssh. Comes back only with the error that prevented it.
    pub(crate) fn exec(self) -> CliError {
        CliError::io("running ssh", Command::new("ssh").args(self.arguments).exec())
    }
}

/// A member of an answer; empty without one.
pub(crate) fn text(member: &Value) -> &str {
    member.as_str().unwrap_or_default()
}

/// The command line as a shell takes it.
impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ssh")?;
        for argument in &self.arguments {
            let text = argument.to_string_lossy();
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:@,+".contains(c);
            match !text.is_empty() && text.chars().all(is_plain) {
                true => write!(f, " {text}")?,
                false => write!(f, " '{}'", text.replace('\'', r"'\''"))?,
            }
        }
        Ok(())
    }
}

/// The private key that `create-key-pair --save` kept; without one, ssh uses the user's own.
fn kept_key(key_name: &str) -> Result<Option<PathBuf>, CliError> {
    let Some(path) = home::key_path(key_name)? else {
        return Ok(None);
    };
    if path.exists() {
        return Ok(Some(path));
    }
    terminal::say(&format_args!(
        "{} is not there, so ssh uses your own keys; name the right one with -i.",
        path.display()
    ));
    Ok(None)
}

/// Waits until an ssh server says hello. Each connection costs the guest a fork, so there is one per second.
pub(crate) async fn wait_for_banner(address: IpAddr, until: Instant) -> Result<(), CliError> {
    loop {
        let next = tokio::time::Instant::now() + Duration::from_secs(1);
        let left = until.saturating_duration_since(Instant::now());
        // Patient with a guest that has accepted: a slow one takes seconds to start a session.
        if let Ok(true) = timeout(left.min(Duration::from_secs(30)), says_hello(address)).await {
            return Ok(());
        }
        if Instant::now() + Duration::from_secs(1) >= until {
            return Err(CliError::Failed(format!("{address} does not answer ssh.")));
        }
        sleep_until(next).await;
    }
}

async fn says_hello(address: IpAddr) -> bool {
    // A lost SYN is sent again after 1, 3, 7 s; a fresh try beats waiting for the later ones.
    let Ok(Ok(mut stream)) = timeout(Duration::from_secs(3), TcpStream::connect((address, 22))).await else {
        return false;
    };
    let mut banner = [0; 4];
    stream.read_exact(&mut banner).await.is_ok() && &banner == b"SSH-"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_gets_is_quoted() {
        let login = Login {
            address: [198, 18, 0, 2].into(),
            arguments: vec!["-i".into(), "/home/o'neil/k.pem".into(), "".into()],
        };
        assert_eq!(login.to_string(), r"ssh -i '/home/o'\''neil/k.pem' ''");
    }
}
