//! Enrolment: a join token becomes an identity.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use hearth_api::agent::EnrollRequest;
use hearth_api::agent::enrollment_client::EnrollmentClient;
use hearth_api::join::JoinToken;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tonic::Code;

use super::tls::{connect_unenrolled, fingerprint};
use super::{Identity, IdentityError, TlsError, write_private};
use crate::endpoints::Endpoints;
use crate::link::leader;
use crate::paths::DataDir;

#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    #[error("making the host's key")]
    Key(#[from] rcgen::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(
        "the control plane refused to enrol this host: {} (a fresh token: `hearthd join-token`)",
        .0.message()
    )]
    Refused(Box<tonic::Status>),
    #[error("the control plane answered with another CA than the token's")]
    OtherCa,
    #[error(transparent)]
    Save(#[from] IdentityError),
}

/// How long the control plane may take to answer.
const DEADLINE: Duration = Duration::from_secs(60);

/// Enrols and keeps the identity. A control plane that is away is waited for. The key is kept before it is sent: when the
/// answer is lost, with the agent too, the same key gets it again without another use of the token.
///
/// # Errors
/// What waiting does not mend: it refuses the token.
pub async fn enroll(
    dir: &DataDir,
    token: &JoinToken,
    mut endpoints: Endpoints,
    availability_zone: &str,
) -> Result<Identity, EnrollError> {
    let key = join_key(dir)?;
    let request = CertificateParams::default().serialize_request(&key)?.pem()?;
    let mut delays = ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(10))
        .without_max_times()
        .build();
    let answer = loop {
        let attempt = async {
            let channel = connect_unenrolled(endpoints.current(), &token.ca_fingerprint).await?;
            EnrollmentClient::new(channel)
                .enroll(EnrollRequest {
                    token: token.secret.clone(),
                    certificate_signing_request: request.clone(),
                    availability_zone: availability_zone.to_owned(),
                })
                .await
                .map_err(|status| EnrollError::Refused(Box::new(status)))
        };
        let late = || {
            EnrollError::Refused(Box::new(tonic::Status::deadline_exceeded(
                "no answer came in time",
            )))
        };
        let answered = tokio::time::timeout(DEADLINE, attempt).await;
        match answered.unwrap_or_else(|_| Err(late())) {
            Ok(answer) => break answer.into_inner(),
            Err(EnrollError::Refused(status)) if !may_pass(status.code()) => {
                return Err(EnrollError::Refused(status));
            }
            Err(error @ EnrollError::Tls(TlsError::Endpoint(_))) => return Err(error),
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), endpoint = endpoints.current(), "enrolling; trying again");
                let leader = match &error {
                    EnrollError::Refused(status) => leader(status),
                    _ => None,
                };
                if endpoints.refused(leader) {
                    continue;
                }
            }
        }
        tokio::time::sleep(delays.next().unwrap_or(Duration::from_secs(10))).await;
    };
    let ca =
        CertificateDer::from_pem_slice(answer.ca_certificate.as_bytes()).map_err(|_| EnrollError::OtherCa)?;
    if fingerprint(&ca) != token.ca_fingerprint {
        return Err(EnrollError::OtherCa);
    }
    let identity = Identity {
        host_id: answer.host_id,
        endpoints: match answer.endpoints.is_empty() {
            true => vec![endpoints.current().to_owned()],
            false => answer.endpoints,
        },
        availability_zone: availability_zone.to_owned(),
        key: key.serialize_pem(),
        certificate: answer.certificate,
        ca_certificate: answer.ca_certificate,
    };
    identity.save(dir)?;
    let path = dir.join_key();
    std::fs::remove_file(&path).map_err(|source| IdentityError {
        doing: "removing",
        path,
        source,
    })?;
    Ok(identity)
}

/// The key of an enrolment that was begun before, or a new one.
fn join_key(dir: &DataDir) -> Result<KeyPair, EnrollError> {
    let path = dir.join_key();
    if let Some(key) = std::fs::read_to_string(&path)
        .ok()
        .and_then(|pem| KeyPair::from_pem(&pem).ok())
    {
        return Ok(key);
    }
    let key = KeyPair::generate()?;
    write_private(&path, key.serialize_pem().as_bytes()).map_err(|source| IdentityError {
        doing: "writing",
        path,
        source,
    })?;
    Ok(key)
}

/// Whether the same request may succeed later.
fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Aborted
            | Code::ResourceExhausted
    )
}
