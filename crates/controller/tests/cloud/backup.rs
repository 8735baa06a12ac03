//! `hearthd backup` of a running cloud, and `hearthd restore` after its data directory is lost.

use std::path::Path;
use std::process::{Command, Output};

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::{FetchImageRequest, InstanceIntent};
use hearth_api::v1;

use crate::support::{Cloud, ZONE, enroll, name, seen};

fn hearthd(command: &str, data: &Path, directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hearthd"))
        .arg(command)
        .arg("--data-dir")
        .arg(data)
        .arg(directory)
        .output()
        .unwrap()
}

fn done(output: &Output) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

async fn run_one(cloud: &Cloud) -> String {
    let reservation = cloud.run(cloud.request(1)).await.unwrap();
    reservation.instances[0].instance_id.clone()
}

#[tokio::test]
async fn a_restored_cloud_is_as_it_was_and_its_host_listens_to_it() {
    let Some(mut cloud) = Cloud::start().await else {
        return;
    };
    let mut session = cloud.connect().await;
    let kept = run_one(&cloud).await;
    let intents = session.intents_when(|i| i.instances.len() == 1).await;
    let first = intents.instances[0].clone();
    session.observe(vec![seen(&first, Phase::Running)]).await;
    let before = cloud.until(&kept, "running").await;
    let open_token = cloud.hearthd.join_token();

    let backup = cloud.hearthd.dir.path().join("backup");
    let data = cloud.hearthd.data();
    done(&hearthd("backup", &data, &backup));
    let again = hearthd("backup", &data, &backup);
    assert!(!again.status.success(), "a backup was overwritten");
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not empty"));

    // After the backup: many transactions, another instance, and the loss of everything.
    for value in 0..20 {
        let request = v1::CreateTagsRequest {
            resources: vec![kept.clone()],
            tags: vec![v1::Tag {
                key: "after".into(),
                value: value.to_string(),
            }],
            dry_run: false,
        };
        cloud.client.clone().tags.create_tags(request).await.unwrap();
    }
    let lost = run_one(&cloud).await;
    let newest = session.intents_when(|i| i.instances.len() == 2).await;
    let other: InstanceIntent = newest
        .instances
        .iter()
        .find(|intent| intent.instance_id == lost)
        .unwrap()
        .clone();
    cloud.hearthd.kill();
    drop(session);
    let refused = hearthd("restore", &data, &backup);
    assert!(!refused.status.success(), "a data directory was overwritten");
    std::fs::remove_dir_all(&data).unwrap();
    done(&hearthd("restore", &data, &backup));
    cloud.hearthd.spawn();
    cloud.client = cloud.hearthd.client().await;

    // The host's certificate is accepted, and its intents are of another epoch: an agent takes them although they are
    // older than what it has heard.
    let mut session = cloud.connect().await;
    let intents = session.intents().await;
    assert_ne!(intents.epoch, newest.epoch);
    assert!(intents.sequence < newest.sequence);
    assert_eq!(intents.instances.len(), 1);
    // It was pending then, and has run when the backup was made.
    let mut known = first.clone();
    known.volumes[0].has_run = true;
    assert_eq!(intents.instances[0], known);
    // What it reports of an instance that was launched since changes nothing.
    session
        .observe(vec![seen(&first, Phase::Running), seen(&other, Phase::Running)])
        .await;
    assert_eq!(cloud.all().await, vec![before]);

    // The image is there.
    let mut plane = cloud.hearthd.control_plane(Some(cloud.host.identity())).await;
    let fetch = FetchImageRequest {
        image_id: cloud.image_id.clone(),
        first_chunk: 0,
    };
    let mut chunks = plane.fetch_image(fetch).await.unwrap().into_inner();
    assert!(chunks.message().await.unwrap().is_some());
    // A token that may have been used since is not.
    assert!(enroll(&cloud.hearthd, &open_token.secret, ZONE).await.is_err());

    // It goes on as before.
    let request = v1::StopInstancesRequest {
        instance_ids: vec![kept.clone()],
        ..Default::default()
    };
    cloud
        .client
        .clone()
        .instances
        .stop_instances(request)
        .await
        .unwrap();
    session
        .intents_when(|i| i.instances[0].desired() == Desired::Stopped)
        .await;
    assert_eq!(name(&cloud.instance(&kept).await), "stopping");
}

#[tokio::test]
async fn a_restore_that_was_cut_short_is_no_cloud_and_is_done_again() {
    let Some(mut cloud) = Cloud::start().await else {
        return;
    };
    let session = cloud.connect().await;
    let kept = run_one(&cloud).await;
    drop(session);
    let (backup, data) = (cloud.hearthd.dir.path().join("backup"), cloud.hearthd.data());
    done(&hearthd("backup", &data, &backup));
    let names = |dir: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&backup), ["hearth.db", "pki", "repository", "seal.key"]);
    cloud.hearthd.kill();
    std::fs::remove_dir_all(&data).unwrap();

    // What `restore` has done when it is killed while it copies images.
    std::fs::create_dir_all(data.join("repository/snapshots")).unwrap();
    std::fs::create_dir_all(data.join("pki")).unwrap();
    std::fs::copy(backup.join("hearth.db"), data.join("restoring.db")).unwrap();
    std::fs::write(data.join("repository/snapshots/snap-0"), "half a sn").unwrap();
    let left = names(&data);
    for arguments in [&["--socket", "api.sock"][..], &["join-token", "--list"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_hearthd"))
            .args(arguments)
            .arg("--data-dir")
            .arg(&data)
            .current_dir(cloud.hearthd.dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?} goes on");
        assert!(
            said.contains("`hearthd restore` was cut short: run it again"),
            "{said}"
        );
        assert_eq!(names(&data), left);
    }
    done(&hearthd("restore", &data, &backup));
    assert!(!data.join("repository/snapshots/snap-0").exists());
    cloud.hearthd.spawn();
    cloud.client = cloud.hearthd.client().await;
    assert_eq!(cloud.all().await[0].instance_id, kept);

    // A backup that was cut short is none.
    std::fs::rename(backup.join("hearth.db"), backup.join("backing-up.db")).unwrap();
    let refused = hearthd("restore", &cloud.hearthd.dir.path().join("other"), &backup);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("there is no backup in"));
}

#[test]
fn a_backup_of_postgresql_says_what_to_use_and_shows_no_password() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hearthd"))
        .args(["backup", "--data-dir"])
        .arg(dir.path())
        .arg(dir.path().join("backup"))
        .env("HEARTH_DATABASE", "postgres://hearth:hunter2@db.example/hearth")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("pg_dump"), "{said}");
    assert!(
        said.contains("db.example/hearth") && !said.contains("hunter2"),
        "{said}"
    );
}
