//! AWS's clients: scripts of `clients`, also on a cloud of one simulated host.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::simulated::{Behaviour, Fleet, Hearthd};
use crate::{binary, skipped, upload_image};

/// The cloud's region, and what its zones begin with. Strangers know no others than AWS's.
const REGION: &str = "us-east-1";

/// Runs a client on a cloud: a script of `clients` by the Python that the environment names, with the arguments that all
/// scripts have, those of its own by the directory of the cloud, and the AMI.
///
/// # Panics
/// It fails, or does not say its figure.
pub async fn run(test: &str, python: &str, script: &str, own: impl FnOnce(&Path) -> Vec<String>) {
    let (Some(interpreter), Some(disk)) = (std::env::var_os(python), std::env::var_os("HEARTH_TINY_AMI"))
    else {
        let why = format!("{python} and HEARTH_TINY_AMI are not set (scripts/test sets them)");
        return skipped(test, &why);
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
    let mut client = Command::new(interpreter);
    client
        .arg(file(script))
        .arg(format!("http://{}", said["ec2_listen"].as_str().unwrap()))
        .arg(REGION)
        .arg(hearthd.data_dir().join("credentials"))
        .args(own(dir.path()))
        .arg(image);
    figure(client, || hearthd.log_tail()).await;
}

/// A script of `clients`.
pub fn file(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script)
}

/// Runs the command of a script. Answers what it prints.
///
/// # Panics
/// It fails, or does not say its figure. `log` is told then.
pub async fn figure(mut client: Command, log: impl FnOnce() -> String) -> String {
    client.env("PYTHONDONTWRITEBYTECODE", "1");
    let output = tokio::task::spawn_blocking(move || client.output()).await;
    let output = output.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert!(
        output.status.success() && said.contains("FIGURE"),
        "{said}{errors}{}",
        log()
    );
    said
}
