//! Pages of IAM's lists: a marker is the name of the last item that was told.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hearth_api::{ApiError, ErrorCode};

use super::invalid;

/// Items of a page when the request does not say.
const USUAL: i32 = 100;
const MOST: i32 = 1000;

/// The wanted page of items that are sorted by their keys, whether there are more, and the marker of the next page.
///
/// # Errors
/// `ValidationError` for a size that IAM does not admit, or a marker that is none.
pub(super) fn page<T>(
    items: impl IntoIterator<Item = T>,
    marker: &str,
    max_items: Option<i32>,
    key: impl Fn(&T) -> &str,
) -> Result<(Vec<T>, bool, String), ApiError> {
    let max_items = max_items.unwrap_or(USUAL);
    if !(1..=MOST).contains(&max_items) {
        return Err(invalid("maxItems", &format!("Member must be from 1 to {MOST}")));
    }
    let after = match marker {
        "" => None,
        marker => {
            let name = BASE64_URL_SAFE_NO_PAD.decode(marker).ok();
            let name = name.and_then(|name| String::from_utf8(name).ok());
            Some(name.ok_or_else(|| ApiError::new(ErrorCode::ValidationError, "Invalid Marker."))?)
        }
    };
    let mut rest = items
        .into_iter()
        .skip_while(|item| after.as_ref().is_some_and(|after| key(item) <= after.as_str()));
    let told: Vec<T> = rest.by_ref().take(max_items.unsigned_abs() as usize).collect();
    let is_truncated = rest.next().is_some();
    let marker = match told.last() {
        Some(last) if is_truncated => BASE64_URL_SAFE_NO_PAD.encode(key(last)),
        _ => String::new(),
    };
    Ok((told, is_truncated, marker))
}

/// Entities by name, below a path.
pub(super) fn below<'s, E: crate::state::Entity>(
    entities: impl Iterator<Item = &'s E>,
    prefix: &str,
) -> Vec<&'s E> {
    let mut found: Vec<&E> = entities
        .filter(|entity| entity.path().starts_with(prefix))
        .collect();
    found.sort_by(|a, b| a.name().cmp(b.name()));
    found
}
