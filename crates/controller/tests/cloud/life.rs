//! What an instance goes through: commands from one side, observations from the other.

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::run_end::Cause;
use hearth_api::v1;

use crate::support::{Cloud, code, ended, name, seen};

async fn stop(
    cloud: &Cloud,
    ids: &[&str],
    force: bool,
) -> Result<Vec<v1::InstanceStateChange>, tonic::Status> {
    let request = v1::StopInstancesRequest {
        instance_ids: ids.iter().map(ToString::to_string).collect(),
        force,
        dry_run: false,
    };
    Ok(cloud
        .client
        .clone()
        .instances
        .stop_instances(request)
        .await?
        .into_inner()
        .stopping_instances)
}

async fn start(cloud: &Cloud, id: &str) -> Result<Vec<v1::InstanceStateChange>, tonic::Status> {
    let request = v1::StartInstancesRequest {
        instance_ids: vec![id.into()],
        dry_run: false,
    };
    Ok(cloud
        .client
        .clone()
        .instances
        .start_instances(request)
        .await?
        .into_inner()
        .starting_instances)
}

async fn terminate(cloud: &Cloud, ids: &[&str]) -> Result<Vec<v1::InstanceStateChange>, tonic::Status> {
    let request = v1::TerminateInstancesRequest {
        instance_ids: ids.iter().map(ToString::to_string).collect(),
        dry_run: false,
    };
    Ok(cloud
        .client
        .clone()
        .instances
        .terminate_instances(request)
        .await?
        .into_inner()
        .terminating_instances)
}

fn codes(changes: &[v1::InstanceStateChange]) -> (i32, i32) {
    let change = &changes[0];
    (
        change.previous_state.as_ref().unwrap().code,
        change.current_state.as_ref().unwrap().code,
    )
}

#[tokio::test]
async fn from_launch_to_termination() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut session = cloud.connect().await;
    let id = cloud.run(cloud.request(1)).await.unwrap().instances[0]
        .instance_id
        .clone();
    let first = session.intents_when(|i| !i.instances.is_empty()).await.instances[0].clone();
    session.observe(vec![seen(&first, Phase::Starting)]).await;
    assert_eq!(
        code(&stop(&cloud, &[&id], false).await.unwrap_err()),
        "IncorrectInstanceState"
    );
    session.observe(vec![seen(&first, Phase::Running)]).await;
    let running = cloud.until(&id, "running").await;
    assert_eq!(running.state.unwrap().code, 16);
    assert!(running.state_reason.is_none());

    // The guest powers itself off: stopped, the public address goes back, the private one stays.
    session.observe(vec![ended(&first, Cause::GuestPowerOff)]).await;
    let stopped = cloud.until(&id, "stopped").await;
    assert_eq!(
        stopped.state_reason.unwrap().code,
        "Client.InstanceInitiatedShutdown"
    );
    assert_eq!(
        (
            stopped.public_ip_address.as_str(),
            stopped.private_ip_address.as_str()
        ),
        ("", "172.31.0.4")
    );
    let idle = session
        .intents_when(|i| i.instances[0].desired() == Desired::Stopped)
        .await;
    assert_eq!(idle.instances[0].network_interfaces[0].public_ip, "");

    // The second run; what is said of the first does not matter any more.
    assert_eq!(codes(&start(&cloud, &id).await.unwrap()), (80, 0));
    let second = session.intents_when(|i| i.instances[0].run == 2).await.instances[0].clone();
    assert_eq!(second.network_interfaces[0].public_ip, "198.18.0.2");
    session.observe(vec![ended(&first, Cause::GuestPowerOff)]).await;
    session.observe(vec![seen(&second, Phase::Running)]).await;
    cloud.until(&id, "running").await;

    // Reboot grows a count; stop waits for the end; force is the way out.
    let reboot = v1::RebootInstancesRequest {
        instance_ids: vec![id.clone()],
        dry_run: false,
    };
    cloud
        .client
        .clone()
        .instances
        .reboot_instances(reboot)
        .await
        .unwrap();
    session.intents_when(|i| i.instances[0].reboot == 1).await;
    assert_eq!(codes(&stop(&cloud, &[&id], false).await.unwrap()), (16, 64));
    assert_eq!(codes(&stop(&cloud, &[&id], true).await.unwrap()), (64, 64));
    let forced = session.intents_when(|i| i.instances[0].force).await.instances[0].clone();
    session.observe(vec![ended(&forced, Cause::Requested)]).await;
    let stopped = cloud.until(&id, "stopped").await;
    assert_eq!(stopped.state_reason.unwrap().code, "Client.UserInitiatedShutdown");
    assert!(stopped.state_transition_reason.starts_with("User initiated ("));

    // Termination holds everything until the host says that nothing is left.
    assert_eq!(codes(&terminate(&cloud, &[&id]).await.unwrap()), (80, 32));
    let last = session
        .intents_when(|i| i.instances[0].desired() == Desired::Terminated)
        .await;
    assert_eq!(name(&cloud.instance(&id).await), "shutting-down");
    session.observe(vec![seen(&last.instances[0], Phase::Gone)]).await;
    let terminated = cloud.until(&id, "terminated").await;
    assert!(terminated.block_device_mappings.is_empty() && terminated.private_ip_address.is_empty());
    assert!(
        session
            .intents_when(|i| i.instances.is_empty())
            .await
            .vpcs
            .is_empty()
    );
    assert_eq!(codes(&terminate(&cloud, &[&id]).await.unwrap()), (48, 48));
    assert_eq!(
        code(&start(&cloud, &id).await.unwrap_err()),
        "IncorrectInstanceState"
    );
}

#[tokio::test]
async fn a_launch_that_fails_is_terminated_with_its_reason() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut session = cloud.connect().await;
    let id = cloud.run(cloud.request(1)).await.unwrap().instances[0]
        .instance_id
        .clone();
    let intent = session.intents_when(|i| !i.instances.is_empty()).await.instances[0].clone();
    session.observe(vec![ended(&intent, Cause::StartFailed)]).await;
    session
        .intents_when(|i| i.instances[0].desired() == Desired::Terminated)
        .await;
    session.observe(vec![seen(&intent, Phase::Gone)]).await;
    let reason = cloud.until(&id, "terminated").await.state_reason.unwrap();
    assert_eq!(reason.code, "Server.InternalError");
    assert!(reason.message.contains("as the test said"));
}

#[tokio::test]
async fn one_bad_id_in_a_batch_changes_nothing() {
    let Some(cloud) = Cloud::start().await else { return };
    cloud.connect().await.obey();
    let id = cloud.run(cloud.request(1)).await.unwrap().instances[0]
        .instance_id
        .clone();
    cloud.until(&id, "running").await;
    let unknown = "i-00000000000000000";
    let status = terminate(&cloud, &[&id, unknown]).await.unwrap_err();
    assert_eq!(code(&status), "InvalidInstanceID.NotFound");
    assert_eq!(
        code(&stop(&cloud, &[&id, "hello"], false).await.unwrap_err()),
        "InvalidInstanceID.Malformed"
    );
    assert_eq!(name(&cloud.instance(&id).await), "running");

    // A pending one cannot be stopped, so the running one is not.
    stop(&cloud, &[&id], false).await.unwrap();
    cloud.until(&id, "stopped").await;
    let gone = cloud.run(cloud.request(1)).await.unwrap().instances[0]
        .instance_id
        .clone();
    terminate(&cloud, &[&gone]).await.unwrap();
    cloud.until(&gone, "terminated").await;
    let status = cloud
        .client
        .clone()
        .instances
        .start_instances(v1::StartInstancesRequest {
            instance_ids: vec![id.clone(), gone],
            dry_run: false,
        })
        .await
        .unwrap_err();
    assert_eq!(code(&status), "IncorrectInstanceState");
    assert_eq!(name(&cloud.instance(&id).await), "stopped");
}

#[tokio::test]
async fn terminated_instances_are_forgotten_after_a_while() {
    let Some(cloud) = Cloud::with(&["--terminated-visible", "1"]).await else {
        return;
    };
    cloud.connect().await.obey();
    let id = cloud.run(cloud.request(1)).await.unwrap().instances[0]
        .instance_id
        .clone();
    let deregister = v1::DeregisterImageRequest {
        image_id: cloud.image_id.clone(),
        delete_associated_snapshots: true,
        dry_run: false,
    };
    cloud
        .client
        .clone()
        .images
        .deregister_image(deregister)
        .await
        .unwrap();
    assert_eq!(cloud.hearthd.images().len(), 1, "its volume is based on it");
    terminate(&cloud, &[&id]).await.unwrap();
    cloud.until(&id, "terminated").await;
    let begin = std::time::Instant::now();
    while !cloud.all().await.is_empty() || !cloud.hearthd.images().is_empty() {
        assert!(begin.elapsed() < crate::support::SOON, "never forgotten");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_client_token_outlives_its_launch() {
    for visible in ["3600", "1"] {
        let Some(cloud) = Cloud::with(&["--terminated-visible", visible]).await else {
            return;
        };
        cloud.connect().await.obey();
        let mut request = cloud.request(1);
        request.client_token = "once".into();
        let launched = cloud.run(request.clone()).await.unwrap();
        let id = launched.instances[0].instance_id.clone();
        terminate(&cloud, &[&id]).await.unwrap();
        let begin = std::time::Instant::now();
        while let Some(instance) = cloud.all().await.first() {
            if visible == "3600" && name(instance) == "terminated" {
                break;
            }
            assert!(begin.elapsed() < crate::support::SOON, "never terminated");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let status = cloud.run(request.clone()).await.unwrap_err();
        assert_eq!(code(&status), "IdempotentInstanceTerminated");
        request.instance_type = "t2.small".into();
        let status = cloud.run(request).await.unwrap_err();
        assert_eq!(code(&status), "IdempotentParameterMismatch");
    }
}

#[tokio::test]
async fn describe_filters_and_pages() {
    let Some(cloud) = Cloud::start().await else { return };
    let _session = cloud.connect().await;
    for _ in 0..7 {
        cloud.run(cloud.request(1)).await.unwrap();
    }
    let mut client = cloud.client.clone().instances;
    let mut told = Vec::new();
    let mut token = String::new();
    loop {
        let request = v1::DescribeInstancesRequest {
            max_results: 5,
            next_token: token,
            filters: vec![v1::Filter {
                name: "instance-state-name".into(),
                values: vec!["pend*".into(), "running".into()],
            }],
            ..Default::default()
        };
        let answer = client.describe_instances(request).await.unwrap().into_inner();
        told.extend(answer.reservations.into_iter().flat_map(|r| r.instances));
        token = answer.next_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(told.len(), 7);
    let bad = v1::DescribeInstancesRequest {
        filters: vec![v1::Filter {
            name: "colour".into(),
            values: vec!["red".into()],
        }],
        ..Default::default()
    };
    assert_eq!(
        code(&client.describe_instances(bad).await.unwrap_err()),
        "InvalidParameterValue"
    );
}
