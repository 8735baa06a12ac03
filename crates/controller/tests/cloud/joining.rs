//! Join tokens: how often, until when, and for whom.

use hearth_api::agent::EnrollRequest;
use hearth_api::join::JoinToken;
use hearth_api::v1;
use tonic::Code;

use crate::support::{Hearthd, Host, ZONE, code, enroll, enroll_as, key_and_request};

fn token(hearthd: &Hearthd, arguments: &[&str]) -> JoinToken {
    hearthd.join_tokens(arguments).parse().unwrap()
}

fn request(token: &str, certificate_signing_request: &str) -> EnrollRequest {
    EnrollRequest {
        token: token.into(),
        certificate_signing_request: certificate_signing_request.into(),
        availability_zone: ZONE.into(),
    }
}

#[tokio::test]
async fn a_token_is_used_once() {
    let hearthd = Hearthd::start();
    let token = hearthd.join_token();
    enroll(&hearthd, &token.secret, ZONE).await.unwrap();
    let refused = enroll(&hearthd, &token.secret, ZONE).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("used up"), "{}", refused.message());
}

#[tokio::test]
async fn hosts_that_come_together_share_the_uses_of_a_token() {
    let hearthd = Hearthd::start();
    let token = token(&hearthd, &["--uses", "3"]);
    let attempts = (0..8).map(|_| enroll(&hearthd, &token.secret, ZONE));
    let answers = futures::future::join_all(attempts).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
}

#[tokio::test]
async fn a_token_without_an_endpoint_that_can_be_dialled_is_not_made() {
    let hearthd = Hearthd::start();
    for endpoint in ["nowhere", "nowhere:", "nowhere:http", "nowhere:65536"] {
        let request = v1::CreateJoinTokenRequest {
            expires_in_seconds: 60,
            endpoint: endpoint.into(),
            ..v1::CreateJoinTokenRequest::default()
        };
        let refused = hearthd.client().await.hosts.create_join_token(request).await;
        assert_eq!(code(&refused.unwrap_err()), "InvalidParameterValue", "{endpoint}");
    }
    assert_eq!(hearthd.join_tokens(&["--list"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hearthd_that_is_being_started_is_waited_for() {
    let mut hearthd = Hearthd::start();
    hearthd.kill();
    let data = hearthd.data();
    let asked = std::thread::spawn(move || {
        std::process::Command::new(env!("CARGO_BIN_EXE_hearthd"))
            .args(["join-token", "--data-dir"])
            .arg(data)
            .output()
            .unwrap()
    });
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    hearthd.spawn();
    let output = tokio::task::block_in_place(|| asked.join().unwrap());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let token: JoinToken = String::from_utf8(output.stdout).unwrap().parse().unwrap();
    enroll(&hearthd, &token.secret, ZONE).await.unwrap();
}

#[tokio::test]
async fn a_token_expires() {
    let hearthd = Hearthd::start();
    let token = token(&hearthd, &["--expires-in", "1s", "--uses", "9"]);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let refused = enroll(&hearthd, &token.secret, ZONE).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("expired"), "{}", refused.message());
}

#[tokio::test]
async fn tokens_are_listed_and_revoked_one_by_one() {
    let hearthd = Hearthd::start();
    let (first, second, used) = (hearthd.join_token(), hearthd.join_token(), hearthd.join_token());
    enroll(&hearthd, &used.secret, ZONE).await.unwrap();
    let listed = hearthd.join_tokens(&["--list"]);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 2, "{listed}");
    assert!(
        lines[0].starts_with("join-") && lines[0].contains("1 of 1 uses left"),
        "{listed}"
    );
    assert!(!listed.contains(&first.secret));
    // What is stored does not admit anybody either.
    let database = std::fs::read(hearthd.data().join("hearth.db-wal")).unwrap();
    assert!(!database.windows(64).any(|bytes| bytes == first.secret.as_bytes()));

    let id = lines[0].split_whitespace().next().unwrap();
    hearthd.join_tokens(&["--revoke", id]);
    let refused = enroll(&hearthd, &first.secret, ZONE).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    enroll(&hearthd, &second.secret, ZONE).await.unwrap();
    let third = hearthd.join_token();
    hearthd.join_tokens(&["--revoke", &third.to_string()]);
    assert_eq!(hearthd.join_tokens(&["--list"]), "");
}

#[tokio::test]
async fn an_enrolment_is_repeated_by_the_same_key_without_another_use() {
    let hearthd = Hearthd::start();
    let token = token(&hearthd, &["--uses", "2"]);
    let (key, csr) = key_and_request();
    let lost = enroll_as(&hearthd, request(&token.secret, &csr)).await.unwrap();
    let again = enroll_as(&hearthd, request(&token.secret, &csr)).await.unwrap();
    assert_eq!(lost.host_id, again.host_id);
    assert!(hearthd.join_tokens(&["--list"]).contains("1 of 2 uses left"));
    Host::new(again.host_id, again.certificate, key)
        .connect(&hearthd)
        .await
        .intents()
        .await;
    // The key says nothing where the token is another: it is no new host's.
    let other = hearthd.join_token();
    let refused = enroll_as(&hearthd, request(&other.secret, &csr))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
}

#[tokio::test]
async fn the_token_is_checked_before_anything_else() {
    let hearthd = Hearthd::start();
    let mut nonsense = request(&"0".repeat(64), "no request at all");
    nonsense.availability_zone = "nowhere".into();
    let refused = enroll_as(&hearthd, nonsense).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    // With a token the rest is looked at, and the token is not used up by it.
    let token = hearthd.join_token();
    let refused = enroll_as(&hearthd, request(&token.secret, "nonsense"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    enroll(&hearthd, &token.secret, ZONE).await.unwrap();
}

#[tokio::test]
async fn an_enrolment_of_4_mib_is_refused_unread() {
    let hearthd = Hearthd::start();
    let token = hearthd.join_token();
    let (_, csr) = key_and_request();
    let long = format!("{csr}{}", "x".repeat(4 << 20));
    let refused = enroll_as(&hearthd, request(&token.secret, &long))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    enroll_as(&hearthd, request(&token.secret, &csr)).await.unwrap();
}

#[tokio::test]
async fn an_address_that_guesses_is_not_listened_to_for_a_while() {
    let hearthd = Hearthd::start();
    let token = hearthd.join_token();
    let mut refusals = Vec::new();
    for _ in 0..12 {
        let refused = enroll(&hearthd, &"0".repeat(64), ZONE).await.unwrap_err();
        refusals.push(refused.code());
    }
    assert_eq!(refusals[9], Code::Unauthenticated);
    assert_eq!(refusals[10..], [Code::ResourceExhausted; 2]);
    let refused = enroll(&hearthd, &token.secret, ZONE).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_host_joins_again_under_its_id_and_its_old_certificate_ends() {
    let hearthd = Hearthd::start();
    let host = Host::enroll(&hearthd).await;
    let mut session = host.connect(&hearthd).await;
    session.intents().await;
    let token = token(&hearthd, &["--host-id", &host.id]);
    let (key, answer) = enroll(&hearthd, &token.secret, ZONE).await.unwrap();
    assert_eq!(answer.host_id, host.id);
    let ended = session.end().await;
    assert_eq!(ended.code(), Code::PermissionDenied);
    let refused = host.try_connect(&hearthd).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    Host::new(answer.host_id, answer.certificate, key)
        .connect(&hearthd)
        .await
        .intents()
        .await;
}
