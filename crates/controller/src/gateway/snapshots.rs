//! What an agent's observation says of snapshots, and of volumes that it stores because they leave it.

use hearth_api::agent::{Observation, snapshot_observation};

use crate::state::{Move, Snapshot, State, Tx};

/// Characters of a message that are kept.
const MAX_MESSAGE: usize = 300;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// The point in time has come.
    Frozen(String),
    /// It cannot be made any more.
    Failed { id: String, message: String },
    /// A volume that is to leave the host cannot be stored.
    Stays { id: String, message: String },
}

/// What is new. What is said of other hosts' snapshots says nothing.
pub(super) fn news(state: &State, host_id: &str, observation: &Observation) -> Vec<News> {
    use snapshot_observation::State as Said;
    let mut news = Vec::new();
    for seen in &observation.snapshots {
        let is_moving = |row: &&Move| row.is_storing() && row.from == host_id;
        if let Some(row) = state.get::<Move>(&seen.snapshot_id).filter(is_moving) {
            if seen.state() == Said::Failed {
                news.push(News::Stays {
                    id: row.id.clone(),
                    message: seen.message.chars().take(MAX_MESSAGE).collect(),
                });
            }
            continue;
        }
        let row = state.get::<Snapshot>(&seen.snapshot_id);
        let pending = row.and_then(Snapshot::pending);
        let Some(pending) = pending.filter(|pending| pending.host_id == host_id) else {
            continue;
        };
        let id = seen.snapshot_id.clone();
        match seen.state() {
            Said::Frozen if !pending.is_frozen => news.push(News::Frozen(id)),
            Said::Failed => news.push(News::Failed {
                id,
                message: seen.message.chars().take(MAX_MESSAGE).collect(),
            }),
            // What is stored was committed by the call that stored it.
            Said::Frozen | Said::Stored | Said::Unspecified => {}
        }
    }
    news
}

pub(super) fn record(tx: &mut Tx<'_>, news: News) {
    match news {
        News::Frozen(id) => tx.freeze_snapshot(&id),
        News::Stays { id, message } => {
            let why = match message.as_str() {
                "" => "the host could not store it, and does not say why",
                said => said,
            };
            tx.fail_move(&id, why);
        }
        News::Failed { id, message } => {
            let why = match message.as_str() {
                "" => "The host of the volume could not make it, and does not say why.",
                said => said,
            };
            tx.fail_snapshot(&id, why);
        }
    }
}
