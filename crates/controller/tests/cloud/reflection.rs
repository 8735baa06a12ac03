//! What a client that knows nothing can find out, and the tables that need no host.

use std::collections::BTreeSet;

use hearth_api::v1;

use crate::support::{Hearthd, code};

const SERVICES: [&str; 10] = [
    "hearth.v1.Hosts",
    "hearth.v1.Images",
    "hearth.v1.InstanceTypes",
    "hearth.v1.Instances",
    "hearth.v1.KeyPairs",
    "hearth.v1.Regions",
    "hearth.v1.SecurityGroups",
    "hearth.v1.Subnets",
    "hearth.v1.Tags",
    "hearth.v1.Vpcs",
];

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
    for service in SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
        assert!(names.contains(service), "{service} is not in {names:?}");
    }
    assert!(!names.iter().any(|name| name.starts_with("hearth.agent")));
    // Each proto file of the API has its service listed here.
    let descriptors = String::from_utf8_lossy(hearth_api::DESCRIPTORS).into_owned();
    assert!(
        SERVICES
            .iter()
            .all(|s| descriptors.contains(s.rsplit('.').next().unwrap()))
    );

    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    let mut health = HealthClient::new(channel);
    let answer = health.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(answer.into_inner().status, 1);
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
    assert_eq!(types.instance_types[0].memory_mib, 1024);
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
