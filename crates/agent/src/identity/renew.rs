//! Renewal: the certificate of now asks for one of a new key, long before it ends.

use std::time::{Duration, SystemTime};

use hearth_api::agent::RenewRequest;
use rcgen::{CertificateParams, KeyPair};
use tonic::transport::Channel;

use super::{Identity, IdentityError, TlsError, Validity};
use crate::link::client;
use crate::paths::DataDir;

/// The wall clock is looked at this often: it may be set, and a machine may sleep.
const LOOK: Duration = Duration::from_secs(3600);
/// How long the control plane may take to answer.
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    #[error("making a new key for the host")]
    Key(#[from] rcgen::Error),
    #[error("the control plane did not renew the host's certificate: {}", .0.message())]
    Refused(Box<tonic::Status>),
    #[error("the control plane did not renew the host's certificate in time")]
    Late,
    #[error("the new certificate")]
    Certificate(#[from] TlsError),
    #[error(transparent)]
    Save(#[from] IdentityError),
    #[error("the worker that wrote the new certificate ended")]
    Worker,
}

/// Waits until the certificate is to be renewed, and renews it: tries until it is done. The new certificate is on the
/// disk when this returns. Dropping it in between is harmless: the certificate of now stays good until a session begins
/// with the new one.
///
/// # Errors
/// The certificate of now is malformed.
pub async fn renew(identity: &Identity, dir: &DataDir, channel: Channel) -> Result<Validity, TlsError> {
    let validity = identity.validity()?;
    let pause = validity.pause();
    while let Ok(left) = validity.renewal().duration_since(SystemTime::now()) {
        tokio::time::sleep(left.min(LOOK) + Duration::from_millis(1)).await;
    }
    loop {
        match once(identity, dir, channel.clone()).await {
            Ok(renewed) => return Ok(renewed),
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), ?pause, "renewing the certificate; trying again");
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn once(identity: &Identity, dir: &DataDir, channel: Channel) -> Result<Validity, RenewError> {
    let key = KeyPair::generate()?;
    let request = RenewRequest {
        certificate_signing_request: CertificateParams::default().serialize_request(&key)?.pem()?,
    };
    let answer = tokio::time::timeout(DEADLINE, client(channel).renew(request))
        .await
        .map_err(|_| RenewError::Late)?
        .map_err(|status| RenewError::Refused(Box::new(status)))?;
    let renewed = Identity {
        key: key.serialize_pem(),
        certificate: answer.into_inner().certificate,
        ..identity.clone()
    };
    // A certificate that this host cannot use must not replace one that it can.
    super::tls::check(&renewed)?;
    let validity = renewed.validity()?;
    let dir = dir.clone();
    tokio::task::spawn_blocking(move || renewed.save_certificate(&dir))
        .await
        .map_err(|_| RenewError::Worker)??;
    Ok(validity)
}
