//! Fuzz targets: forms, JSON, and what says who has sent a request. `scripts/fuzz` runs them; the tests here, on the corpus only.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use chrono::DateTime;
use http::Request;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use crate::model::{Model, Service};
use crate::signature::{Keys, Scope, Unusable, verify_at};
use crate::table::{Call, Table};
use crate::wire::Malformed;
use crate::{Refusal, form, json, xml};

/// A name, and what is done with an input.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("ec2_form", parameters),
    ("ec2_json", object),
    ("ec2_signature", signature),
];

/// The calls of a protocol's services that Hearth has, in the order of their names, with what goes in and what comes out.
struct Calls(Vec<(Arc<Table>, String, MessageDescriptor, MessageDescriptor)>);

impl Calls {
    #[expect(clippy::expect_used, reason = "what is built into the program can be read")]
    fn of(of: &[Service]) -> Self {
        let pool = DescriptorPool::decode(hearth_api::DESCRIPTORS).expect("descriptors");
        let mut calls = Vec::new();
        for of in of {
            let services = || {
                pool.services()
                    .filter(|own| own.package_name() == "hearth.v1" && Service::of(own.name()) == *of)
            };
            let model = Model::of(*of).expect("a model");
            let table = Arc::new(Table::join(&model, services()).0);
            let methods = services().flat_map(|service| service.methods().collect::<Vec<_>>());
            let known = methods.filter(|method| table.call(method.name()).is_some());
            calls.extend(known.map(|method| {
                let name = method.name().to_owned();
                (Arc::clone(&table), name, method.input(), method.output())
            }));
        }
        calls.sort_by(|one, other| one.1.cmp(&other.1));
        Self(calls)
    }

    /// The call of an input's first byte, with the rest. `read` makes a message of it, and `write` an answer.
    fn hold<T>(
        &self,
        input: &[u8],
        read: impl Fn(&Table, &Call, &[u8]) -> Result<Vec<u8>, Refusal>,
        write: impl Fn(&Table, &Call, &[u8]) -> Result<T, Malformed>,
    ) {
        let Some((&number, text)) = input.split_first() else {
            return;
        };
        let (table, name, of, answers) = &self.0[usize::from(number) % self.0.len()];
        let Some(call) = table.call(name) else {
            return;
        };
        if let Ok(bytes) = read(table, call, text) {
            assert!(
                DynamicMessage::decode(of.clone(), bytes.as_slice()).is_ok(),
                "{name}"
            );
        }
        if write(table, call, text).is_err() {
            // Fields may be in any order for a message, and not for an answer.
            let _ = DynamicMessage::decode(answers.clone(), text);
        }
    }
}

/// The first byte says which call it is. A form that is accepted is a message, and bytes that are none are no answer.
fn parameters(input: &[u8]) {
    static CALLS: OnceLock<Calls> = OnceLock::new();
    let calls = CALLS.get_or_init(|| Calls::of(&[Service::Ec2]));
    let read =
        |table: &Table, call: &Call, text: &[u8]| form::message(table, call, form_urlencoded::parse(text));
    calls.hold(input, read, |table, call, bytes| {
        xml::answer(table, call, bytes, "r")
    });
}

/// The same of JSON. An answer is JSON itself.
#[expect(clippy::expect_used, reason = "a fuzz target fails so")]
fn object(input: &[u8]) {
    static CALLS: OnceLock<Calls> = OnceLock::new();
    let calls = CALLS.get_or_init(|| {
        Calls::of(&[
            Service::Ssm,
            Service::Kms,
            Service::ServiceQuotas,
            Service::Ec2InstanceConnect,
        ])
    });
    calls.hold(input, json::message, |table, call, bytes| {
        let answer = json::answer(table, call, bytes)?;
        serde_json::from_str::<serde_json::Value>(&answer).expect("JSON");
        Ok(())
    });
}

const KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// 2015-08-30T12:36:00Z
const NOW: i64 = 1_440_938_160;

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

/// A request with its head in lines: the method and the target, headers, and its body after an empty line. Whoever it is of, if
/// it is accepted, is the one there is.
fn signature(input: &[u8]) {
    let Some(request) = request(input) else {
        return;
    };
    let (head, body) = request.into_parts();
    let _ = Scope::of(&head);
    for service in [Service::Ec2, Service::Sts] {
        let request = Request::from_parts(head.clone(), body.clone());
        let now = DateTime::from_timestamp(NOW, 0).unwrap_or_default();
        let verified = pin!(verify_at(now, request, service, "us-east-1", &One));
        // Nothing is waited for.
        match verified.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok((.., key))) => assert_eq!(key, KEY),
            Poll::Ready(Err(denied)) => assert!(denied.status.is_client_error(), "{denied:?}"),
            Poll::Pending => unreachable!("it waits"),
        }
    }
}

fn request(input: &[u8]) -> Option<Request<Bytes>> {
    let end = input.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = input.split_at(end.unwrap_or(input.len()));
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut first = lines.next()?.splitn(2, |byte| *byte == b' ');
    let mut request = Request::builder().method(first.next()?).uri(first.next()?);
    for line in lines {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        request = request.header(parts.next()?, parts.next()?.trim_ascii());
    }
    let body = body.get(2..).unwrap_or_default();
    request.body(Bytes::copy_from_slice(body)).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_corpus_passes() {
        for (name, target) in super::TARGETS {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../fuzz/corpus")
                .join(name);
            for file in std::fs::read_dir(corpus).unwrap() {
                target(&std::fs::read(file.unwrap().path()).unwrap());
            }
        }
    }
}
