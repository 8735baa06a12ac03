//! What a snapshot keeps of a balloon: how large it shall be and is. The pages in it need no list: the driver knows
//! them, and to the host they are pages like others.

use serde::{Deserialize, Serialize};

use super::handle::Handle;
use crate::snapshot::{Saved, StateError};

const PART: &str = "balloon";

/// Both in pages.
#[derive(Serialize, Deserialize)]
struct State {
    target: u32,
    actual: u32,
}

pub(super) fn save(handle: &Handle) -> Result<Saved, StateError> {
    let (target, actual) = handle.pages();
    Saved::of(PART, &State { target, actual })
}

pub(super) fn restore(handle: &Handle, saved: &Saved) -> Result<(), StateError> {
    let State { target, actual } = saved.read(PART)?;
    if handle.set_pages(target, actual) {
        Ok(())
    } else {
        let what = format!("a balloon of {target} pages is larger than this machine");
        Err(StateError::Unfit(what))
    }
}
