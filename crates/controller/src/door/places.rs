//! Who may have how many of something at once: connections, calls. One peer cannot take what all share, and what is
//! full makes room or says so.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How many places there are.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub total: usize,
    pub per_peer: usize,
}

/// Places that peers take and give back.
#[derive(Debug)]
pub struct Places<P: Eq + Hash + Clone> {
    limits: Limits,
    taken: Mutex<Taken<P>>,
}

#[derive(Debug)]
struct Taken<P> {
    /// Numbers of a peer's places, the oldest first.
    peers: HashMap<P, Vec<u64>>,
    /// By number.
    leave: HashMap<u64, CancellationToken>,
    next: u64,
}

/// A place; dropping it gives it back.
#[derive(Debug)]
pub struct Place<P: Eq + Hash + Clone> {
    places: Arc<Places<P>>,
    peer: P,
    number: u64,
    leave: CancellationToken,
}

impl<P: Eq + Hash + Clone> Places<P> {
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            taken: Mutex::new(Taken {
                peers: HashMap::new(),
                leave: HashMap::new(),
                next: 0,
            }),
        })
    }

    /// A place for a peer; `None` when it has all that it may, or nobody can have more.
    pub fn take(self: &Arc<Self>, peer: P) -> Option<Place<P>> {
        let mut taken = lock(&self.taken);
        let own = taken.peers.get(&peer).map_or(0, Vec::len);
        let full = own >= self.limits.per_peer || taken.leave.len() >= self.limits.total;
        (!full).then(|| self.enter(&mut taken, peer))
    }

    /// A place for a peer, whoever has to leave for it: the oldest of the same peer when it has all that it may, the
    /// oldest of the peer that has most when all places are taken.
    pub fn take_anyway(self: &Arc<Self>, peer: P) -> Place<P> {
        let mut taken = lock(&self.taken);
        let own = taken.peers.get(&peer).map_or(0, Vec::len);
        if own >= self.limits.per_peer {
            taken.evict(&peer);
        } else if taken.leave.len() >= self.limits.total {
            let most = taken.peers.iter().max_by_key(|(_, numbers)| numbers.len());
            if let Some(peer) = most.map(|(peer, _)| peer.clone()) {
                taken.evict(&peer);
            }
        }
        self.enter(&mut taken, peer)
    }

    fn enter(self: &Arc<Self>, taken: &mut Taken<P>, peer: P) -> Place<P> {
        let number = taken.next;
        taken.next += 1;
        let leave = CancellationToken::new();
        taken.peers.entry(peer.clone()).or_default().push(number);
        taken.leave.insert(number, leave.clone());
        Place {
            places: Arc::clone(self),
            peer,
            number,
            leave,
        }
    }
}

impl<P: Eq + Hash + Clone> Taken<P> {
    /// Tells the oldest of a peer's places to leave, and counts it no more.
    fn evict(&mut self, peer: &P) {
        let oldest = self.peers.get(peer).and_then(|numbers| numbers.first()).copied();
        if let Some(leave) = oldest.and_then(|number| self.remove(peer, number)) {
            leave.cancel();
        }
    }

    fn remove(&mut self, peer: &P, number: u64) -> Option<CancellationToken> {
        if let Some(numbers) = self.peers.get_mut(peer) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.peers.remove(peer);
            }
        }
        self.leave.remove(&number)
    }
}

impl<P: Eq + Hash + Clone> Place<P> {
    /// Resolves when somebody else needs the place.
    pub fn evicted(&self) -> WaitForCancellationFutureOwned {
        self.leave.clone().cancelled_owned()
    }
}

impl<P: Eq + Hash + Clone> Drop for Place<P> {
    fn drop(&mut self) {
        lock(&self.places.taken).remove(&self.peer, self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_evicted<P: Eq + Hash + Clone>(place: &Place<P>) -> bool {
        place.leave.is_cancelled()
    }

    #[test]
    fn nobody_takes_more_than_a_share_and_all_together_no_more_than_there_is() {
        let places = Places::new(Limits {
            total: 3,
            per_peer: 2,
        });
        let first = places.take("a").unwrap();
        let second = places.take("a").unwrap();
        assert!(places.take("a").is_none());
        let other = places.take("b").unwrap();
        assert!(places.take("c").is_none());
        drop(first);
        assert!(places.take("c").is_some());
        assert!(!is_evicted(&second) && !is_evicted(&other));
    }

    #[test]
    fn the_oldest_of_who_has_most_makes_room() {
        let places = Places::new(Limits {
            total: 4,
            per_peer: 3,
        });
        let many: Vec<_> = (0..5).map(|_| places.take_anyway("a")).collect();
        assert_eq!(
            many.iter().map(is_evicted).collect::<Vec<_>>(),
            [true, true, false, false, false]
        );
        let quiet = places.take_anyway("b");
        let newcomer = places.take_anyway("c");
        assert!(is_evicted(&many[2]) && !is_evicted(&quiet) && !is_evicted(&newcomer));
        // Those who had to leave count no more when they do.
        drop(many);
        drop((quiet, newcomer));
        let taken = lock(&places.taken);
        assert!(taken.peers.is_empty() && taken.leave.is_empty());
    }
}
