//! Uploads of other formats than raw.

use std::path::Path;
use std::process::Command;

use hearth_api::v1;

use crate::support::{Hearthd, code, disk, register};

/// Runs a tool whose last argument is a file, and answers what it wrote into `out`.
fn made(out: &Path, tool: &str, arguments: &[&str]) -> Vec<u8> {
    let done = Command::new(tool).args(arguments).arg(out).output();
    let done = done.unwrap_or_else(|error| panic!("{tool}: {error}"));
    assert!(
        done.status.success(),
        "{tool}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    std::fs::read(out).unwrap()
}

/// Names of the chunks in the repository, which are their digests.
fn chunks(hearthd: &Hearthd) -> Vec<String> {
    hearthd.objects("chunks")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_disks_become_the_same_ami() {
    let dir = tempfile::tempdir().unwrap();
    let Some(raw) = disk(dir.path()) else { return };
    if Command::new("qemu-img").arg("--version").output().is_err() {
        eprintln!("SKIPPED: a test of hearthd: qemu-img is absent; install qemu-utils");
        return;
    }
    let hearthd = Hearthd::with(&["--image-gib-limit", "1"]);
    let client = hearthd.client().await;
    register(&client, "raw", &raw).await.unwrap();
    let stored = chunks(&hearthd);
    let image = dir.path().join("image");
    let image = image.to_str().unwrap();
    let qcow2 = made(
        &dir.path().join("qcow2"),
        "qemu-img",
        &["convert", "-f", "raw", "-O", "qcow2", "-c", image],
    );
    let mut ids = Vec::new();
    for (name, bytes) in [
        ("qcow2", qcow2.clone()),
        ("gzip", gzip(&raw)),
        ("qcow2 in gzip", gzip(&qcow2)),
    ] {
        ids.push(register(&client, name, &bytes).await.unwrap());
        assert!(chunks(&hearthd) == stored, "{name}: other contents");
    }
    let described = client
        .clone()
        .image_disks
        .describe_image_disks(v1::DescribeImageDisksRequest {
            image_ids: ids,
            ..v1::DescribeImageDisksRequest::default()
        })
        .await
        .unwrap()
        .into_inner();
    for disk in described.image_disks {
        assert_eq!((disk.size, disk.kernel_path.as_str()), (8 << 20, "/boot/vmlinuz"));
    }

    let refused = async |name: &str, bytes: &[u8]| {
        let status = register(&client, name, bytes).await.unwrap_err();
        (code(&status), status.message().to_owned())
    };
    // Twice is no layer that somebody means.
    let (code, why) = refused("twice", &gzip(&gzip(&raw))).await;
    assert!(
        code == "InvalidParameterValue" && why.contains("gunzip"),
        "{code}: {why}"
    );
    let (code, why) = refused("cut off", &gzip(&raw)[..3000]).await;
    assert!(
        code == "InvalidParameterValue" && why.contains("reading the gzip-compressed file"),
        "{code}: {why}"
    );
    let backing = format!("backing_file={image},backing_fmt=raw");
    let overlay = made(
        &dir.path().join("overlay"),
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-o", &backing],
    );
    let (code, why) = refused("overlay", &overlay).await;
    assert!(
        code == "InvalidParameterValue" && why.contains("Flatten it first"),
        "{code}: {why}"
    );
    // 2 GiB of zeros in 2 MiB, and a claim of 8 GiB.
    let zeros = gzip(&vec![0; 64 << 20]).repeat(32);
    let large = dir.path().join("large");
    let created = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(&large)
        .arg("8G")
        .status();
    assert!(created.unwrap().success());
    for (name, bytes) in [("bomb", zeros), ("claim", std::fs::read(&large).unwrap())] {
        let (code, why) = refused(name, &bytes).await;
        assert!(
            code == "InvalidParameterValue" && why.contains("more than may be"),
            "{name}: {code}: {why}"
        );
    }
    assert!(chunks(&hearthd) == stored, "something was kept");
    let uploads = std::fs::read_dir(hearthd.uploads()).unwrap();
    assert_eq!(uploads.count(), 0, "a file was left");
}
