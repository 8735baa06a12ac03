//! Which host calls. The TLS layer has verified that the authority signed the certificate; whether it is still accepted
//! is the store's word, asked at every call.

use std::sync::Arc;
use std::time::SystemTime;

use hearth_api::fence::forgotten;
use tonic::{Request, Status};

use super::sessions::Standing;
use crate::app::App;
use crate::pki::HostCertificate;
use crate::state::Admission;

/// A host that was admitted.
pub(super) struct Caller {
    pub certificate: HostCertificate,
    /// Ends when the host is evicted.
    pub standing: Arc<Standing>,
}

impl Caller {
    pub fn host_id(&self) -> &str {
        &self.certificate.host_id
    }
}

/// Refuses calls without a certificate before their message is read, and leaves what the certificate says in the
/// request's extensions.
#[allow(clippy::result_large_err)] // tonic's interceptors answer a Status
pub fn demand_certificate(mut request: Request<()>) -> Result<Request<()>, Status> {
    let certificates = request.peer_certs();
    let leaf = certificates.as_ref().and_then(|chain| chain.first());
    let certificate = leaf.and_then(HostCertificate::read).ok_or_else(|| {
        Status::unauthenticated("a host's certificate is needed: Enroll gives one for a join token")
    })?;
    request.extensions_mut().insert(certificate);
    Ok(request)
}

/// The host that calls.
///
/// # Errors
/// `UNAUTHENTICATED` without a valid certificate; `PERMISSION_DENIED` with one that is not accepted any more.
#[allow(clippy::result_large_err)]
pub(super) fn admit<T>(app: &App, request: &Request<T>) -> Result<Caller, Status> {
    let certificate = request
        .extensions()
        .get::<HostCertificate>()
        .cloned()
        .ok_or_else(|| Status::unauthenticated("a host's certificate is needed"))?;
    // The TLS layer looks at the time once, and connections last.
    if certificate.not_after < SystemTime::now() {
        return Err(expired());
    }
    // Before the store is asked: an eviction after the answer must reach this call.
    let standing = app.sessions.standing(&certificate.host_id);
    let admission = app
        .store
        .state()
        .admission(&certificate.host_id, &certificate.public_key_hash);
    check(admission, &certificate.host_id)?;
    Ok(Caller {
        certificate,
        standing,
    })
}

/// # Errors
/// `PERMISSION_DENIED`, with the reason.
#[allow(clippy::result_large_err)]
pub(super) fn check(admission: Admission, host_id: &str) -> Result<(), Status> {
    match admission {
        Admission::Admitted => Ok(()),
        Admission::Unknown => Err(Status::permission_denied(format!("host {host_id} is not known"))),
        Admission::Forgotten => Err(forgotten(host_id)),
        Admission::Replaced => Err(Status::permission_denied(format!(
            "host {host_id} has a newer certificate than this one"
        ))),
    }
}

pub(super) fn expired() -> Status {
    Status::unauthenticated("the host's certificate has expired")
}
