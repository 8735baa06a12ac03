//! What can go wrong, said as "what was being done to what".

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The specification contradicts itself or names impossible values; nothing was changed.
    #[error("VPC {vpc_id}: {reason}")]
    InvalidSpec { vpc_id: String, reason: String },
    #[error("VPC {0} was not applied on this host")]
    UnknownVpc(String),
    #[error("interface {eni_id} is not in the applied specification of VPC {vpc_id}")]
    UnknownEni { vpc_id: String, eni_id: String },
    /// A second descriptor of a TAP whose monitor still runs.
    #[error("TAP {tap} of interface {eni_id} is in use by another process")]
    TapBusy { tap: String, eni_id: String },
    #[error("{action} {path}")]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{action}")]
    System { action: String, source: io::Error },
    /// `nft` failed (`message` is what it printed), or what it loaded is not what was asked for.
    #[error("{action} the rules of {what}: {message}")]
    Rules {
        action: &'static str,
        what: String,
        message: String,
    },
}
