//! Hosts, for the operator: who is there, and who shall be no more.

use std::collections::HashMap;
use std::sync::Arc;

use hearth_api::v1::{
    ForgetHostRequest, ForgetHostResponse, Host, HostResources, ListHostsRequest, ListHostsResponse,
    hosts_server,
};
use hearth_api::{ApiError, ErrorCode, Id, Kind};
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{Failure, answer, commit};
use crate::app::App;
use crate::lifecycle::lose_host;
use crate::scheduler::Resources;
use crate::store::{hosts, instances, views};

/// Ids that a sentence names at most.
const NAMED: usize = 5;

pub(super) struct Hosts(pub(super) Arc<App>);

#[tonic::async_trait]
impl hosts_server::Hosts for Hosts {
    async fn list_hosts(&self, _: Request<ListHostsRequest>) -> Result<Response<ListHostsResponse>, Status> {
        answer("ListHosts", list(&self.0).await)
    }

    async fn forget_host(
        &self,
        request: Request<ForgetHostRequest>,
    ) -> Result<Response<ForgetHostResponse>, Status> {
        answer("ForgetHost", forget(&self.0, &request.into_inner()).await)
    }
}

async fn list(app: &App) -> Result<ListHostsResponse, Failure> {
    let mut read = app.store.read().await?;
    let picture = hosts::picture(&mut read, |id| app.sessions.is_connected(id)).await?;
    let profiles = hosts::profiles(&mut read).await?;
    let mut profiles: HashMap<_, _> = profiles.into_iter().map(|p| (p.id.clone(), p)).collect();
    let mut alive: HashMap<String, Vec<String>> = HashMap::new();
    for (host, instance) in instances::alive_by_host(&mut read).await? {
        alive.entry(host).or_default().push(instance);
    }
    let hosts = picture.into_iter().filter_map(|host| {
        let profile = profiles.remove(&host.id)?;
        Some(Host {
            hostname: profile.hostname,
            availability_zone: host.availability_zone,
            state: if host.connected {
                "connected"
            } else {
                "disconnected"
            }
            .into(),
            agent_version: profile.agent_version,
            capacity: Some(resources(host.total)),
            claimed: Some(resources(host.claimed)),
            instance_ids: alive.remove(&host.id).unwrap_or_default(),
            enroll_time: Some(views::timestamp(profile.enrolled_at)),
            host_id: host.id,
        })
    });
    Ok(ListHostsResponse {
        hosts: hosts.collect(),
    })
}

fn resources(resources: Resources) -> HostResources {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    HostResources {
        vcpus: signed(resources.vcpus),
        memory_mib: signed(resources.memory_mib),
        disk_gib: signed(resources.disk_bytes >> 30),
    }
}

/// Removes a host in one transaction; then its session and fetches end.
async fn forget(app: &App, request: &ForgetHostRequest) -> Result<ForgetHostResponse, Failure> {
    if request.host_id.is_empty() {
        return Err(ApiError::missing("HostId").into());
    }
    let host_id = Id::parse(Kind::Host, &request.host_id)?.to_string();
    let mut tx = app.store.write().await?;
    if hosts::availability_zone(tx.connection(), &host_id)
        .await?
        .is_none()
    {
        return Err(Kind::Host.not_found(&[&host_id]).into());
    }
    let alive = instances::alive_on(tx.connection(), &host_id).await?;
    let instance_ids: Vec<String> = alive.iter().map(|row| row.id.clone()).collect();
    let volume_ids = hosts::volumes(tx.connection(), &host_id).await?;
    let is_used = !instance_ids.is_empty() || !volume_ids.is_empty();
    if is_used && !request.force {
        return Err(in_use(&host_id, &instance_ids, &volume_ids).into());
    }
    for row in &alive {
        if let Some(change) = lose_host(&row.lifecycle()) {
            instances::write_change(&mut tx, row, &change).await?;
        }
    }
    hosts::forget(tx.connection(), &host_id).await?;
    tx.touch_host(&host_id);
    tx.event("host.forgotten", &host_id).await?;
    let detail =
        json!({ "host": host_id, "force": request.force, "instances": instance_ids, "volumes": volume_ids });
    tx.audit("ForgetHost", &detail).await?;
    commit(tx, request.dry_run).await?;
    let reason = Status::permission_denied(format!("host {host_id} was forgotten"));
    app.sessions.evict(&host_id, reason);
    Ok(ForgetHostResponse {
        host_id,
        terminated_instance_ids: instance_ids,
        abandoned_volume_ids: volume_ids,
    })
}

fn in_use(host_id: &str, instances: &[String], volumes: &[String]) -> ApiError {
    let (count, noun, ids) = match instances {
        [] => (volumes.len(), "volumes that outlived their instances", volumes),
        _ => (instances.len(), "instances", instances),
    };
    let more = if count > NAMED { ", ..." } else { "" };
    let named = ids.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    ApiError::new(
        ErrorCode::DependencyViolation,
        format!(
            "The host '{host_id}' has {count} {noun}: {named}{more}. Terminate the instances first. With force they \
             become terminated and the host's volumes are given up."
        ),
    )
}
