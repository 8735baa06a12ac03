//! Keys that log in to instances for a while: given by the control plane, told by IMDS, and kept in memory alone.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hearth_network::ActiveKey;
use tokio::time::Instant;

/// Keys of one instance at the same time. Of more, the oldest go.
const MOST: usize = 64;
/// How long a key may live, whatever the control plane says.
const LONGEST: Duration = Duration::from_secs(600);

/// By instance, the oldest first.
#[derive(Default)]
pub struct Keys(Mutex<HashMap<String, Vec<(Instant, ActiveKey)>>>);

impl Keys {
    /// Tells a key of an instance for a while, from now on.
    pub fn give(&self, instance_id: &str, key: ActiveKey, life: Duration) {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, keys| {
            keys.retain(|(until, _)| *until > now);
            !keys.is_empty()
        });
        let keys = all.entry(instance_id.to_owned()).or_default();
        // The same key once more lives on.
        keys.retain(|(_, known)| *known != key);
        if keys.len() == MOST {
            keys.remove(0);
        }
        keys.push((now + life.min(LONGEST), key));
    }

    /// Those that log in now.
    pub fn of(&self, instance_id: &str) -> Vec<ActiveKey> {
        let now = Instant::now();
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = all.get(instance_id).into_iter().flatten();
        keys.filter(|(until, _)| *until > now)
            .map(|(_, key)| key.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(user: &str, line: impl Into<String>) -> ActiveKey {
        ActiveKey {
            os_user: user.into(),
            openssh: line.into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_end() {
        let keys = Keys::default();
        keys.give("i-1", key("a", "one"), Duration::from_secs(60));
        tokio::time::advance(Duration::from_secs(30)).await;
        keys.give("i-1", key("a", "two"), Duration::from_secs(60));
        assert_eq!(keys.of("i-1").len(), 2);
        assert!(keys.of("i-2").is_empty());
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(keys.of("i-1"), [key("a", "two")]);
        keys.give("i-1", key("a", "two"), Duration::from_secs(60));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(keys.of("i-1"), [key("a", "two")], "given again");
        keys.give("i-1", key("a", "long"), Duration::from_secs(1 << 30));
        tokio::time::advance(LONGEST).await;
        assert!(keys.of("i-1").is_empty());
        keys.give("i-2", key("b", "three"), Duration::ZERO);
        assert_eq!(keys.0.lock().unwrap().len(), 1, "what has ended is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn of_too_many_the_oldest_go() {
        let keys = Keys::default();
        for number in 0..=MOST {
            keys.give("i-1", key("a", number.to_string()), Duration::from_secs(60));
        }
        let told = keys.of("i-1");
        assert_eq!((told.len(), told[0].openssh.as_str()), (MOST, "1"));
    }
}
