//! Hosts that are forgotten, what was mended on them, and certificates that end and are renewed.

use std::time::{Duration, Instant};

use hearth_api::agent::{FetchImageRequest, Repair};
use hearth_api::v1;
use tonic::{Code, Status};

use crate::support::{Cloud, Hearthd, Host, SOON, code, name};

async fn forget(cloud: &Cloud, force: bool) -> Result<v1::ForgetHostResponse, Status> {
    let request = v1::ForgetHostRequest {
        host_id: cloud.host.id.clone(),
        force,
        dry_run: false,
    };
    let mut client = cloud.client.clone();
    Ok(client.hosts.forget_host(request).await?.into_inner())
}

async fn list(cloud: &Cloud) -> Vec<v1::Host> {
    let mut client = cloud.client.clone();
    let answer = client.hosts.list_hosts(v1::ListHostsRequest {}).await.unwrap();
    answer.into_inner().hosts
}

/// Every call of the host is refused for good.
async fn is_refused(host: &Host, hearthd: &Hearthd, image_id: &str) {
    let refused = host.try_connect(hearthd).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    assert!(refused.message().contains("was forgotten"), "{refused:?}");
    let mut client = hearthd.control_plane(Some(host.identity())).await;
    let request = FetchImageRequest {
        image_id: image_id.into(),
        first_chunk: 0,
    };
    let refused = client.fetch_image(request).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = host.renewed(hearthd).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn the_last_repairs_of_a_host_are_told_and_go_on_over_sessions() {
    let Some(cloud) = Cloud::start().await else {
        return;
    };
    let mut session = cloud.connect().await;
    session.intents().await;
    let repairs = |range: std::ops::Range<i64>| -> Vec<Repair> {
        let repair = |time| Repair {
            time,
            what: format!("{time} {}", "x".repeat(100_000)),
        };
        range.map(repair).collect()
    };
    let told = async |cloud: &Cloud, last: i64| loop {
        let repairs = list(cloud).await.remove(0).repairs;
        let newest = repairs.last().map(|repair| repair.time.unwrap().nanos);
        if newest == Some(1_000_000 * last as i32) {
            return repairs;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    session.report_repairs(repairs(1..4)).await;
    assert_eq!(told(&cloud, 3).await.len(), 3);
    // What an agent says again is no news, and what is too much has a bound.
    session.report_repairs(repairs(2..4)).await;
    session.report_repairs(repairs(2..20)).await;
    let kept = told(&cloud, 19).await;
    assert_eq!(kept.len(), 8);
    assert_eq!(kept[0].description.len(), 300);
    let mut times = kept.iter().map(|repair| repair.time.unwrap().nanos / 1_000_000);
    assert!(times.by_ref().eq(12..20));

    let mut session = cloud.connect().await;
    session.intents().await;
    assert_eq!(list(&cloud).await[0].repairs, kept);
    session.report_repairs(repairs(40..41)).await;
    assert_eq!(told(&cloud, 40).await[0].time.unwrap().nanos / 1_000_000, 13);
}

#[tokio::test]
async fn a_forgotten_host_is_out_at_once_and_for_good() {
    let Some(mut cloud) = Cloud::start().await else {
        return;
    };
    let mut session = cloud.connect().await;
    session.intents().await;
    let listed = list(&cloud).await;
    assert_eq!((listed.len(), listed[0].state.as_str()), (1, "connected"));
    assert_eq!(listed[0].hostname, "test-host");
    assert_eq!(listed[0].capacity.unwrap().vcpus, 64);

    forget(&cloud, false).await.unwrap();
    let begin = Instant::now();
    let ended = session.end().await;
    eprintln!("the session ended {:?} after the answer", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!(ended.code(), Code::PermissionDenied);
    assert!(list(&cloud).await.is_empty());
    is_refused(&cloud.host, &cloud.hearthd, &cloud.image_id).await;
    let refused = cloud.run(cloud.request(1)).await.unwrap_err();
    assert!(refused.message().contains("There is no host yet"), "{refused:?}");
    assert_eq!(
        code(&forget(&cloud, true).await.unwrap_err()),
        "InvalidHostID.NotFound"
    );

    cloud.hearthd.kill();
    cloud.hearthd.spawn();
    is_refused(&cloud.host, &cloud.hearthd, &cloud.image_id).await;
}

#[tokio::test]
async fn a_host_with_instances_is_forgotten_by_force_alone_and_they_are_terminated() {
    let Some(cloud) = Cloud::with(&["--terminated-visible", "2"]).await else {
        return;
    };
    let session = cloud.connect().await.obey();
    let reservation = cloud.run(cloud.request(2)).await.unwrap();
    let ids: Vec<&str> = reservation
        .instances
        .iter()
        .map(|i| i.instance_id.as_str())
        .collect();
    for id in &ids {
        cloud.until(id, "running").await;
    }
    let refused = forget(&cloud, false).await.unwrap_err();
    assert_eq!(code(&refused), "DependencyViolation");
    assert!(
        refused.message().contains(ids[0]) && refused.message().contains(ids[1]),
        "{refused:?}"
    );
    assert_eq!(name(&cloud.instance(ids[0]).await), "running");
    assert_eq!(list(&cloud).await[0].instance_ids.len(), 2);

    let done = forget(&cloud, true).await.unwrap();
    assert_eq!(done.terminated_instance_ids.len(), 2);
    assert_eq!(done.abandoned_volume_ids.len(), 2);
    tokio::time::timeout(SOON, session).await.unwrap().unwrap();
    let instance = cloud.instance(ids[0]).await;
    assert_eq!(name(&instance), "terminated");
    assert_eq!(instance.state_reason.unwrap().code, "Server.InternalError");
    assert!(instance.network_interfaces.is_empty() && instance.block_device_mappings.is_empty());

    // Its rows are purged like others', and another host takes its place: the first addresses are free again.
    let begin = Instant::now();
    while !cloud.all().await.is_empty() {
        assert!(begin.elapsed() < SOON, "terminated instances stay");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let other = Host::enroll(&cloud.hearthd).await;
    other.connect(&cloud.hearthd).await.obey();
    let again = cloud.run(cloud.request(1)).await.unwrap();
    cloud.until(&again.instances[0].instance_id, "running").await;
    let address = |instance: &v1::Instance| instance.private_ip_address.clone();
    assert_eq!(address(&again.instances[0]), address(&reservation.instances[0]));
}

#[tokio::test]
async fn a_renewed_certificate_replaces_the_old_one_when_it_is_used() {
    let Some(cloud) = Cloud::start().await else { return };
    let old = &cloud.host;
    old.connect(&cloud.hearthd).await.intents().await;
    let lost = old.renewed(&cloud.hearthd).await.unwrap();
    let new = old.renewed(&cloud.hearthd).await.unwrap();
    // The answer with the first one was lost: the old one goes on, the lost one never will.
    old.connect(&cloud.hearthd).await.intents().await;
    let refused = lost.try_connect(&cloud.hearthd).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    new.connect(&cloud.hearthd).await.intents().await;
    let refused = old.try_connect(&cloud.hearthd).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("newer certificate"), "{refused:?}");
    let refused = old.renewed(&cloud.hearthd).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // The control plane remembers that.
    new.connect(&cloud.hearthd).await.intents().await;
}

#[tokio::test]
async fn an_expired_certificate_ends_its_session_and_begins_no_other() {
    let hearthd = Hearthd::with(&["--certificate-seconds", "6"]);
    let host = Host::enroll(&hearthd).await;
    let begin = Instant::now();
    let mut session = host.connect(&hearthd).await;
    session.intents().await;
    let ended = session.end().await;
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended:?}");
    assert!(begin.elapsed() < Duration::from_secs(9), "{:?}", begin.elapsed());
    let refused = host.try_connect(&hearthd).await.map(|_| ()).unwrap_err();
    assert_ne!(refused.code(), Code::PermissionDenied, "{refused:?}");
    // The server's own certificate has been renewed meanwhile: another host joins.
    tokio::time::sleep(Duration::from_secs(7)).await;
    Host::enroll(&hearthd)
        .await
        .connect(&hearthd)
        .await
        .intents()
        .await;
}
