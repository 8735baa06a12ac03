//! What an operator sees of hosts' disks and of the repository, and scrubs.

use std::path::Path;
use std::time::Instant;

use hearth_api::v1;

use crate::support::{Cloud, SOON, code, disk, register};

async fn disks(cloud: &Cloud, of: &[&str]) -> Vec<v1::DiskStorage> {
    let request = v1::ListDiskStorageRequest {
        resource_ids: of.iter().map(|id| (*id).to_owned()).collect(),
        ..Default::default()
    };
    let told = cloud.client.clone().storage.list_disk_storage(request).await;
    told.unwrap().into_inner().disk_storage
}

/// Scrubs, and answers how it went when it has ended.
async fn scrub(cloud: &Cloud, copy: &Path) -> v1::StorageScrub {
    let mut storage = cloud.client.clone().storage;
    let request = v1::ScrubStorageRequest {
        copy: copy.to_str().unwrap().to_owned(),
        dry_run: false,
    };
    let begun = storage.scrub_storage(request).await.unwrap().into_inner();
    assert_eq!(begun.scrub.unwrap().state, "running");
    let begin = Instant::now();
    loop {
        let told = storage.describe_storage(v1::DescribeStorageRequest {}).await;
        let scrub = told.unwrap().into_inner().scrub.unwrap();
        if scrub.state != "running" {
            return scrub;
        }
        assert!(begin.elapsed() < SOON, "{scrub:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn damages(cloud: &Cloud) -> Vec<v1::StorageDamage> {
    let request = v1::ListStorageDamagesRequest::default();
    let told = cloud.client.clone().storage.list_storage_damages(request).await;
    told.unwrap().into_inner().storage_damages
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_all(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// A chunk in a directory.
fn a_chunk(repository: &Path) -> std::path::PathBuf {
    let shelf = std::fs::read_dir(repository.join("chunks")).unwrap().next();
    let chunk = std::fs::read_dir(shelf.unwrap().unwrap().path()).unwrap().next();
    chunk.unwrap().unwrap().path()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_what_lies_where_and_damage_is_found_and_repaired() {
    let Some(cloud) = Cloud::start().await else {
        return;
    };
    // In the repository: two images that are one disk, and one that differs in a chunk.
    let mut bytes = disk(cloud.hearthd.dir.path()).unwrap();
    let twin = register(&cloud.client, "twin", &bytes).await.unwrap();
    let again = register(&cloud.client, "again", &bytes).await.unwrap();
    let last = bytes.len() - 5000;
    bytes[last..last + 64].fill(9);
    let other = register(&cloud.client, "other", &bytes).await.unwrap();
    let told = disks(&cloud, &[&twin, &again, &other]).await;
    assert_eq!(told.len(), 3);
    let of = |id: &str| told.iter().find(|disk| disk.image_ids == [id]).unwrap();
    let (twin_disk, other_disk) = (of(&twin), of(&other));
    assert_eq!(twin_disk.snapshot_ids.len(), 1);
    assert_eq!(twin_disk.size_bytes, bytes.len() as i64);
    assert!(twin_disk.chunk_count > 1 && twin_disk.damage.is_empty());
    // The other one's copy has all of it.
    assert_eq!(
        (twin_disk.freed_bytes, twin_disk.shared_bytes),
        (0, twin_disk.stored_bytes)
    );
    // A chunk, and the nodes that name it.
    assert!(other_disk.freed_bytes > 0);
    assert!(other_disk.shared_bytes < other_disk.stored_bytes);
    // Counted again a minute later at most: the pages are of one count.
    let mut storage = cloud.client.clone().storage;
    let mut request = v1::ListDiskStorageRequest {
        max_results: Some(1),
        ..Default::default()
    };
    let mut names = Vec::new();
    loop {
        let page = storage
            .list_disk_storage(request.clone())
            .await
            .unwrap()
            .into_inner();
        names.extend(page.disk_storage.into_iter().map(|disk| disk.disk_name));
        request.next_token = page.next_token;
        if request.next_token.is_empty() {
            break;
        }
    }
    assert_eq!(names.len(), 4);
    let told = storage.describe_storage(v1::DescribeStorageRequest {}).await;
    let told = told.unwrap().into_inner();
    assert_eq!(told.scrub, None);
    let repository = told.repository.unwrap();
    assert_eq!(repository.disk_count, 4);
    assert!(repository.chunk_references > 3 * repository.chunk_count / 2);
    assert!(repository.stored_bytes < repository.chunk_bytes);
    let place = cloud.hearthd.data().join("repository");
    assert_eq!(Path::new(&repository.place), place);

    // On hosts: one that is not there says nothing; one that is answers for its volumes.
    let hosts = v1::ListHostStorageRequest::default();
    let told = storage
        .list_host_storage(hosts.clone())
        .await
        .unwrap()
        .into_inner()
        .host_storage;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].total_bytes, None);
    assert_eq!(told[0].status_message, "its host is not connected");
    let obeying = cloud.connect().await.obey();
    cloud.until_connected().await;
    let launched = cloud.run(cloud.request(1)).await.unwrap();
    cloud.until(&launched.instances[0].instance_id, "running").await;
    let told = storage
        .list_host_storage(hosts)
        .await
        .unwrap()
        .into_inner()
        .host_storage;
    assert_eq!(
        (told[0].total_bytes, told[0].free_bytes),
        (Some(100 << 30), Some(90 << 30))
    );
    assert_eq!((told[0].overcommit, told[0].volume_count), (Some(2), 1));
    assert_eq!(told[0].instance_store_bytes, Some(1 << 30));
    assert!(told[0].promised_bytes > 0 && told[0].promised_bytes <= told[0].capacity_bytes);
    let volumes = v1::ListVolumeStorageRequest::default();
    let told = storage
        .list_volume_storage(volumes.clone())
        .await
        .unwrap()
        .into_inner();
    let [volume] = told.volume_storage.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(
        (volume.base_id.as_str(), volume.size_bytes),
        (cloud.image_id.as_str(), 1 << 30)
    );
    assert_eq!(
        (volume.allocated_bytes, volume.written_bytes),
        (Some(3 << 20), Some(1 << 20))
    );
    obeying.abort();
    let unknown = v1::ListVolumeStorageRequest {
        volume_ids: vec!["vol-00000000000000000".into()],
        ..volumes
    };
    let status = storage.list_volume_storage(unknown).await.unwrap_err();
    assert_eq!(code(&status), "InvalidVolume.NotFound");

    // Scrubs.
    let whole = scrub(&cloud, Path::new("")).await;
    assert_eq!(
        (whole.state.as_str(), whole.damage_count, whole.progress.as_str()),
        ("completed", 0, "100%")
    );
    assert!(whole.checked_objects > repository.chunk_count);
    let copy = cloud.hearthd.dir.path().join("copy");
    copy_all(&place, &copy);
    let chunk = a_chunk(&place);
    let good = std::fs::read(&chunk).unwrap();
    std::fs::write(&chunk, b"damaged").unwrap();
    let found = scrub(&cloud, Path::new("")).await;
    assert_eq!(
        (found.state.as_str(), found.damage_count, found.repaired_count),
        ("completed", 1, 0)
    );
    let listed = damages(&cloud).await;
    let [damage] = listed.as_slice() else {
        panic!("{listed:?}")
    };
    assert!(place.join(&damage.object) == chunk && !damage.repaired && !damage.reason.is_empty());
    let is_named = |id: &str| damage.resource_ids.iter().any(|named| named == id);
    let images = [&twin, &again, &other, &cloud.image_id];
    assert!(images.into_iter().any(|id| is_named(id)), "{damage:?}");
    assert!(damage.resource_ids.iter().any(|id| id.starts_with("snap-")));
    for (wrong, why) in [
        (place.to_str().unwrap(), "the repository itself"),
        ("/nonexistent", "whole path"),
        ("relative", "whole path"),
        ("s3://", "a bucket has a name"),
    ] {
        let request = v1::ScrubStorageRequest {
            copy: wrong.to_owned(),
            dry_run: false,
        };
        let status = storage.scrub_storage(request).await.unwrap_err();
        assert_eq!(code(&status), "InvalidParameterValue");
        assert!(status.message().contains(why), "{}", status.message());
    }
    let repaired = scrub(&cloud, &copy).await;
    assert_eq!((repaired.damage_count, repaired.repaired_count), (1, 1));
    assert!(damages(&cloud).await[0].repaired);
    assert_eq!(std::fs::read(&chunk).unwrap(), good);
    assert_eq!(scrub(&cloud, Path::new("")).await.damage_count, 0);
}
