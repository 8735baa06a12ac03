//! The instance metadata service, versions 1 and 2.
//!
//! The caller is whoever has the connection's source address: antispoofing makes that the truth.

#[cfg(any(test, feature = "testing"))]
pub(crate) mod fuzz;
mod server;
#[cfg(any(test, feature = "testing"))]
mod testing;
mod token;
mod tree;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::SystemTime;

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderMap, SERVER};
use hyper::http::response::Builder;
use hyper::{Method, Response, StatusCode};

use percent_encoding::percent_decode_str;
pub(crate) use server::{open_listener, serve};

use crate::metadata::InstanceMetadata;
use crate::plan::CurrentPlan;
use crate::spec::ImdsOptions;
use crate::{ActiveKey, MetadataSource, RoleCredentials};
use token::{Bearer, TTL_SECONDS, TokenKey};
use tree::{Node, VERSIONS};

/// `/latest/api/token`.
const TOKEN_PATH: [&str; 3] = ["latest", "api", "token"];
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const TOKEN_TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// The service of one VPC.
pub(crate) struct Imds {
    plan: CurrentPlan,
    source: Arc<dyn MetadataSource>,
    key: TokenKey,
}

/// What a request is answered from; no request has a body that matters.
pub(crate) struct Question<'a> {
    pub(crate) from: Ipv4Addr,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
}

pub(crate) struct Reply {
    pub(crate) response: Response<Vec<u8>>,
    /// IP TTL of the reply's packets; the system's usual one if `None`.
    pub(crate) hop_limit: Option<u8>,
}

impl Imds {
    pub(crate) fn new(plan: CurrentPlan, source: Arc<dyn MetadataSource>, key: [u8; 32]) -> Self {
        Self {
            plan,
            source,
            key: TokenKey::new(key),
        }
    }

    pub(crate) fn reply(&self, question: &Question<'_>) -> Reply {
        let Some((vpc_id, options)) = self.options(question.from) else {
            return plain(refusal(StatusCode::NOT_FOUND));
        };
        if !options.enabled {
            return plain(refusal(StatusCode::FORBIDDEN));
        }
        let Some(instance) = self.source.by_address(&vpc_id, question.from) else {
            return plain(refusal(StatusCode::NOT_FOUND));
        };
        let bearer = Bearer {
            vpc_id: &vpc_id,
            address: question.from,
            instance_id: &instance.instance_id,
        };
        let Some(path) = segments(question.path) else {
            return plain(refusal(StatusCode::BAD_REQUEST));
        };
        if path == TOKEN_PATH {
            let response = self.token(question, bearer);
            return Reply {
                response,
                hop_limit: Some(options.hop_limit),
            };
        }
        plain(self.get(question, &path, bearer, &options, &instance))
    }

    fn options(&self, from: Ipv4Addr) -> Option<(String, ImdsOptions)> {
        let plan = self
            .plan
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone();
        plan.eni_by_address(from)
            .map(|eni| (plan.vpc_id.clone(), eni.imds.clone()))
    }

    fn token(&self, question: &Question<'_>, bearer: Bearer<'_>) -> Response<Vec<u8>> {
        if question.method != Method::PUT {
            return not_allowed("OPTIONS, PUT");
        }
        // Whoever passes requests on from outside would hand out the instance's credentials.
        if question.headers.contains_key("x-forwarded-for") {
            return refusal(StatusCode::FORBIDDEN);
        }
        let ttl = question
            .headers
            .get(TOKEN_TTL_HEADER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let Some(ttl) = ttl.filter(|ttl| TTL_SECONDS.contains(ttl)) else {
            return refusal(StatusCode::BAD_REQUEST);
        };
        let token = self.key.issue(bearer, ttl, SystemTime::now());
        let builder = ok("text/plain").header(TOKEN_TTL_HEADER, ttl);
        finish(builder, token.into_bytes())
    }

    fn get(
        &self,
        question: &Question<'_>,
        path: &[String],
        bearer: Bearer<'_>,
        options: &ImdsOptions,
        instance: &InstanceMetadata,
    ) -> Response<Vec<u8>> {
        if question.method != Method::GET && question.method != Method::HEAD {
            return not_allowed("GET, HEAD");
        }
        let authorized = match question.headers.get(TOKEN_HEADER) {
            Some(token) => self.key.is_valid(bearer, token.as_bytes(), SystemTime::now()),
            None => !options.tokens_required,
        };
        if !authorized {
            return refusal(StatusCode::UNAUTHORIZED);
        }
        let credentials = self.source.credentials(&instance.instance_id);
        let keys = self.source.active_keys(&instance.instance_id);
        content(path, instance, credentials.as_deref(), &keys)
    }
}

/// The path's segments, decoded (RFC 3986, 2.1): an encoded slash is part of its segment. Slashes at the end, or several
/// in a row, mean nothing. `None` for what is no text.
fn segments(path: &str) -> Option<Vec<String>> {
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let decoded = segments.map(|segment| {
        let text = percent_decode_str(segment).decode_utf8().ok()?;
        Some(text.into_owned())
    });
    decoded.collect()
}

fn content(
    path: &[String],
    instance: &InstanceMetadata,
    credentials: Option<&RoleCredentials>,
    keys: &[ActiveKey],
) -> Response<Vec<u8>> {
    let Some((version, path)) = path.split_first() else {
        return finish(ok("text/plain"), VERSIONS.join("\n").into_bytes());
    };
    if !VERSIONS.contains(&version.as_str()) {
        return refusal(StatusCode::NOT_FOUND);
    }
    match tree::tree(instance, credentials, keys).find(path.iter().map(String::as_str)) {
        Some(Node::Directory(directory)) => finish(ok("text/plain"), directory.listing().into_bytes()),
        Some(Node::Leaf {
            content,
            content_type,
        }) => finish(ok(content_type), content),
        None => refusal(StatusCode::NOT_FOUND),
    }
}

fn plain(response: Response<Vec<u8>>) -> Reply {
    Reply {
        response,
        hop_limit: None,
    }
}

fn ok(content_type: &'static str) -> Builder {
    Response::builder().header(CONTENT_TYPE, content_type)
}

fn not_allowed(methods: &'static str) -> Response<Vec<u8>> {
    let builder = Response::builder()
        .status(StatusCode::METHOD_NOT_ALLOWED)
        .header(ALLOW, methods);
    finish(builder, Vec::new())
}

/// EC2 answers errors with a small page.
fn refusal(status: StatusCode) -> Response<Vec<u8>> {
    let (code, reason) = (status.as_str(), status.canonical_reason().unwrap_or_default());
    let page = format!(
        r#"<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
	"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head>
  <title>{code} - {reason}</title>
 </head>
 <body>
  <h1>{code} - {reason}</h1>
 </body>
</html>
"#
    );
    finish(
        Response::builder()
            .status(status)
            .header(CONTENT_TYPE, "text/html"),
        page.into_bytes(),
    )
}

fn finish(builder: Builder, body: Vec<u8>) -> Response<Vec<u8>> {
    // Every header above is a constant or a number, so the builder cannot fail; an empty answer is still an answer.
    builder.header(SERVER, "EC2ws").body(body).unwrap_or_default()
}

#[cfg(test)]
mod tests;
