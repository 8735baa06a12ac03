//! Key files, and ssh command lines.

use std::os::unix::fs::PermissionsExt as _;

use crate::fake::{Fake, INSTANCE};

#[tokio::test(flavor = "multi_thread")]
async fn the_idiom_of_aws_writes_a_key_file() {
    let fake = Fake::start().await;
    let material = fake
        .ok(&[
            "create-key-pair",
            "--key-name",
            "k",
            "--query",
            "KeyMaterial",
            "--output",
            "text",
        ])
        .await;
    assert_eq!(
        material,
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn saved_keys_are_private_and_used_by_ssh() {
    let fake = Fake::start().await;
    let printed = fake
        .ok(&[
            "create-key-pair",
            "--key-name",
            "k",
            "--key-type",
            "ed25519",
            "--save",
        ])
        .await;
    assert!(!printed.contains("PRIVATE"), "{printed}");
    let path = fake.home.path().join("keys/k.pem");
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(
        std::fs::read_to_string(&path)
            .unwrap()
            .ends_with("-----END PRIVATE KEY-----\n")
    );

    let home = fake.home.path().display();
    let expected = format!(
        "ssh -i {home}/keys/k.pem -o IdentitiesOnly=yes -o UserKnownHostsFile={home}/known_hosts \
         -o HostKeyAlias={INSTANCE} -o StrictHostKeyChecking=accept-new -o CheckHostIP=no -l ec2-user 198.18.0.2 'uname -a'\n"
    );
    assert_eq!(
        fake.ok(&["ssh", INSTANCE, "--print", "--", "uname -a"]).await,
        expected
    );
    assert!(
        fake.ok(&["ssh", "root@web", "--print"])
            .await
            .ends_with("-l root 198.18.0.2\n")
    );
    assert!(
        fake.asked()
            .last()
            .unwrap()
            .contains(r#"name: "tag:Name", values: ["web"]"#)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_kept_is_not_made() {
    let fake = Fake::start().await;
    let keys = fake.home.path().join("keys");
    std::fs::create_dir(&keys).unwrap();
    std::fs::write(keys.join("k.pem"), "precious").unwrap();
    for name in ["k", "../k"] {
        let output = fake.run(&["create-key-pair", "--key-name", name, "--save"]).await;
        assert_eq!(output.status.code(), Some(252));
    }
    assert!(fake.asked().is_empty());
    assert_eq!(std::fs::read_to_string(keys.join("k.pem")).unwrap(), "precious");

    let output = fake
        .run(&["create-key-pair", "--key-name", "taken", "--save"])
        .await;
    assert_eq!(output.status.code(), Some(254));
    assert!(!keys.join("taken.pem").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn public_keys_are_imported_as_they_are() {
    let fake = Fake::start().await;
    let path = fake.home.path().join("k.pub");
    std::fs::write(&path, "ssh-ed25519 AAAA me").unwrap();
    let material = format!("fileb://{}", path.display());
    fake.ok(&[
        "import-key-pair",
        "--key-name",
        "k",
        "--public-key-material",
        &material,
    ])
    .await;
    assert!(
        fake.asked()[0].contains("public_key_material: [115, 115, 104, 45"),
        "{:?}",
        fake.asked()
    );
}
