//! KMS keys: they go when their deletion is due, and get new material when that is.

use super::{Clock, Decision};
use crate::keys;
use crate::state::{KmsKey, State, Tx};
use crate::vault::Vault;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Its material is destroyed. What was encrypted under it is lost.
    Delete,
    Rotate,
}

pub(super) fn decide(row: &KmsKey, clock: Clock) -> Decision<Action> {
    match (&row.deletion, row.rotation_due()) {
        (Some(deletion), _) => Decision::at(deletion.at, clock, Action::Delete),
        (None, Some(due)) => Decision::at(due, clock, Action::Rotate),
        (None, None) => Decision::nothing(),
    }
}

/// Keys to which something happens at a time.
pub(super) fn waiting(state: &State) -> impl Iterator<Item = &KmsKey> {
    state.by(&KmsKey::BY_WAITING, KmsKey::WAITS)
}

pub(super) fn carry_out(tx: &mut Tx<'_>, vault: &Vault, id: &str, action: Action) {
    match action {
        Action::Delete => {
            tracing::warn!(
                key = id,
                "a KMS key is deleted: what was encrypted under it is lost"
            );
            tx.remove::<KmsKey>(id);
            tx.event("kms-key.deleted", id);
        }
        Action::Rotate => match keys::material(vault, id, tx.now(), false) {
            Ok(material) => {
                let now = tx.now();
                tx.update::<KmsKey>(id, |key| {
                    key.materials.push(material);
                    key.rotates_from = now;
                });
                tx.event("kms-key.rotated", id);
            }
            Err(error) => tracing::error!(key = id, %error, "making new material for a KMS key"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Scope;

    const DAY: i64 = 24 * 3600 * 1000;

    fn at(now: i64) -> Clock {
        Clock {
            now,
            watched_since: 0,
        }
    }

    #[test]
    fn a_deletion_that_is_due_destroys_the_key() {
        let (vault, scope) = (keys::tests::vault(), Scope::new("1", "local-1"));
        let mut state = State::default();
        let mut tx = Tx::new(&mut state, 0);
        let mut key = keys::managed_key(&mut tx, &vault, &scope).unwrap();
        let data_key = keys::new_data_key(&vault, &key).unwrap();
        assert_eq!(decide(&key, at(364 * DAY)).again_at, Some(365 * DAY));
        assert_eq!(decide(&key, at(365 * DAY)), Decision::now(Action::Rotate));
        carry_out(&mut tx, &vault, &key.id, Action::Rotate);
        assert_eq!(tx.get::<KmsKey>(&key.id).unwrap().materials.len(), 2);
        assert!(keys::open(&tx, &vault, &data_key, "local-1").is_ok());
        key.delete_in(7, 5);
        assert_eq!(decide(&key, at(7 * DAY)).again_at, Some(7 * DAY + 5));
        assert_eq!(decide(&key, at(7 * DAY + 5)), Decision::now(Action::Delete));
        tx.put(key.clone());
        assert_eq!(waiting(&tx).count(), 1);
        carry_out(&mut tx, &vault, &key.id, Action::Delete);
        tx.finish().unwrap();
        assert!(matches!(
            keys::open(&state, &vault, &data_key, "local-1"),
            Err(keys::KeyError::Gone(_))
        ));
        // An idle key is looked at never again.
        let idle = KmsKey {
            deletion: None,
            rotation_days: None,
            ..key
        };
        assert_eq!(decide(&idle, at(i64::MAX)), Decision::nothing());
    }
}
