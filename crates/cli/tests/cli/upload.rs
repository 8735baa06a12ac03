//! `upload-image`.

use std::os::unix::fs::FileExt as _;

use hearth_api::v1::GetImageUploadResponse;

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

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_where_it_was_cut_off_if_the_file_is_the_same() {
    let fake = Fake::start().await;
    let path = fake.home.path().join("disk.raw");
    let mut bytes = vec![3; 8 << 20];
    bytes[0] = 1;
    std::fs::write(&path, &bytes).unwrap();
    let received = (5 << 20) + 4096;
    let file = std::fs::File::open(&path).unwrap();
    let digest = hearth_image::disk_digest(&file, received).unwrap();
    let upload = [
        "upload-image",
        "--name",
        "cut",
        "--disk-image",
        path.to_str().unwrap(),
    ];
    for (digest, begin) in [(digest.as_str(), received), ("another", 0)] {
        *fake.script.kept.lock().unwrap() = GetImageUploadResponse {
            received_bytes: received.cast_signed(),
            digest: digest.to_owned(),
        };
        *fake.script.travelled.lock().unwrap() = 0;
        fake.ok(&upload).await;
        let asked = fake.asked().pop().unwrap();
        assert!(asked.contains(&format!("resume_at: {begin}")), "{asked}");
        let begin = usize::try_from(begin).unwrap();
        assert_eq!(*fake.script.travelled.lock().unwrap(), bytes.len() - begin);
        assert!(fake.script.disk.lock().unwrap()[begin..] == bytes[begin..]);
    }
}
