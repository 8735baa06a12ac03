//! One agent's session: observations come up, intents go down, until either side ends it or a newer one takes over.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hearth_api::agent::{AgentMessage, ControlMessage, Endpoints, Hello, agent_message, control_message};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::caller::{self, Caller};
use super::sessions::{Outbox, Place};
use super::{down, observations};
use crate::app::App;
use crate::intents::Newest;
use crate::state::HostReport;

/// Intents replace each other, so few need to wait.
const OUTBOX: usize = 4;

const HELLO_DEADLINE: Duration = Duration::from_secs(10);

/// Runs the session in a task of its own and answers what the agent reads from.
pub(super) fn start(
    app: Arc<App>,
    caller: Caller,
    inbound: Streaming<AgentMessage>,
) -> ReceiverStream<Result<ControlMessage, Status>> {
    let (outbox, receiver) = mpsc::channel(OUTBOX);
    tokio::spawn(async move {
        match run(&app, &caller, inbound, &outbox).await {
            Ok(()) => tracing::info!(host = caller.host_id(), "a host left"),
            Err(status) => {
                tracing::warn!(
                    host = caller.host_id(),
                    status = status.message(),
                    "a host's session ended"
                );
                // The agent may be gone already, or not reading.
                let _ = tokio::time::timeout(HELLO_DEADLINE, outbox.send(Err(status))).await;
            }
        }
    });
    ReceiverStream::new(receiver)
}

async fn run(
    app: &Arc<App>,
    caller: &Caller,
    mut inbound: Streaming<AgentMessage>,
    outbox: &Outbox,
) -> Result<(), Status> {
    let host_id = caller.host_id();
    let hello = tokio::time::timeout(HELLO_DEADLINE, hello(&mut inbound))
        .await
        .map_err(|_| Status::deadline_exceeded("no Hello came"))??;
    greet(app, caller, &hello).await?;
    let place = app.sessions.enter(host_id, outbox.clone());
    tracing::info!(
        host = host_id,
        hostname = hello.hostname,
        version = hello.agent_version,
        "a host connected"
    );
    let (acknowledged, heard) = watch::channel(Newest::default());
    tokio::select! {
        reason = caller.standing.evicted() => Err(reason),
        () = until(caller.certificate.not_after) => Err(caller::expired()),
        () = place.superseded.cancelled() => Err(Status::aborted("a newer session of this host took over")),
        reason = super::deposed(app) => Err(reason),
        () = app.ending.cancelled() => Err(Status::unavailable("the control plane is ending")),
        ended = down::run(app, host_id, outbox, heard) => ended,
        ended = tell_endpoints(app, outbox) => ended,
        ended = up(app, host_id, &mut inbound, &place, &acknowledged) => ended,
    }
}

/// Tells the agent where it dials, now and when it changes.
async fn tell_endpoints(app: &App, outbox: &Outbox) -> Result<(), Status> {
    let mut members = app.store.members();
    loop {
        let endpoints = members.borrow_and_update().clone();
        if !endpoints.is_empty() {
            let message = ControlMessage {
                message: Some(control_message::Message::Endpoints(Endpoints { endpoints })),
            };
            if outbox.send(Ok(message)).await.is_err() {
                return Ok(());
            }
        }
        if members.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Returns after `time`, also when the clock is set meanwhile.
async fn until(time: SystemTime) {
    const LOOK: Duration = Duration::from_secs(3600);
    while let Ok(left) = time.duration_since(SystemTime::now()) {
        tokio::time::sleep(left.min(LOOK) + Duration::from_millis(1)).await;
    }
}

async fn hello(inbound: &mut Streaming<AgentMessage>) -> Result<Hello, Status> {
    match inbound.message().await?.and_then(|m| m.message) {
        Some(agent_message::Message::Hello(hello)) => Ok(hello),
        _ => Err(Status::failed_precondition("a session begins with Hello")),
    }
}

async fn greet(app: &App, caller: &Caller, hello: &Hello) -> Result<(), Status> {
    let host_id = caller.host_id();
    let capacity = hello.capacity.unwrap_or_default();
    let mut report = HostReport {
        host_id: host_id.to_owned(),
        hostname: hello.hostname.clone(),
        agent_version: hello.agent_version.clone(),
        vcpus: 0,
        memory_mib: 0,
        disk_bytes: 0,
        cpus: 0,
        uefi: hello.uefi,
        reported_at: 0,
        repairs: Vec::new(),
    };
    report.set_capacity(&capacity);
    let key_hash = caller.certificate.public_key_hash.clone();
    let zone = app
        .store
        .transact(move |tx| {
            let host_id = report.host_id.clone();
            caller::check(tx.admission(&host_id, &key_hash), &host_id)?;
            tx.use_key(&host_id, &key_hash);
            report.reported_at = tx.now();
            if let Some(before) = tx.get::<HostReport>(&host_id) {
                report.repairs.clone_from(&before.repairs);
            }
            tx.put(report);
            tx.event("host.connected", &host_id);
            Ok::<_, Status>(tx.host(&host_id).map(|host| host.availability_zone.clone()))
        })
        .await?;
    if zone.as_deref() != Some(hello.availability_zone.as_str()) {
        tracing::warn!(
            host = host_id,
            says = hello.availability_zone,
            enrolled_for = zone,
            "a host's zone is the one that it enrolled for; to move it, let it join anew"
        );
    }
    Ok(())
}

async fn up(
    app: &App,
    host_id: &str,
    inbound: &mut Streaming<AgentMessage>,
    place: &Place,
    acknowledged: &watch::Sender<Newest>,
) -> Result<(), Status> {
    while let Some(message) = inbound.message().await? {
        match message.message {
            Some(agent_message::Message::Observation(observation)) => {
                acknowledged.send_replace(Newest {
                    epoch: observation.intents_epoch.clone(),
                    sequence: observation.intents_sequence,
                });
                observations::apply(app, host_id, observation).await?;
            }
            Some(agent_message::Message::ConsoleOutput(output)) => {
                let request_id = output.request_id;
                place.answer(request_id, agent_message::Message::ConsoleOutput(output));
            }
            Some(agent_message::Message::KeyTaken(taken)) => {
                place.answer(taken.request_id, agent_message::Message::KeyTaken(taken));
            }
            Some(agent_message::Message::StorageReport(report)) => {
                let request_id = report.request_id;
                place.answer(request_id, agent_message::Message::StorageReport(report));
            }
            Some(agent_message::Message::Hello(_)) => {
                return Err(Status::failed_precondition("Hello comes once"));
            }
            // A newer agent may say what this version does not know.
            None => {}
        }
    }
    Ok(())
}
