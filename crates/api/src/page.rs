//! Pages of Describe answers.
//!
//! A `next_token` holds the sorting key of the last item that was told, so that items which come or go between two
//! pages neither repeat nor hide others. To callers it is opaque.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::{ApiError, ErrorCode};

/// What EC2 admits as `MaxResults`.
pub const MAX_RESULTS: std::ops::RangeInclusive<i32> = 5..=1000;

/// Versioned, so that a later format can tell this one apart.
const PREFIX: &str = "1";

/// Which page of an answer is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    max_results: i32,
    /// The least and the most that a request may ask for.
    admitted: (i32, i32),
    next_token: &'a str,
}

impl<'a> Page<'a> {
    /// As a request has them: 0 is all items, and an empty token the first page.
    pub fn new(max_results: i32, next_token: &'a str) -> Self {
        Self {
            max_results,
            admitted: (*MAX_RESULTS.start(), *MAX_RESULTS.end()),
            next_token,
        }
    }

    /// Of a service that answers at most so many items at once, as many as nothing says, and at least one.
    pub fn of_at_most(most: i32, max_results: Option<i32>, next_token: &'a str) -> Self {
        Self {
            // What is none is refused, and not taken for all.
            max_results: match max_results {
                Some(0) => -1,
                given => given.unwrap_or(most),
            },
            admitted: (1, most),
            next_token,
        }
    }
}

/// Tells the items of the wanted page, and answers them with the token of the next (empty after the last). `items` must be
/// sorted by `key`, and keys must be unique. `tell` answers what callers are told of an item, and `None` for one that is
/// not wanted; it is asked for no more items than the page needs.
///
/// # Errors
/// `InvalidParameterValue` for a `max_results` outside of what is admitted, `InvalidNextToken` for a token that is
/// none of ours.
pub fn paginate<S, T>(
    items: impl IntoIterator<Item = S>,
    page: Page<'_>,
    key: impl Fn(&S) -> String,
    tell: impl Fn(S) -> Option<T>,
) -> Result<(Vec<T>, String), ApiError> {
    let limit = match page.max_results {
        0 => usize::MAX,
        n if (page.admitted.0..=page.admitted.1).contains(&n) => n.unsigned_abs() as usize,
        n => {
            let (least, most) = page.admitted;
            let expected = format!("Expecting a value from {least} to {most}.");
            return Err(ApiError::invalid_value("maxResults", n, expected));
        }
    };
    let after = match page.next_token {
        "" => None,
        token => Some(decode(token)?),
    };
    let mut told = Vec::new();
    let mut last = String::new();
    let rest = items
        .into_iter()
        .skip_while(|item| after.as_ref().is_some_and(|after| key(item) <= *after));
    for item in rest {
        let key = key(&item);
        let Some(item) = tell(item) else { continue };
        if told.len() == limit {
            return Ok((told, encode(&last)));
        }
        told.push(item);
        last = key;
    }
    Ok((told, String::new()))
}

/// EC2 refuses to page through named resources.
///
/// # Errors
/// `InvalidParameterCombination` when there are ids and a `max_results`. `ids_parameter` is EC2's name of the list,
/// such as `instancesSet`.
pub fn refuse_page_of_ids(ids: &[String], page: Page<'_>, ids_parameter: &str) -> Result<(), ApiError> {
    if page.max_results != 0 && !ids.is_empty() {
        return Err(ApiError::combination(ids_parameter, "maxResults"));
    }
    Ok(())
}

fn encode(key: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{PREFIX}{key}"))
}

fn decode(token: &str) -> Result<String, ApiError> {
    let key = URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    key.and_then(|key| key.strip_prefix(PREFIX).map(str::to_owned))
        .ok_or_else(|| {
            ApiError::new(
                ErrorCode::InvalidNextToken,
                "The NextToken is not one that this call answered.",
            )
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bad_pages_are_refused() {
        for max in [-1, 1, 4, 1001] {
            let error = paginate(vec!["a"], Page::new(max, ""), |s| (*s).into(), Some).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidParameterValue);
        }
        for max in [-1, 0, 11] {
            let page = Page::of_at_most(10, Some(max), "");
            let error = paginate(vec!["a"], page, |s| (*s).into(), Some).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidParameterValue);
        }
        let error = paginate(vec!["a"], Page::new(0, "x"), |s| (*s).into(), Some).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidNextToken);
        let ids = ["i-1".to_owned()];
        assert!(refuse_page_of_ids(&ids, Page::new(5, ""), "instancesSet").is_err());
        assert!(refuse_page_of_ids(&ids, Page::new(0, ""), "instancesSet").is_ok());
        assert!(refuse_page_of_ids(&[], Page::new(5, ""), "instancesSet").is_ok());
    }

    proptest! {
        #[test]
        fn pages_put_together_are_everything(keys in proptest::collection::btree_set("[a-z]{1,6}", 0..60), max in 5..20) {
            let all: Vec<String> = keys.into_iter().collect();
            let (mut seen, mut token) = (Vec::new(), String::new());
            loop {
                let (items, next) = paginate(all.clone(), Page::new(max, &token), Clone::clone, Some).unwrap();
                prop_assert!(items.len() <= max as usize);
                prop_assert!(next.is_empty() || !items.is_empty());
                seen.extend(items);
                if next.is_empty() { break }
                token = next;
            }
            prop_assert_eq!(seen, all);
        }

        #[test]
        fn a_page_goes_on_after_an_item_that_went(gone in 0usize..5) {
            let all: Vec<String> = (0..20).map(|n| format!("{n:02}")).collect();
            let (_, token) = paginate(all.clone(), Page::new(5, ""), Clone::clone, Some).unwrap();
            let mut fewer = all.clone();
            fewer.remove(gone);
            let (second, _) = paginate(fewer, Page::new(5, &token), Clone::clone, Some).unwrap();
            prop_assert_eq!(&second[..], &all[5..10]);
        }
    }
}
