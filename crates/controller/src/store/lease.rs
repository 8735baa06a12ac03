//! Which of several `hearthd` is the leader: the one that may commit.
//!
//! The lease is a row with an epoch and a count of renewals. A follower takes it when the count has stood still for
//! [`DURATION`] on the follower's own monotonic clock, or for [`DISCONNECTED`] when the holder has no connection to the
//! database either. The leader stops when [`DURATION`] has passed on its own monotonic clock since it began its last
//! renewal, which is before any follower can take the lease. No wall clock is read. What a leader does that was stopped
//! and goes on is refused by the epoch that each commit checks.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::Backend;

/// How long a lease lasts without renewal.
const DURATION: Duration = Duration::from_secs(3);
/// How long it lasts when its holder's connections to the database have ended.
const DISCONNECTED: Duration = Duration::from_secs(1);
/// Between renewals, and between looks at another's lease.
const PERIOD: Duration = Duration::from_millis(400);
/// Looks between two at the list of members.
const ATTENDANCE: u32 = 10;

/// The lease as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub epoch: u64,
    pub renewals: i64,
    /// Empty: nobody.
    pub holder: String,
    /// `host:port` that agents and followers dial.
    pub endpoint: String,
    /// Whether the holder has a connection to the database.
    pub connected: bool,
}

/// What a database that several `hearthd` share does beyond a [`Backend`].
#[tonic::async_trait]
pub(super) trait Lease: Send + Sync {
    async fn look(&self) -> Result<Held, sqlx::Error>;

    /// Takes the lease for `process`, if it is still as it was looked at. Answers the new epoch.
    async fn take(&self, from: &Held, process: &str, endpoint: &str) -> Result<Option<u64>, sqlx::Error>;

    /// Answers whether the lease still has this epoch.
    async fn renew(&self, epoch: u64) -> Result<bool, sqlx::Error>;

    async fn give_back(&self, epoch: u64) -> Result<(), sqlx::Error>;

    /// Enters this `hearthd` into the list of those that serve the cloud, and answers the list.
    async fn attend(&self, endpoint: &str) -> Result<Vec<String>, sqlx::Error>;

    /// The cloud's certificate authority, key included, PEM. `ours` becomes it if there is none.
    async fn authority(&self, ours: Option<&str>) -> Result<Option<String>, sqlx::Error>;
}

/// A leader's time.
#[derive(Debug, Clone)]
pub struct Term {
    pub epoch: u64,
    /// `None`: without end.
    until: Option<Arc<Mutex<Instant>>>,
}

impl Term {
    /// Of a database that nobody else uses.
    pub(super) fn endless() -> Self {
        Self {
            epoch: 0,
            until: None,
        }
    }

    fn begin(epoch: u64, until: Instant) -> Self {
        Self {
            epoch,
            until: Some(Arc::new(Mutex::new(until))),
        }
    }

    fn extend(&self, until: Instant) {
        if let Some(end) = &self.until {
            *end.lock().unwrap_or_else(PoisonError::into_inner) = until;
        }
    }

    /// Whether nobody else can have taken the lease yet.
    pub fn is_valid(&self) -> bool {
        self.until
            .as_ref()
            .is_none_or(|end| Instant::now() < *end.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What this `hearthd` is among those that share the database.
#[derive(Debug, Clone)]
pub enum Standing {
    Leader(Term),
    /// Where the leader is dialled, if there is one.
    Follower(Option<String>),
}

impl Standing {
    pub fn is_leader(&self) -> bool {
        matches!(self, Self::Leader(term) if term.is_valid())
    }
}

/// Renews the lease, or waits for it.
pub(super) struct Keeper {
    pub database: Arc<dyn Backend>,
    pub process: String,
    /// `host:port` that agents and followers dial.
    pub endpoint: String,
    pub standing: watch::Sender<Standing>,
    /// Endpoints of all that serve the cloud.
    pub members: watch::Sender<Vec<String>>,
}

impl Keeper {
    pub(super) async fn run(self) {
        let Some(lease) = self.database.lease() else {
            // Always the leader.
            return std::future::pending().await;
        };
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen: Option<(Held, Instant)> = None;
        for look in 0u32.. {
            ticks.tick().await;
            let standing = self.standing.borrow().clone();
            match standing {
                Standing::Leader(term) => {
                    seen = None;
                    self.renew(lease, &term).await;
                }
                Standing::Follower(_) => self.follow(lease, &mut seen).await,
            }
            if look.is_multiple_of(ATTENDANCE) {
                self.attend(lease).await;
            }
        }
    }

    async fn renew(&self, lease: &dyn Lease, term: &Term) {
        let began = Instant::now();
        match lease.renew(term.epoch).await {
            Ok(true) => term.extend(began + DURATION),
            Ok(false) => self.step_down("another hearthd has taken the lease"),
            Err(error) => {
                tracing::warn!(%error, "renewing the lease");
                if !term.is_valid() {
                    self.step_down("the lease could not be renewed in time");
                }
            }
        }
    }

    fn step_down(&self, why: &str) {
        tracing::warn!(why, "this hearthd is no longer the leader");
        self.standing.send_replace(Standing::Follower(None));
    }

    async fn follow(&self, lease: &dyn Lease, seen: &mut Option<(Held, Instant)>) {
        let held = match lease.look().await {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(%error, "looking at the lease");
                self.point_to(None);
                return;
            }
        };
        let now = Instant::now();
        let stood_still = match seen {
            Some((before, since)) if (before.epoch, before.renewals) == (held.epoch, held.renewals) => {
                now.duration_since(*since)
            }
            _ => {
                *seen = Some((held.clone(), now));
                Duration::ZERO
            }
        };
        // A predecessor of this process, whose port this process has by now.
        let is_predecessor = held.endpoint == self.endpoint;
        let patience = match (held.holder.as_str(), held.connected) {
            ("", _) => Duration::ZERO,
            (_, true) => DURATION,
            (_, false) if is_predecessor => Duration::ZERO,
            (_, false) => DISCONNECTED,
        };
        if held.holder == self.process {
            // The answer to taking it, or to renewing it, was lost.
            self.resume(lease, held.epoch).await;
        } else if stood_still >= patience {
            self.take(lease, &held).await;
        } else {
            self.point_to((!is_predecessor).then_some(&held.endpoint));
        }
    }

    async fn take(&self, lease: &dyn Lease, held: &Held) {
        let began = Instant::now();
        match lease.take(held, &self.process, &self.endpoint).await {
            Ok(Some(epoch)) => {
                tracing::info!(epoch, endpoint = self.endpoint, "this hearthd is the leader");
                let term = Term::begin(epoch, began + DURATION);
                self.standing.send_replace(Standing::Leader(term));
            }
            // Another was quicker.
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "taking the lease"),
        }
    }

    async fn resume(&self, lease: &dyn Lease, epoch: u64) {
        let began = Instant::now();
        if let Ok(true) = lease.renew(epoch).await {
            tracing::info!(epoch, "this hearthd is the leader again");
            let term = Term::begin(epoch, began + DURATION);
            self.standing.send_replace(Standing::Leader(term));
        }
    }

    fn point_to(&self, leader: Option<&str>) {
        self.standing.send_if_modified(|standing| match standing {
            Standing::Follower(known) if known.as_deref() != leader => {
                *known = leader.map(str::to_owned);
                true
            }
            _ => false,
        });
    }

    async fn attend(&self, lease: &dyn Lease) {
        match lease.attend(&self.endpoint).await {
            Ok(members) => {
                self.members.send_if_modified(|known| {
                    let is_new = *known != members;
                    *known = members;
                    is_new
                });
            }
            Err(error) => tracing::warn!(%error, "reading the list of members"),
        }
    }
}
