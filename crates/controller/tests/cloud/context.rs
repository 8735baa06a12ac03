//! The context of a call: its id in answers, errors, log and audit; its account's rate; dry runs.

use std::time::{Duration, Instant};

use hearth_api::client::REQUEST_ID;
use hearth_api::v1;
use tonic::metadata::MetadataMap;

use crate::support::{Cloud, code, name};

fn request_id(metadata: &MetadataMap) -> String {
    let id = metadata.get(REQUEST_ID).expect("no request id");
    let id = id.to_str().unwrap().to_owned();
    assert_eq!((id.len(), id.matches('-').count()), (36, 4), "{id}");
    id
}

#[tokio::test]
async fn every_answer_error_log_line_and_audit_row_has_the_calls_id() {
    let Some(cloud) = Cloud::start().await else { return };
    let session = cloud.connect().await.obey();
    let mut client = cloud.client.clone();
    let launched = client.instances.run_instances(cloud.request(1)).await.unwrap();
    let done = request_id(launched.metadata());
    let id = launched.into_inner().instances[0].instance_id.clone();
    let unknown = v1::StopInstancesRequest {
        instance_ids: vec!["i-00000000000000000".into()],
        ..Default::default()
    };
    let refused = client.instances.stop_instances(unknown).await.unwrap_err();
    let refused = request_id(refused.metadata());
    assert_ne!(done, refused);
    let described = client
        .instances
        .describe_instances(v1::DescribeInstancesRequest::default())
        .await;
    request_id(described.unwrap().metadata());
    // Nothing reaches a service that is not there.
    let other = client
        .hosts
        .resume_host(v1::ResumeHostRequest::default())
        .await
        .unwrap_err();
    request_id(other.metadata());

    let log = cloud.hearthd.log();
    let line = |parts: &[&str]| {
        let found = log
            .lines()
            .find(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found.is_some(), "no line with {parts:?} in\n{log}");
    };
    line(&[&done, "action=\"RunInstances\"", ": done"]);
    line(&[&refused, "action=\"StopInstances\"", "InvalidInstanceID.NotFound"]);
    // The audit row, as the committer says it: who, what, under which id.
    line(&[
        "action=\"RunInstances\"",
        &format!("request_id\\\":\\\"{done}"),
        &id,
    ]);
    session.abort();
}

#[tokio::test]
async fn a_dry_run_checks_everything_and_does_nothing() {
    let Some(cloud) = Cloud::start().await else { return };
    let session = cloud.connect().await.obey();
    let mut client = cloud.client.clone();
    let mut launch = cloud.request(1);
    launch.dry_run = true;
    let refused = client.instances.run_instances(launch.clone()).await.unwrap_err();
    assert_eq!(code(&refused), "DryRunOperation");
    assert!(cloud.all().await.is_empty());
    launch.image_id = "ami-00000000000000000".into();
    let refused = client.instances.run_instances(launch).await.unwrap_err();
    assert_eq!(code(&refused), "InvalidAMIID.NotFound");

    let id = cloud.run(cloud.request(1)).await.unwrap().instances[0]
        .instance_id
        .clone();
    cloud.until(&id, "running").await;
    let terminate = v1::TerminateInstancesRequest {
        instance_ids: vec![id.clone()],
        dry_run: true,
    };
    let refused = client.instances.terminate_instances(terminate).await.unwrap_err();
    assert_eq!(code(&refused), "DryRunOperation");
    assert_eq!(name(&cloud.instance(&id).await), "running");
    let mut forget = v1::ForgetHostRequest {
        host_id: cloud.host.id.clone(),
        force: true,
        dry_run: true,
    };
    let refused = client.hosts.forget_host(forget.clone()).await.unwrap_err();
    assert_eq!(code(&refused), "DryRunOperation");
    forget.force = false;
    let refused = client.hosts.forget_host(forget).await.unwrap_err();
    assert_eq!(code(&refused), "DependencyViolation");
    // Its session goes on.
    cloud.run(cloud.request(1)).await.unwrap();
    // Calls that change nothing, too.
    let describe = v1::DescribeInstancesRequest {
        dry_run: true,
        ..Default::default()
    };
    let refused = client.instances.describe_instances(describe).await.unwrap_err();
    assert_eq!(code(&refused), "DryRunOperation");
    session.abort();
}

#[tokio::test]
async fn an_account_that_calls_too_often_is_refused_for_a_while() {
    let Some(cloud) = Cloud::with(&["--request-rate-percent", "100"]).await else {
        return;
    };
    let mut client = cloud.client.clone();
    // No host is there: each launch that is looked at is refused for that.
    let mut codes = Vec::new();
    let begin = Instant::now();
    for _ in 0..20 {
        let refused = client
            .instances
            .run_instances(cloud.request(1))
            .await
            .unwrap_err();
        codes.push(code(&refused));
    }
    let looked_at = codes
        .iter()
        .filter(|code| *code == "InsufficientInstanceCapacity")
        .count();
    // Five at once, and two for each second that this has taken.
    let most = 6 + 2 * usize::try_from(begin.elapsed().as_secs()).unwrap();
    assert!(
        (5..=most).contains(&looked_at),
        "{looked_at} in {:?}",
        begin.elapsed()
    );
    assert_eq!(
        codes
            .iter()
            .filter(|code| *code == "RequestLimitExceeded")
            .count(),
        20 - looked_at
    );
    // Other actions have buckets of their own, and this one fills again.
    cloud.all().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let refused = client
        .instances
        .run_instances(cloud.request(1))
        .await
        .unwrap_err();
    assert_eq!(code(&refused), "InsufficientInstanceCapacity");
}
