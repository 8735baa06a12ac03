//! Hosts, for the operator: who is there, who shall be no more, and which secrets admit more.

use std::sync::Arc;

use hearth_api::v1::{
    CreateJoinTokenRequest, CreateJoinTokenResponse, DrainHostRequest, DrainHostResponse, ForgetHostRequest,
    ForgetHostResponse, Host, HostRepair, HostResources, ListHostsRequest, ListHostsResponse,
    ListJoinTokensRequest, ListJoinTokensResponse, ResumeHostRequest, ResumeHostResponse,
    RevokeJoinTokensRequest, RevokeJoinTokensResponse, hosts_server,
};
use hearth_api::{ApiError, ErrorCode, InstanceState, Kind, fence};
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{answer, input, join_tokens};
use crate::app::App;
use crate::lifecycle::{lose_host, unstart};
use crate::scheduler::{Resources, inventory};
use crate::state::{
    self, Drain, HostReport, Incarnation, Instance, JoinToken, Move, Snapshot, Stage, State, Tx, Volume,
};
use crate::views;

/// Ids that a sentence names at most.
const NAMED: usize = 5;

pub(super) struct Hosts(pub(super) Arc<App>);

#[tonic::async_trait]
impl hosts_server::Hosts for Hosts {
    async fn list_hosts(&self, _: Request<ListHostsRequest>) -> Result<Response<ListHostsResponse>, Status> {
        answer(Ok(list(&self.0)))
    }

    async fn drain_host(
        &self,
        request: Request<DrainHostRequest>,
    ) -> Result<Response<DrainHostResponse>, Status> {
        answer(drain(&self.0, request.into_inner()).await)
    }

    async fn resume_host(
        &self,
        request: Request<ResumeHostRequest>,
    ) -> Result<Response<ResumeHostResponse>, Status> {
        answer(resume(&self.0, request.into_inner()).await)
    }

    async fn forget_host(
        &self,
        request: Request<ForgetHostRequest>,
    ) -> Result<Response<ForgetHostResponse>, Status> {
        answer(forget(&self.0, request.into_inner()).await)
    }

    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        answer(join_tokens::create(&self.0, request.into_inner()).await)
    }

    async fn list_join_tokens(
        &self,
        _: Request<ListJoinTokensRequest>,
    ) -> Result<Response<ListJoinTokensResponse>, Status> {
        answer(Ok(join_tokens::list(&self.0)))
    }

    async fn revoke_join_tokens(
        &self,
        request: Request<RevokeJoinTokensRequest>,
    ) -> Result<Response<RevokeJoinTokensResponse>, Status> {
        answer(join_tokens::revoke(&self.0, request.into_inner()).await)
    }
}

fn repairs(report: &HostReport) -> Vec<HostRepair> {
    let tell = |repair: &state::Repair| HostRepair {
        time: Some(views::timestamp(repair.time)),
        description: repair.what.clone(),
    };
    report.repairs.iter().map(tell).collect()
}

fn list(app: &App) -> ListHostsResponse {
    let state = app.state();
    let hosts = inventory(&state, |id| app.sessions.is_connected(id));
    let tell = |host: crate::scheduler::Host| {
        let row = state.host(&host.id)?;
        let report = state.get::<HostReport>(&host.id);
        Some(Host {
            hostname: report.map(|report| report.hostname.clone()).unwrap_or_default(),
            availability_zone: host.availability_zone,
            state: match (host.connected, row.silent_since, report) {
                (true, ..) => "connected",
                (false, Some(_), _) => "unknown",
                (false, None, None) => "pending",
                (false, None, Some(_)) => "disconnected",
            }
            .into(),
            drain_state: match (row.drain, is_idle(&state, &host.id)) {
                (None, _) => "",
                (Some(_), false) => "draining",
                (Some(_), true) => "drained",
            }
            .into(),
            silent_time: row.silent_since.filter(|_| !host.connected).map(views::timestamp),
            agent_version: report
                .map(|report| report.agent_version.clone())
                .unwrap_or_default(),
            capacity: Some(resources(host.total)),
            claimed: Some(resources(host.claimed)),
            instance_ids: alive_on(&state, &host.id),
            enroll_time: Some(views::timestamp(row.enrolled_at)),
            repairs: report.map(repairs).unwrap_or_default(),
            host_id: host.id,
        })
    };
    ListHostsResponse {
        hosts: hosts.into_iter().filter_map(tell).collect(),
    }
}

/// Instances of a host that are not terminated.
fn alive_on(state: &State, host_id: &str) -> Vec<String> {
    state
        .by(&Instance::BY_HOST, host_id)
        .filter(|row| row.state != InstanceState::Terminated)
        .map(|row| row.id.clone())
        .collect()
}

/// Instances that run on a host, or that start or stop there.
fn busy_on(state: &State, host_id: &str) -> Vec<String> {
    state
        .by(&Instance::BY_HOST, host_id)
        .filter(|row| !matches!(row.state, InstanceState::Stopped | InstanceState::Terminated))
        .map(|row| row.id.clone())
        .collect()
}

/// Whether nothing runs on a host, and no volume is leaving it.
fn is_idle(state: &State, host_id: &str) -> bool {
    let mut moves = state.by(&Move::BY_HOST, host_id);
    busy_on(state, host_id).is_empty() && !moves.any(Move::is_storing)
}

async fn drain(app: &App, request: DrainHostRequest) -> Result<DrainHostResponse, ApiError> {
    let host_id = input::id(Kind::Host, &request.host_id, "HostId")?.to_string();
    let stop_instances = request.stop_instances;
    app.store
        .transact(move |tx| {
            let Some(host) = tx.host(&host_id) else {
                return Err(Kind::Host.not_found(&[&host_id]));
            };
            // Asked for again, it goes on, with what is asked for now.
            let since = host.drain.map_or(tx.now(), |drain| drain.since);
            let drain = Drain {
                since,
                stop_instances,
            };
            // The reconciler stops the instances, also those that begin to run later.
            tx.update::<state::Host>(&host_id, |host| host.drain = Some(drain));
            tx.event("host.draining", &host_id);
            tx.audit(json!({ "host": host_id, "stop_instances": stop_instances }));
            let instance_ids = busy_on(tx, &host_id);
            Ok(DrainHostResponse {
                host_id,
                instance_ids,
            })
        })
        .await
}

async fn resume(app: &App, request: ResumeHostRequest) -> Result<ResumeHostResponse, ApiError> {
    let host_id = input::id(Kind::Host, &request.host_id, "HostId")?.to_string();
    app.store
        .transact(move |tx| {
            if tx.host(&host_id).is_none() {
                return Err(Kind::Host.not_found(&[&host_id]));
            }
            tx.update::<state::Host>(&host_id, |host| host.drain = None);
            tx.event("host.resumed", &host_id);
            tx.audit(json!({ "host": host_id }));
            Ok(ResumeHostResponse { host_id })
        })
        .await
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
async fn forget(app: &App, request: ForgetHostRequest) -> Result<ForgetHostResponse, ApiError> {
    let host_id = input::id(Kind::Host, &request.host_id, "HostId")?.to_string();
    let force = request.force;
    let answer = app
        .store
        .transact(move |tx| forget_in(tx, host_id, force))
        .await?;
    app.sessions
        .evict(&answer.host_id, fence::forgotten(&answer.host_id));
    Ok(answer)
}

/// Ends a host's membership: its report, keys, incarnations and volumes go. The host itself stays for its instances of before.
/// Its agent is told at its next call, and ends the guests. What holds nobody back: instances that shut down, and volumes
/// that would go with them. Volumes of which all is stored stay, and lie nowhere; and so do stopped instances that have no
/// others.
fn forget_in(tx: &mut Tx<'_>, host_id: String, force: bool) -> Result<ForgetHostResponse, ApiError> {
    if tx.host(&host_id).is_none() {
        return Err(Kind::Host.not_found(&[&host_id]));
    }
    if !force {
        refuse_used(tx, &host_id)?;
    }
    end_moves(tx, &host_id);
    let pending: Vec<String> = tx
        .by(&Snapshot::BY_HOST, &host_id)
        .map(|snapshot| snapshot.id.clone())
        .collect();
    for id in &pending {
        tx.fail_snapshot(
            id,
            "The host of the volume was forgotten before the snapshot was stored.",
        );
    }
    let (stored, lost): (Vec<&Volume>, Vec<&Volume>) = tx
        .by(&Volume::BY_HOST, &host_id)
        .partition(|volume| tx.is_stored(volume) && !volume.deleting);
    let ids = |volumes: Vec<&Volume>| -> Vec<String> { volumes.iter().map(|row| row.id.clone()).collect() };
    let (stored_ids, volume_ids) = (ids(stored), ids(lost));
    let mut instance_ids = alive_on(tx, &host_id);
    instance_ids.retain(|id| !outlives(tx, id, &host_id));
    for id in &instance_ids {
        let change = tx.get::<Instance>(id).and_then(|row| lose_host(&row.lifecycle()));
        if let Some(change) = change {
            tx.change_instance(id, &change);
        }
    }
    stored_ids.iter().for_each(|id| tx.abandon_host(id));
    volume_ids.iter().for_each(|id| tx.remove_volume(id));
    let lives: Vec<String> = tx
        .by(&Incarnation::BY_HOST, &host_id)
        .map(|life| life.id.clone())
        .collect();
    tx.remove_all::<Incarnation>(lives);
    tx.remove::<HostReport>(&host_id);
    tx.end_keys(&host_id, |_| true);
    let tokens: Vec<String> = tx
        .by(&JoinToken::BY_HOST, &host_id)
        .map(|token| token.id.clone())
        .collect();
    tx.remove_all::<JoinToken>(tokens);
    let now = tx.now();
    tx.update::<state::Host>(&host_id, |host| host.forgotten_at = Some(now));
    tx.event("host.forgotten", &host_id);
    let detail = json!({ "host": host_id, "force": force, "instances": instance_ids, "volumes": volume_ids });
    tx.audit(detail);
    Ok(ForgetHostResponse {
        host_id,
        terminated_instance_ids: instance_ids,
        abandoned_volume_ids: volume_ids,
    })
}

/// Volumes neither leave a host that is forgotten nor come there, and what it has of those that have left is nobody's business.
fn end_moves(tx: &mut Tx<'_>, host_id: &str) {
    let (leaving, left): (Vec<&Move>, Vec<&Move>) =
        tx.by(&Move::BY_HOST, host_id).partition(|row| row.is_storing());
    let is_coming = |row: &&Move| matches!(&row.stage, Stage::Storing { to, .. } if to == host_id);
    let coming = tx.by(&Move::BY_STAGE, Move::STORING).filter(is_coming);
    let ids = |moves: Vec<&Move>| -> Vec<String> { moves.iter().map(|row| row.id.clone()).collect() };
    let (leaving, left, coming) = (ids(leaving), ids(left), ids(coming.collect()));
    // Nobody is there who could say that it is over.
    let starting = tx
        .by(&Instance::BY_HOST, host_id)
        .filter(|row| tx.awaits_volumes(row));
    let starting: Vec<Instance> = starting.cloned().collect();
    for row in starting {
        tx.change_instance(&row.id, &unstart(&row.lifecycle()));
    }
    for id in leaving.iter().chain(&coming) {
        tx.fail_move(id, &format!("the host {host_id} was forgotten"));
    }
    left.iter().for_each(|id| tx.drop_copy(id));
}

/// Whether an instance can be started on another host when its own is forgotten.
fn outlives(state: &State, instance_id: &str, host_id: &str) -> bool {
    let is_stopped = |row: &Instance| row.state == InstanceState::Stopped;
    let mut volumes = state.by(&Volume::BY_INSTANCE, instance_id);
    state.get::<Instance>(instance_id).is_some_and(is_stopped)
        && volumes.all(|volume| volume.host_id.as_deref() != Some(host_id) || state.is_stored(volume))
}

/// # Errors
/// `DependencyViolation` when the host has instances that nobody has terminated, or volumes that outlive theirs.
fn refuse_used(state: &State, host_id: &str) -> Result<(), ApiError> {
    let ends = |id: &str| {
        let row = state.get::<Instance>(id);
        row.is_some_and(|row| row.state == InstanceState::ShuttingDown)
    };
    let mut instances = alive_on(state, host_id);
    instances.retain(|id| !ends(id));
    let goes = |volume: &&Volume| {
        let attachment = volume.attachment.as_ref();
        attachment.is_some_and(|a| a.delete_on_termination && ends(&a.instance_id))
    };
    let volumes: Vec<String> = state
        .by(&Volume::BY_HOST, host_id)
        .filter(|volume| !goes(volume))
        .map(|volume| volume.id.clone())
        .collect();
    let (count, noun, ids) = match instances.as_slice() {
        [] if volumes.is_empty() => return Ok(()),
        [] => (volumes.len(), "volumes that outlive their instances", volumes),
        _ => (instances.len(), "instances", instances),
    };
    let more = if count > NAMED { ", ..." } else { "" };
    let named = ids.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    Err(ApiError::new(
        ErrorCode::DependencyViolation,
        format!(
            "The host '{host_id}' has {count} {noun}: {named}{more}. Terminate the instances first. With force they \
             become terminated and the host's volumes are given up, except for what is stored elsewhere."
        ),
    ))
}
