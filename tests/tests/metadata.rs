//! A guest by itself: it finds credentials of its role and keys for a minute in its metadata, and powers off.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hearth_api::client::Client;
use hearth_api::v1;
use hearth_tests::{Cloud, Guest, can_run, skipped};

const NAME: &str = "a_guest_has_a_role_and_a_key_for_a_minute_and_ends_itself";
const TRUST: &str = r#"{"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}"#;
const READS: &str = r#"{"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}]}"#;
/// By version 1 of the metadata service.
const CREDENTIALS: &str = "wget -q -O - http://169.254.169.254/latest/meta-data/iam/security-credentials/";
/// As AuthorizedKeysCommand would ask, by version 1 of the metadata service.
const KEYS: &str =
    "wget -q -O - http://169.254.169.254/latest/meta-data/managed-ssh-keys/active-keys/ec2-user/";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIKjMqaGKhlzQFs9PgmqZdYzqnTJKRAEPpwgHTvUT0Yp";

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_has_a_role_and_a_key_for_a_minute_and_ends_itself() {
    if !can_run(NAME) {
        return;
    }
    let Some(python) = std::env::var_os("HEARTH_PYTHON") else {
        return skipped(NAME, "HEARTH_PYTHON is not set (scripts/test sets it)");
    };
    let cloud = Cloud::start().await.unwrap();
    let mut client = Client::connect(&cloud.endpoint()).await.unwrap();
    let guest = launch(&cloud, &mut client).await;
    has_a_role(&cloud, &mut client, &guest, python).await;
    finds_a_key_for_a_minute(&mut client, &guest).await;
    powers_off(&cloud, &guest).await;
}

/// With a profile whose role comes later, and a volume that stays when the guest has ended itself.
async fn launch(cloud: &Cloud, client: &mut Client) -> Guest {
    let role = v1::CreateRoleRequest {
        role_name: "reader".into(),
        assume_role_policy_document: TRUST.into(),
        ..Default::default()
    };
    client.iam_roles.create_role(role).await.unwrap();
    let policy = v1::PutRolePolicyRequest {
        role_name: "reader".into(),
        policy_name: "reads".into(),
        policy_document: READS.into(),
    };
    client.iam_roles.put_role_policy(policy).await.unwrap();
    let profile = v1::CreateInstanceProfileRequest {
        instance_profile_name: "web".into(),
        ..Default::default()
    };
    client
        .iam_instance_profiles
        .create_instance_profile(profile)
        .await
        .unwrap();
    let keep = v1::BlockDeviceMapping {
        device_name: "/dev/sda1".into(),
        ebs: Some(v1::EbsBlockDevice {
            delete_on_termination: Some(false),
            ..Default::default()
        }),
        ..Default::default()
    };
    let launched = cloud.launch_guest(|request| {
        request.instance_initiated_shutdown_behavior = "terminate".into();
        request.block_device_mappings = vec![keep];
        request.iam_instance_profile = Some(v1::IamInstanceProfileSpecification {
            name: "web".into(),
            ..Default::default()
        });
    });
    launched.await.unwrap()
}

async fn has_a_role(cloud: &Cloud, client: &mut Client, guest: &Guest, python: OsString) {
    // Without a role there is nothing to assume; it comes later, and the guest need not start again.
    assert!(!guest.try_ssh(CREDENTIALS).await.unwrap().status.success());
    let role = v1::AddRoleToInstanceProfileRequest {
        instance_profile_name: "web".into(),
        role_name: "reader".into(),
    };
    client
        .iam_instance_profiles
        .add_role_to_instance_profile(role.clone())
        .await
        .unwrap();
    let began = Instant::now();
    until(guest, |said| said.as_deref() == Some("reader")).await;
    println!(
        "FIGURE role: credentials {} ms after the profile got it",
        began.elapsed().as_millis()
    );

    let credentials = guest.ssh(&format!("{CREDENTIALS}reader")).await.unwrap();
    let mut called = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/role.py"))
        .args([
            &cloud.ec2_endpoint().unwrap(),
            "local-1",
            "reader",
            guest.id(),
            &cloud.image_id,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    called
        .stdin
        .take()
        .unwrap()
        .write_all(credentials.as_bytes())
        .unwrap();
    let output = tokio::task::spawn_blocking(move || called.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(said.contains("done"), "{said}{errors}{}", cloud.logs());
    let secret: serde_json::Value = serde_json::from_str(&credentials).unwrap();
    let logs = cloud.logs();
    assert!(
        !logs.contains(secret["SecretAccessKey"].as_str().unwrap()),
        "a log has the secret"
    );

    let role = v1::RemoveRoleFromInstanceProfileRequest {
        instance_profile_name: role.instance_profile_name,
        role_name: role.role_name,
    };
    client
        .iam_instance_profiles
        .remove_role_from_instance_profile(role)
        .await
        .unwrap();
    until(guest, |said| said.is_none()).await;
}

/// Until the guest finds what is wanted of its credentials' listing; `None`: there is none.
async fn until(guest: &Guest, is_wanted: impl Fn(&Option<String>) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let output = guest.try_ssh(CREDENTIALS).await.unwrap();
        let listing = output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
        if is_wanted(&listing) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "the credentials' listing is {listing:?}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn finds_a_key_for_a_minute(client: &mut Client, guest: &Guest) {
    assert!(!guest.try_ssh(KEYS).await.unwrap().status.success());
    let request = v1::SendSshPublicKeyRequest {
        instance_id: guest.id().to_owned(),
        instance_os_user: "ec2-user".into(),
        ssh_public_key: format!("{KEY} me@home"),
        ..Default::default()
    };
    let sent = client.ec2_instance_connect.send_ssh_public_key(request).await;
    assert!(sent.unwrap().into_inner().success);
    let sent = Instant::now();
    // It is there when the call has answered.
    let told = guest.ssh(KEYS).await.unwrap();
    assert!(told.starts_with(KEY) && told.lines().count() == 1, "{told}");
    while guest.try_ssh(KEYS).await.unwrap().status.success() {
        assert!(sent.elapsed() < Duration::from_secs(90), "the key stays");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(sent.elapsed() >= Duration::from_secs(60), "{:?}", sent.elapsed());
    println!(
        "FIGURE instance connect: the key was gone after {:.1} s",
        sent.elapsed().as_secs_f64()
    );
}

async fn powers_off(cloud: &Cloud, guest: &Guest) {
    guest.ssh("poweroff").await.unwrap();
    let gone = cloud.wait_for_state(guest.id(), "terminated").await.unwrap();
    assert_eq!(
        gone.state_reason.unwrap().code,
        "Client.InstanceInitiatedShutdown"
    );
    let volumes = std::fs::read_dir(cloud.path("agent/volumes")).map_or(0, Iterator::count);
    assert_eq!(
        volumes, 1,
        "the volume outlives its instance where DeleteOnTermination is false"
    );
}
