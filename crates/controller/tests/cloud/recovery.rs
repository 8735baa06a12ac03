//! Automatic recovery: what users say about it, and see of it.

use hearth_api::agent::InstanceObservation;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::run_end::Cause;
use hearth_api::v1;

use crate::support::{Cloud, code, ended, seen};

async fn modify(
    cloud: &Cloud,
    id: &str,
    auto_recovery: &str,
) -> Result<v1::ModifyInstanceMaintenanceOptionsResult, tonic::Status> {
    let request = v1::ModifyInstanceMaintenanceOptionsRequest {
        instance_id: id.into(),
        auto_recovery: auto_recovery.into(),
        dry_run: false,
    };
    let mut instances = cloud.client.clone().instances;
    Ok(instances
        .modify_instance_maintenance_options(request)
        .await?
        .into_inner())
}

fn told(instance: &v1::Instance) -> &str {
    &instance.maintenance_options.as_ref().unwrap().auto_recovery
}

#[tokio::test]
async fn maintenance_options_are_told_changed_and_obeyed() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut session = cloud.connect().await;
    let mut request = cloud.request(1);
    request.maintenance_options = Some(v1::InstanceMaintenanceOptions {
        auto_recovery: "disabled".into(),
    });
    let id = cloud.run(request).await.unwrap().instances[0].instance_id.clone();
    assert_eq!(told(&cloud.instance(&id).await), "disabled");
    session
        .intents_when(|i| i.instances.len() == 1 && i.instances[0].auto_recovery_disabled)
        .await;
    assert_eq!(
        modify(&cloud, &id, "default").await.unwrap().auto_recovery,
        "default"
    );
    session
        .intents_when(|i| !i.instances[0].auto_recovery_disabled)
        .await;
    assert_eq!(told(&cloud.instance(&id).await), "default");

    let plain = cloud.run(cloud.request(1)).await.unwrap();
    assert_eq!(told(&plain.instances[0]), "default");
    let filter = v1::Filter {
        name: "maintenance-options.auto-recovery".into(),
        values: vec!["disabled".into()],
    };
    modify(&cloud, &id, "disabled").await.unwrap();
    let request = v1::DescribeInstancesRequest {
        filters: vec![filter],
        ..Default::default()
    };
    let mut instances = cloud.client.clone().instances;
    let found = instances.describe_instances(request).await.unwrap();
    let found = found.into_inner().reservations;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].instances[0].instance_id, id);

    let refused = |id: &'static str, value: &'static str| {
        let cloud = &cloud;
        async move { code(&modify(cloud, id, value).await.unwrap_err()) }
    };
    let unknown = "i-00000000000000000";
    assert_eq!(refused(unknown, "default").await, "InvalidInstanceID.NotFound");
    assert_eq!(refused(unknown, "").await, "MissingParameter");
    assert_eq!(refused(unknown, "enabled").await, "InvalidParameterValue");
    assert_eq!(refused("i-?", "default").await, "InvalidInstanceID.Malformed");
}

#[tokio::test]
async fn a_recovered_instance_keeps_its_state_and_watchers_hear_of_it() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut session = cloud.connect().await;
    let id = cloud.run(cloud.request(1)).await.unwrap().instances[0]
        .instance_id
        .clone();
    let intent = session.intents_when(|i| !i.instances.is_empty()).await.instances[0].clone();
    session.observe(vec![seen(&intent, Phase::Running)]).await;
    let running = cloud.until(&id, "running").await;
    let mut watch = cloud
        .client
        .clone()
        .watch
        .watch_instances(v1::WatchInstancesRequest {
            instance_ids: vec![id.clone()],
        })
        .await
        .unwrap()
        .into_inner();
    watch.message().await.unwrap().unwrap();

    session
        .observe(vec![InstanceObservation {
            recoveries: 1,
            ..seen(&intent, Phase::Running)
        }])
        .await;
    let again = tokio::time::timeout(std::time::Duration::from_secs(30), watch.message());
    let again = again.await.unwrap().unwrap().unwrap();
    assert_eq!(
        again, running,
        "recovery changes nothing that users see of an instance"
    );

    // The host restarts once more, and the instance is not to be started again.
    session.observe(vec![ended(&intent, Cause::HostRebooted)]).await;
    let stopped = cloud.until(&id, "stopped").await;
    let reason = stopped.state_reason.unwrap();
    assert_eq!(reason.code, "Server.InternalError");
    assert_eq!(
        reason.message,
        "Server.InternalError: The instance's host restarted: as the test said"
    );
    // A stopped instance has options too.
    modify(&cloud, &id, "disabled").await.unwrap();
}
