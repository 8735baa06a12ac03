//! Other people's test suites and tools against a real `hearthd`, with simulated hosts and with guests: `scripts/test
//! --strangers`.
#![allow(clippy::unwrap_used)]

mod clouds;
mod guests;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use hearth_tests::client::run;
use hearth_tests::skipped;
use tokio::process::Command;

use clouds::Template;

/// moto's tests of EC2, each on a cloud of its own. `HEARTH_MOTO` is where moto's source distribution is unpacked,
/// `HEARTH_MOTO_PYTHON` has what it needs, `HEARTH_MOTO_ARGUMENTS` are more arguments of pytest.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "other people's tests take minutes: scripts/test --strangers"]
async fn motos_tests_pass_but_for_the_known_differences() {
    const NAME: &str = "motos_tests_pass_but_for_the_known_differences";
    let (Some(moto), Some(python), Some(disk)) = (
        std::env::var_os("HEARTH_MOTO").map(PathBuf::from),
        std::env::var_os("HEARTH_MOTO_PYTHON"),
        std::env::var_os("HEARTH_TINY_AMI"),
    ) else {
        return skipped(
            NAME,
            "HEARTH_MOTO, HEARTH_MOTO_PYTHON and HEARTH_TINY_AMI are not set (scripts/test --strangers sets them)",
        );
    };
    let disk = std::fs::read(disk).unwrap();
    let template = Arc::new(Template::make(&disk).await.unwrap());
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("clouds.sock");
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let more = std::env::var("HEARTH_MOTO_ARGUMENTS").unwrap_or_default();
    let mut pytest = Command::new(python)
        .args([
            "-m",
            "pytest",
            "-p",
            "strange_moto",
            "-p",
            "no:cacheprovider",
            "-q",
        ])
        .args(more.split_whitespace())
        .current_dir(&moto)
        .env("PYTHONPATH", &clients)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HEARTH_CLOUDS", &socket)
        .env("HEARTH_IMAGES", template.images.join(","))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let status = tokio::select! {
        status = pytest.wait() => status.unwrap(),
        ended = Arc::clone(&template).serve(&socket) => panic!("no more clouds: {ended:?}"),
    };
    assert!(status.success(), "{status}");
}

/// The directory of the cloud has one for a client.
fn directory(cloud: &Path) -> String {
    let own = cloud.join("client");
    std::fs::create_dir(&own).unwrap();
    own.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "Ansible takes minutes: scripts/test --strangers"]
async fn ansible_changes_nothing_the_second_time() {
    const NAME: &str = "ansible_changes_nothing_the_second_time";
    let own = |cloud: &Path| vec![directory(cloud)];
    run(NAME, "HEARTH_ANSIBLE_PYTHON", "playbooks.py", own).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "Packer is not in every environment: scripts/test --strangers"]
async fn packer_builds_an_image_and_leaves_nothing_else() {
    const NAME: &str = "packer_builds_an_image_and_leaves_nothing_else";
    let Ok(packer) = std::env::var("HEARTH_PACKER") else {
        return skipped(
            NAME,
            "HEARTH_PACKER is not set (scripts/test --strangers sets it)",
        );
    };
    let own = |cloud: &Path| vec![packer, directory(cloud), "-".to_owned()];
    run(NAME, "HEARTH_PYTHON", "packer.py", own).await;
}
