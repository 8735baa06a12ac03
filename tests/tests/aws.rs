//! AWS's own command line, and ours; Terraform; libcloud.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use hearth_tests::binary;
use hearth_tests::client::run;

/// Its environment has botocore.
const PYTHON: &str = "HEARTH_PYTHON";

#[tokio::test(flavor = "multi_thread")]
async fn aws_and_hearth_say_the_same() {
    let own = |dir: &Path| {
        let hearth = binary("hearth").unwrap();
        vec![
            dir.join("api.sock").display().to_string(),
            hearth.display().to_string(),
        ]
    };
    run("aws_and_hearth_say_the_same", PYTHON, "tour.py", own).await;
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
    run("aws_hearth_and_grpc_call_from_afar", PYTHON, "afar.py", own).await;
}

async fn terraform(test: &str, plan: &str) {
    let own = |dir: &Path| {
        let dir = dir.join("terraform");
        std::fs::create_dir(&dir).unwrap();
        vec![dir.display().to_string(), plan.to_owned()]
    };
    run(test, PYTHON, "terraform.py", own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terraform_sees_no_changes_in_what_it_has_made() {
    let name = "terraform_sees_no_changes_in_what_it_has_made";
    terraform(name, "instances.tf").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: scripts/test --strangers"]
async fn terraform_sees_no_changes_in_volumes_snapshots_and_images() {
    let name = "terraform_sees_no_changes_in_volumes_snapshots_and_images";
    terraform(name, "storage.tf").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute: scripts/test --strangers"]
async fn terraform_sees_no_changes_in_networks() {
    let name = "terraform_sees_no_changes_in_networks";
    terraform(name, "network.tf").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn libcloud_signs_by_version_2() {
    run("libcloud_signs_by_version_2", PYTHON, "nodes.py", |_| Vec::new()).await;
}
