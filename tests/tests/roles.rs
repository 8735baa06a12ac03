//! The role of an instance: credentials by its metadata, which the cloud takes.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hearth_api::client::Client;
use hearth_api::v1;
use hearth_tests::{Cloud, can_run, skipped};

const NAME: &str = "a_role_gives_an_instance_credentials_that_the_cloud_takes";
const TRUST: &str = r#"{"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}"#;
const READS: &str = r#"{"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}]}"#;
/// By version 1 of the metadata service.
const CREDENTIALS: &str = "wget -q -O - http://169.254.169.254/latest/meta-data/iam/security-credentials/";

#[tokio::test(flavor = "multi_thread")]
async fn a_role_gives_an_instance_credentials_that_the_cloud_takes() {
    if !can_run(NAME) {
        return;
    }
    let Some(python) = std::env::var_os("HEARTH_PYTHON") else {
        return skipped(NAME, "HEARTH_PYTHON is not set (scripts/test sets it)");
    };
    let cloud = Cloud::start().await.unwrap();
    let mut client = Client::connect(&cloud.endpoint()).await.unwrap();
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
    let id = cloud
        .launch(|request| {
            request.iam_instance_profile = Some(v1::IamInstanceProfileSpecification {
                name: "web".into(),
                ..Default::default()
            });
        })
        .await
        .unwrap();
    let guest = cloud.guest(&id).await.unwrap();
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
    until(&guest, |said| said.as_deref() == Some("reader")).await;
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
            &id,
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
    until(&guest, |said| said.is_none()).await;
}

/// Until the guest finds what is wanted of its credentials' listing; `None`: there is none.
async fn until(guest: &hearth_tests::Guest, is_wanted: impl Fn(&Option<String>) -> bool) {
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
