//! The port of AWS's tools, as botocore finds it: EC2, and who may do what there.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;

use hearth_api::v1;

use crate::support::{Cloud, Hearthd, script};

#[tokio::test(flavor = "multi_thread")]
async fn botocore_finds_ec2() {
    let Some(python) = std::env::var_os("HEARTH_PYTHON") else {
        println!("SKIPPED: botocore_finds_ec2: HEARTH_PYTHON is not set (scripts/test sets it)");
        return;
    };
    let Some(mut cloud) = Cloud::with(&["--ec2-listen", "127.0.0.1:0"]).await else {
        return;
    };
    let credentials = cloud.hearthd.data().join("credentials");
    let before = std::fs::read_to_string(&credentials).unwrap();
    let mode = std::fs::metadata(&credentials).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The key is the cloud's, and not the process's.
    std::fs::remove_file(&credentials).unwrap();
    cloud.hearthd.kill();
    cloud.hearthd.spawn();
    assert_eq!(std::fs::read_to_string(&credentials).unwrap(), before);
    assert!(!cloud.hearthd.log().contains("aws_secret"));

    run(python, cloud, "http", "ec2.py", &before, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_decide_what_users_and_roles_may() {
    let Some(python) = std::env::var_os("HEARTH_PYTHON") else {
        println!(
            "SKIPPED: policies_decide_what_users_and_roles_may: HEARTH_PYTHON is not set (scripts/test sets it)"
        );
        return;
    };
    let Some(cloud) = Cloud::with(&["--ec2-listen", "127.0.0.1:0"]).await else {
        return;
    };
    let profile = std::fs::read_to_string(cloud.hearthd.data().join("credentials")).unwrap();
    run(python, cloud, "https", "iam.py", &profile, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn younger_services_speak_json() {
    let Some(python) = std::env::var_os("HEARTH_PYTHON") else {
        println!("SKIPPED: younger_services_speak_json: HEARTH_PYTHON is not set (scripts/test sets it)");
        return;
    };
    let Some(cloud) = Cloud::with(&["--ec2-listen", "127.0.0.1:0", "--instance-limit", "77"]).await else {
        return;
    };
    let profile = std::fs::read_to_string(cloud.hearthd.data().join("credentials")).unwrap();
    run(python, cloud, "http", "calls.py", &profile, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_live_as_botocore_has_it() {
    let Some(python) = std::env::var_os("HEARTH_PYTHON") else {
        println!("SKIPPED: volumes_live_as_botocore_has_it: HEARTH_PYTHON is not set (scripts/test sets it)");
        return;
    };
    let Some(cloud) = Cloud::with(&["--ec2-listen", "127.0.0.1:0"]).await else {
        return;
    };
    let profile = std::fs::read_to_string(cloud.hearthd.data().join("credentials")).unwrap();
    run(python, cloud, "http", "volumes.py", &profile, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_live_as_botocore_has_it() {
    with_a_region_and_a_tenant("snapshots_live_as_botocore_has_it", "snapshots.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_snapshots_as_botocore_has_it() {
    with_a_region_and_a_tenant("images_are_snapshots_as_botocore_has_it", "amis.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kms_keys_live_as_botocore_has_it() {
    with_a_region_and_a_tenant("kms_keys_live_as_botocore_has_it", "kms.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_encrypted_stays_so_as_botocore_has_it() {
    with_a_region_and_a_tenant("what_is_encrypted_stays_so_as_botocore_has_it", "encryption.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vpcs_live_as_botocore_has_it() {
    with_a_region_and_a_tenant("vpcs_live_as_botocore_has_it", "vpcs.py").await;
}

/// Runs a script in a cloud that has another region and another account.
async fn with_a_region_and_a_tenant(test: &str, script: &str) {
    let Some(python) = std::env::var_os("HEARTH_PYTHON") else {
        println!("SKIPPED: {test}: HEARTH_PYTHON is not set (scripts/test sets it)");
        return;
    };
    let Some(cloud) = Cloud::with(&["--ec2-listen", "127.0.0.1:0"]).await else {
        return;
    };
    let region = v1::CreateRegionRequest {
        region_name: "lab-2".into(),
        availability_zones: vec!["lab-2a".into()],
        dry_run: false,
    };
    let made = cloud.client.clone().cloud_regions.create_region(region).await;
    made.unwrap();
    let account = v1::CreateAccountRequest {
        account_name: "team-a".into(),
        dry_run: false,
    };
    let made = cloud.client.clone().accounts.create_account(account).await;
    let made = made.unwrap().into_inner();
    let profile = std::fs::read_to_string(cloud.hearthd.data().join("credentials")).unwrap();
    let more = ["lab-2", &made.access_key_id, &made.secret_access_key];
    run(python, cloud, "http", script, &profile, &more).await;
}

/// Runs a script against the port. What was refused is in the log, and the secret of the owner's profile is not.
async fn run(
    python: OsString,
    cloud: Cloud,
    scheme: &'static str,
    script: &str,
    profile: &str,
    more: &[&str],
) {
    let session = cloud.connect().await;
    let obeying = session.obey();
    cloud.until_connected().await;
    let credentials = cloud.hearthd.data().join("credentials");
    let mut script = crate::support::script(python, script);
    let endpoints = std::fs::read_to_string(cloud.hearthd.data().join("endpoints.json")).unwrap();
    let endpoints: serde_json::Value = serde_json::from_str(&endpoints).unwrap();
    let image_id = cloud.image_id.clone();
    let more: Vec<String> = more.iter().map(ToString::to_string).collect();
    let output = tokio::task::spawn_blocking(move || {
        script
            .arg(format!(
                "{scheme}://{}",
                endpoints["ec2_listen"].as_str().unwrap()
            ))
            .arg("local-1")
            .arg(&credentials)
            .arg(image_id)
            .args(more)
            .env("AWS_CA_BUNDLE", endpoints["ca_bundle"].as_str().unwrap())
            .output()
            .unwrap()
    });
    let output = output.await.unwrap();
    obeying.abort();
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && said.contains("done"),
        "{said}{errors}{}",
        cloud.hearthd.log()
    );
    let log = cloud.hearthd.log();
    assert!(log.contains("refused") && log.contains("AKIA"), "{log}");
    let secret = profile
        .lines()
        .find_map(|line| line.strip_prefix("aws_secret_access_key = "));
    assert!(!log.contains(secret.unwrap()), "the log has the secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_requests_are_refused() {
    let Some(python) = std::env::var_os("HEARTH_PYTHON") else {
        println!("SKIPPED: forged_requests_are_refused: HEARTH_PYTHON is not set (scripts/test sets it)");
        return;
    };
    let hearthd = Hearthd::with(&["--ec2-listen", "127.0.0.1:0"]);
    // It is up.
    let _ = hearthd.client().await;
    let endpoints = std::fs::read_to_string(hearthd.data().join("endpoints.json")).unwrap();
    let endpoints: serde_json::Value = serde_json::from_str(&endpoints).unwrap();
    let credentials = hearthd.data().join("credentials");
    let output = tokio::task::spawn_blocking(move || {
        script(python, "auth.py")
            .arg(format!("http://{}", endpoints["ec2_listen"].as_str().unwrap()))
            .arg("local-1")
            .arg(credentials)
            .output()
            .unwrap()
    });
    let output = output.await.unwrap();
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && said.contains("FIGURE"),
        "{said}{errors}{}",
        hearthd.log()
    );
    println!("{said}");
}
