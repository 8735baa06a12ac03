//! What a guest may ask the metadata service; HTTP itself is hyper's.

use std::time::{Duration, Instant};

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, StatusCode};

use super::testing::{CALLER, imds, instance};
use super::{Question, TOKEN_HEADER, TOKEN_PATH, TOKEN_TTL_HEADER, segments};

const FORWARDED: &str = "x-forwarded-for";
/// A token lives at least as long; a machine that is busy elsewhere may stand still for longer.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// Lines: method, path, the token's lifetime, a token, who it was forwarded for; an empty one leaves it out. Of an
/// instance that answers with tokens only: whoever has none gets nothing, and each is good as it was given only.
pub(crate) fn request(input: &[u8]) {
    let mut lines = input.split(|&byte| byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let Ok(method) = Method::from_bytes(line()) else {
        return;
    };
    let path = String::from_utf8_lossy(line());
    let mut headers = hyper::HeaderMap::new();
    for name in [TOKEN_TTL_HEADER, TOKEN_HEADER, FORWARDED] {
        let value = line();
        if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_bytes(value)) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    let imds = imds(true, instance());
    let asked = Instant::now();
    let mut question = Question {
        from: CALLER,
        method: &method,
        path: &path,
        headers: &headers,
    };
    let response = imds.reply(&question).response;
    if response.status() != StatusCode::OK {
        question.from = [172, 31, 0, 11].into();
        assert_eq!(imds.reply(&question).response.status(), StatusCode::NOT_FOUND);
        return;
    }
    assert!(
        method == Method::PUT && segments(&path).unwrap() == TOKEN_PATH,
        "an answer without a token"
    );
    assert!(!headers.contains_key(FORWARDED), "a token for somebody else");

    let mut token = response.into_body();
    let mut status = |token: &[u8]| {
        headers.insert(TOKEN_HEADER, HeaderValue::from_bytes(token).unwrap());
        let question = Question {
            from: CALLER,
            method: &Method::GET,
            path: "/latest/meta-data/instance-id",
            headers: &headers,
        };
        imds.reply(&question).response.status()
    };
    assert!(status(&token) == StatusCode::OK || asked.elapsed() >= SHORTEST_LIFE);
    for (at, &change) in line().iter().enumerate().take(token.len()) {
        let before = token[at];
        token[at] = change;
        let is_text = HeaderValue::from_bytes(&token).is_ok();
        assert!(change == before || !is_text || status(&token) == StatusCode::UNAUTHORIZED);
        token[at] = before;
    }
}
