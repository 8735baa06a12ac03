//! What an agent's report says about the attachment of a volume. Reports are level-triggered: the same one may come many
//! times, and one about an older attachment may still come after a newer one was asked for.

use hearth_api::agent::volume_observation::State as Seen;

use crate::state::Progress;

/// What becomes of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Becomes(Progress),
    /// Nothing on the host has the volume open.
    Ends,
}

/// Applies an observation of this attachment; `None` when it says nothing new. What the host does of its own accord ends no
/// attachment (law of state 5), and that the guest has not let it go yet is known: it is `busy` when that lasts.
pub fn observe_attachment(now: Progress, seen: Seen) -> Option<Step> {
    match (now, seen) {
        (Progress::Attaching, Seen::Attached) => Some(Step::Becomes(Progress::Attached)),
        (_, Seen::Detached) if now.is_ending() => Some(Step::Ends),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_ends_only_when_it_was_to_end() {
        use Progress::{Attached, Attaching, Busy, Detaching, Forced};
        let seen = [
            Seen::Unspecified,
            Seen::Attaching,
            Seen::Attached,
            Seen::Busy,
            Seen::Detached,
        ];
        for now in [Attached, Attaching, Detaching, Busy, Forced] {
            for seen in seen {
                let expected = match (now, seen) {
                    (Attaching, Seen::Attached) => Some(Step::Becomes(Attached)),
                    (Detaching | Busy | Forced, Seen::Detached) => Some(Step::Ends),
                    _ => None,
                };
                assert_eq!(observe_attachment(now, seen), expected, "{now:?} {seen:?}");
            }
        }
    }
}
