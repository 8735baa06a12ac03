//! Descriptors: as many as the process may have, and how many of them connections of each kind get, so that some are
//! left for the database and for images.

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::places::Limits;

/// How many connections of each kind there may be.
#[derive(Debug, Clone, Copy)]
pub struct Shares {
    /// To the API, before they have said a word.
    pub callers_waiting: Limits,
    pub callers: Limits,
    /// To the agents' port, before the end of the TLS handshake.
    pub agents_waiting: Limits,
    /// Without a certificate: hosts that join.
    pub guests: Limits,
    /// With a certificate.
    pub hosts: usize,
    /// To the port of signed requests, before the end of the TLS handshake.
    pub signers_waiting: Limits,
    pub signers: Limits,
}

/// Raises the soft limit of descriptors to the hard one, and shares them out.
///
/// # Errors
/// The kernel refuses.
pub fn share_out() -> anyhow::Result<Shares> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("reading the limit of descriptors")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raising the limit of descriptors")?;
    Ok(Shares::of(most))
}

impl Shares {
    /// Fourteen sixteenths of the descriptors at most.
    fn of(files: u64) -> Self {
        let sixteenth = usize::try_from(files / 16).unwrap_or(usize::MAX);
        let limits = |sixteenths: usize, most: usize, peers: usize| {
            let total = sixteenth.saturating_mul(sixteenths).clamp(1, most);
            Limits {
                total,
                per_peer: (total / peers).max(1),
            }
        };
        Self {
            callers_waiting: limits(1, 256, 2),
            callers: limits(3, 1024, 2),
            agents_waiting: limits(2, 512, 2),
            guests: limits(1, 256, 2),
            hosts: limits(5, 8192, 1).total,
            signers_waiting: limits(1, 256, 2),
            signers: limits(1, 1024, 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_left_whatever_the_limit() {
        for files in [64, 256, 1024, 4096, 65_536, u64::MAX] {
            let shares = Shares::of(files);
            let connections = shares.callers_waiting.total
                + shares.callers.total
                + shares.agents_waiting.total
                + shares.guests.total
                + shares.hosts
                + shares.signers_waiting.total
                + shares.signers.total;
            assert!(connections as u64 <= files / 16 * 14, "{files}: {shares:?}");
            assert!(shares.hosts >= 20, "{files}: {shares:?}");
        }
    }
}
