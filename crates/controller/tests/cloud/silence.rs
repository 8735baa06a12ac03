//! The life of a host: drained, resumed, lost, found, forgotten while it is away; and what its instances show of that.

use std::time::{Duration, Instant};

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::v1;

use crate::support::{Cloud, SOON, code, name, seen};

async fn host(cloud: &Cloud) -> v1::Host {
    let mut client = cloud.client.clone();
    let answer = client.hosts.list_hosts(v1::ListHostsRequest {}).await.unwrap();
    answer.into_inner().hosts.remove(0)
}

async fn until_host(cloud: &Cloud, what: &str, is: impl Fn(&v1::Host) -> bool) -> v1::Host {
    let begin = Instant::now();
    loop {
        let host = host(cloud).await;
        if is(&host) {
            return host;
        }
        assert!(begin.elapsed() < SOON, "not {what}: {host:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// System and instance status, and that of the reachability.
async fn status(cloud: &Cloud, id: &str) -> [String; 3] {
    let request = v1::DescribeInstanceStatusRequest {
        instance_ids: vec![id.into()],
        include_all_instances: true,
        ..Default::default()
    };
    let answer = cloud
        .client
        .clone()
        .instances
        .describe_instance_status(request)
        .await;
    let status = answer.unwrap().into_inner().instance_statuses.remove(0);
    let (system, instance) = (status.system_status.unwrap(), status.instance_status.unwrap());
    let detail = system.details.first().map(|detail| {
        assert_eq!(detail.impaired_since.is_some(), detail.status == "failed");
        detail.status.clone()
    });
    [system.status, instance.status, detail.unwrap_or_default()]
}

async fn drain(cloud: &Cloud, stop_instances: bool) -> v1::DrainHostResponse {
    let request = v1::DrainHostRequest {
        host_id: cloud.host.id.clone(),
        stop_instances,
        dry_run: false,
    };
    let answer = cloud.client.clone().hosts.drain_host(request).await;
    answer.unwrap().into_inner()
}

async fn start(cloud: &Cloud, id: &str) -> Result<(), tonic::Status> {
    let request = v1::StartInstancesRequest {
        instance_ids: vec![id.into()],
        dry_run: false,
    };
    cloud
        .client
        .clone()
        .instances
        .start_instances(request)
        .await
        .map(drop)
}

async fn terminate(cloud: &Cloud, id: &str) {
    let request = v1::TerminateInstancesRequest {
        instance_ids: vec![id.into()],
        dry_run: false,
    };
    cloud
        .client
        .clone()
        .instances
        .terminate_instances(request)
        .await
        .unwrap();
}

async fn forget(cloud: &Cloud) -> Result<v1::ForgetHostResponse, tonic::Status> {
    let request = v1::ForgetHostRequest {
        host_id: cloud.host.id.clone(),
        ..Default::default()
    };
    let answer = cloud.client.clone().hosts.forget_host(request).await?;
    Ok(answer.into_inner())
}

#[tokio::test]
async fn a_drained_host_gets_nothing_new_and_stops_what_runs_until_it_is_resumed() {
    let Some(cloud) = Cloud::start().await else { return };
    assert_eq!(host(&cloud).await.state, "pending");
    cloud.connect().await.obey();
    let id = cloud.run(cloud.request(1)).await.unwrap().instances[0]
        .instance_id
        .clone();
    cloud.until(&id, "running").await;

    assert_eq!(drain(&cloud, false).await.instance_ids, [id.as_str()]);
    assert_eq!(host(&cloud).await.drain_state, "draining");
    let refused = cloud.run(cloud.request(1)).await.unwrap_err();
    assert_eq!(code(&refused), "InsufficientInstanceCapacity");
    let way_out = format!("hearth resume-host --host-id {}", cloud.host.id);
    assert!(refused.message().contains(&way_out), "{refused:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        name(&cloud.instance(&id).await),
        "running",
        "nobody asked for a stop"
    );

    drain(&cloud, true).await;
    let stopped = cloud.until(&id, "stopped").await;
    assert_eq!(stopped.state_reason.unwrap().code, "Server.ScheduledStop");
    until_host(&cloud, "drained", |host| host.drain_state == "drained").await;
    let refused = start(&cloud, &id).await.unwrap_err();
    assert!(refused.message().contains(&way_out), "{refused:?}");

    let request = v1::ResumeHostRequest {
        host_id: cloud.host.id.clone(),
        dry_run: false,
    };
    cloud.client.clone().hosts.resume_host(request).await.unwrap();
    assert_eq!(host(&cloud).await.drain_state, "");
    assert_eq!(name(&cloud.instance(&id).await), "stopped");
    start(&cloud, &id).await.unwrap();
    cloud.until(&id, "running").await;
}

#[tokio::test]
async fn a_silent_host_is_unknown_its_instances_are_impaired_and_never_stopped() {
    let Some(mut cloud) = Cloud::with(&["--host-silence-seconds", "3"]).await else {
        return;
    };
    let session = cloud.connect().await.obey();
    let id = cloud.run(cloud.request(1)).await.unwrap().instances[0]
        .instance_id
        .clone();
    cloud.until(&id, "running").await;
    assert_eq!(status(&cloud, &id).await, ["ok", "ok", "passed"]);

    session.abort();
    let begin = Instant::now();
    until_host(&cloud, "disconnected", |host| host.state == "disconnected").await;
    assert_eq!(status(&cloud, &id).await[0], "insufficient-data");
    let lost = until_host(&cloud, "unknown", |host| host.state == "unknown").await;
    eprintln!("unknown {:?} after its session's end", begin.elapsed());
    assert!(begin.elapsed() >= Duration::from_secs(3) && lost.silent_time.is_some());
    assert_eq!(status(&cloud, &id).await, ["impaired", "impaired", "failed"]);
    assert_eq!(name(&cloud.instance(&id).await), "running");

    // hearthd's restart does not make it known again, nor does it lose hosts at once that it has not yet waited for.
    cloud.hearthd.kill();
    cloud.hearthd.spawn();
    cloud.client = cloud.hearthd.client().await;
    assert_eq!(host(&cloud).await.state, "unknown");
    let mut session = cloud.connect().await;
    // An agent that has lost its data must not begin with an empty volume.
    let intents = session.intents().await;
    assert!(intents.instances[0].volumes[0].has_run);
    session.obey();
    until_host(&cloud, "connected", |host| host.state == "connected").await;
    assert_eq!(status(&cloud, &id).await, ["ok", "ok", "passed"]);
    assert_eq!(name(&cloud.instance(&id).await), "running");
    // Found: the next silence is a new one.
    while !cloud.hearthd.log().contains("a host that was lost is back") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // It is said before it is durable. What is changed after it is durable after it.
    let tag = v1::CreateTagsRequest {
        resources: vec![id],
        tags: vec![v1::Tag {
            key: "found".into(),
            value: String::new(),
        }],
        dry_run: false,
    };
    cloud.client.clone().tags.create_tags(tag).await.unwrap();
    cloud.hearthd.kill();
    cloud.hearthd.spawn();
    cloud.client = cloud.hearthd.client().await;
    assert_eq!(host(&cloud).await.state, "disconnected");
}

#[tokio::test]
async fn a_termination_on_a_lost_host_ends_when_the_host_is_forgotten() {
    let Some(cloud) = Cloud::with(&["--host-silence-seconds", "1"]).await else {
        return;
    };
    let session = cloud.connect().await.obey();
    let id = cloud.run(cloud.request(1)).await.unwrap().instances[0]
        .instance_id
        .clone();
    cloud.until(&id, "running").await;
    session.abort();
    until_host(&cloud, "unknown", |host| host.state == "unknown").await;
    assert_eq!(code(&forget(&cloud).await.unwrap_err()), "DependencyViolation");
    terminate(&cloud, &id).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(name(&cloud.instance(&id).await), "shutting-down");
    assert_eq!(
        forget(&cloud).await.unwrap().terminated_instance_ids,
        [id.as_str()]
    );
    assert_eq!(name(&cloud.instance(&id).await), "terminated");
    // The host comes back, and is told to end what it runs.
    let refused = cloud
        .host
        .try_connect(&cloud.hearthd)
        .await
        .map(drop)
        .unwrap_err();
    assert!(hearth_api::fence::is_forgotten(&refused), "{refused:?}");
}

#[tokio::test]
async fn no_transitional_state_is_for_ever() {
    let limits = ["--pending-seconds", "2", "--ending-seconds", "2"];
    let Some(cloud) = Cloud::with(&limits).await else {
        return;
    };
    let mut session = cloud.connect().await;
    // Nothing comes of the launch: it is terminated.
    let launch = cloud.run(cloud.request(1)).await.unwrap().instances[0]
        .instance_id
        .clone();
    let given_up = cloud.until(&launch, "shutting-down").await;
    let reason = given_up.state_reason.unwrap();
    assert_eq!(reason.code, "Server.InternalError");
    assert!(reason.message.contains("did not run within"), "{reason:?}");
    let ends = |intents: &hearth_api::agent::Intents| {
        let intent = intents.instances.first();
        intent.is_some_and(|intent| intent.desired() == Desired::Terminated && intent.force)
    };
    let intents = session.intents_when(ends).await;
    session
        .observe(vec![seen(&intents.instances[0], Phase::Gone)])
        .await;
    cloud.until(&launch, "terminated").await;

    // A guest does not end: after a while it is not asked any longer.
    let id = cloud.run(cloud.request(1)).await.unwrap().instances[0]
        .instance_id
        .clone();
    let has = |intents: &hearth_api::agent::Intents| intents.instances.iter().any(|i| i.instance_id == id);
    let intents = session.intents_when(has).await;
    session
        .observe(vec![seen(&intents.instances[0], Phase::Running)])
        .await;
    cloud.until(&id, "running").await;
    let stop = v1::StopInstancesRequest {
        instance_ids: vec![id.clone()],
        ..Default::default()
    };
    cloud.client.clone().instances.stop_instances(stop).await.unwrap();
    let begin = Instant::now();
    let intents = session.intents_when(|intents| intents.instances[0].force).await;
    assert_eq!(intents.instances[0].desired(), Desired::Stopped);
    assert!(begin.elapsed() > Duration::from_secs(1), "{:?}", begin.elapsed());
    // Only the host's word makes it stopped.
    assert_eq!(name(&cloud.instance(&id).await), "stopping");
}
