//! Where host agents dial in: enrolment, sessions, and the disks of AMIs. Everything but Enroll demands a client
//! certificate of a host that is known.

use std::sync::Arc;

use hearth_api::agent::control_plane_server::ControlPlane;
use hearth_api::agent::{
    AgentMessage, ControlMessage, EnrollRequest, EnrollResponse, FetchImageRequest, ImageChunk,
};
use hearth_api::{Id, Kind};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::app::App;
use crate::pki::{self, Authority};
use crate::store::{hosts, images, tokens};

mod fetch;
mod observations;
mod session;
mod sessions;

pub use sessions::Sessions;

pub struct Gateway {
    app: Arc<App>,
    authority: Arc<Authority>,
}

impl Gateway {
    pub fn new(app: Arc<App>, authority: Arc<Authority>) -> Self {
        Self { app, authority }
    }

    /// The host that calls, by its certificate.
    async fn caller<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let certificates = request.peer_certs();
        let leaf = certificates.as_ref().and_then(|chain| chain.first());
        let host_id = leaf.and_then(pki::common_name).ok_or_else(|| {
            Status::unauthenticated("a client certificate is needed: call Enroll with a join token")
        })?;
        let mut read = self.app.store.read().await.map_err(internal)?;
        match hosts::availability_zone(&mut read, &host_id)
            .await
            .map_err(internal)?
        {
            Some(_) => Ok(host_id),
            None => Err(Status::permission_denied(format!(
                "host {host_id} is not known here: remove its identity and let it join anew"
            ))),
        }
    }
}

fn internal(error: sqlx::Error) -> Status {
    tracing::error!(%error, "the store failed an agent's call");
    Status::internal("the control plane's store failed; its log says why")
}

#[tonic::async_trait]
impl ControlPlane for Gateway {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let request = request.into_inner();
        let zones = &self.app.config.zones;
        if !zones.contains(&request.availability_zone) {
            return Err(Status::invalid_argument(format!(
                "there is no availability zone '{}' here, but {}",
                request.availability_zone,
                zones.join(", ")
            )));
        }
        let host_id = Id::new(Kind::Host).to_string();
        let certificate = self
            .authority
            .sign_host(&host_id, &request.certificate_signing_request)
            .map_err(|error| Status::invalid_argument(format!("the certificate signing request: {error}")))?;
        let mut tx = self.app.store.write().await.map_err(internal)?;
        // `Enroll` takes the whole token or its secret alone.
        let secret = request.token.parse::<hearth_api::join::JoinToken>();
        let secret = secret.map_or(request.token, |token| token.secret);
        if !tokens::admits(tx.connection(), &secret).await.map_err(internal)? {
            return Err(Status::unauthenticated(
                "the join token is not valid: print a new one with `hearthd join-token`",
            ));
        }
        hosts::insert(tx.connection(), &host_id, &request.availability_zone)
            .await
            .map_err(internal)?;
        tx.event("host.enrolled", &host_id).await.map_err(internal)?;
        tx.commit().await.map_err(internal)?;
        tracing::info!(host = host_id, zone = request.availability_zone, "a host joined");
        Ok(Response::new(EnrollResponse {
            host_id,
            certificate,
            ca_certificate: self.authority.certificate_pem().to_owned(),
        }))
    }

    type SessionStream = ReceiverStream<Result<ControlMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let host_id = self.caller(&request).await?;
        Ok(Response::new(session::start(
            Arc::clone(&self.app),
            host_id,
            request.into_inner(),
        )))
    }

    type FetchImageStream = ReceiverStream<Result<ImageChunk, Status>>;

    async fn fetch_image(
        &self,
        request: Request<FetchImageRequest>,
    ) -> Result<Response<Self::FetchImageStream>, Status> {
        let host = self.caller(&request).await?;
        let image_id = request.into_inner().image_id;
        let mut read = self.app.store.read().await.map_err(internal)?;
        // Deregistered ones too: an instance may still have to be made from it.
        if images::by_id(&mut read, &image_id)
            .await
            .map_err(internal)?
            .is_none()
        {
            return Err(Status::not_found(format!("there is no image {image_id}")));
        }
        drop(read);
        tracing::info!(host, image_id, "an image is fetched");
        fetch::stream(self.app.image_path(&image_id))
            .await
            .map(Response::new)
    }
}
