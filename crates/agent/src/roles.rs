//! Credentials of instances' roles: fetched from the control plane, kept in memory alone, and renewed long before they end.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use hearth_api::agent::{FetchCredentialsRequest, RoleCredentials as Told};
use hearth_network::RoleCredentials;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Code;

use crate::link::Link;

/// How old credentials become before others are fetched.
const RENEWAL: Duration = Duration::from_secs(3600);
/// Before what failed is tried again.
const PAUSE: Duration = Duration::from_secs(10);
/// Before it is asked again for what there is not: the role does not trust instances.
const DENIED_PAUSE: Duration = Duration::from_secs(60);
/// How long the control plane may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// An instance's role by its id, and what was fetched of it.
struct Held {
    role_id: String,
    /// `None`: the control plane gives none.
    credentials: Option<Arc<RoleCredentials>>,
    fetch_again: Instant,
}

/// By instance.
#[derive(Default)]
pub struct Roles {
    /// The ids of the roles that instances have.
    wanted: watch::Sender<BTreeMap<String, String>>,
    held: RwLock<HashMap<String, Held>>,
}

impl Roles {
    /// Says which instances have roles, by the ids of both.
    pub fn want(&self, roles: BTreeMap<String, String>) {
        self.wanted.send_if_modified(|wanted| {
            let is_new = *wanted != roles;
            *wanted = roles;
            is_new
        });
    }

    /// The credentials of an instance that has a role, until they end.
    pub fn credentials(&self, instance_id: &str) -> Option<Arc<RoleCredentials>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let held = held.get(instance_id)?;
        // The role of before is no more its own.
        if self.wanted.borrow().get(instance_id) != Some(&held.role_id) {
            return None;
        }
        held.credentials
            .clone()
            .filter(|credentials| credentials.expiration > SystemTime::now())
    }

    /// Fetches what is wanted, for as long as it is polled.
    pub async fn keep(&self, link: Link) {
        let mut wanted = self.wanted.subscribe();
        loop {
            let roles = wanted.borrow_and_update().clone();
            self.held
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|instance, held| roles.get(instance) == Some(&held.role_id));
            for (instance, role_id) in &roles {
                if self.is_due(instance) {
                    self.fetch(&link, instance, role_id).await;
                }
            }
            let next = self.next();
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    fn is_due(&self, instance: &str) -> bool {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.get(instance)
            .is_none_or(|held| held.fetch_again <= Instant::now())
    }

    /// When something is due.
    fn next(&self) -> Instant {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let next = held.values().map(|held| held.fetch_again).min();
        next.unwrap_or_else(|| Instant::now() + RENEWAL)
    }

    async fn fetch(&self, link: &Link, instance: &str, role_id: &str) {
        let request = FetchCredentialsRequest {
            instance_id: instance.to_owned(),
        };
        let fetched = tokio::time::timeout(PATIENCE, async {
            link.client().await.fetch_credentials(request).await
        });
        let (credentials, again) = match fetched.await {
            Ok(Ok(told)) => (Some(Arc::new(read(told.into_inner()))), RENEWAL),
            Ok(Err(status)) if status.code() == Code::NotFound => {
                tracing::warn!(instance, why = status.message(), "no credentials for an instance");
                (None, DENIED_PAUSE)
            }
            failed => {
                let why = match failed {
                    Ok(Err(status)) => status.message().to_owned(),
                    _ => "the control plane does not answer".to_owned(),
                };
                tracing::warn!(instance, why, "fetching credentials for an instance");
                // What it has holds on.
                (self.credentials(instance), PAUSE)
            }
        };
        let held = Held {
            role_id: role_id.to_owned(),
            credentials,
            fetch_again: Instant::now() + again,
        };
        let mut all = self.held.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(instance.to_owned(), held);
    }
}

fn read(told: Told) -> RoleCredentials {
    let time = |seconds: i64| {
        let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        SystemTime::UNIX_EPOCH
            .checked_add(seconds)
            .unwrap_or(SystemTime::UNIX_EPOCH)
    };
    RoleCredentials {
        role_name: told.role_name,
        access_key_id: told.access_key_id,
        secret_access_key: told.secret_access_key,
        token: told.token,
        last_updated: time(told.last_updated),
        expiration: time(told.expiration),
    }
}
