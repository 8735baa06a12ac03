//! A key for a minute: a guest finds it in its metadata, and no longer than that.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use hearth_api::client::Client;
use hearth_api::v1;
use hearth_tests::{Cloud, can_run};

const NAME: &str = "a_guest_finds_a_key_for_a_minute";
/// As AuthorizedKeysCommand would ask, by version 1 of the metadata service.
const KEYS: &str =
    "wget -q -O - http://169.254.169.254/latest/meta-data/managed-ssh-keys/active-keys/ec2-user/";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIKjMqaGKhlzQFs9PgmqZdYzqnTJKRAEPpwgHTvUT0Yp";

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_finds_a_key_for_a_minute() {
    if !can_run(NAME) {
        return;
    }
    let cloud = Cloud::start().await.unwrap();
    let mut client = Client::connect(&cloud.endpoint()).await.unwrap();
    let id = cloud.launch(|_| {}).await.unwrap();
    let guest = cloud.guest(&id).await.unwrap();
    assert!(!guest.try_ssh(KEYS).await.unwrap().status.success());
    let request = v1::SendSshPublicKeyRequest {
        instance_id: id,
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
