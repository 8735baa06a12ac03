//! Where host agents dial in: enrolment, sessions, certificates, and the disks of AMIs.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use hearth_api::agent::control_plane_server::{ControlPlane, ControlPlaneServer};
use hearth_api::agent::enrollment_server::EnrollmentServer;
use hearth_api::agent::{
    AgentMessage, ControlMessage, DiskKey, FetchChunkRequest, FetchCredentialsRequest, FetchImageRequest,
    FetchKeyRequest, ImageChunk, RenewRequest, RenewResponse, RoleCredentials, SnapshotPart,
    StoreSnapshotResponse,
};
use hearth_api::join::LEADER;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::service::{Interceptor, Routes};
use tonic::{Request, Response, Status, Streaming};

use crate::app::App;
use crate::disks;
use crate::pki::{Authority, HostRequest};
use crate::state::{HostKey, State, Volume};
use crate::store::{CommitError, Standing};

mod attempts;
mod caller;
mod credentials;
mod down;
mod enrollment;
mod fetch;
mod keys;
mod observations;
mod session;
mod sessions;
mod snapshots;
mod store;
mod volumes;

pub use sessions::Sessions;

/// Bytes of a message from an agent: thousands of observations, or a console.
const MAX_AGENT_MESSAGE: usize = 4 << 20;
/// Bytes of a message to an agent: the intents of a full host, each with up to 16 KiB of user data.
const MAX_CONTROL_MESSAGE: usize = 64 << 20;
/// How long the store may keep a call waiting.
const DEADLINE: Duration = Duration::from_secs(20);

/// The services that agents call.
pub fn routes(app: &Arc<App>, authority: &Arc<Authority>) -> Routes {
    let enroller = enrollment::Enroller::new(Arc::clone(app), Arc::clone(authority));
    let enrollment =
        EnrollmentServer::new(enroller).max_decoding_message_size(enrollment::MAX_ENROLL_MESSAGE);
    let gateway = Gateway {
        app: Arc::clone(app),
        authority: Arc::clone(authority),
        readers: fetch::Readers::default(),
        stores: Semaphore::new(store::AT_ONCE),
    };
    let control_plane = ControlPlaneServer::new(gateway)
        .max_decoding_message_size(MAX_AGENT_MESSAGE)
        .max_encoding_message_size(MAX_CONTROL_MESSAGE);
    let led = || Led(Arc::clone(app));
    let control_plane = InterceptedService::new(control_plane, DemandCertificate);
    Routes::new(InterceptedService::new(enrollment, led()))
        .add_service(InterceptedService::new(control_plane, led()))
}

/// Refuses calls while this process is not the leader, and says who is.
#[derive(Clone)]
struct Led(Arc<App>);

impl Interceptor for Led {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        match &*self.0.store.standing().borrow() {
            Standing::Leader(_) => Ok(request),
            Standing::Follower(leader) => Err(leader_is(leader.as_deref())),
        }
    }
}

/// What agents are told by a `hearthd` that is not the leader.
fn leader_is(leader: Option<&str>) -> Status {
    let Some(leader) = leader else {
        return Status::unavailable("the control plane has no leader at the moment");
    };
    let mut status = Status::unavailable(format!("the control plane's leader is at {leader}"));
    if let Ok(value) = leader.parse() {
        status.metadata_mut().insert(LEADER, value);
    }
    status
}

/// Returns when this process is not the leader any more.
async fn deposed(app: &App) -> Status {
    let mut standing = app.store.standing();
    let is_follower = |standing: &Standing| matches!(standing, Standing::Follower(_));
    if let Ok(Standing::Follower(leader)) = standing.wait_for(is_follower).await.as_deref() {
        return leader_is(leader.as_deref());
    }
    // The store is closed, and what ends the process ends this.
    std::future::pending().await
}

/// [`caller::demand_certificate`] as a type with a name.
#[derive(Debug, Clone, Copy)]
struct DemandCertificate;

impl Interceptor for DemandCertificate {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        caller::demand_certificate(request)
    }
}

struct Gateway {
    app: Arc<App>,
    authority: Arc<Authority>,
    readers: fetch::Readers,
    /// Places for snapshots that are being stored.
    stores: Semaphore,
}

impl Gateway {
    /// The snapshot of an image that an instance of the host uses.
    fn snapshot_for(&self, host_id: &str, image_id: &str) -> Result<fetch::Source, Status> {
        let state = self.app.store.state();
        if !is_needed_by(&state, image_id, host_id) {
            // The same for images that are not there: what there is, is no business of this host.
            return Err(Status::not_found(format!(
                "no instance of host {host_id} uses an image {image_id:?}"
            )));
        }
        let Some(base) = state.base(image_id) else {
            return Ok(fetch::Source::default());
        };
        let key = base.encryption.map(|of| disks::key(&self.app, of, base.region));
        Ok(fetch::Source {
            name: base.name.to_owned(),
            key: key.transpose().map_err(|error| keys::refused(&error))?,
        })
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<RenewResponse, Status> {
        let caller = caller::admit(&self.app, &request)?;
        let host_id = caller.host_id().to_owned();
        let presented = caller.certificate.public_key_hash.clone();
        let request = HostRequest::parse(&request.into_inner().certificate_signing_request)
            .map_err(|error| Status::invalid_argument(format!("the certificate signing request: {error}")))?;
        let authority = Arc::clone(&self.authority);
        let certificate = self
            .app
            .store
            .transact(move |tx| {
                caller::check(tx.admission(&host_id, &presented), &host_id)?;
                tx.use_key(&host_id, &presented);
                // One that was asked for before, and lost, ends.
                tx.end_keys(&host_id, |key| key.public_key_hash != presented);
                if tx.get::<HostKey>(&request.public_key_hash).is_some() {
                    return Err(Status::already_exists("a certificate is renewed for a new key"));
                }
                tx.record_key(&host_id, &request.public_key_hash, None);
                tx.event("host.certificate-renewed", &host_id);
                authority.sign_host(&host_id, request).map_err(|error| {
                    tracing::error!(%error, "signing a host's certificate");
                    Status::internal("the control plane cannot sign; its log says why")
                })
            })
            .await?;
        tracing::info!(host = caller.host_id(), "a host's certificate was renewed");
        Ok(RenewResponse { certificate })
    }
}

impl From<CommitError> for Status {
    fn from(error: CommitError) -> Self {
        if let CommitError::NotLeader = error {
            return leader_is(None);
        }
        tracing::error!(%error, "the store failed an agent's call");
        Self::internal("the control plane's store failed; its log says why")
    }
}

/// Instances that the host has to look after and that have a volume which begins with the image, snapshot or move, in whatever
/// state either is.
fn users<'s>(state: &'s State, base_id: &str, host_id: &'s str) -> impl Iterator<Item = &'s str> + use<'s> {
    let instances = on_host(state, base_id, host_id).filter_map(Volume::instance_id);
    instances.filter(|instance| state.incarnation(instance).is_some())
}

/// Whether there are such instances, or the host is to store such a volume.
fn is_needed_by(state: &State, base_id: &str, host_id: &str) -> bool {
    let is_stored =
        |volume: &Volume| state.storing(&volume.id).is_some() || state.pending_snapshot(&volume.id).is_some();
    users(state, base_id, host_id).next().is_some() || on_host(state, base_id, host_id).any(is_stored)
}

fn on_host<'s>(
    state: &'s State,
    base_id: &str,
    host_id: &'s str,
) -> impl Iterator<Item = &'s Volume> + use<'s> {
    let volumes = state.by(&Volume::BY_BASE, base_id);
    volumes.filter(move |volume| volume.host_id.as_deref() == Some(host_id))
}

#[tonic::async_trait]
impl ControlPlane for Gateway {
    type SessionStream = ReceiverStream<Result<ControlMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = caller::admit(&self.app, &request)?;
        Ok(Response::new(session::start(
            Arc::clone(&self.app),
            caller,
            request.into_inner(),
        )))
    }

    type FetchImageStream = Pin<Box<dyn Stream<Item = Result<ImageChunk, Status>> + Send>>;

    async fn fetch_image(
        &self,
        request: Request<FetchImageRequest>,
    ) -> Result<Response<Self::FetchImageStream>, Status> {
        let caller = caller::admit(&self.app, &request)?;
        let FetchImageRequest {
            image_id,
            first_chunk,
        } = request.into_inner();
        let snapshot = self.snapshot_for(caller.host_id(), &image_id)?;
        tracing::info!(
            host = caller.host_id(),
            image_id,
            first_chunk,
            "an image is fetched"
        );
        let stream = fetch::stream(&self.app.repository, &snapshot, first_chunk, caller.standing).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn fetch_chunk(&self, request: Request<FetchChunkRequest>) -> Result<Response<ImageChunk>, Status> {
        let caller = caller::admit(&self.app, &request)?;
        let FetchChunkRequest { image_id, index } = request.into_inner();
        let snapshot = self.snapshot_for(caller.host_id(), &image_id)?;
        let (readers, repository) = (&self.readers, &self.app.repository);
        let told = fetch::chunk(readers, repository, &snapshot, index, &caller.standing);
        told.await.map(Response::new)
    }

    async fn store_snapshot(
        &self,
        request: Request<Streaming<SnapshotPart>>,
    ) -> Result<Response<StoreSnapshotResponse>, Status> {
        let caller = caller::admit(&self.app, &request)?;
        let stored = tokio::select! {
            reason = caller.standing.evicted() => Err(reason),
            reason = deposed(&self.app) => Err(reason),
            () = self.app.ending.cancelled() => Err(Status::unavailable("the control plane is ending")),
            stored = store::snapshot(&self.app, &self.stores, &caller, request.into_inner()) => stored,
        };
        stored.map(Response::new)
    }

    async fn fetch_credentials(
        &self,
        request: Request<FetchCredentialsRequest>,
    ) -> Result<Response<RoleCredentials>, Status> {
        let caller = caller::admit(&self.app, &request)?;
        let instance_id = request.into_inner().instance_id;
        let state = self.app.store.state();
        credentials::of_instance(&state, &self.app.vault, caller.host_id(), &instance_id).map(Response::new)
    }

    async fn fetch_key(&self, request: Request<FetchKeyRequest>) -> Result<Response<DiskKey>, Status> {
        let caller = caller::admit(&self.app, &request)?;
        let id = request.into_inner().id;
        let told = keys::of_host(&self.app, caller.host_id(), &id).map(Response::new);
        tracing::info!(
            host = caller.host_id(),
            id,
            given = told.is_ok(),
            "a key was asked for"
        );
        told
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let renewed = tokio::time::timeout(DEADLINE, self.renew(request)).await;
        renewed
            .map_err(|_| Status::deadline_exceeded("the control plane's store is busy"))?
            .map(Response::new)
    }
}
