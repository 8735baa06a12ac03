#![allow(clippy::unwrap_used)]

use std::time::{Duration, UNIX_EPOCH};

use hyper::header::HeaderValue;

use super::testing::{CALLER, imds, instance};
use super::*;
use crate::InstanceProfile;

fn ask(imds: &Imds, method: Method, path: &str, headers: &[(&'static str, &str)]) -> Reply {
    let headers = headers
        .iter()
        .map(|(name, value)| (hyper::header::HeaderName::from_static(name), value));
    let headers = headers
        .map(|(name, value)| (name, HeaderValue::from_str(value).unwrap()))
        .collect();
    imds.reply(&Question {
        from: CALLER,
        method: &method,
        path,
        headers: &headers,
    })
}

fn get(imds: &Imds, path: &str) -> (u16, String) {
    let response = ask(imds, Method::GET, path, &[]).response;
    (
        response.status().as_u16(),
        String::from_utf8(response.into_body()).unwrap(),
    )
}

/// Every path that listings lead to, as cloud-init crawls them.
fn crawl(imds: &Imds, path: &str, found: &mut Vec<(String, String)>) {
    let (status, body) = get(imds, path);
    assert_eq!(status, 200, "{path}");
    if !path.ends_with('/') {
        found.push((path.to_owned(), body));
        return;
    }
    for line in body.lines() {
        match line.split_once('=') {
            Some((index, _)) => crawl(imds, &format!("{path}{index}/"), found),
            None => crawl(imds, &format!("{path}{line}"), found),
        }
    }
}

#[test]
fn every_listed_leaf_answers() {
    let imds = imds(false, instance());
    let mut found = Vec::new();
    crawl(&imds, "/latest/", &mut found);
    let text: Vec<String> = found
        .iter()
        .map(|(path, body)| format!("{path}: {body}"))
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

/// As AuthorizedKeysCommand asks: for a user's keys, and nothing where there are none.
#[test]
fn active_keys_are_told_by_user() {
    let path = "/latest/meta-data/managed-ssh-keys/active-keys/";
    assert_eq!(
        get(&imds(false, instance()), "/latest/meta-data/managed-ssh-keys/").0,
        404
    );
    let mut told = instance();
    told.instance_id = "i-00000000000000002".into();
    let imds = imds(false, told);
    assert_eq!(get(&imds, path), (200, "guest\nroot".into()));
    assert_eq!(
        get(&imds, &format!("{path}root/")),
        (200, "ssh-ed25519 AAAA a\nssh-rsa CCCC\n".into())
    );
    assert_eq!(get(&imds, &format!("{path}guest")).1, "ssh-ed25519 BBBB\n");
    let nobody = ask(&imds, Method::HEAD, &format!("{path}nobody/"), &[]);
    assert_eq!(nobody.response.status(), 404);
    assert!(get(&imds, "/latest/meta-data/").1.contains("managed-ssh-keys/"));
}

#[test]
fn a_profile_gives_its_roles_credentials() {
    let mut told = instance();
    assert_eq!(get(&imds(false, told.clone()), "/latest/meta-data/iam/").0, 404);
    let profile = InstanceProfile {
        arn: "arn:aws:iam::000000000000:instance-profile/web".into(),
        id: "AIPA0000000000000001".into(),
        role_id: None,
    };
    told.instance_profile = Some(profile.clone());
    let without = imds(false, told.clone());
    assert_eq!(get(&without, "/latest/meta-data/iam/").1, "info");
    assert!(
        get(&without, "/latest/meta-data/iam/info")
            .1
            .contains(&profile.arn)
    );
    assert_eq!(
        get(&without, "/latest/meta-data/iam/security-credentials/").0,
        404
    );
    told.instance_profile = Some(InstanceProfile {
        role_id: Some("reader".into()),
        ..profile
    });
    let with = imds(false, told.clone());
    assert_eq!(
        get(&with, "/latest/meta-data/iam/security-credentials/").1,
        "reader"
    );
    let path = "/latest/meta-data/iam/security-credentials/reader";
    let said: serde_json::Value = serde_json::from_str(&get(&with, path).1).unwrap();
    let expected = serde_json::json!({
        "Code": "Success",
        "LastUpdated": "2023-11-14T22:13:20Z",
        "Type": "AWS-HMAC",
        "AccessKeyId": "ASIA0000000000000001",
        "SecretAccessKey": "secret/+",
        "Token": "token==",
        "Expiration": "2023-11-15T04:13:20Z",
    });
    assert_eq!(said, expected);
    assert_eq!(get(&imds(true, told), path).0, 401, "without a token");
}

#[test]
fn paths_as_ec2_reads_them() {
    let imds = imds(false, instance());
    assert!(get(&imds, "/").1.ends_with("\nlatest"));
    assert_eq!(
        get(&imds, "/2021-03-23/meta-data/instance-id").1,
        "i-00000000000000001"
    );
    assert_eq!(get(&imds, "/1999-01-01/meta-data/instance-id").0, 404);
    assert_eq!(
        get(&imds, "/latest/meta-data").1,
        get(&imds, "/latest/meta-data/").1
    );
    assert_eq!(get(&imds, "/latest/meta-data/public-keys/").1, "0=my-key");
    assert_eq!(get(&imds, "/latest/meta-data/public-keys/0/").1, "openssh-key");
    for absent in [
        "user-data",
        "meta-data/spot/instance-action",
        "meta-data/mac/x",
        "meta-data/mac/x/",
        "meta-data%2Fmac",
        "../x",
    ] {
        assert_eq!(get(&imds, &format!("/latest/{absent}")).0, 404, "{absent}");
    }
    assert_eq!(
        ask(&imds, Method::POST, "/latest/meta-data/", &[])
            .response
            .status(),
        405
    );
    let stranger = Question {
        from: Ipv4Addr::new(172, 31, 0, 99),
        method: &Method::GET,
        path: "/",
        headers: &HeaderMap::new(),
    };
    assert_eq!(imds.reply(&stranger).response.status(), 404);
}

#[test]
fn a_slash_at_the_end_of_a_leaf_means_nothing() {
    let mut told = instance();
    told.user_data = Some(b"#!/bin/sh".to_vec());
    let imds = imds(false, told);
    assert_eq!(get(&imds, "/latest/user-data/"), (200, "#!/bin/sh".into()));
    let id = "/latest/meta-data/instance-id";
    assert_eq!(get(&imds, &format!("{id}/")), get(&imds, id));
    assert_eq!(get(&imds, &format!("{id}///")), get(&imds, id));
}

#[test]
fn paths_are_decoded() {
    let mut told = instance();
    told.tags = Some(vec![
        ("a:b=c".into(), "1".into()),
        ("Größe".into(), "2".into()),
        ("x%20y".into(), "3".into()),
    ]);
    let imds = imds(false, told);
    let tags = "/latest/meta-data/tags/instance";
    assert_eq!(get(&imds, &format!("{tags}/a%3Ab%3dc")), (200, "1".into()));
    assert_eq!(get(&imds, &format!("{tags}/Gr%C3%B6%C3%9Fe")), (200, "2".into()));
    // Once, and no more.
    assert_eq!(get(&imds, &format!("{tags}/x%2520y")), (200, "3".into()));
    assert_eq!(get(&imds, &format!("{tags}/x%20y")).0, 404);
    let mac = "06:00:00:00:00:0a";
    let encoded = mac.replace(':', "%3A");
    let of = |mac: &str| {
        get(
            &imds,
            &format!("/latest/meta-data/network/interfaces/macs/{mac}/"),
        )
    };
    assert_eq!(of(&encoded), of(mac));
    assert_eq!(of(mac).0, 200);
    assert_eq!(get(&imds, "/latest/%FF").0, 400, "no text");
}

#[test]
fn tokens() {
    let imds = imds(true, instance());
    let path = "/latest/meta-data/instance-id";
    let put = |headers: &[(&'static str, &str)]| ask(&imds, Method::PUT, "/latest/api/token", headers);
    for bad in ["0", "21601", "x", "-1"] {
        assert_eq!(put(&[(TOKEN_TTL_HEADER, bad)]).response.status(), 400, "{bad}");
    }
    assert_eq!(put(&[]).response.status(), 400);
    assert_eq!(
        put(&[(TOKEN_TTL_HEADER, "60"), ("x-forwarded-for", "1.2.3.4")])
            .response
            .status(),
        403
    );
    assert_eq!(
        ask(&imds, Method::GET, "/latest/api/token", &[])
            .response
            .status(),
        405
    );

    let reply = put(&[(TOKEN_TTL_HEADER, "21600")]);
    assert_eq!(
        (reply.response.status(), reply.hop_limit),
        (StatusCode::OK, Some(2))
    );
    assert_eq!(reply.response.headers()[TOKEN_TTL_HEADER], "21600");
    let token = String::from_utf8(reply.response.into_body()).unwrap();
    let status = |token: &str| {
        ask(&imds, Method::GET, path, &[(TOKEN_HEADER, token)])
            .response
            .status()
    };
    assert_eq!(status(&token), 200);
    assert_eq!(get(&imds, path).0, 401);
    for wrong in [
        "",
        "x",
        &token[1..],
        &token.replace(&token[60..], "AAAA"),
        &"A".repeat(64),
    ] {
        assert_eq!(status(wrong), 401, "{wrong}");
    }
}

#[test]
fn tokens_end() {
    let key = TokenKey::new([1; 32]);
    let bearer = Bearer {
        vpc_id: "vpc-1",
        address: CALLER,
        instance_id: "i-1",
    };
    let now = UNIX_EPOCH + Duration::from_millis(1_000_900);
    let token = key.issue(bearer, 10, now);
    assert!(key.is_valid(bearer, token.as_bytes(), now + Duration::from_millis(9_999)));
    assert!(!key.is_valid(bearer, token.as_bytes(), now + Duration::from_secs(10)));
    let successor = Bearer {
        instance_id: "i-2",
        ..bearer
    };
    assert!(
        !key.is_valid(successor, token.as_bytes(), now),
        "the address's next owner"
    );
    assert!(
        !TokenKey::new([2; 32]).is_valid(bearer, token.as_bytes(), now),
        "another host's key"
    );
}
