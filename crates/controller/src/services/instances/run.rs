//! RunInstances: one transaction writes the instances, their capacity claims, interfaces, addresses, volumes, the
//! ClientToken, the audit row and the events; then the hosts concerned hear of it.

use std::net::Ipv4Addr;

use hearth_api::agent::instance_intent::Desired;
use hearth_api::v1::{Reservation, RunInstancesRequest};
use hearth_api::{ApiError, ErrorCode, Id, InstanceState, Kind};
use hearth_image::BootMode;
use serde_json::json;
use sqlx::SqliteConnection;

use super::plan::{self, Plan};
use crate::app::App;
use crate::scheduler::{Demand, Resources, place};
use crate::services::{Failure, commit};
use crate::store::addresses::{self, assign_public};
use crate::store::bootstrap::DEFAULT_GROUP;
use crate::store::images::{self, AVAILABLE, ImageRow};
use crate::store::instances::{self, InstanceRow};
use crate::store::networks::{self, InterfaceRow, SubnetRow, VolumeRow, VpcRow};
use crate::store::views::{self, ROOT_DEVICE};
use crate::store::{WriteTransaction, hosts, key_pairs, now, security_groups, tags, tokens};

const ACTION: &str = "RunInstances";

pub(super) async fn run(app: &App, request: RunInstancesRequest) -> Result<Reservation, Failure> {
    let plan = plan::check(request)?;
    let mut tx = app.store.write().await?;
    if let Some(before) = recall(app, &mut tx, &plan).await? {
        return Ok(before);
    }
    let launch = resolve(app, tx.connection(), plan).await?;
    let reservation_id = Id::new(Kind::Reservation).to_string();
    instances::insert_reservation(tx.connection(), &reservation_id).await?;
    let mut ids = Vec::new();
    for index in 0..launch.hosts.len() {
        ids.push(launch.insert(&mut tx, &reservation_id, index).await?);
    }
    security_groups::touch_members(&mut tx, &launch.groups).await?;
    let request = &launch.plan.request;
    if !request.client_token.is_empty() {
        let c = tx.connection();
        tokens::remember(
            c,
            ACTION,
            &request.client_token,
            &launch.plan.hash,
            &reservation_id,
        )
        .await?;
    }
    let detail = json!({
        "reservation": reservation_id, "instances": ids, "hosts": launch.hosts, "image": request.image_id,
        "type": request.instance_type, "zone": launch.subnet.availability_zone,
    });
    tx.audit(ACTION, &detail).await?;
    let answer = reservation(app, tx.connection(), &reservation_id).await?;
    commit(tx, request.dry_run).await?;
    Ok(answer)
}

/// What the same ClientToken did before, as it is now.
async fn recall(app: &App, tx: &mut WriteTransaction, plan: &Plan) -> Result<Option<Reservation>, Failure> {
    let token = plan.request.client_token.as_str();
    if token.is_empty() {
        return Ok(None);
    }
    let Some(before) = tokens::recall(tx.connection(), ACTION, token).await? else {
        return Ok(None);
    };
    if before.parameters_hash != plan.hash {
        return Err(ApiError::new(
            ErrorCode::IdempotentParameterMismatch,
            format!(
                "The client token '{token}' was used with other parameters, for {}. Repeat the call unchanged, or \
                 choose a new token.",
                before.resource_id
            ),
        )
        .into());
    }
    if plan.request.dry_run {
        return Err(ApiError::dry_run().into());
    }
    Ok(Some(
        reservation(app, tx.connection(), &before.resource_id).await?,
    ))
}

async fn reservation(
    app: &App,
    c: &mut SqliteConnection,
    reservation_id: &str,
) -> Result<Reservation, Failure> {
    let ids = instances::of_reservation(c, reservation_id).await?;
    Ok(Reservation {
        reservation_id: reservation_id.to_owned(),
        owner_id: app.cloud().owner_id.clone(),
        instances: views::instances(c, Some(&ids), app.cloud()).await?,
    })
}

/// A launch with everything found that it names, and placed.
struct Launch {
    plan: Plan,
    public_key: String,
    groups: Vec<String>,
    subnet: SubnetRow,
    size_gib: i64,
    hosts: Vec<String>,
    private_ips: Vec<Ipv4Addr>,
    /// Empty when no public addresses are wanted.
    public_ips: Vec<Ipv4Addr>,
}

async fn resolve(app: &App, c: &mut SqliteConnection, plan: Plan) -> Result<Launch, Failure> {
    let image = image(c, &plan.request.image_id).await?;
    let size_gib = volume_size(&plan, &image)?;
    let public_key = public_key(c, &plan.request.key_name).await?;
    let vpc = networks::default_vpc(c).await?;
    let groups = groups(c, &plan.request, &vpc).await?;
    let allowed = allowed(app, c, &plan).await?;
    let subnets = subnets(app, c, &plan).await?;
    let wants_public = plan
        .request
        .associate_public_ip_address
        .unwrap_or_else(|| subnets.iter().any(|(subnet, _)| subnet.map_public_ip_on_launch));
    let public = if wants_public {
        free_public(app, c, plan.min, allowed).await?
    } else {
        Vec::new()
    };

    let pinned = plan.request.placement.as_ref().map(|p| p.host_id.clone());
    let pinned = pinned.filter(|host| !host.is_empty());
    if let Some(host) = &pinned
        && hosts::availability_zone(c, host).await?.is_none()
    {
        return Err(Kind::Host.not_found(&[host]).into());
    }
    let picture = hosts::picture(c, |id| app.sessions.is_connected(id)).await?;
    let demand = Demand {
        zones: subnets
            .iter()
            .map(|(subnet, _)| subnet.availability_zone.clone())
            .collect(),
        host: pinned,
        uefi: image.boot_mode == BootMode::Uefi.as_str(),
        each: Resources {
            vcpus: plan.kind.vcpus.into(),
            memory_mib: plan.kind.memory_mib,
            disk_bytes: size_gib.unsigned_abs() << 30,
        },
        min: plan.min,
        max: if wants_public {
            allowed.min(public.len())
        } else {
            allowed
        },
    };
    let placement = place(&picture, &demand)
        .map_err(|refusal| ApiError::new(ErrorCode::InsufficientInstanceCapacity, refusal.to_string()))?;
    let (subnet, mut private_ips) = subnets
        .into_iter()
        .find(|(subnet, _)| subnet.availability_zone == placement.availability_zone)
        .ok_or_else(|| ApiError::new(ErrorCode::InternalError, "A zone without a subnet was chosen."))?;
    let mut chosen = placement.hosts;
    chosen.truncate(private_ips.len());
    private_ips.truncate(chosen.len());
    let mut public_ips = public;
    public_ips.truncate(chosen.len());
    Ok(Launch {
        plan,
        public_key,
        groups,
        subnet,
        size_gib,
        hosts: chosen,
        private_ips,
        public_ips,
    })
}

async fn image(c: &mut SqliteConnection, id: &str) -> Result<ImageRow, Failure> {
    match images::by_id(c, id).await? {
        Some(image) if image.state == AVAILABLE => Ok(image),
        Some(_) => Err(ApiError::new(
            ErrorCode::InvalidAmiIdUnavailable,
            format!("The image '{id}' is deregistered. Register it anew, or use another."),
        )
        .into()),
        None => Err(Kind::Image.not_found(&[id]).into()),
    }
}

fn volume_size(plan: &Plan, image: &ImageRow) -> Result<i64, ApiError> {
    let least = image.size.unsigned_abs().div_ceil(1 << 30).cast_signed();
    match plan.volume_gib {
        None => Ok(least),
        Some(size) if size >= least => Ok(size),
        Some(size) => Err(ApiError::new(
            ErrorCode::InvalidBlockDeviceMapping,
            format!(
                "Volume of size {size}GB is smaller than the image '{}', expect size >= {least}GB",
                image.id
            ),
        )),
    }
}

async fn public_key(c: &mut SqliteConnection, key_name: &str) -> Result<String, Failure> {
    if key_name.is_empty() {
        return Ok(String::new());
    }
    match key_pairs::by_name(c, key_name).await? {
        Some(pair) => Ok(pair.public_key),
        None => Err(Kind::KeyPair.not_found(&[key_name]).into()),
    }
}

/// Ids of the groups that the interfaces will be in; the VPC's default group when none is named.
async fn groups(
    c: &mut SqliteConnection,
    request: &RunInstancesRequest,
    vpc: &VpcRow,
) -> Result<Vec<String>, Failure> {
    let mut ids = request.security_group_ids.clone();
    for id in &ids {
        if security_groups::by_id(c, id).await?.is_none() {
            return Err(Kind::SecurityGroup.not_found(&[id]).into());
        }
    }
    let mut names = request.security_groups.clone();
    if ids.is_empty() && names.is_empty() {
        names.push(DEFAULT_GROUP.into());
    }
    for name in &names {
        match security_groups::by_name(c, &vpc.id, name).await? {
            Some(group) => ids.push(group.id),
            None => return Err(Kind::SecurityGroup.not_found(&[name]).into()),
        }
    }
    ids.sort();
    ids.dedup();
    Ok(ids)
}

/// The subnets that will do, each with its lowest free addresses, as many as may be needed.
async fn subnets(
    app: &App,
    c: &mut SqliteConnection,
    plan: &Plan,
) -> Result<Vec<(SubnetRow, Vec<Ipv4Addr>)>, Failure> {
    let request = &plan.request;
    let zone = request
        .placement
        .as_ref()
        .map_or("", |p| p.availability_zone.as_str());
    if !zone.is_empty() && !app.config.zones.iter().any(|z| z == zone) {
        let zones = app.config.zones.join(", ");
        let expected = format!("The zones of {} are {zones}.", app.config.region);
        return Err(ApiError::invalid_value("AvailabilityZone", zone, expected).into());
    }
    let mut subnets = networks::subnets(c).await?;
    // The order in which zones are preferred is that of their names.
    subnets.sort_by(|a, b| a.availability_zone.cmp(&b.availability_zone));
    if request.subnet_id.is_empty() {
        subnets.retain(|s| s.default_for_az);
    } else {
        subnets.retain(|s| s.id == request.subnet_id);
        if subnets.is_empty() {
            return Err(Kind::Subnet.not_found(&[&request.subnet_id]).into());
        }
    }
    subnets.retain(|s| zone.is_empty() || s.availability_zone == zone);
    if subnets.is_empty() {
        return Err(ApiError::new(
            ErrorCode::InvalidParameterCombination,
            format!("There is no such subnet in the availability zone '{zone}': name one of them only."),
        )
        .into());
    }
    if let Some(address) = plan.private_ip {
        return subnet_of(c, subnets, address).await;
    }
    let mut with_addresses = Vec::new();
    for subnet in subnets {
        let taken = addresses::taken_in(c, &subnet.id).await?;
        let usable = subnet
            .cidr
            .parse()
            .ok()
            .map(addresses::usable)
            .into_iter()
            .flatten();
        let free: Vec<_> = usable
            .filter(|address| !taken.contains(address))
            .take(plan.max)
            .collect();
        if free.len() >= plan.min {
            with_addresses.push((subnet, free));
        }
    }
    if with_addresses.is_empty() {
        return Err(ApiError::new(
            ErrorCode::InsufficientFreeAddressesInSubnet,
            format!(
                "There are not {} free private addresses in any subnet that will do. Terminate instances, or launch \
                 fewer.",
                plan.min
            ),
        )
        .into());
    }
    Ok(with_addresses)
}

async fn subnet_of(
    c: &mut SqliteConnection,
    subnets: Vec<SubnetRow>,
    address: Ipv4Addr,
) -> Result<Vec<(SubnetRow, Vec<Ipv4Addr>)>, Failure> {
    let holds = |subnet: &SubnetRow| {
        let usable = subnet.cidr.parse().ok().map(addresses::usable);
        usable.into_iter().flatten().any(|usable| usable == address)
    };
    let Some(subnet) = subnets.into_iter().find(holds) else {
        return Err(ApiError::invalid_value(
            "PrivateIpAddress",
            address,
            "It is outside of the subnet, or one of the five addresses that every subnet keeps for itself.",
        )
        .into());
    };
    if addresses::taken_in(c, &subnet.id).await?.contains(&address) {
        return Err(ApiError::new(
            ErrorCode::InvalidIpAddressInUse,
            format!("Address {address} is in use."),
        )
        .into());
    }
    Ok(vec![(subnet, vec![address])])
}

/// As many instances as the limit leaves.
async fn allowed(app: &App, c: &mut SqliteConnection, plan: &Plan) -> Result<usize, Failure> {
    let limit = usize::try_from(app.config.instance_limit).unwrap_or(usize::MAX);
    let alive = usize::try_from(instances::count_alive(c).await?).unwrap_or(0);
    let left = limit.saturating_sub(alive);
    if left < plan.min {
        return Err(ApiError::new(
            ErrorCode::InstanceLimitExceeded,
            format!(
                "You have requested more instances ({}) than your current instance limit of {limit} allows: {alive} \
                 exist. Terminate some, or start hearthd with a higher --instance-limit.",
                plan.min
            ),
        )
        .into());
    }
    Ok(plan.max.min(left))
}

/// The lowest free public addresses: at least `min`, at most `max`.
pub(super) async fn free_public(
    app: &App,
    c: &mut SqliteConnection,
    min: usize,
    max: usize,
) -> Result<Vec<Ipv4Addr>, Failure> {
    let pool = app.surroundings.public_pool;
    let taken = addresses::public_taken(c).await?;
    let free = addresses::pool_addresses(pool).filter(|address| !taken.contains(address));
    let free: Vec<_> = free.take(max).collect();
    if free.len() < min {
        return Err(ApiError::new(
            ErrorCode::InsufficientAddressCapacity,
            format!(
                "The pool {pool} has {} free public addresses, and {min} are needed. Stop or terminate instances, or \
                 launch without a public address.",
                free.len()
            ),
        )
        .into());
    }
    Ok(free)
}

impl Launch {
    /// Writes one instance with all that it holds.
    async fn insert(
        &self,
        tx: &mut WriteTransaction,
        reservation_id: &str,
        index: usize,
    ) -> Result<String, Failure> {
        let (Some(host), Some(private_ip)) = (self.hosts.get(index), self.private_ips.get(index)) else {
            return Err(ApiError::new(ErrorCode::InternalError, "More instances than places.").into());
        };
        let request = &self.plan.request;
        let id = Id::new(Kind::Instance).to_string();
        let row = InstanceRow {
            id: id.clone(),
            reservation_id: reservation_id.to_owned(),
            ami_launch_index: i64::try_from(index).unwrap_or(i64::MAX),
            image_id: request.image_id.clone(),
            instance_type: self.plan.kind.name.to_owned(),
            host_id: host.clone(),
            availability_zone: self.subnet.availability_zone.clone(),
            key_name: request.key_name.clone(),
            public_key: self.public_key.clone(),
            user_data: request.user_data.clone(),
            client_token: request.client_token.clone(),
            shutdown_behavior: request.instance_initiated_shutdown_behavior.clone(),
            http_tokens: self.plan.metadata.http_tokens.clone(),
            http_endpoint: self.plan.metadata.http_endpoint.clone(),
            http_hop_limit: self.plan.metadata.http_put_response_hop_limit.into(),
            auto_recovery: self.plan.auto_recovery.clone(),
            metadata_tags: self.plan.metadata.instance_metadata_tags.clone(),
            public_address: !self.public_ips.is_empty(),
            launch_time: now(),
            desired: i32::from(Desired::Running).into(),
            run: 1,
            reboot: 0,
            force: false,
            state: InstanceState::Pending.code().into(),
            reason_code: String::new(),
            reason_message: String::new(),
            transition_reason: String::new(),
        };
        let c = tx.connection();
        instances::insert(c, &row).await?;
        instances::claim(
            c,
            &id,
            host,
            self.plan.kind.vcpus.into(),
            self.plan.kind.memory_mib,
        )
        .await?;
        let interface = InterfaceRow {
            id: Id::new(Kind::NetworkInterface).to_string(),
            instance_id: id.clone(),
            vpc_id: self.subnet.vpc_id.clone(),
            subnet_id: self.subnet.id.clone(),
            mac_address: addresses::new_mac(c).await?,
            private_ip: private_ip.to_string(),
            public_ip: None,
        };
        networks::insert_interface(c, &interface, &self.groups).await?;
        if let Some(address) = self.public_ips.get(index) {
            assign_public(c, &id, *address).await?;
        }
        let volume = VolumeRow {
            id: Id::new(Kind::Volume).to_string(),
            instance_id: Some(id.clone()),
            host_id: host.clone(),
            image_id: request.image_id.clone(),
            device_name: ROOT_DEVICE.to_owned(),
            size_gib: self.size_gib,
            delete_on_termination: self.plan.delete_on_termination,
        };
        networks::insert_volume(c, &volume).await?;
        for (kind, resource, given) in [
            (Kind::Instance, &id, &self.plan.instance_tags),
            (Kind::Volume, &volume.id, &self.plan.volume_tags),
            (Kind::NetworkInterface, &interface.id, &self.plan.interface_tags),
        ] {
            tags::put(c, resource, kind.resource_type(), given).await?;
        }
        tx.touch_host(host);
        tx.event("instance.pending", &id).await?;
        Ok(id)
    }
}
