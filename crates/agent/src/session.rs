//! The session with the control plane: observations up, intents down, for as long as there is one.
//!
//! The agent needs it to hear news, not to work: while it is away, instances run and are looked after.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use hearth_api::agent::agent_message::Message as Up;
use hearth_api::agent::control_message::Message as Down;
use hearth_api::agent::{
    AgentMessage, Capacity, ConsoleOutput, ConsoleRequest, Hello, KeyTaken, StorageReport, StorageRequest,
};
use hearth_api::fence::is_forgotten;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

use crate::board::Board;
use crate::capacity::{self, Reserve};
use crate::consoles::{self, Console};
use crate::endpoints::Endpoints;
use crate::firmware::Firmware;
use crate::identity::{self, Identity, IdentityError, TlsError, Validity};
use crate::link::{client, leader};
use crate::networks::Metadata;
use crate::paths::DataDir;
use crate::storage;
use crate::supervisor::News;

pub struct Session {
    pub endpoints: Mutex<Endpoints>,
    /// Whether the control plane tells where it is dialled, and not the operator.
    pub is_told: bool,
    pub availability_zone: String,
    pub firmware: Firmware,
    pub reserve: Reserve,
    pub dir: DataDir,
    pub board: Board,
    pub metadata: Arc<Metadata>,
    pub news: mpsc::Sender<News>,
    pub channel: watch::Sender<Option<Channel>>,
}

#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("this host has no identity any more: stop the agent, and run `hearth-agent join TOKEN`")]
    NoIdentity,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the control plane ended the session: {}", .0.message())]
    Ended(Box<tonic::Status>),
    #[error("measuring the host's capacity")]
    Capacity(#[source] std::io::Error),
    #[error("the control plane closed the session")]
    Closed,
}

/// Why a session is over that did not fail.
enum Over {
    /// Nobody takes intents any more.
    Done,
    /// There is a new certificate, which is used from the next session on.
    Renewed(Validity),
}

impl SessionError {
    /// Where the leader is, if whoever was dialled said so.
    fn leader(&self) -> Option<&str> {
        match self {
            Self::Ended(status) => leader(status),
            _ => None,
        }
    }

    /// Whether the control plane does not accept this host's certificate: dialling again soon changes nothing.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Ended(status) if status.code() == Code::PermissionDenied)
    }

    /// Whether the host was forgotten.
    fn is_fence(&self) -> bool {
        matches!(self, Self::Ended(status) if is_forgotten(status))
    }
}

/// A session that lasted this long was a good one: the next is dialled soon.
const GOOD: Duration = Duration::from_secs(20);
/// Between attempts of a host that is refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(600);
/// Before the leader is dialled that another named.
const FOLLOW_PAUSE: Duration = Duration::from_millis(50);
/// Between attempts at one of several `hearthd` at most: another may have become the leader.
const SEARCH_PAUSE: Duration = Duration::from_secs(1);

impl Session {
    /// Keeps a session up; returns when nobody takes intents any more.
    pub async fn keep(self) {
        let session = Arc::new(self);
        let delays = || {
            ExponentialBuilder::default()
                .with_jitter()
                .with_min_delay(Duration::from_millis(100))
                .with_max_delay(Duration::from_secs(10))
                .without_max_times()
                .build()
        };
        let mut delay = delays();
        // A renewal before this time would be of a certificate that was just renewed.
        let mut renewable = Instant::now();
        while !session.news.is_closed() {
            let began = Instant::now();
            let ended = session.hold(renewable).await;
            session.channel.send_replace(None);
            if began.elapsed() >= GOOD {
                delay = delays();
            }
            let mut pause = delay.next().unwrap_or(Duration::from_secs(10));
            match ended {
                Ok(Over::Done) => return,
                Ok(Over::Renewed(validity)) => {
                    renewable = Instant::now() + validity.pause();
                    continue;
                }
                Err(error) if error.is_refusal() => {
                    pause = REFUSED_PAUSE;
                    let guests = if error.is_fence() {
                        if session.news.send(News::Forgotten).await.is_err() {
                            return;
                        }
                        "Its guests are ended, and their volumes are kept"
                    } else {
                        "Guests go on, and nothing changes on this host any more"
                    };
                    tracing::error!(
                        "{}. {guests}. To let it join anew: run `hearthd join-token` on the control plane's machine, \
                         stop this agent, remove {}, run `hearth-agent join TOKEN`, and start the agent",
                        crate::chain(&error),
                        session.dir.pki().display()
                    );
                }
                Err(error) => {
                    let mut endpoints = session.endpoints();
                    if endpoints.are_several() {
                        pause = pause.min(SEARCH_PAUSE);
                    }
                    if endpoints.refused(error.leader()) {
                        pause = FOLLOW_PAUSE;
                    }
                    tracing::warn!(
                        error = %crate::chain(&error), ?pause, next = endpoints.current(), "no session; dialling again"
                    );
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = session.news.closed() => {}
            }
        }
    }

    fn endpoints(&self) -> MutexGuard<'_, Endpoints> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps where the control plane is dialled from now on.
    async fn learn(&self, endpoints: Vec<String>) {
        if !self.is_told || !self.endpoints().learn(&endpoints) {
            return;
        }
        tracing::info!(?endpoints, "the control plane is dialled at these from now on");
        let dir = self.dir.clone();
        let saved = tokio::task::spawn_blocking(move || Identity::save_endpoints(&dir, &endpoints)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(error = %crate::chain(&error), "keeping where the control plane is dialled");
        }
    }

    /// The identity as it is on the disk, where renewals put it.
    fn identity(&self) -> Result<Identity, SessionError> {
        let identity = Identity::load(&self.dir)?.ok_or(SessionError::NoIdentity)?;
        if identity.validity()?.has_ended() {
            tracing::error!(
                "the certificate of this host has expired. To let the host join again under its id: run `hearthd \
                 join-token --host-id {}` on the control plane's machine, stop this agent, remove {}, run \
                 `hearth-agent join TOKEN`, and start the agent",
                identity.host_id,
                self.dir.pki().display()
            );
        }
        Ok(identity)
    }

    /// One session, from dialling to its end.
    async fn hold(self: &Arc<Self>, renewable: Instant) -> Result<Over, SessionError> {
        let identity = self.identity()?;
        let endpoint = self.endpoints().current().to_owned();
        let channel = identity::connect(&identity, &endpoint).await?;
        let (up, outbox) = mpsc::channel::<AgentMessage>(4);
        let hello = Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            availability_zone: self.availability_zone.clone(),
            hostname: hostname(),
            capacity: Some(self.capacity().await?),
            uefi: self.firmware.exists(),
        };
        let _ = up.send(message(Up::Hello(hello))).await;
        let mut board = self.board.reader();
        let observation = board.look(self.capacity().await?);
        let _ = up.send(message(Up::Observation(observation))).await;
        let mut down = client(channel.clone())
            .session(ReceiverStream::new(outbox))
            .await
            .map_err(|status| SessionError::Ended(Box::new(status)))?
            .into_inner();
        tracing::info!(endpoint, host = identity.host_id, "session begun");
        self.channel.send_replace(Some(channel.clone()));
        let mut renewal = pin!(async {
            tokio::time::sleep_until(renewable).await;
            identity::renew(&identity, &self.dir, channel).await
        });
        loop {
            tokio::select! {
                received = down.message() => {
                    let received = received.map_err(|status| SessionError::Ended(Box::new(status)))?;
                    let news = match received.ok_or(SessionError::Closed)?.message {
                        Some(Down::Intents(intents)) => Some(News::All(intents)),
                        Some(Down::Delta(delta)) => Some(News::Changes(delta)),
                        Some(Down::ConsoleRequest(request)) => {
                            let (session, up) = (Arc::clone(self), up.clone());
                            tokio::spawn(async move {
                                let output = session.console(request).await;
                                let _ = up.send(message(Up::ConsoleOutput(output))).await;
                            });
                            None
                        }
                        Some(Down::SshPublicKey(key)) => {
                            let request_id = key.request_id;
                            let error = self.metadata.give_key(key).err().unwrap_or_default();
                            let taken = Up::KeyTaken(KeyTaken { request_id, error });
                            // Whoever reads may be slow, and what comes down is not kept waiting.
                            let up = up.clone();
                            tokio::spawn(async move { up.send(message(taken)).await });
                            None
                        }
                        Some(Down::StorageRequest(request)) => {
                            let (session, up) = (Arc::clone(self), up.clone());
                            tokio::spawn(async move {
                                let report = session.storage(request).await;
                                let _ = up.send(message(Up::StorageReport(report))).await;
                            });
                            None
                        }
                        Some(Down::Endpoints(told)) => {
                            self.learn(told.endpoints).await;
                            None
                        }
                        None => None,
                    };
                    if let Some(news) = news
                        && self.news.send(news).await.is_err()
                    {
                        return Ok(Over::Done);
                    }
                }
                renewed = &mut renewal => {
                    tracing::info!(host = identity.host_id, "the certificate was renewed");
                    return Ok(Over::Renewed(renewed?));
                }
                // Room first, then the look: changes that come faster than they are sent are one, and none is
                // lost when the other branch wins.
                permit = async {
                    let permit = up.reserve().await;
                    board.changed().await;
                    permit
                } => {
                    let Ok(permit) = permit else { return Err(SessionError::Closed) };
                    let capacity = self.capacity().await?;
                    permit.send(message(Up::Observation(board.look(capacity))));
                }
            }
        }
    }

    async fn capacity(&self) -> Result<Capacity, SessionError> {
        let (dir, reserve) = (self.dir.clone(), self.reserve);
        let measured = tokio::task::spawn_blocking(move || capacity::measure(&dir, reserve)).await;
        measured
            .unwrap_or_else(|_| Err(std::io::Error::other("the worker ended")))
            .map_err(SessionError::Capacity)
    }

    async fn storage(&self, request: StorageRequest) -> StorageReport {
        let request_id = request.request_id;
        let (dir, reserve) = (self.dir.clone(), self.reserve);
        let told = tokio::task::spawn_blocking(move || storage::report(&dir, reserve, &request)).await;
        told.unwrap_or_else(|_| Err(std::io::Error::other("the worker ended")))
            .unwrap_or_else(|error| StorageReport {
                request_id,
                error: format!("looking at the disk: {error}"),
                ..StorageReport::default()
            })
    }

    async fn console(&self, request: ConsoleRequest) -> ConsoleOutput {
        let (dir, id) = (self.dir.clone(), request.instance_id.clone());
        let read = tokio::task::spawn_blocking(move || consoles::read(&dir, &id))
            .await
            .unwrap_or_else(|_| Err(std::io::Error::other("the worker ended")));
        let (console, error) = match read {
            Ok(console) => (console, String::new()),
            Err(error) => (
                Console::default(),
                format!("reading the console of {}: {error}", request.instance_id),
            ),
        };
        ConsoleOutput {
            request_id: request.request_id,
            output: console.output,
            written_at: console.written_at,
            error,
        }
    }
}

fn message(message: Up) -> AgentMessage {
    AgentMessage {
        message: Some(message),
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}
