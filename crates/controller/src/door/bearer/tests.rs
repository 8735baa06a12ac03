use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderValue;
use jsonwebtoken::{EncodingKey, Header};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_800_000_000;
const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const INACTIVE: &str = "AKIAINACTIVE";
const SESSION: &str = "ASIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// One key, one session, and one that has ended.
struct Known;

impl Keys for Known {
    type Signer = &'static str;

    fn find(&self, id: &str, token: Option<&str>) -> Result<(String, &'static str), Unusable> {
        match (id, token) {
            (KEY, None) => Ok((SECRET.to_owned(), "user")),
            (SESSION, Some("session")) => Ok((SECRET.to_owned(), "role")),
            (SESSION, Some("ended")) => Err(Unusable::Expired),
            _ => Err(Unusable::Unknown),
        }
    }
}

fn claims() -> Value {
    json!({ "aud": AUDIENCE, "iat": NOW, "exp": NOW + 300 })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn token(algorithm: Algorithm, kid: &str, secret: &str, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = Some(kid.to_owned());
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn signed(claims: &Value) -> String {
    token(Algorithm::HS256, KEY, SECRET, claims)
}

/// A token whose header says another thing than what it was signed by.
fn claiming(header: &Value) -> String {
    let token = signed(&claims());
    let (_, rest) = token.split_once('.').unwrap();
    format!("{}.{rest}", BASE64_URL_SAFE_NO_PAD.encode(header.to_string()))
}

fn asked(headers: &[(&'static str, &str)]) -> Result<&'static str, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let signer = signer(&mut map, &Known, NOW).map_err(|error| error.code.to_string());
    assert!(signer.is_err() || map.is_empty(), "credentials are handed on");
    signer
}

fn bearer(token: &str) -> Result<&'static str, String> {
    asked(&[("authorization", &format!("Bearer {token}"))])
}

#[test]
fn tokens_are_taken() {
    assert_eq!(bearer(&signed(&claims())), Ok("user"));
    assert_eq!(
        asked(&[("authorization", &format!("bearer  {}", signed(&claims())))]),
        Ok("user")
    );
    let session = format!("Bearer {}", token(Algorithm::HS256, SESSION, SECRET, &claims()));
    assert_eq!(
        asked(&[("authorization", &session), (SESSION_TOKEN, "session")]),
        Ok("role")
    );
    // At the edges of what clocks may differ by.
    for claims in [
        json!({ "aud": AUDIENCE, "iat": NOW + SKEW, "exp": NOW + SKEW + 1 }),
        json!({ "aud": AUDIENCE, "iat": NOW - SKEW - LONGEST + 1, "exp": NOW - SKEW + 1 }),
        json!({ "aud": AUDIENCE, "iat": NOW, "exp": NOW + LONGEST, "nbf": NOW, "more": [1] }),
    ] {
        assert_eq!(bearer(&signed(&claims)), Ok("user"), "{claims}");
    }
}

#[test]
fn everything_else_is_refused() {
    let right = signed(&claims());
    let (unsigned, signature) = right.rsplit_once('.').unwrap();
    let none = claiming(&json!({ "alg": "none", "kid": KEY }));
    let rsa = claiming(&json!({ "alg": "RS256", "kid": KEY }));
    let critical = claiming(&json!({ "alg": "HS256", "kid": KEY, "crit": ["exp"] }));
    let cases: Vec<(&str, &str, String)> = vec![
        ("no token", "AuthFailure", String::new()),
        ("alg none", "AuthFailure", none.clone()),
        (
            "alg none, unsigned",
            "AuthFailure",
            format!("{}.", none.rsplit_once('.').unwrap().0),
        ),
        ("alg RS256", "AuthFailure", rsa),
        (
            "alg HS512",
            "AuthFailure",
            token(Algorithm::HS512, KEY, SECRET, &claims()),
        ),
        ("unsigned", "SignatureDoesNotMatch", format!("{unsigned}.")),
        (
            "another's signature",
            "SignatureDoesNotMatch",
            format!("{unsigned}.{}", signature.replace(char::is_numeric, "x")),
        ),
        (
            "of another key's secret",
            "SignatureDoesNotMatch",
            token(Algorithm::HS256, KEY, "other", &claims()),
        ),
        (
            "of the empty secret",
            "SignatureDoesNotMatch",
            token(Algorithm::HS256, KEY, "", &claims()),
        ),
        (
            "a header that was not signed",
            "SignatureDoesNotMatch",
            claiming(&json!({ "alg": "HS256", "kid": KEY, "a": 1 })),
        ),
        ("what must be understood", "AuthFailure", critical),
        (
            "no kid",
            "InvalidClientTokenId",
            jsonwebtoken::encode(
                &Header::default(),
                &claims(),
                &EncodingKey::from_secret(SECRET.as_bytes()),
            )
            .unwrap(),
        ),
        (
            "another kid",
            "InvalidClientTokenId",
            token(Algorithm::HS256, "AKIAOTHER", SECRET, &claims()),
        ),
        (
            "an inactive key",
            "InvalidClientTokenId",
            token(Algorithm::HS256, INACTIVE, SECRET, &claims()),
        ),
        (
            "a session's key alone",
            "InvalidClientTokenId",
            token(Algorithm::HS256, SESSION, SECRET, &claims()),
        ),
        (
            "expired",
            "ExpiredToken",
            signed(&json!({ "aud": AUDIENCE, "iat": NOW - SKEW - 60, "exp": NOW - SKEW })),
        ),
        (
            "long ago",
            "ExpiredToken",
            signed(&json!({ "aud": AUDIENCE, "iat": 0, "exp": 60 })),
        ),
        (
            "not yet",
            "AuthFailure",
            signed(&json!({ "aud": AUDIENCE, "iat": NOW + SKEW + 1, "exp": NOW + SKEW + 2 })),
        ),
        (
            "nbf, not yet",
            "AuthFailure",
            signed(&with("nbf", json!(NOW + SKEW + 1))),
        ),
        (
            "too long",
            "AuthFailure",
            signed(&with("exp", json!(NOW + LONGEST + 1))),
        ),
        (
            "much too long",
            "AuthFailure",
            signed(&json!({ "aud": AUDIENCE, "iat": i64::MIN, "exp": i64::MAX })),
        ),
        (
            "ends before it begins",
            "AuthFailure",
            signed(&with("exp", json!(NOW - 1))),
        ),
        ("no time at all", "AuthFailure", signed(&with("exp", json!(NOW)))),
        ("another aud", "AuthFailure", signed(&with("aud", json!("sts")))),
        (
            "several aud",
            "AuthFailure",
            signed(&with("aud", json!([AUDIENCE]))),
        ),
        ("no aud", "AuthFailure", signed(&without("aud"))),
        ("no iat", "AuthFailure", signed(&without("iat"))),
        ("no exp", "AuthFailure", signed(&without("exp"))),
        (
            "exp as a text",
            "AuthFailure",
            signed(&with("exp", json!("1800000300"))),
        ),
        ("exp as null", "AuthFailure", signed(&with("exp", Value::Null))),
        (
            "claims that are a list",
            "AuthFailure",
            signed(&json!([AUDIENCE, NOW, NOW + 300])),
        ),
        ("no JWT", "AuthFailure", "x.y".to_owned()),
        ("four parts", "AuthFailure", format!("{right}.x")),
        (
            "oversized",
            "AuthFailure",
            signed(&with("more", json!("x".repeat(MAX_TOKEN)))),
        ),
    ];
    for (case, code, token) in &cases {
        assert_eq!(bearer(token), Err((*code).to_owned()), "{case}");
    }
    let own = format!("Bearer {right}");
    let of_session = format!("Bearer {}", token(Algorithm::HS256, SESSION, SECRET, &claims()));
    let long = "x".repeat(MAX_TOKEN + 1);
    for (case, code, headers) in [
        ("missing", "AuthFailure", &[][..]),
        (
            "another scheme",
            "AuthFailure",
            &[("authorization", "Basic YTpi")],
        ),
        (
            "twice",
            "AuthFailure",
            &[("authorization", &own), ("authorization", &own)],
        ),
        (
            "another's session",
            "InvalidClientTokenId",
            &[("authorization", &of_session), (SESSION_TOKEN, "x")],
        ),
        (
            "a session that has ended",
            "ExpiredToken",
            &[("authorization", &of_session), (SESSION_TOKEN, "ended")],
        ),
        (
            "a session's token beside a user's",
            "InvalidClientTokenId",
            &[("authorization", &own), (SESSION_TOKEN, "session")],
        ),
        (
            "sessions twice",
            "AuthFailure",
            &[
                ("authorization", &of_session),
                (SESSION_TOKEN, "session"),
                (SESSION_TOKEN, "session"),
            ],
        ),
        (
            "an oversized session",
            "AuthFailure",
            &[("authorization", &of_session), (SESSION_TOKEN, &long)],
        ),
    ] {
        assert_eq!(asked(headers), Err(code.to_owned()), "{case}");
    }
}

proptest! {
    #[test]
    fn no_text_is_a_token(text in "[ -~]{0,200}") {
        prop_assert!(bearer(&text).is_err());
    }

    #[test]
    fn a_token_with_one_character_changed_is_none(at in 0usize..200, c in "[A-Za-z0-9._-]") {
        let right = signed(&claims());
        let at = at % right.len();
        let mut changed = right.clone();
        changed.replace_range(at..=at, &c);
        // The last character of a part has bits that mean nothing.
        prop_assert!(changed == right || bearer(&changed).is_err() || at + 1 == right.len());
    }
}
