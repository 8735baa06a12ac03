//! Hosts: who may come in, and what their being there or not means.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::{AgentMessage, FetchChunkRequest, FetchImageRequest};
use hearth_api::v1;
use tonic::Code;

use crate::support::{Cloud, Hearthd, Host, SOON, ZONE, code, enroll, name, seen};

#[tokio::test]
async fn nobody_comes_in_without_a_token_or_a_certificate() {
    let hearthd = Hearthd::start();
    let refused = enroll(&hearthd, &"0".repeat(64), ZONE).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let token = hearthd.join_token();
    let refused = enroll(&hearthd, &token.secret, "us-east-1a").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains(ZONE));
    // The whole token does as well.
    enroll(&hearthd, &token.to_string(), ZONE).await.unwrap();

    let mut stranger = hearthd.control_plane(None).await;
    let nothing = || tokio_stream::iter(Vec::<AgentMessage>::new());
    assert_eq!(
        stranger.session(nothing()).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    let fetch = FetchImageRequest {
        image_id: "ami-00000000000000000".into(),
        first_chunk: 0,
    };
    assert_eq!(
        stranger.fetch_image(fetch).await.unwrap_err().code(),
        Code::Unauthenticated
    );

    // A certificate of the same name by another authority ends at the TLS layer.
    let other = Hearthd::start();
    let foreign = Host::enroll(&other).await;
    let answer = tokio::spawn(async move {
        let mut client = hearthd.control_plane(Some(foreign.identity())).await;
        client
            .session(tokio_stream::iter(Vec::<AgentMessage>::new()))
            .await
            .map(|_| ())
    });
    assert!(!matches!(answer.await, Ok(Ok(()))));
}

#[tokio::test]
async fn a_revoked_token_admits_nobody_and_keeps_who_joined() {
    let Some(cloud) = Cloud::start().await else { return };
    let token = cloud.hearthd.join_token();
    let revoked = std::process::Command::new(env!("CARGO_BIN_EXE_hearthd"))
        .args(["join-token", "--revoke-all", "--data-dir"])
        .arg(cloud.hearthd.data())
        .status()
        .unwrap();
    assert!(revoked.success());
    let refused = enroll(&cloud.hearthd, &token.secret, ZONE).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    cloud.connect().await.intents().await;
}

#[tokio::test]
async fn silence_changes_no_state() {
    let Some(cloud) = Cloud::start().await else { return };
    let zone_state = || async {
        let request = v1::DescribeAvailabilityZonesRequest::default();
        let zones = cloud
            .client
            .clone()
            .regions
            .describe_availability_zones(request)
            .await
            .unwrap();
        zones.into_inner().availability_zones[0].state.clone()
    };
    assert_eq!(zone_state().await, "unavailable");
    let session = cloud.connect().await.obey();
    let id = cloud.run(cloud.request(1)).await.unwrap().instances[0]
        .instance_id
        .clone();
    cloud.until(&id, "running").await;
    assert_eq!(zone_state().await, "available");
    let console = v1::GetConsoleOutputRequest {
        instance_id: id.clone(),
        ..Default::default()
    };
    let output = cloud
        .client
        .clone()
        .instances
        .get_console_output(console.clone())
        .await
        .unwrap();
    assert_eq!(
        output.into_inner().output,
        BASE64_STANDARD.encode(format!("hello from {id}"))
    );

    session.abort();
    let begin = std::time::Instant::now();
    while zone_state().await == "available" {
        assert!(begin.elapsed() < SOON, "the host is still thought connected");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(name(&cloud.instance(&id).await), "running");
    let status = cloud
        .client
        .clone()
        .instances
        .get_console_output(console)
        .await
        .unwrap_err();
    assert_eq!(code(&status), "Unavailable");
    // What is wanted while it is away waits for it.
    let terminate = v1::TerminateInstancesRequest {
        instance_ids: vec![id.clone()],
        dry_run: false,
    };
    cloud
        .client
        .clone()
        .instances
        .terminate_instances(terminate)
        .await
        .unwrap();
    assert_eq!(name(&cloud.instance(&id).await), "shutting-down");
    cloud.connect().await.obey();
    cloud.until(&id, "terminated").await;
}

#[tokio::test]
async fn a_newer_session_takes_over() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut older = cloud.connect().await;
    older.intents().await;
    let mut newer = cloud.connect().await;
    newer.intents().await;
    let ended = loop {
        if let Err(status) = older.next().await {
            break status;
        }
    };
    assert_eq!(ended.code(), Code::Aborted);
    // The end of the older one does not make the host disconnected.
    cloud.run(cloud.request(1)).await.unwrap();
    newer.intents_when(|i| i.instances.len() == 1).await;
}

#[tokio::test]
async fn an_image_is_fetched_without_its_holes_by_a_host_that_needs_it_and_by_no_other() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut client = cloud.hearthd.control_plane(Some(cloud.host.identity())).await;
    let request = |image_id: &str| FetchImageRequest {
        image_id: image_id.into(),
        first_chunk: 0,
    };
    let refused = client.fetch_image(request(&cloud.image_id)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "no instance is placed on it yet");
    let chunk = |index| FetchChunkRequest {
        image_id: cloud.image_id.clone(),
        index,
    };
    let refused = client.fetch_chunk(chunk(0)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "nor a chunk of it");

    let _session = cloud.connect().await;
    cloud.run(cloud.request(1)).await.unwrap();
    let mut stream = client
        .fetch_image(request(&cloud.image_id))
        .await
        .unwrap()
        .into_inner();
    let original = std::fs::read(cloud.hearthd.dir.path().join("image")).unwrap();
    let mut copy = vec![0; original.len()];
    let mut received = 0;
    while let Some(chunk) = stream.message().await.unwrap() {
        let at = chunk.offset as usize;
        copy[at..at + chunk.data.len()].copy_from_slice(&chunk.data);
        received += chunk.data.len();
    }
    assert!(copy == original && received < original.len());
    for (index, expected) in original.chunks(512 << 10).enumerate() {
        let told = client
            .fetch_chunk(chunk(index as u64))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(told.offset, (index as u64) << 19);
        let is_zero = expected.iter().all(|byte| *byte == 0);
        assert!(told.data == if is_zero { &[] } else { expected }, "chunk {index}");
    }
    for other in ["ami-00000000000000000", "../hearth.db", ""] {
        let unknown = client.fetch_image(request(other)).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);
    }
    let neighbour = Host::enroll(&cloud.hearthd).await;
    let mut client = cloud.hearthd.control_plane(Some(neighbour.identity())).await;
    let refused = client.fetch_image(request(&cloud.image_id)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "the instance is another host's");
}

#[tokio::test]
async fn the_console_of_a_terminated_instance_is_still_read() {
    let Some(cloud) = Cloud::start().await else { return };
    let _session = cloud.connect().await.obey();
    let reservation = cloud.run(cloud.request(1)).await.unwrap();
    let id = reservation.instances[0].instance_id.clone();
    cloud.until(&id, "running").await;
    let terminate = v1::TerminateInstancesRequest {
        instance_ids: vec![id.clone()],
        dry_run: false,
    };
    let mut instances = cloud.client.clone().instances;
    instances.terminate_instances(terminate).await.unwrap();
    cloud.until(&id, "terminated").await;
    let request = v1::GetConsoleOutputRequest {
        instance_id: id.clone(),
        ..Default::default()
    };
    let answer = instances.get_console_output(request).await.unwrap().into_inner();
    assert_eq!(answer.output, BASE64_STANDARD.encode(format!("hello from {id}")));
    // When it was written, not when it was asked for.
    assert_eq!(answer.timestamp.unwrap().seconds, 1_700_000_000);
}

#[tokio::test]
async fn intents_are_sent_again_until_they_are_acknowledged() {
    let Some(cloud) = Cloud::start().await else { return };
    let mut session = cloud.connect().await;
    session.intents().await;
    session.acknowledges = false;
    cloud.run(cloud.request(1)).await.unwrap();
    let first = session.intents_when(|i| i.instances.len() == 1).await;
    // An agent that could not store them says nothing.
    let again = session.intents().await;
    assert_eq!(again, first);
    session
        .observe(vec![seen(&first.instances[0], Phase::Running)])
        .await;
    cloud.until(&first.instances[0].instance_id, "running").await;
    let more = tokio::time::timeout(Duration::from_secs(12), session.intents()).await;
    assert!(more.is_err(), "acknowledged intents were sent again");
}
