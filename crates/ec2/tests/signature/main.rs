//! Signatures: AWS's test suite of version 4, presigned requests, and version 2.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod presigned;
mod suite;
mod v2;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use hearth_ec2::signature::{Keys, Unusable};

const KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// One key.
struct One;

impl Keys for One {
    type Signer = String;

    fn find(&self, access_key_id: &str, session_token: Option<&str>) -> Result<(String, String), Unusable> {
        match (access_key_id, session_token) {
            (KEY, None) => Ok((SECRET.to_owned(), access_key_id.to_owned())),
            _ => Err(Unusable::Unknown),
        }
    }
}

fn at(text: &str) -> DateTime<Utc> {
    let time = chrono::NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%SZ");
    time.expect("a time").and_utc()
}

/// A request as it stands on the wire. Lines that begin with a space continue a header; what a target may not have is escaped.
fn request(text: &str) -> http::Request<Bytes> {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let (first, headers) = head.split_once('\n').expect("a head");
    let (method, target) = first.split_once(' ').expect("a method");
    let target = target.strip_suffix(" HTTP/1.1").expect("a version");
    let target: String = target
        .bytes()
        .map(|byte| match byte {
            b'!'..=b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    let mut request = http::Request::builder().method(method).uri(target);
    let headers = headers.replace("\n ", " ");
    for line in headers.lines() {
        let (name, value) = line.split_once(':').expect("a header");
        request = request.header(name, value.trim());
    }
    request.body(Bytes::from(body.to_owned())).expect("a request")
}
