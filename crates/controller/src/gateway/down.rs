//! What goes down a session: all intents first, then what changes, each acknowledged before the next is sent. Changes that
//! come meanwhile are one message. What is not acknowledged in time is followed by all intents anew.

use std::collections::BTreeSet;
use std::time::Duration;

use hearth_api::agent::control_message::Message;
use hearth_api::agent::{ControlMessage, InstanceIntent};
use tokio::sync::watch;
use tonic::Status;

use super::sessions::Outbox;
use crate::app::App;
use crate::intents::{self, Letter, Newest, Told};
use crate::state::{Concern, Topic};
use crate::store::{Mail, News};

/// How long an agent may take to acknowledge intents before all are sent anew.
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(5);

/// Tells a host what is its own, until nobody listens any more.
pub(super) async fn run(
    app: &App,
    host_id: &str,
    outbox: &Outbox,
    acknowledged: watch::Receiver<Newest>,
) -> Result<(), Status> {
    let mut mail = app.store.bus().mail();
    mail.follow(Topic::Host(host_id.to_owned()));
    let mut down = Down {
        app,
        host_id,
        outbox,
        mail,
        acknowledged,
    };
    while let Some(told) = down.all().await? {
        if down.changes(told).await?.is_none() {
            break;
        }
    }
    Ok(())
}

struct Down<'a> {
    app: &'a App,
    host_id: &'a str,
    outbox: &'a Outbox,
    mail: Mail,
    acknowledged: watch::Receiver<Newest>,
}

impl Down<'_> {
    /// Sends all intents; `None`: nobody listens.
    async fn all(&mut self) -> Result<Option<Told>, Status> {
        // What is read from now on has it.
        self.mail.take();
        let letter = loop {
            let state = self.app.store.state();
            let letter =
                intents::all(&state, self.host_id, &self.app.cloud).ok_or_else(|| self.forgotten())?;
            if !self.follow(&letter.told) {
                break letter;
            }
        };
        let Letter {
            mut intents,
            user_data,
            told,
        } = letter;
        self.fill(&mut intents.instances, user_data).await?;
        Ok(self.send(Message::Intents(intents)).await.then_some(told))
    }

    /// Sends what changes. Returns when all is to be sent anew; `None`: nobody listens.
    async fn changes(&mut self, mut told: Told) -> Result<Option<()>, Status> {
        loop {
            if !self.heard(&told.newest).await {
                tracing::warn!(
                    host = self.host_id,
                    sequence = told.newest.sequence,
                    "all intents are sent anew: the last ones were not acknowledged"
                );
                return Ok(Some(()));
            }
            self.mail.arrived().await;
            let News::Some(concerns) = self.mail.take() else {
                return Ok(Some(()));
            };
            let letter = self.letter(&told, &concerns)?;
            if letter.is_empty() {
                continue;
            }
            let mut delta = letter.intents;
            self.fill(&mut delta.instances, letter.user_data).await?;
            if !self.send(Message::Delta(delta)).await {
                return Ok(None);
            }
            told = letter.told;
            self.mail.retain(|topic| told.follows(topic));
        }
    }

    fn letter(
        &mut self,
        told: &Told,
        concerns: &BTreeSet<Concern>,
    ) -> Result<Letter<hearth_api::agent::IntentsDelta>, Status> {
        loop {
            let state = self.app.store.state();
            let letter = intents::changes(&state, self.host_id, &self.app.cloud, told, concerns);
            let letter = letter.ok_or_else(|| self.forgotten())?;
            if !self.follow(&letter.told) {
                return Ok(letter);
            }
        }
    }

    /// Follows what the host's groups do. Answers whether one is new: the state is to be read again then.
    fn follow(&mut self, told: &Told) -> bool {
        let mut is_new = false;
        for topic in told.topics() {
            is_new |= self.mail.follow(topic);
        }
        is_new
    }

    /// Waits until what was sent is acknowledged. Answers whether it was in time.
    async fn heard(&mut self, sent: &Newest) -> bool {
        let heard = self.acknowledged.wait_for(|newest| newest.covers(sent));
        tokio::time::timeout(ACKNOWLEDGEMENT, heard).await.is_ok()
    }

    /// Answers whether somebody listens.
    async fn send(&self, message: Message) -> bool {
        let message = ControlMessage {
            message: Some(message),
        };
        self.outbox.send(Ok(message)).await.is_ok()
    }

    /// Adds the user data of the instances.
    async fn fill(
        &self,
        instances: &mut [InstanceIntent],
        user_data: Vec<Option<String>>,
    ) -> Result<(), Status> {
        for (instance, blob) in instances.iter_mut().zip(user_data) {
            if let (Some(metadata), Some(blob)) = (&mut instance.metadata, blob) {
                metadata.user_data = self.app.store.blob(&blob).await.map_err(|error| {
                    tracing::error!(instance = instance.instance_id, %error, "reading an instance's user data");
                    Status::internal("the control plane's store failed; its log says why")
                })?;
            }
        }
        Ok(())
    }

    fn forgotten(&self) -> Status {
        hearth_api::fence::forgotten(self.host_id)
    }
}
