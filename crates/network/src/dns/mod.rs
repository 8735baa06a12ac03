//! DNS: the VPC's resolver. Names of the VPC's own domain are answered here; all others go to the host's resolvers.
//!
//! Each interface has sockets of its own ([`crate::sockets`]) and a share of its own ([`crate::share`]), so that one
//! guest's questions, or the slowness of what it asks for, cost its neighbours nothing.

#[cfg(any(test, feature = "testing"))]
pub(crate) mod fuzz;
mod message;
mod server;
mod upstream;
mod zone;

use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use server::{Sockets, serve};
pub(crate) use upstream::Upstream;

use crate::plan::{CurrentPlan, Plan};
use message::{Checked, Question};
use upstream::Transport;
use zone::Zone;

const PORT: u16 = 53;

/// The resolver of one VPC.
pub(crate) struct Dns {
    plan: CurrentPlan,
    upstream: Arc<Upstream>,
    /// The zone of the plan that it was made from.
    zone: Mutex<Option<(Arc<Plan>, Arc<Zone>)>>,
}

/// What is known of a message without asking anybody.
enum Step {
    /// Not a question: no answer.
    Ignore,
    Answer(Vec<u8>),
    Relay(Box<Question>),
}

impl Dns {
    pub(crate) fn new(plan: CurrentPlan, upstream: Arc<Upstream>) -> Self {
        Self {
            plan,
            upstream,
            zone: Mutex::new(None),
        }
    }

    fn step(&self, message: &[u8]) -> Step {
        match Question::check(message) {
            Checked::NoQuestion => Step::Ignore,
            Checked::Refused(answer) => Step::Answer(answer),
            Checked::Question(question) => match self.zone().answer(&question) {
                Some(answer) => Step::Answer(answer),
                None => Step::Relay(question),
            },
        }
    }

    async fn relay(&self, question: &Question, transport: Transport) -> Vec<u8> {
        match self.upstream.ask(question, transport).await {
            Some(answer) => answer,
            None => question.failure(),
        }
    }

    fn zone(&self) -> Arc<Zone> {
        let plan = self.plan.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        match &*zone {
            Some((of, zone)) if Arc::ptr_eq(of, &plan) => zone.clone(),
            _ => {
                let made = Arc::new(Zone::of(&plan));
                *zone = Some((plan, made.clone()));
                made
            }
        }
    }
}

#[cfg(test)]
mod tests;
