//! Policies are parsed once, and not for each call.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use hearth_iam::{Kind, Malformed, Policy};

/// Documents that are kept parsed. Those that change leave theirs behind; when there are too many, all go.
const MOST: usize = 1000;

static PARSED: LazyLock<Mutex<HashMap<String, Arc<Policy>>>> = LazyLock::new(Mutex::default);

/// # Errors
/// The document was taken by a version of this program that read policies otherwise.
pub fn parsed(document: &str) -> Result<Arc<Policy>, Malformed> {
    let mut known = PARSED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(policy) = known.get(document) {
        return Ok(Arc::clone(policy));
    }
    let policy = Arc::new(Policy::parse(Kind::Identity, document)?);
    if known.len() >= MOST {
        known.clear();
    }
    known.insert(document.to_owned(), Arc::clone(&policy));
    Ok(policy)
}
