//! What a client that knows nothing can find out, and the tables that need no host.

use std::collections::BTreeSet;

use hearth_api::bounds::CallShape;
use hearth_api::client::SERVICES;
use hearth_api::codec::BoundedCodec;
use hearth_api::v1;

use crate::support::{Hearthd, code};

macro_rules! listed {
    ($version:ident, $channel:expr) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new($channel);
        let stream = client
            .server_reflection_info(tokio_stream::iter([request]))
            .await
            .unwrap();
        let answer = stream.into_inner().message().await.unwrap().unwrap();
        match answer.message_response.unwrap() {
            MessageResponse::ListServicesResponse(list) => list
                .service
                .into_iter()
                .map(|s| s.name)
                .collect::<BTreeSet<String>>(),
            other => panic!("{other:?}"),
        }
    }};
}

#[tokio::test]
async fn reflection_lists_every_service_of_the_public_api() {
    let hearthd = Hearthd::start();
    let channel = hearth_api::client::channel(&hearthd.endpoint()).await.unwrap();
    let names = listed!(v1, channel.clone());
    assert_eq!(names, listed!(v1alpha, channel.clone()));
    let expected: BTreeSet<String> = SERVICES
        .iter()
        .chain(&["grpc.health.v1.Health"])
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, expected);
    assert!(
        SERVICES.contains(&"hearth.v1.Instances") && !names.iter().any(|n| n.starts_with("hearth.agent"))
    );
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    let mut health = HealthClient::new(channel);
    let answer = health.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(answer.into_inner().status, 1);
}

#[tokio::test]
async fn every_call_of_the_public_api_is_served() {
    let hearthd = Hearthd::start();
    let channel = hearth_api::client::channel(&hearthd.endpoint()).await.unwrap();
    let calls = hearth_api::bounds::call_shapes().unwrap();
    assert!(calls.len() > 30, "{}", calls.len());
    for (path, shape) in calls {
        if matches!(shape, CallShape::Stream) {
            continue;
        }
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let codec = BoundedCodec::<(), ()>::default();
        // An empty request: what it is refused for is the call's own affair.
        let answer = client
            .unary(tonic::Request::new(()), path.parse().unwrap(), codec)
            .await;
        if let Err(status) = answer {
            assert_ne!(status.code(), tonic::Code::Unimplemented, "{path}: {status:?}");
        }
    }
}

#[tokio::test]
async fn a_new_cloud_has_its_defaults() {
    let mut hearthd = Hearthd::with(&["--zones", "local-1a,local-1b"]);
    let client = hearthd.client().await;
    let vpcs = client
        .clone()
        .vpcs
        .describe_vpcs(v1::DescribeVpcsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (vpcs.vpcs.len(), vpcs.vpcs[0].cidr_block.as_str()),
        (1, "172.31.0.0/16")
    );
    let request = v1::DescribeSubnetsRequest::default;
    let subnets = client
        .clone()
        .subnets
        .describe_subnets(request())
        .await
        .unwrap()
        .into_inner()
        .subnets;
    let cidrs: BTreeSet<&str> = subnets.iter().map(|s| s.cidr_block.as_str()).collect();
    assert_eq!(cidrs, BTreeSet::from(["172.31.0.0/20", "172.31.16.0/20"]));
    assert_eq!(subnets[0].available_ip_address_count, 4091);
    let types = v1::DescribeInstanceTypesRequest {
        instance_types: vec!["t2.micro".into()],
        ..Default::default()
    };
    let types = client
        .clone()
        .instance_types
        .describe_instance_types(types)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(types.instance_types[0].memory_info.unwrap().size_in_mi_b, 1024);
    let unknown = v1::DescribeInstanceTypesRequest {
        instance_types: vec!["t2.enormous".into()],
        ..Default::default()
    };
    let unknown = client
        .clone()
        .instance_types
        .describe_instance_types(unknown)
        .await
        .unwrap_err();
    assert_eq!(code(&unknown), "InvalidInstanceType");

    // The same after a restart.
    hearthd.kill();
    hearthd.spawn();
    let again = hearthd
        .client()
        .await
        .subnets
        .describe_subnets(request())
        .await
        .unwrap()
        .into_inner()
        .subnets;
    assert_eq!(subnets, again);
}
