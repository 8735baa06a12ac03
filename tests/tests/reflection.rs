//! A stranger's gRPC client, by reflection alone.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use hearth_tests::{Cloud, can_run, skipped};

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_runs_and_terminates_an_instance() {
    let test = "a_python_client_runs_and_terminates_an_instance";
    if !can_run(test) {
        return;
    }
    let Some(python) = std::env::var_os("HEARTH_PYTHON") else {
        return skipped(test, "HEARTH_PYTHON is not set (scripts/test sets it)");
    };
    let cloud = Cloud::start().await.unwrap();
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/reflection.py"))
        .arg(cloud.endpoint())
        .arg(&cloud.image_id)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        said.contains("launched: i-") && said.contains("terminated: "),
        "{said}"
    );
}
