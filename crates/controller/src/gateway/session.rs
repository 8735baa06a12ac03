//! One agent's session: observations come up, intents go down, until either side ends it or a newer one takes over.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hearth_api::agent::{AgentMessage, ControlMessage, Hello, agent_message, control_message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::caller::{self, Caller};
use super::sessions::{Outbox, Place};
use super::{internal, observations};
use crate::app::App;
use crate::store::{host_keys, hosts, intents};

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
    tokio::select! {
        reason = caller.standing.evicted() => Err(reason),
        () = until(caller.certificate.not_after) => Err(caller::expired()),
        () = place.superseded.cancelled() => Err(Status::aborted("a newer session of this host took over")),
        () = app.ending.cancelled() => Err(Status::unavailable("the control plane is ending")),
        ended = down(app, host_id, outbox) => ended,
        ended = up(app, host_id, &mut inbound, &place) => ended,
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
    let key_hash = &caller.certificate.public_key_hash;
    let capacity = hello.capacity.unwrap_or_default();
    let mut tx = app.store.write().await.map_err(internal)?;
    // Once more, now that nobody else writes.
    let admission = host_keys::admission(tx.connection(), host_id, key_hash)
        .await
        .map_err(internal)?;
    caller::check(admission, host_id)?;
    host_keys::used(tx.connection(), host_id, key_hash)
        .await
        .map_err(internal)?;
    let zone = hosts::availability_zone(tx.connection(), host_id)
        .await
        .map_err(internal)?;
    if zone.as_deref() != Some(hello.availability_zone.as_str()) {
        tracing::warn!(
            host = host_id,
            says = hello.availability_zone,
            enrolled_for = zone,
            "a host's zone is the one that it enrolled for; to move it, let it join anew"
        );
    }
    let greeting = hosts::Greeting {
        host_id,
        hostname: &hello.hostname,
        agent_version: &hello.agent_version,
        capacity: &capacity,
        uefi: hello.uefi,
    };
    hosts::report(tx.connection(), &greeting)
        .await
        .map_err(internal)?;
    tx.event("host.connected", host_id).await.map_err(internal)?;
    tx.commit().await.map_err(internal)
}

/// Sends all intents at once, and again after every commit that touches the host. Commits that come while intents are
/// on their way coalesce.
async fn down(app: &App, host_id: &str, outbox: &Outbox) -> Result<(), Status> {
    let mut changes = app.store.bus().watch_host(host_id);
    let mut sent = None;
    loop {
        let mut read = app.store.read().await.map_err(internal)?;
        let intents = intents::of_host(&mut read, host_id, &app.surroundings)
            .await
            .map_err(internal)?;
        drop(read);
        let Some(intents) = intents else {
            return Err(Status::permission_denied(format!("host {host_id} was forgotten")));
        };
        if sent.is_none_or(|sent| intents.generation > sent) {
            sent = Some(intents.generation);
            let message = ControlMessage {
                message: Some(control_message::Message::Intents(intents)),
            };
            if outbox.send(Ok(message)).await.is_err() {
                return Ok(());
            }
        }
        if changes.changed().await.is_err() {
            return Ok(());
        }
    }
}

async fn up(
    app: &App,
    host_id: &str,
    inbound: &mut Streaming<AgentMessage>,
    place: &Place,
) -> Result<(), Status> {
    while let Some(message) = inbound.message().await? {
        match message.message {
            Some(agent_message::Message::Observation(observation)) => {
                observations::apply(app, host_id, observation)
                    .await
                    .map_err(internal)?;
            }
            Some(agent_message::Message::ConsoleOutput(output)) => place.answer(output),
            Some(agent_message::Message::Hello(_)) => {
                return Err(Status::failed_precondition("Hello comes once"));
            }
            // A newer agent may say what this version does not know.
            None => {}
        }
    }
    Ok(())
}
