//! Uploads: what becomes an AMI, and that nothing else stays.

use hearth_api::v1;
use hearth_api::v1::register_image_request::{Chunk, Parameters, Part};

use crate::support::{Hearthd, code, disk, register};

#[tokio::test]
async fn what_is_no_bootable_disk_leaves_nothing() {
    let hearthd = Hearthd::start();
    let client = hearthd.client().await;
    let noise: Vec<u8> = (0..1u32 << 20)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut qcow2 = vec![0u8; 1 << 20];
    qcow2[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    for (name, bytes) in [("noise", noise), ("a qcow2", qcow2), ("zeros", vec![0; 1 << 20])] {
        let status = register(&client, name, &bytes).await.unwrap_err();
        assert_eq!(code(&status), "InvalidParameterValue", "{status:?}");
        assert!(status.message().contains("cannot become an AMI"));
    }
    for (name, size, expected) in [
        ("x", 1, "InvalidAMIName.Malformed"),
        ("none", 0, "InvalidParameterValue"),
        ("huge", i64::MAX, "InvalidParameterValue"),
    ] {
        let parameters = Parameters {
            name: name.into(),
            size,
            ..Parameters::default()
        };
        let parts = vec![part(Part::Parameters(parameters))];
        let status = client
            .clone()
            .images
            .register_image(tokio_stream::iter(parts))
            .await
            .unwrap_err();
        assert_eq!(code(&status), expected, "{name}: {status:?}");
    }
    assert!(hearthd.images().is_empty());
}

#[tokio::test]
async fn names_are_unique_and_digests_are_of_the_disk() {
    let hearthd = Hearthd::start();
    let Some(bytes) = disk(hearthd.dir.path()) else {
        return;
    };
    let client = hearthd.client().await;
    let id = register(&client, "tiny", &bytes).await.unwrap();
    let status = register(&client, "tiny", &bytes).await.unwrap_err();
    assert_eq!(code(&status), "InvalidAMIName.Duplicate");
    assert_eq!(hearthd.images(), [format!("{id}.raw")]);
    let kept = std::fs::read(hearthd.data().join("images").join(format!("{id}.raw"))).unwrap();
    assert!(kept == bytes);
    let told = client
        .clone()
        .images
        .describe_images(v1::DescribeImagesRequest::default())
        .await
        .unwrap();
    let image = &told.into_inner().images[0];
    assert_eq!(
        (image.state.as_str(), image.size),
        ("available", bytes.len() as i64)
    );
    assert!(image.kernel_path.ends_with("/vmlinuz"), "{}", image.kernel_path);
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let mut hearthd = Hearthd::start();
    let client = hearthd.client().await;
    let upload = || {
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let mut images = client.clone().images;
        let call = tokio::spawn(async move {
            let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
            images.register_image(stream).await.map(|_| ())
        });
        (sender, call)
    };
    let begin = |name: &str| {
        let parameters = Parameters {
            name: name.into(),
            size: 8 << 20,
            ..Parameters::default()
        };
        let chunk = Chunk {
            offset: 0,
            data: vec![1; 1 << 20].into(),
        };
        [part(Part::Parameters(parameters)), part(Part::Chunk(chunk))]
    };
    // The client goes away.
    let (sender, call) = upload();
    for part in begin("gone") {
        sender.send(part).await.unwrap();
    }
    until(|| hearthd.images().len() == 1).await;
    call.abort();
    drop(sender);
    until(|| hearthd.images().is_empty()).await;
    // `hearthd` goes away; its next start sweeps.
    let (sender, _call) = upload();
    for part in begin("killed") {
        sender.send(part).await.unwrap();
    }
    until(|| hearthd.images().len() == 1).await;
    hearthd.kill();
    std::fs::write(
        hearthd.data().join("images/ami-00000000000000001.raw"),
        "renamed, and no row",
    )
    .unwrap();
    std::fs::write(hearthd.data().join("images/notes.txt"), "somebody's").unwrap();
    hearthd.spawn();
    assert_eq!(hearthd.images(), ["notes.txt"]);
}

fn part(part: Part) -> v1::RegisterImageRequest {
    v1::RegisterImageRequest { part: Some(part) }
}

async fn until(done: impl Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !done() {
        assert!(begin.elapsed() < crate::support::SOON, "it does not happen");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
