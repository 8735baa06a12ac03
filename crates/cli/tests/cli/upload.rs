//! `upload-image`.

use std::os::unix::fs::FileExt as _;

use crate::fake::Fake;

#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_disk_arrives_whole_and_travels_light() {
    let fake = Fake::start().await;
    let path = fake.home.path().join("disk.raw");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(256 << 20).unwrap();
    file.write_all_at(b"boot", 0).unwrap();
    file.write_all_at(&[7; 5000], 100 << 20).unwrap();

    let id = fake
        .ok(&[
            "upload-image",
            "--name",
            "tiny",
            "--disk-image",
            path.to_str().unwrap(),
            "--boot-mode",
            "uefi",
            "--query",
            "ImageId",
            "--output",
            "text",
        ])
        .await;
    assert_eq!(id, "ami-0123456789abcdef0\n");
    assert!(fake.script.asked.lock().unwrap()[0].contains("boot_mode: \"uefi\""));
    assert!(*fake.script.disk.lock().unwrap() == std::fs::read(&path).unwrap());
    assert!(*fake.script.travelled.lock().unwrap() <= 3 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_refusal_is_told() {
    let fake = Fake::start().await;
    let path = fake.home.path().join("disk.raw");
    std::fs::write(&path, vec![1; 32 << 20]).unwrap();
    let output = fake
        .run(&[
            "upload-image",
            "--name",
            "taken",
            "--disk-image",
            path.to_str().unwrap(),
        ])
        .await;
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(254), "{errors}");
    assert!(
        errors.starts_with("An error occurred (InvalidAMIName.Duplicate) when calling the UploadImage"),
        "{errors}"
    );
}
