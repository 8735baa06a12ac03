//! Where the control plane is dialled: one of several `hearthd`, of which one, the leader, serves agents.

/// All that are known, and the one whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    known: Vec<String>,
    turn: usize,
    /// Where another said that the leader is.
    leader: Option<String>,
}

impl Endpoints {
    /// # Errors
    /// None when there is none.
    pub fn new(known: impl IntoIterator<Item = String>) -> Option<Self> {
        let known: Vec<String> = known.into_iter().filter(|one| !one.is_empty()).collect();
        (!known.is_empty()).then_some(Self {
            known,
            turn: 0,
            leader: None,
        })
    }

    /// `HOST:PORT`, to be dialled now.
    pub fn current(&self) -> &str {
        let known = || self.known.get(self.turn).map_or("", String::as_str);
        self.leader.as_deref().unwrap_or_else(known)
    }

    pub fn are_several(&self) -> bool {
        self.known.len() > 1
    }

    /// The current one does not serve agents; it may have said who does. Answers whether it did.
    pub fn refused(&mut self, leader: Option<&str>) -> bool {
        let leader = leader.filter(|leader| *leader != self.current());
        self.leader = leader.map(str::to_owned);
        if leader.is_none() {
            self.turn = (self.turn + 1) % self.known.len().max(1);
        }
        leader.is_some()
    }

    /// The current one serves agents, and these are all that there are. Answers whether any is new or gone.
    pub fn learn(&mut self, all: &[String]) -> bool {
        if all.is_empty() || self.known == all {
            return false;
        }
        let current = self.current().to_owned();
        self.turn = all.iter().position(|one| *one == current).unwrap_or(0);
        self.leader = Some(current);
        self.known = all.to_vec();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_until_one_says_who_leads() {
        let mut endpoints = Endpoints::new(["a:1", "b:1", "c:1"].map(str::to_owned)).unwrap();
        assert_eq!(endpoints.current(), "a:1");
        assert!(!endpoints.refused(None));
        assert_eq!(endpoints.current(), "b:1");
        assert!(endpoints.refused(Some("d:1")));
        assert_eq!(endpoints.current(), "d:1");
        // The leader is gone.
        assert!(!endpoints.refused(None));
        assert_eq!(endpoints.current(), "c:1");
        assert!(!endpoints.refused(Some("c:1")), "it leads itself and refuses");
        assert_eq!(endpoints.current(), "a:1");
        let all = ["a:1", "d:1"].map(str::to_owned);
        assert!(endpoints.learn(&all));
        assert!(!endpoints.learn(&all));
        assert_eq!(endpoints.current(), "a:1");
        assert!(!endpoints.refused(None));
        assert_eq!(endpoints.current(), "d:1");
        assert_eq!(Endpoints::new([String::new()]), None);
    }
}
