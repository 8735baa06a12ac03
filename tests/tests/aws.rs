//! AWS's own command line, and ours; Terraform; libcloud.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use hearth_tests::simulated::{Behaviour, Fleet, Hearthd};
use hearth_tests::{binary, skipped, upload_image};

/// The cloud's region, and what its zones begin with. Strangers know no others than AWS's.
const REGION: &str = "us-east-1";

/// Runs a client on a cloud of one simulated host: a script, the arguments that all of them have, those of its own after the
/// directory of the cloud, and the AMI.
async fn run(test: &str, script: &str, own: impl FnOnce(&Path) -> Vec<String>) {
    let (Some(python), Some(disk)) = (
        std::env::var_os("HEARTH_PYTHON"),
        std::env::var_os("HEARTH_TINY_AMI"),
    ) else {
        return skipped(
            test,
            "HEARTH_PYTHON and HEARTH_TINY_AMI are not set (scripts/test sets them)",
        );
    };
    let dir = tempfile::tempdir().unwrap();
    let zone = format!("{REGION}a");
    let arguments = [
        "--ec2-listen",
        "127.0.0.1:0",
        "--region",
        REGION,
        "--zones",
        &zone,
    ];
    let hearthd = Hearthd::start(&binary("hearthd").unwrap(), dir.path(), &arguments)
        .await
        .unwrap();
    let client = hearthd.client().await.unwrap();
    let disk = std::fs::read(disk).unwrap();
    let image = upload_image(client.image_disks.clone(), "tiny", &disk)
        .await
        .unwrap();
    let _fleet = Fleet::join(&client, dir.path(), 1, &[zone], Behaviour::default())
        .await
        .unwrap();
    let said = std::fs::read(hearthd.data_dir().join("endpoints.json")).unwrap();
    let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
    let mut client = Command::new(python);
    client
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script))
        .arg(format!("http://{}", said["ec2_listen"].as_str().unwrap()))
        .arg(REGION)
        .arg(hearthd.data_dir().join("credentials"))
        .args(own(dir.path()))
        .arg(image);
    let output = tokio::task::spawn_blocking(move || client.output()).await;
    let output = output.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert!(
        output.status.success() && said.contains("FIGURE"),
        "{said}{errors}{}",
        hearthd.log_tail()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_and_hearth_say_the_same() {
    let own = |dir: &Path| {
        let hearth = binary("hearth").unwrap();
        vec![
            dir.join("api.sock").display().to_string(),
            hearth.display().to_string(),
        ]
    };
    run("aws_and_hearth_say_the_same", "tour.py", own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_hearth_and_grpc_call_from_afar() {
    let own = |dir: &Path| {
        let hearth = binary("hearth").unwrap();
        vec![
            dir.join("ca.pem").display().to_string(),
            hearth.display().to_string(),
        ]
    };
    run("aws_hearth_and_grpc_call_from_afar", "afar.py", own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terraform_sees_no_changes_in_what_it_has_made() {
    let own = |dir: &Path| {
        let dir = dir.join("terraform");
        std::fs::create_dir(&dir).unwrap();
        vec![dir.display().to_string()]
    };
    run(
        "terraform_sees_no_changes_in_what_it_has_made",
        "terraform.py",
        own,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn libcloud_signs_by_version_2() {
    run("libcloud_signs_by_version_2", "nodes.py", |_| Vec::new()).await;
}
