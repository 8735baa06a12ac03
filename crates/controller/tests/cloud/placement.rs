//! Where instances go, and who can say so.

use hearth_api::v1;

use crate::support::{Cloud, Host, ZONE, code};

/// A cloud with several connected hosts that make everything so.
async fn with_hosts(count: usize) -> Option<(Cloud, Vec<String>)> {
    let cloud = Cloud::start().await?;
    let mut hosts = vec![cloud.host.id.clone()];
    cloud.connect().await.obey();
    while hosts.len() < count {
        let host = Host::enroll(&cloud.hearthd).await;
        host.connect(&cloud.hearthd).await.obey();
        hosts.push(host.id);
    }
    Some((cloud, hosts))
}

/// A request for instances that says how they are to be placed.
fn placed(cloud: &Cloud, count: i32, placement: v1::Placement) -> v1::RunInstancesRequest {
    v1::RunInstancesRequest {
        placement: Some(placement),
        ..cloud.request(count)
    }
}

/// The instances that a filter lets through.
async fn found(cloud: &Cloud, name: &str, value: &str) -> Vec<v1::Instance> {
    let request = v1::DescribeInstancesRequest {
        filters: vec![v1::Filter {
            name: name.into(),
            values: vec![value.into()],
        }],
        ..Default::default()
    };
    let answer = cloud.client.clone().instances.describe_instances(request).await;
    let reservations = answer.unwrap().into_inner().reservations;
    reservations.into_iter().flat_map(|r| r.instances).collect()
}

#[tokio::test]
async fn a_launch_can_name_its_host() {
    let Some((cloud, hosts)) = with_hosts(3).await else {
        return;
    };
    for host in &hosts {
        let placement = v1::Placement {
            host_id: host.clone(),
            ..Default::default()
        };
        cloud.run(placed(&cloud, 2, placement)).await.unwrap();
    }
    for host in &hosts {
        let there = found(&cloud, "host-id", host).await;
        assert!(
            there.len() == 2
                && there
                    .iter()
                    .all(|i| i.placement.as_ref().unwrap().host_id == *host)
        );
    }
    assert_eq!(found(&cloud, "availability-zone", ZONE).await.len(), 6);
    assert_eq!(found(&cloud, "availability-zone", "elsewhere").await.len(), 0);
    let placement = v1::Placement {
        host_id: "h-00000000000000000".into(),
        ..Default::default()
    };
    let refused = cloud.run(placed(&cloud, 1, placement)).await.unwrap_err();
    assert_eq!(code(&refused), "InvalidHostID.NotFound");
}
