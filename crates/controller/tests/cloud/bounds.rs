//! The worst that a caller can send, and what others notice of it.

use std::time::{Duration, Instant};

use hearth_api::client::channel;
use hearth_api::codec::BoundedCodec;
use hearth_api::{Client, v1};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;

use crate::support::{Hearthd, code};

fn filter(values: Vec<String>) -> v1::Filter {
    v1::Filter {
        name: "tag:Name".into(),
        values,
    }
}

async fn describe(client: &Client, filters: Vec<v1::Filter>) -> Result<usize, Status> {
    let request = v1::DescribeSecurityGroupsRequest {
        filters,
        ..Default::default()
    };
    let answer = client
        .clone()
        .security_groups
        .describe_security_groups(request)
        .await?;
    Ok(answer.into_inner().security_groups.len())
}

/// How often another caller calls.
const EVERY: Duration = Duration::from_millis(10);

/// The latency that 99 of 100 calls of another caller stay below, who calls every 10 ms until `done`. A call that takes
/// longer stands for those that would have come meanwhile.
async fn p99(hearthd: &Hearthd, done: &CancellationToken) -> Duration {
    let other = hearthd.client().await;
    let mut latencies = Vec::new();
    while !done.is_cancelled() {
        let begin = Instant::now();
        let request = v1::DescribeVpcsRequest::default();
        other.clone().vpcs.describe_vpcs(request).await.unwrap();
        let mut latency = begin.elapsed();
        latencies.push(latency);
        while latency > EVERY {
            latency -= EVERY;
            latencies.push(latency);
        }
        tokio::time::sleep(EVERY.saturating_sub(latency)).await;
    }
    latencies.sort_unstable();
    eprintln!("{} calls, slowest {:?}", latencies.len(), latencies.last());
    latencies[(latencies.len() * 99).div_ceil(100) - 1]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worst_request_stalls_nobody() {
    let hearthd = Hearthd::start();
    let client = hearthd.client().await;
    // Much to be compared with: tags as long as they may be.
    for n in 0..20 {
        let tags = (0..40).map(|k| v1::Tag {
            key: format!("{k}"),
            value: "a".repeat(255),
        });
        let request = v1::CreateSecurityGroupRequest {
            group_name: format!("g{n}"),
            description: "a".repeat(255),
            tag_specifications: vec![v1::TagSpecification {
                resource_type: "security-group".into(),
                tags: tags.collect(),
            }],
            ..Default::default()
        };
        client
            .clone()
            .security_groups
            .create_security_group(request)
            .await
            .unwrap();
    }

    let nearly = |n: usize| format!("*{}b*{n:02}", "a".repeat(248));
    let elsewhere = Hearthd::start();
    let done = CancellationToken::new();
    let end = done.clone().drop_guard();
    let worst = tokio::spawn(async move {
        let _end = end;
        // What EC2 admits, at its worst: as many values as there may be, and all of them nearly match everywhere.
        for _ in 0..2 {
            let request = v1::DescribeTagsRequest {
                filters: vec![v1::Filter {
                    name: "value".into(),
                    values: (0..200).map(|n| nearly(n % 100)).collect(),
                }],
                ..Default::default()
            };
            let answer = client.clone().tags.describe_tags(request).await.unwrap();
            assert!(answer.into_inner().tags.is_empty());
        }
        // What it does not.
        let long = vec![filter(vec!["*a".repeat(30 << 20)])];
        assert_eq!(
            code(&describe(&client, long).await.unwrap_err()),
            "InvalidParameterValue"
        );
        let many = vec![filter(vec![]); 1_500_000];
        assert_eq!(
            code(&describe(&client, many).await.unwrap_err()),
            "InvalidParameterValue"
        );
        let many = vec![v1::Filter::default(); 500_000];
        let refused = describe(&client, many).await.unwrap_err();
        assert_eq!(
            refused.message(),
            "The parameter filters has more than 50 elements."
        );
        let values = vec![filter(vec!["x".into(); 201])];
        assert_eq!(
            code(&describe(&client, values).await.unwrap_err()),
            "FilterLimitExceeded"
        );
    });
    // What else the machine is busy with, the worst request's processor time among it, both callers bear.
    let (beside, apart) = tokio::join!(p99(&hearthd, &done), p99(&elsewhere, &done));
    worst.await.unwrap();
    eprintln!("p99 of another caller: {beside:?} beside the worst request, {apart:?} of another hearthd");
    assert!(
        beside < Duration::from_millis(100).max(apart * 3),
        "{beside:?}, and {apart:?} without it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_so_many_calls_at_work_and_no_more() {
    let hearthd = Hearthd::start();
    // Requests that never arrive whole, on three connections: more than there are places.
    let mut hanging = JoinSet::new();
    for _ in 0..3 {
        let channel = channel(&hearthd.endpoint()).await.unwrap();
        for _ in 0..32 {
            let mut grpc = Grpc::new(channel.clone());
            hanging.spawn(async move {
                grpc.ready().await.unwrap();
                let codec = BoundedCodec::<v1::DescribeVpcsRequest, v1::DescribeVpcsResponse>::default();
                let path = PathAndQuery::from_static("/hearth.v1.Vpcs/DescribeVpcs");
                let never = tonic::Request::new(tokio_stream::pending());
                let answer = grpc.client_streaming(never, path, codec).await;
                code(&answer.map(|_| ()).unwrap_err())
            });
        }
    }
    for _ in 64..96 {
        let refused = hanging.join_next().await.unwrap().unwrap();
        assert_eq!(refused, "RequestLimitExceeded");
    }
    let client = hearthd.client().await;
    let call = async || {
        let request = v1::DescribeVpcsRequest::default();
        client.clone().vpcs.describe_vpcs(request).await
    };
    let refused = call().await.unwrap_err();
    assert_eq!(code(&refused), "RequestLimitExceeded");
    // Those that have a place have it for ten seconds.
    while let Some(late) = hanging.join_next().await {
        assert_eq!(late.unwrap(), "Unavailable");
    }
    call().await.unwrap();
}
