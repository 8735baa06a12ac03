//! AWS's suite: what it has signed is accepted, and with one character changed it is not.

use std::path::Path;

use anyhow::Result;
use bytes::Bytes;
use hearth_ec2::signature::authentic;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};

use crate::{SECRET, at, request};

/// Cases that are not run, and why.
const SKIPPED: [(&str, &str); 1] = [(
    "get-vanilla-with-session-token",
    "its signature is made up: it is the session token with its halves exchanged",
)];

async fn is_accepted(request: Request<Bytes>, secret: &'static str) -> bool {
    // Two of the cases have a session token.
    let secret = move |_: Option<&str>| Ok(secret.to_owned());
    authentic(at("20150830T123600Z"), request, "service", "us-east-1", secret)
        .await
        .is_ok()
}

/// The last character of a header's value is another one.
fn change(request: &mut Request<Bytes>, name: &str) {
    let value = request.headers_mut().get_mut(name).expect("the header");
    let mut bytes = value.as_bytes().to_vec();
    let last = bytes.last_mut().expect("a value");
    *last = if *last == b'0' { b'1' } else { b'0' };
    *value = HeaderValue::from_bytes(&bytes).expect("a header's value");
}

/// The requests that differ from one in one character, with what differs.
fn changed(text: &str) -> Vec<(String, Request<Bytes>)> {
    let mut all = Vec::new();
    let mut other = request(text);
    change(&mut other, AUTHORIZATION.as_str());
    all.push(("the signature".to_owned(), other));
    let authorization = request(text).headers()[AUTHORIZATION].clone();
    let authorization = authorization.to_str().expect("ASCII").to_owned();
    let (_, signed) = authorization
        .split_once("SignedHeaders=")
        .expect("signed headers");
    for name in signed.split(',').next().unwrap_or_default().split(';') {
        let mut other = request(text);
        change(&mut other, name);
        all.push((format!("the header {name}"), other));
    }
    let mut other = request(text);
    let mut body = other.body().to_vec();
    match body.last_mut() {
        Some(last) => *last ^= 1,
        None => body.push(b'a'),
    }
    *other.body_mut() = body.into();
    all.push(("the body".to_owned(), other));
    let target = request(text).uri().to_string();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    for (what, target) in [
        ("the path", format!("{path}a?{query}")),
        ("the query", format!("{path}?{query}a")),
    ] {
        let mut other = request(text);
        *other.uri_mut() = target.parse().expect("a target");
        all.push((what.to_owned(), other));
    }
    let mut other = request(text);
    *other.method_mut() = http::Method::PUT;
    all.push(("the method".to_owned(), other));
    all
}

#[tokio::test]
async fn what_aws_has_signed_is_accepted_and_nothing_else() -> Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/signature/aws4_testsuite");
    let (mut passed, mut skipped, mut refused) = (0, 0, 0);
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "sreq") {
            continue;
        }
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if let Some((_, why)) = SKIPPED.iter().find(|(case, _)| *case == name) {
            println!("left out: {name}: {why}");
            skipped += 1;
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        assert!(is_accepted(request(&text), SECRET).await, "{name}");
        assert!(
            !is_accepted(request(&text), "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEX").await,
            "{name}"
        );
        for (what, other) in changed(&text) {
            assert!(!is_accepted(other, SECRET).await, "{name}: {what} is another one");
            refused += 1;
        }
        passed += 1;
    }
    assert_eq!((passed, skipped), (33, 1));
    println!(
        "FIGURE aws4_testsuite: {passed} accepted, {skipped} left out; {refused} with one character changed refused"
    );
    Ok(())
}
