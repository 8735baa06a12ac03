//! An agent that finds records of a newer version, after a downgrade.

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::run_end::Cause;
use redb::{Database, ReadableDatabase as _, TableDefinition};

use crate::common::Cloud;

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");

fn stored(cloud: &Cloud, id: &str) -> serde_json::Value {
    let database = Database::open(cloud.data_dir().join("store.redb")).unwrap();
    let transaction = database.begin_read().unwrap();
    let row = transaction.open_table(RECORDS).unwrap().get(id).unwrap().unwrap();
    serde_json::from_slice(row.value()).unwrap()
}

fn store(cloud: &Cloud, id: &str, record: &serde_json::Value) {
    let database = Database::open(cloud.data_dir().join("store.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let bytes = serde_json::to_vec(record).unwrap();
    transaction
        .open_table(RECORDS)
        .unwrap()
        .insert(id, bytes.as_slice())
        .unwrap();
    transaction.commit().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_newer_agent_are_kept_and_reported() {
    let mut cloud = Cloud::new().await;
    cloud.start_agent();
    for id in ["i-ended", "i-foreign", "i-known"] {
        let intent = cloud.intent(id, 64);
        cloud.want(|all| all.push(intent));
    }
    for id in ["i-ended", "i-foreign", "i-known"] {
        cloud.until_phase(id, Phase::Running, 1).await;
    }
    cloud.want(|all| all[0].set_desired(Desired::Stopped));
    cloud.until_phase("i-ended", Phase::Ended, 1).await;
    cloud.kill_agent();

    // A cause that this version does not know, and a phase that it cannot even read.
    let mut record = stored(&cloud, "i-ended");
    record["phase"]["ended"]["cause"] = "host_evacuated".into();
    record["phase"]["ended"]["message"] = "to h-2".into();
    store(&cloud, "i-ended", &record);
    let mut foreign = stored(&cloud, "i-foreign");
    foreign["phase"] = serde_json::json!({ "migrating": { "to": "h-2" } });
    store(&cloud, "i-foreign", &foreign);

    cloud.start_agent();
    let seen = cloud
        .until("i-ended", |seen| {
            seen.end.as_ref().is_some_and(|end| end.message == "to h-2")
        })
        .await;
    assert_eq!(seen.phase(), Phase::Ended);
    assert_eq!(seen.end.unwrap().cause(), Cause::Unspecified);
    cloud.until_phase("i-foreign", Phase::Unknown, 0).await;
    assert!(
        cloud
            .logged()
            .contains("a newer hearth-agent has written its record")
    );
    // The others are served, and what cannot be read is neither ended nor started a second time.
    cloud.want(|all| all[2].set_desired(Desired::Stopped));
    cloud.until_phase("i-known", Phase::Ended, 1).await;
    cloud.want(|all| all[1].run = 2);
    cloud.want(|all| all[0].run = 2);
    cloud.want(|all| all[0].set_desired(Desired::Running));
    cloud.until_phase("i-ended", Phase::Running, 2).await;
    assert_eq!(cloud.living("i-foreign").len(), 1);
    assert_eq!(cloud.spawned("i-foreign").len(), 1);
    cloud.kill_agent();
    assert_eq!(stored(&cloud, "i-foreign"), foreign);
}
