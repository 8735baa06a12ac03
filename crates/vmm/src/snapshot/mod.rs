//! Snapshots: the whole state of a paused machine, in files that another monitor can go on from.

mod saved;

pub use saved::{Saved, StateError};
