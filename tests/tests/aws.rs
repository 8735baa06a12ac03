//! AWS's own command line, and ours.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use hearth_tests::simulated::{Behaviour, Fleet, Hearthd};
use hearth_tests::{binary, skipped, upload_image};

/// The cloud's region, and what its zones begin with.
const REGION: &str = "us-east-1";

#[tokio::test(flavor = "multi_thread")]
async fn aws_and_hearth_say_the_same() {
    let test = "aws_and_hearth_say_the_same";
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
    let arguments = [
        "--ec2-listen",
        "127.0.0.1:0",
        "--region",
        REGION,
        "--zones",
        "us-east-1a",
    ];
    let hearthd = Hearthd::start(&binary("hearthd").unwrap(), dir.path(), &arguments)
        .await
        .unwrap();
    let client = hearthd.client().await.unwrap();
    let disk = std::fs::read(disk).unwrap();
    let image = upload_image(client.image_disks.clone(), "tiny", &disk)
        .await
        .unwrap();
    let zones = ["us-east-1a".to_owned()];
    let _fleet = Fleet::join(&client, dir.path(), 1, &zones, Behaviour::default())
        .await
        .unwrap();
    let said = std::fs::read(hearthd.data_dir().join("endpoints.json")).unwrap();
    let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
    let mut tour = Command::new(python);
    tour.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/tour.py"))
        .arg(format!("http://{}", said["ec2_listen"].as_str().unwrap()))
        .arg(REGION)
        .arg(hearthd.data_dir().join("credentials"))
        .arg(dir.path().join("api.sock"))
        .arg(binary("hearth").unwrap())
        .arg(image);
    let output = tokio::task::spawn_blocking(move || tour.output())
        .await
        .unwrap()
        .unwrap();
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    println!("{said}");
    assert!(
        output.status.success() && said.contains("FIGURE"),
        "{said}{errors}"
    );
}
