//! Policies are parsed once, and not for each call.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use hearth_iam::{Kind, Malformed, Policy};

/// Documents that are kept parsed. Those that change leave theirs behind; when there are too many, all go.
const MOST: usize = 1000;

/// Of each kind.
type Known = HashMap<(Kind, String), Arc<Policy>>;

static PARSED: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

/// # Errors
/// The document was taken by a version of this program that read policies otherwise.
pub fn parsed(kind: Kind, document: &str) -> Result<Arc<Policy>, Malformed> {
    let mut known = PARSED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (kind, document.to_owned());
    if let Some(policy) = known.get(&key) {
        return Ok(Arc::clone(policy));
    }
    let policy = Arc::new(Policy::parse(kind, document)?);
    if known.len() >= MOST {
        known.clear();
    }
    known.insert(key, Arc::clone(&policy));
    Ok(policy)
}
