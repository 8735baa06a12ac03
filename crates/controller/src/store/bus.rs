//! Tells sessions and watchers what was committed. A hint, never the truth: whoever hears it reads the store.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, broadcast};

use crate::state::{Concern, Topic};

/// Changed instances that a watcher may lag behind before it is told to read everything anew.
const WATCH_BACKLOG: usize = 1024;
/// Concerns that wait for a session before it is told to read everything anew.
const MAIL_BACKLOG: usize = 4096;

#[derive(Debug, Clone)]
pub struct Bus {
    instances: broadcast::Sender<Arc<str>>,
    topics: Arc<Mutex<Topics>>,
    /// Numbers mailboxes.
    next: Arc<AtomicU64>,
}

type Topics = HashMap<Topic, HashMap<u64, Arc<Mailbox>>>;

impl Default for Bus {
    fn default() -> Self {
        Self {
            instances: broadcast::channel(WATCH_BACKLOG).0,
            topics: Arc::default(),
            next: Arc::default(),
        }
    }
}

impl Bus {
    /// The ids of instances that change from now on.
    pub fn watch_instances(&self) -> broadcast::Receiver<Arc<str>> {
        self.instances.subscribe()
    }

    /// A mailbox for what topics have to say, which follows none yet.
    pub fn mail(&self) -> Mail {
        Mail {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            mailbox: Arc::default(),
            followed: BTreeSet::new(),
            bus: self.clone(),
        }
    }

    pub(super) fn instance_changed(&self, instance_id: &str) {
        // Nobody watching is no error.
        let _ = self.instances.send(instance_id.into());
    }

    /// Tells everyone that anything may have changed.
    pub(super) fn anything(&self) {
        for mailbox in lock(&self.topics).values().flat_map(HashMap::values) {
            *lock(&mailbox.waiting) = News::Anything;
            mailbox.arrived.notify_one();
        }
    }

    /// Puts concerns into the mailboxes of those who follow their topics.
    pub(super) fn concerns(&self, concerns: &BTreeSet<Concern>) {
        if concerns.is_empty() {
            return;
        }
        let topics = lock(&self.topics);
        for concern in concerns {
            let followers = topics.get(&concern.topic());
            for mailbox in followers.into_iter().flat_map(HashMap::values) {
                mailbox.put(concern);
            }
        }
    }
}

/// What waits for one session.
#[derive(Debug, Default)]
struct Mailbox {
    waiting: Mutex<News>,
    arrived: Notify,
}

impl Mailbox {
    fn put(&self, concern: &Concern) {
        lock(&self.waiting).add(concern);
        self.arrived.notify_one();
    }
}

/// What a session has to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    Some(BTreeSet<Concern>),
    /// More than is kept apart: anything may have changed.
    Anything,
}

impl Default for News {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

impl News {
    fn add(&mut self, concern: &Concern) {
        match self {
            Self::Some(concerns) if concerns.len() < MAIL_BACKLOG => {
                concerns.insert(concern.clone());
            }
            Self::Some(_) => *self = Self::Anything,
            Self::Anything => {}
        }
    }
}

/// A session's mailbox. Dropping it ends the following.
#[derive(Debug)]
pub struct Mail {
    number: u64,
    mailbox: Arc<Mailbox>,
    followed: BTreeSet<Topic>,
    bus: Bus,
}

impl Mail {
    /// Follows a topic from now on. Answers whether it did not before: what was read of the state until now may lack
    /// something then.
    pub fn follow(&mut self, topic: Topic) -> bool {
        if self.followed.contains(&topic) {
            return false;
        }
        let mut topics = lock(&self.bus.topics);
        topics
            .entry(topic.clone())
            .or_default()
            .insert(self.number, Arc::clone(&self.mailbox));
        self.followed.insert(topic)
    }

    /// Leaves the topics that `keep` answers false for.
    pub fn retain(&mut self, keep: impl Fn(&Topic) -> bool) {
        let bus = self.bus.clone();
        self.followed.retain(|topic| {
            let kept = keep(topic);
            if !kept {
                bus.leave(topic, self.number);
            }
            kept
        });
    }

    /// Takes what waits.
    pub fn take(&self) -> News {
        std::mem::take(&mut *lock(&self.mailbox.waiting))
    }

    /// Waits until something has come since the last time that this was waited for.
    pub async fn arrived(&self) {
        self.mailbox.arrived.notified().await;
    }
}

impl Drop for Mail {
    fn drop(&mut self) {
        self.retain(|_| false);
    }
}

impl Bus {
    fn leave(&self, topic: &Topic, number: u64) {
        let mut topics = lock(&self.topics);
        if let Some(followers) = topics.get_mut(topic) {
            followers.remove(&number);
            if followers.is_empty() {
                topics.remove(topic);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(group: &str) -> Concern {
        Concern::Rules {
            group_id: group.into(),
        }
    }

    #[tokio::test]
    async fn who_follows_a_topic_hears_of_it_and_nobody_else() {
        let bus = Bus::default();
        let (mut one, mut other) = (bus.mail(), bus.mail());
        assert!(one.follow(Topic::Rules("sg-1".into())));
        assert!(!one.follow(Topic::Rules("sg-1".into())));
        other.follow(Topic::Rules("sg-2".into()));
        bus.concerns(&BTreeSet::from([rules("sg-1"), rules("sg-3")]));
        one.arrived().await;
        assert_eq!(one.take(), News::Some(BTreeSet::from([rules("sg-1")])));
        assert_eq!(other.take(), News::default());
        one.retain(|_| false);
        bus.concerns(&BTreeSet::from([rules("sg-1")]));
        assert_eq!(one.take(), News::default());
        drop((one, other));
        assert!(lock(&bus.topics).is_empty());
    }

    #[test]
    fn a_mailbox_that_is_full_says_that_anything_may_have_changed() {
        let bus = Bus::default();
        let mut mail = bus.mail();
        mail.follow(Topic::Members("sg-1".into()));
        for address in 0..=MAIL_BACKLOG as u32 {
            bus.concerns(&BTreeSet::from([Concern::Member {
                group_id: "sg-1".into(),
                address: address.into(),
            }]));
        }
        assert_eq!(mail.take(), News::Anything);
        assert_eq!(mail.take(), News::default());
        bus.anything();
        assert_eq!(mail.take(), News::Anything);
    }
}
