//! Enrolment: a join token and a public key become a host. The only service that is open to strangers, so the token is
//! checked before anything else of the request is looked at.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_api::agent::enrollment_server::Enrollment;
use hearth_api::agent::{EnrollRequest, EnrollResponse};
use hearth_api::join::JoinToken;
use hearth_api::{Id, Kind};
use tonic::{Request, Response, Status};

use super::attempts::Attempts;
use crate::app::App;
use crate::pki::{Authority, HostRequest};
use crate::state::{self, Host, HostKey, Region, Tx};
use crate::store::now;

/// Bytes of a request: a token, a request for a certificate (under 1 KiB for the usual keys), a zone.
pub const MAX_ENROLL_MESSAGE: usize = 16 << 10;

/// How long the store may keep an enrolment waiting.
const DEADLINE: Duration = Duration::from_secs(20);

pub struct Enroller {
    app: Arc<App>,
    authority: Arc<Authority>,
    attempts: Attempts,
}

impl Enroller {
    pub fn new(app: Arc<App>, authority: Arc<Authority>) -> Self {
        Self {
            app,
            authority,
            attempts: Attempts::default(),
        }
    }

    async fn enroll(&self, peer: IpAddr, request: EnrollRequest) -> Result<EnrollResponse, Status> {
        let secret = match request.token.parse::<JoinToken>() {
            Ok(token) => token.secret,
            Err(_) => request.token,
        };
        let now = now();
        let token = self.app.store.state().join_token(&secret).cloned();
        let Some(token) = token.filter(|token| !token.is_expired(now)) else {
            self.attempts.refuse(peer, Instant::now());
            return Err(Status::unauthenticated(
                "the join token is not known, was revoked, or expired: print a new one with `hearthd join-token`",
            ));
        };
        let host_request = HostRequest::parse(&request.certificate_signing_request)
            .map_err(|error| Status::invalid_argument(format!("the certificate signing request: {error}")))?;
        let zone = request.availability_zone.clone();
        let (authority, token_id) = (Arc::clone(&self.authority), token.id.clone());
        let (host_id, certificate) = self
            .app
            .store
            .transact(move |tx| {
                let host_id = admit(tx, &token_id, &host_request.public_key_hash, &zone)?;
                let certificate = authority.sign_host(&host_id, host_request).map_err(|error| {
                    tracing::error!(%error, "signing a host's certificate");
                    Status::internal("the control plane cannot sign; its log says why")
                })?;
                tx.event("host.enrolled", &host_id);
                Ok::<_, Status>((host_id, certificate))
            })
            .await?;
        if token.host_id.is_some() {
            let replaced = Status::permission_denied(format!("host {host_id} joined again with another key"));
            self.app.sessions.evict(&host_id, replaced);
        }
        tracing::info!(
            host = host_id,
            zone = request.availability_zone,
            token = token.id,
            "a host joined"
        );
        Ok(EnrollResponse {
            host_id,
            certificate,
            ca_certificate: self.authority.certificate_pem().to_owned(),
            endpoints: self.app.store.members().borrow().clone(),
        })
    }
}

/// Takes a use of the token for the key, and answers whose the key is from now on.
#[allow(clippy::result_large_err)] // tonic's errors are Statuses
fn admit(tx: &mut Tx<'_>, token_id: &str, key_hash: &str, zone: &str) -> Result<String, Status> {
    // Once more: it may have been revoked or used since.
    let token = tx
        .get::<state::JoinToken>(token_id)
        .cloned()
        .ok_or_else(|| Status::unauthenticated("the join token was revoked"))?;
    // An agent that lost the answer asks again with the same key: for it the token has been used already.
    if let Some(key) = tx.get::<HostKey>(key_hash) {
        if key.token_id.as_deref() != Some(token_id) {
            return Err(Status::already_exists(
                "this key is a host's already: make a new one for a new host",
            ));
        }
        return Ok(key.host_id.clone());
    }
    let host_id = match &token.host_id {
        Some(host_id) => {
            let enrolled_for = tx
                .host(host_id)
                .map(|host| host.availability_zone.clone())
                .ok_or_else(|| Status::unauthenticated(format!("host {host_id} was forgotten")))?;
            if enrolled_for != zone {
                return Err(Status::invalid_argument(format!(
                    "host {host_id} is in availability zone {enrolled_for}, not '{zone}'"
                )));
            }
            tx.end_keys(host_id, |_| true);
            host_id.clone()
        }
        None => {
            if tx.region_of_zone(zone).is_none() {
                let zones = tx.all::<Region>().flat_map(|region| &region.zones);
                let zones: Vec<&str> = zones.map(String::as_str).collect();
                return Err(Status::invalid_argument(format!(
                    "there is no availability zone '{zone}' here, but {}",
                    zones.join(", ")
                )));
            }
            new_host(tx, zone)
        }
    };
    if token.uses_left == 0 {
        return Err(Status::unauthenticated(
            "the join token was used up: print a new one with `hearthd join-token`",
        ));
    }
    tx.put(state::JoinToken {
        uses_left: token.uses_left - 1,
        ..token
    });
    tx.record_key(&host_id, key_hash, Some(token_id));
    Ok(host_id)
}

fn new_host(tx: &mut Tx<'_>, zone: &str) -> String {
    let id = Id::new(Kind::Host).to_string();
    tx.put(Host {
        id: id.clone(),
        availability_zone: zone.to_owned(),
        enrolled_at: tx.now(),
        forgotten_at: None,
        drain: None,
        silent_since: None,
    });
    id
}

#[tonic::async_trait]
impl Enrollment for Enroller {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let peer = request
            .remote_addr()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
        if let Some(wait) = self.attempts.wait(peer, Instant::now()) {
            return Err(Status::resource_exhausted(format!(
                "too many enrolments from {peer} were refused: try again in {} seconds",
                wait.as_secs() + 1
            )));
        }
        let enrolled = tokio::time::timeout(DEADLINE, self.enroll(peer, request.into_inner())).await;
        enrolled
            .map_err(|_| Status::deadline_exceeded("the control plane's store is busy"))?
            .map(Response::new)
    }
}
