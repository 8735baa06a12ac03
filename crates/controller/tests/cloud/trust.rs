//! The port of signed requests: TLS, tokens, who may come in plain text; and what the database keeps of secrets.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use hearth_api::client::{self, Introduction, Transport};
use hearth_api::endpoint::ConnectError;
use hearth_api::remote::{Address, Trust};
use hearth_api::token::{AUDIENCE, Credentials, REGION, SESSION_TOKEN};
use hearth_api::{Client, v1};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use sqlx::Connection as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use crate::support::{Hearthd, SOON, code};

const EVERYWHERE: &[&str] = &["--ec2-listen", "0.0.0.0:0"];

/// What a `hearthd` says of its port.
pub struct Port {
    pub port: u16,
    bundle: Option<PathBuf>,
}

impl Port {
    pub fn of(hearthd: &Hearthd) -> Self {
        let said = std::fs::read(hearthd.data().join("endpoints.json")).unwrap();
        let said: Value = serde_json::from_slice(&said).unwrap();
        let listen: SocketAddr = said["ec2_listen"].as_str().unwrap().parse().unwrap();
        Self {
            port: listen.port(),
            bundle: said["ca_bundle"].as_str().map(PathBuf::from),
        }
    }

    pub async fn connect(
        &self,
        scheme: &str,
        host: &str,
        trust: &Trust,
        credentials: &Credentials,
    ) -> Result<Transport, ConnectError> {
        let address = Address::parse(&format!("{scheme}://{host}:{}", self.port))?;
        let introduction = Introduction {
            credentials: Some(Arc::new(credentials.clone())),
            region: None,
        };
        client::remote(address, trust, introduction).await
    }

    pub fn trust(&self) -> Trust {
        Trust::Bundle(self.bundle.clone().unwrap())
    }
}

/// The owner's key.
pub fn owner(hearthd: &Hearthd) -> Credentials {
    let text = std::fs::read_to_string(hearthd.data().join("credentials")).unwrap();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim_start_matches(" = ").to_owned()
    };
    Credentials {
        access_key_id: value("aws_access_key_id"),
        secret_access_key: value("aws_secret_access_key"),
        session_token: None,
    }
}

/// An address of this machine that others could call it at.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: this asks the routing table.
    socket.connect("198.51.100.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

async fn key_pairs(client: &Client) -> usize {
    let mut key_pairs = client.clone().key_pairs;
    let told = key_pairs.describe_key_pairs(v1::DescribeKeyPairsRequest::default());
    told.await.unwrap().into_inner().key_pairs.len()
}

pub async fn identity(transport: Transport) -> Result<v1::GetCallerIdentityResponse, Status> {
    let mut sts = Client::new(transport).sts;
    let answer = sts.get_caller_identity(v1::GetCallerIdentityRequest {}).await?;
    Ok(answer.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_come_over_tls_and_plain_text_from_this_machine_alone() {
    let hearthd = Hearthd::with(EVERYWHERE);
    let (port, key) = (Port::of(&hearthd), owner(&hearthd));
    let bundle = port.bundle.clone().unwrap();
    assert_eq!(bundle, hearthd.dir.path().join("ca.pem"));
    let text = std::fs::read_to_string(&bundle).unwrap();
    assert!(
        text.starts_with("-----BEGIN CERTIFICATE-----") && !text.contains("PRIVATE"),
        "{text}"
    );
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(bundle.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    assert!(hearthd.log().contains("ca.pem"), "{}", hearthd.log());

    let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let afar = own_address();
    // At that address nothing has called before: the certificate has it all the same.
    hosts.extend(afar.map(|address| address.to_string()));
    for host in &hosts {
        let transport = port.connect("https", host, &port.trust(), &key).await.unwrap();
        let who = identity(transport).await.unwrap();
        assert!(who.arn.ends_with(":root"), "{host}: {who:?}");
        let transport = port.connect("https", host, &Trust::Anybody, &key).await.unwrap();
        identity(transport).await.unwrap();
        let strange = port.connect("https", host, &Trust::System, &key).await;
        assert!(matches!(strange, Err(ConnectError::Untrusted { .. })), "{host}");
    }
    // By another name it is not who is meant.
    let other = port.connect("https", "127.0.0.2", &port.trust(), &key).await;
    assert!(other.is_ok(), "each address at which it is called");
    identity(
        port.connect("http", "127.0.0.1", &port.trust(), &key)
            .await
            .unwrap(),
    )
    .await
    .unwrap();

    let Some(afar) = afar else {
        println!("SKIPPED: plain text from afar: this machine has no address but its own");
        return;
    };
    // The client refuses to; so by hand. Nothing is read of what was asked.
    let mut stream = TcpStream::connect((afar, port.port)).await.unwrap();
    let request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000000\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 403 "), "{said}");
    assert!(
        said.contains("is served by https alone: begin its URL with https."),
        "{said}"
    );
    let channel = Endpoint::from_shared(format!("http://{afar}:{}", port.port)).unwrap();
    let channel = channel.connect().await.unwrap();
    let status = make_key_pair(channel, &[("authorization", format!("Bearer {}", token(&key)))]).await;
    let status = status.unwrap_err();
    assert_eq!(code(&status), "AuthFailure");
    assert!(status.message().contains("https"), "{status:?}");
    assert_eq!(key_pairs(&hearthd.client().await).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_may_end_tls_if_the_operator_says_so() {
    let Some(afar) = own_address() else {
        println!(
            "SKIPPED: a_proxy_may_end_tls_if_the_operator_says_so: this machine has no address but its own"
        );
        return;
    };
    let hearthd = Hearthd::with(&["--ec2-listen", "0.0.0.0:0", "--ec2-plain-http"]);
    let (port, key) = (Port::of(&hearthd), owner(&hearthd));
    let channel = Endpoint::from_shared(format!("http://{afar}:{}", port.port)).unwrap();
    let channel = channel.connect().await.unwrap();
    make_key_pair(channel, &[("authorization", format!("Bearer {}", token(&key)))])
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_certificate_is_served_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let write = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["cloud.example".to_owned(), "localhost".to_owned()];
        let certificate = rcgen::CertificateParams::new(names)
            .unwrap()
            .self_signed(&key)
            .unwrap();
        for (name, text) in [("key", key.serialize_pem()), ("chain", certificate.pem())] {
            std::fs::write(file("new"), text).unwrap();
            std::fs::rename(file("new"), file(name)).unwrap();
        }
        std::fs::copy(file("chain"), file("bundle")).unwrap();
    };
    write();
    let (chain, private) = (file("chain"), file("key"));
    let hearthd = Hearthd::with(&[
        "--ec2-listen",
        "127.0.0.1:0",
        "--tls-certificate",
        chain.to_str().unwrap(),
        "--tls-key",
        private.to_str().unwrap(),
    ]);
    let (port, key) = (Port::of(&hearthd), owner(&hearthd));
    assert_eq!(port.bundle, None, "it is for the operator to say");
    assert!(!hearthd.dir.path().join("ca.pem").exists());
    let trust = Trust::Bundle(file("bundle"));
    let connect = || port.connect("https", "localhost", &trust, &key);
    let first = connect().await.unwrap();
    identity(first.clone()).await.unwrap();
    write();
    let began = std::time::Instant::now();
    while let Err(error) = connect().await {
        assert!(matches!(error, ConnectError::Untrusted { .. }), "{error}");
        assert!(began.elapsed() < SOON, "the new certificate is not served");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Connections that there are go on.
    identity(first).await.unwrap();
}

fn token(key: &Credentials) -> String {
    key.sign(jiff::Timestamp::now().as_second()).unwrap()
}

/// Signs claims, with another algorithm or key id where they are given.
fn signed(key: &Credentials, algorithm: Algorithm, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = Some(key.access_key_id.clone());
    jsonwebtoken::encode(
        &header,
        claims,
        &EncodingKey::from_secret(key.secret_access_key.as_bytes()),
    )
    .unwrap()
}

/// Asks for a key pair to be made, with these metadata.
async fn make_key_pair(channel: Channel, metadata: &[(&'static str, String)]) -> Result<(), Status> {
    let mut request = Request::new(v1::CreateKeyPairRequest {
        key_name: format!("key-{}", rand::random::<u32>()),
        key_type: "ed25519".into(),
        ..Default::default()
    });
    for (name, value) in metadata {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    let mut key_pairs = v1::key_pairs_client::KeyPairsClient::new(channel);
    key_pairs.create_key_pair(request).await.map(drop)
}

async fn tls_channel(port: &Port) -> Channel {
    let pem = std::fs::read(port.bundle.as_ref().unwrap()).unwrap();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
    Endpoint::from_shared(format!("https://localhost:{}", port.port))
        .unwrap()
        .tls_config(tls)
        .unwrap()
        .connect()
        .await
        .unwrap()
}

/// A user with a key, by the Unix socket.
async fn user(client: &Client, name: &str) -> Credentials {
    let mut users = client.clone().iam_users;
    let request = v1::CreateUserRequest {
        user_name: name.into(),
        ..Default::default()
    };
    users.create_user(request).await.unwrap();
    let request = v1::CreateAccessKeyRequest {
        user_name: name.into(),
    };
    let key = users
        .create_access_key(request)
        .await
        .unwrap()
        .into_inner()
        .access_key
        .unwrap();
    Credentials {
        access_key_id: key.access_key_id,
        secret_access_key: key.secret_access_key,
        session_token: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_tokens_are_refused_and_nothing_is_done() {
    let hearthd = Hearthd::with(EVERYWHERE);
    let (port, key) = (Port::of(&hearthd), owner(&hearthd));
    let client = hearthd.client().await;
    let channel = tls_channel(&port).await;
    let anna = user(&client, "anna").await;
    let inactive = v1::UpdateAccessKeyRequest {
        user_name: "anna".into(),
        access_key_id: anna.access_key_id.clone(),
        status: "Inactive".into(),
    };
    client
        .clone()
        .iam_users
        .update_access_key(inactive)
        .await
        .unwrap();
    let now = jiff::Timestamp::now().as_second();
    let claims = |iat: i64, exp: i64| json!({ "aud": AUDIENCE, "iat": now + iat, "exp": now + exp });
    let own = |claims: &Value| signed(&key, Algorithm::HS256, claims);
    let mixed = Credentials {
        secret_access_key: anna.secret_access_key.clone(),
        ..key.clone()
    };
    let unknown = Credentials {
        access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
        ..key.clone()
    };
    let right = token(&key);
    let (_, unsigned) = right.split_once('.').unwrap();
    let with_header = |header: &str| {
        use base64::Engine as _;
        format!(
            "{}.{unsigned}",
            base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(header)
        )
    };
    let kid = &key.access_key_id;
    for (case, expected, token) in [
        (
            "alg none",
            "AuthFailure",
            with_header(&format!(r#"{{"alg":"none","kid":"{kid}"}}"#)),
        ),
        (
            "alg RS256",
            "AuthFailure",
            with_header(&format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#)),
        ),
        (
            "alg HS384",
            "AuthFailure",
            signed(&key, Algorithm::HS384, &claims(0, 60)),
        ),
        ("another kid", "InvalidClientTokenId", token(&unknown)),
        ("an inactive key", "InvalidClientTokenId", token(&anna)),
        ("of another key", "SignatureDoesNotMatch", token(&mixed)),
        ("expired", "ExpiredToken", own(&claims(-1000, -500))),
        ("not yet valid", "AuthFailure", own(&claims(500, 600))),
        ("too long", "AuthFailure", own(&claims(0, 1000))),
        (
            "another aud",
            "AuthFailure",
            own(&json!({ "aud": "ec2", "iat": now, "exp": now + 60 })),
        ),
        (
            "oversized",
            "AuthFailure",
            own(&json!({ "aud": AUDIENCE, "iat": now, "exp": now + 60, "x": "x".repeat(5000) })),
        ),
        ("none", "AuthFailure", String::new()),
    ] {
        let status = make_key_pair(channel.clone(), &[("authorization", format!("Bearer {token}"))]).await;
        let status = status.unwrap_err();
        assert_eq!(code(&status), expected, "{case}: {status:?}");
        assert_eq!(status.code(), tonic::Code::Unauthenticated, "{case}");
        let id = status.metadata().get(client::REQUEST_ID).unwrap();
        assert!(hearthd.log().contains(id.to_str().unwrap()), "{case}");
    }
    let bearer = format!("Bearer {right}");
    for (case, expected, metadata) in [
        ("missing", "AuthFailure", vec![]),
        (
            "twice",
            "AuthFailure",
            vec![
                ("authorization", bearer.clone()),
                ("authorization", bearer.clone()),
            ],
        ),
        (
            "a session of nobody's",
            "InvalidClientTokenId",
            vec![("authorization", bearer.clone()), (SESSION_TOKEN, "x".into())],
        ),
        (
            "another region",
            "AuthFailure",
            vec![("authorization", bearer.clone()), (REGION, "eu-west-1".into())],
        ),
        // Of the followers' port.
        (
            "another caller's name",
            "AuthFailure",
            vec![("hearth-caller", "0:1".into())],
        ),
    ] {
        let status = make_key_pair(channel.clone(), &metadata).await.unwrap_err();
        assert_eq!(code(&status), expected, "{case}: {status:?}");
    }
    assert_eq!(key_pairs(&client).await, 0, "something was done");
    assert!(!hearthd.log().contains(&right), "the log has a token");

    // The same token, as it is.
    make_key_pair(channel, &[("authorization", bearer), (REGION, "local-1".into())])
        .await
        .unwrap();
    assert_eq!(key_pairs(&client).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_hold_for_tokens_too() {
    let hearthd = Hearthd::with(EVERYWHERE);
    let port = Port::of(&hearthd);
    let client = hearthd.client().await;
    let anna = user(&client, "anna").await;
    let allow = async |statements: Value| {
        let document = json!({ "Version": "2012-10-17", "Statement": statements });
        let request = v1::PutUserPolicyRequest {
            user_name: "anna".into(),
            policy_name: "own".into(),
            policy_document: document.to_string(),
        };
        client.clone().iam_users.put_user_policy(request).await.unwrap();
    };
    let secure = json!({ "Bool": { "aws:SecureTransport": "true" } });
    allow(json!([{ "Effect": "Allow", "Action": "ec2:*", "Resource": "*", "Condition": secure }])).await;
    let trust = port.trust();
    let https = Client::new(port.connect("https", "localhost", &trust, &anna).await.unwrap());
    let http = Client::new(port.connect("http", "localhost", &trust, &anna).await.unwrap());
    let vpcs = async |client: &Client| {
        let mut vpcs = client.clone().vpcs;
        vpcs.describe_vpcs(v1::DescribeVpcsRequest::default())
            .await
            .map(drop)
    };
    vpcs(&https).await.unwrap();
    assert_eq!(code(&vpcs(&http).await.unwrap_err()), "UnauthorizedOperation");

    // What is Hearth's own, EC2's rights do not give: hosts, and what is streamed.
    let hosts = async || {
        let mut hosts = https.clone().hosts;
        hosts.list_hosts(v1::ListHostsRequest {}).await.map(drop)
    };
    let watch = async || {
        let mut watch = https.clone().watch;
        watch
            .watch_instances(v1::WatchInstancesRequest::default())
            .await
            .map(drop)
    };
    let upload = async || {
        let mut disks = https.clone().image_disks;
        disks.upload_image(tokio_stream::iter([])).await.map(drop)
    };
    for refused in [hosts().await, watch().await, upload().await] {
        assert_eq!(code(&refused.unwrap_err()), "UnauthorizedOperation");
    }
    allow(json!([{ "Effect": "Allow", "Action": "hearth:*", "Resource": "*" }])).await;
    hosts().await.unwrap();
    watch().await.unwrap();
    assert_ne!(code(&upload().await.unwrap_err()), "UnauthorizedOperation");

    // Credentials that end, with their token beside.
    let mut sts = https.clone().sts;
    let made = sts
        .get_session_token(v1::GetSessionTokenRequest::default())
        .await
        .unwrap();
    let made = made.into_inner().credentials.unwrap();
    let session = Credentials {
        access_key_id: made.access_key_id,
        secret_access_key: made.secret_access_key,
        session_token: Some(made.session_token),
    };
    let who = identity(
        port.connect("https", "localhost", &trust, &session)
            .await
            .unwrap(),
    )
    .await
    .unwrap();
    assert!(who.arn.ends_with(":user/anna"), "{who:?}");
    let alone = Credentials {
        session_token: None,
        ..session
    };
    let refused = identity(port.connect("https", "localhost", &trust, &alone).await.unwrap()).await;
    assert_eq!(code(&refused.unwrap_err()), "InvalidClientTokenId");
}

/// The bodies of all objects of a kind, in the database of a `hearthd` that does not run.
async fn bodies(data: &Path, kind: &str) -> Vec<(String, String)> {
    let url = format!("sqlite://{}", data.join("hearth.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let rows = sqlx::query_as("SELECT id, body FROM objects WHERE kind = ?").bind(kind);
    let rows = rows.fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    rows
}

fn start(hearthd: &Hearthd) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hearthd"))
        .arg("--data-dir")
        .arg(hearthd.data())
        .arg("--socket")
        .arg(hearthd.socket())
        .args(["--agent-listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    assert!(!output.status.success(), "hearthd runs");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_has_no_secret_and_the_file_that_opens_them_is_needed() {
    let mut hearthd = Hearthd::with(EVERYWHERE);
    let key = owner(&hearthd);
    let anna = user(&hearthd.client().await, "anna").await;
    assert!(hearthd.terminate());
    let (data, file) = (hearthd.data(), hearthd.data().join("seal.key"));
    let database = std::fs::read(data.join("hearth.db")).unwrap();
    let root = std::fs::read_to_string(&file).unwrap();
    for secret in [&key.secret_access_key, &anna.secret_access_key, root.trim()] {
        let secret = secret.as_bytes();
        assert!(
            !database.windows(secret.len()).any(|bytes| bytes == secret),
            "the database has a secret"
        );
    }
    // Another key than that of the database, none, and one that others may read.
    std::fs::write(&file, format!("{}\n", "ab".repeat(32))).unwrap();
    assert!(start(&hearthd).contains("seal.key has another key than the one"));
    std::fs::remove_file(&file).unwrap();
    let said = start(&hearthd);
    assert!(
        said.contains("seal.key is missing") && said.contains("copy it from another hearthd"),
        "{said}"
    );
    assert!(!file.exists(), "a new key was made");
    std::fs::write(&file, &root).unwrap();
    assert!(start(&hearthd).contains("chmod 600"));
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    hearthd.spawn();
    assert_eq!(owner(&hearthd).secret_access_key, key.secret_access_key);
    let port = Port::of(&hearthd);
    identity(
        port.connect("https", "localhost", &port.trust(), &anna)
            .await
            .unwrap(),
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_before_seals_is_sealed_at_the_next_start() {
    let mut hearthd = Hearthd::with(EVERYWHERE);
    let _ = hearthd.client().await;
    assert!(hearthd.terminate());
    let (data, secret) = (hearthd.data(), "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    let url = format!("sqlite://{}", data.join("hearth.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    for (kind, field, plain) in [
        ("access-key", "$.secret", secret),
        ("cloud", "$.seal", &"0f".repeat(32)),
    ] {
        let statement = sqlx::query("UPDATE objects SET body = json_set(body, ?, ?) WHERE kind = ?");
        let done = statement
            .bind(field)
            .bind(plain)
            .bind(kind)
            .execute(&mut connection)
            .await
            .unwrap();
        assert_eq!(done.rows_affected(), 1, "{kind}");
    }
    connection.close().await.unwrap();
    std::fs::remove_file(data.join("seal.key")).unwrap();
    hearthd.spawn();
    let (port, key) = (Port::of(&hearthd), owner(&hearthd));
    assert_eq!(key.secret_access_key, secret);
    identity(
        port.connect("https", "localhost", &port.trust(), &key)
            .await
            .unwrap(),
    )
    .await
    .unwrap();
    assert!(hearthd.terminate());
    for (kind, field) in [("access-key", "secret"), ("cloud", "seal")] {
        let [(_, body)] = &bodies(&data, kind).await[..] else {
            panic!("{kind}");
        };
        let body: Value = serde_json::from_str(body).unwrap();
        assert!(body[field].as_str().unwrap().starts_with("sealed:"), "{body}");
    }
}
