//! How the control plane tells the agent of a forgotten host to end its guests: a detail of the refusal.

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

/// The `domain` of the `google.rpc.ErrorInfo` of refusals that agents act upon.
const DOMAIN: &str = "agent.hearth";
const HOST_FORGOTTEN: &str = "HOST_FORGOTTEN";

/// The refusal of a forgotten host.
pub fn forgotten(host_id: &str) -> Status {
    let details = ErrorDetails::with_error_info(HOST_FORGOTTEN, DOMAIN, []);
    let message = format!("host {host_id} was forgotten");
    Status::with_error_details(tonic::Code::PermissionDenied, message, details)
}

/// Whether a refusal says that the host was forgotten. A refusal for another reason (the control plane does not know the
/// host, or knows another key of it) says nothing about the host's guests.
pub fn is_forgotten(status: &Status) -> bool {
    status
        .get_details_error_info()
        .is_some_and(|info| info.domain == DOMAIN && info.reason == HOST_FORGOTTEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_forgotten_host_is_fenced() {
        assert!(is_forgotten(&forgotten("h-1")));
        assert!(!is_forgotten(&Status::permission_denied(
            "host h-1 was forgotten"
        )));
    }
}
