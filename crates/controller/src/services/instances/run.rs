//! RunInstances: one transaction writes the instances, their capacity claims, interfaces, addresses, volumes, the
//! ClientToken, the audit row and the events; then the hosts concerned hear of it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use hearth_api::agent::instance_intent::Desired;
use hearth_api::v1::{Reservation, RunInstancesRequest};
use hearth_api::{ApiError, ErrorCode, Id, InstanceState, Kind};
use hearth_image::BootMode;
use serde_json::json;

use super::block_devices::Mapped;
use super::plan::{self, Plan};
use crate::addresses;
use crate::app::App;
use crate::scheduler::{Demand, Resources};
use crate::services::placement::{Placed, Wish};
use crate::services::volumes::devices::check_count;
use crate::services::volumes::quotas;
use crate::services::{client_tokens, profile_associations, ssm};
use crate::state::noun::keep_tags;
use crate::state::{
    self, Attachment, ClientToken, Image, Instance, Known, NetworkInterface, PRIMARY, ProfileAssociation,
    SecurityGroup, State, StoreDisk, Subnet, Tx, Volume, store_gib,
};
use crate::store::bootstrap::DEFAULT_GROUP;
use crate::views;

const ACTION: &str = "RunInstances";

pub(super) async fn run(app: &Arc<App>, request: RunInstancesRequest) -> Result<Reservation, ApiError> {
    let defaults = app.state().account_settings(&app.scope()).metadata_defaults;
    let plan = plan::check(request, &defaults)?;
    let shared = Arc::clone(app);
    app.store.transact(move |tx| launch(&shared, tx, plan)).await
}

fn launch(app: &App, tx: &mut Tx<'_>, plan: Plan) -> Result<Reservation, ApiError> {
    if let Some(before) = recall(app, tx, &plan)? {
        return Ok(before);
    }
    let launch = resolve(app, tx, plan)?;
    let scope = app.scope();
    let reservation_id = Id::new(Kind::Reservation).to_string();
    tx.put(state::Reservation {
        id: reservation_id.clone(),
        account_id: scope.account_id().to_owned(),
        region: scope.region().to_owned(),
        created_at: tx.now(),
    });
    let user_data = launch.plan.user_data.clone();
    let user_data = (!user_data.is_empty()).then(|| tx.keep_blob(user_data));
    let mut ids = Vec::new();
    for index in 0..launch.placed.hosts().len() {
        ids.push(launch.insert(app, tx, &reservation_id, user_data.as_deref(), index)?);
    }
    let request = &launch.plan.request;
    client_tokens::keep(
        tx,
        &scope,
        &request.client_token,
        token_id(app, request),
        launch.plan.hash.clone(),
        &reservation_id,
    );
    let detail = json!({
        "reservation": reservation_id, "instances": ids, "hosts": launch.placed.hosts(), "image": request.image_id,
        "type": request.instance_type, "zone": launch.subnet.availability_zone,
    });
    tx.audit(detail);
    Ok(reservation(app, tx, &reservation_id))
}

fn token_id(app: &App, request: &RunInstancesRequest) -> String {
    ClientToken::id_of(&app.scope(), ACTION, named_zone(request), &request.client_token)
}

/// The availability zone that the call names; empty without one.
fn named_zone(request: &RunInstancesRequest) -> &str {
    let placement = request.placement.as_ref();
    placement.map_or("", |placement| &placement.availability_zone)
}

/// What the same ClientToken did before, as it is now.
fn recall(app: &App, state: &State, plan: &Plan) -> Result<Option<Reservation>, ApiError> {
    let token = plan.request.client_token.as_str();
    let Some(before) = client_tokens::recall(state, token, &token_id(app, &plan.request), &plan.hash)? else {
        return Ok(None);
    };
    let is_alive = |row: &Instance| row.state != InstanceState::Terminated;
    if !state
        .by(&Instance::BY_RESERVATION, &before.resource_id)
        .any(is_alive)
    {
        return Err(ApiError::new(
            ErrorCode::IdempotentInstanceTerminated,
            format!(
                "The client token '{token}' stands for a launch, {}, whose instances are terminated. Choose a new token \
                 to launch others.",
                before.resource_id
            ),
        ));
    }
    Ok(Some(reservation(app, state, &before.resource_id)))
}

fn reservation(app: &App, state: &State, reservation_id: &str) -> Reservation {
    Reservation {
        reservation_id: reservation_id.to_owned(),
        owner_id: app.account(),
        instances: views::reservation(state, reservation_id),
        groups: Vec::new(),
    }
}

/// A launch with everything found that it names, and placed.
struct Launch {
    plan: Plan,
    profile_id: Option<String>,
    public_key: String,
    groups: Vec<String>,
    subnet: Subnet,
    /// Of each instance.
    volumes: Vec<Mapped>,
    store: Vec<StoreDisk>,
    placed: Placed,
    private_ips: Vec<Ipv4Addr>,
    /// Empty when no public addresses are wanted.
    public_ips: Vec<Ipv4Addr>,
}

fn resolve(app: &App, state: &State, mut plan: Plan) -> Result<Launch, ApiError> {
    plan.request.image_id = ssm::image_id(app, state, &app.scope(), &plan.request.image_id)?;
    let wish = Wish::of_launch(app, state, plan.request.placement.as_ref())?;
    let image = image(state, &plan.request.image_id)?;
    let volumes = plan.mappings.of(state, &app.scope(), image)?;
    let store = plan.mappings.store(plan.kind, image);
    check_count(volumes.len() + store.len())?;
    let public_key = public_key(app, state, &plan.request.key_name)?;
    let profile_id = profile_associations::named(app, state, plan.request.iam_instance_profile.as_ref())?;
    let allowed = allowed(app, state, &plan)?;
    let subnets = subnets(state, &plan)?;
    let vpc_id = subnets.first().map_or("", |subnet| &subnet.vpc_id);
    let groups = groups(state, &plan.request, vpc_id)?;
    let wants_public = plan
        .public_address
        .unwrap_or_else(|| subnets.iter().any(|subnet| subnet.map_public_ip_on_launch));
    let public = if wants_public {
        free_public(app, state, plan.min, allowed)?
    } else {
        Vec::new()
    };

    let demand = Demand {
        zones: subnets
            .iter()
            .map(|subnet| subnet.availability_zone.clone())
            .collect(),
        host: None,
        except: BTreeSet::new(),
        spacing: None,
        uefi: image.boot_mode == BootMode::Uefi,
        each: Resources {
            vcpus: plan.kind.vcpus.into(),
            memory_mib: plan.kind.memory_mib,
            disk_bytes: (volumes.iter().map(|volume| volume.spec.size_gib).sum::<u64>() + store_gib(&store))
                << 30,
        },
        min: plan.min,
        max: if wants_public {
            allowed.min(public.len())
        } else {
            allowed
        },
    };
    let mut placed = wish.place(app, state, demand)?;
    let subnet = subnets
        .into_iter()
        .find(|subnet| subnet.availability_zone == placed.zone())
        .ok_or_else(|| ApiError::new(ErrorCode::InternalError, "A zone without a subnet was chosen."))?;
    let private_ips = match plan.private_ip {
        Some(address) => vec![address],
        None => addresses::free_in(state, subnet, placed.hosts().len()),
    };
    placed.truncate(private_ips.len());
    let all = placed
        .hosts()
        .iter()
        .flat_map(|_| volumes.iter().map(|volume| volume.spec));
    quotas::check(state, &app.scope(), all, None)?;
    let mut public_ips = public;
    public_ips.truncate(placed.hosts().len());
    Ok(Launch {
        plan,
        profile_id,
        public_key,
        groups,
        subnet: subnet.clone(),
        volumes,
        store,
        placed,
        private_ips,
        public_ips,
    })
}

fn image<'s>(state: &'s State, id: &str) -> Result<&'s Image, ApiError> {
    match state.get::<Image>(id) {
        Some(image) if image.is_available() => Ok(image),
        Some(image) if image.is_registered() => Err(ApiError::new(
            ErrorCode::InvalidAmiIdUnavailable,
            format!("The image '{id}' is {}, and not available.", image.state),
        )),
        Some(_) => Err(ApiError::new(
            ErrorCode::InvalidAmiIdUnavailable,
            format!("The image '{id}' is deregistered. Register it anew, or use another."),
        )),
        None => Err(Kind::Image.not_found(&[id])),
    }
}

fn public_key(app: &App, state: &State, key_name: &str) -> Result<String, ApiError> {
    if key_name.is_empty() {
        return Ok(String::new());
    }
    match state.key_pair_named(&app.scope(), key_name) {
        Some(pair) => Ok(pair.public_key.clone()),
        None => Err(Kind::KeyPair.not_found(&[key_name])),
    }
}

/// Ids of the groups that the interfaces will be in; the VPC's default group when none is named.
fn groups(state: &State, request: &RunInstancesRequest, vpc_id: &str) -> Result<Vec<String>, ApiError> {
    let mut ids = request.security_group_ids.clone();
    for id in &ids {
        match state.get::<SecurityGroup>(id) {
            Some(group) if group.vpc_id == vpc_id => {}
            Some(group) => {
                return Err(ApiError::new(
                    ErrorCode::InvalidParameter,
                    format!(
                        "Security group {id} and the subnet belong to different networks: the group is in {}, the \
                         subnet in {vpc_id}.",
                        group.vpc_id
                    ),
                ));
            }
            None => return Err(Kind::SecurityGroup.not_found(&[id])),
        }
    }
    let mut names = request.security_groups.clone();
    if ids.is_empty() && names.is_empty() {
        names.push(DEFAULT_GROUP.into());
    }
    for name in &names {
        match state.group_named(vpc_id, name) {
            Some(group) => ids.push(group.id.clone()),
            None => return Err(Kind::SecurityGroup.not_found(&[name])),
        }
    }
    ids.sort();
    ids.dedup();
    Ok(ids)
}

/// The subnets that will do: those with as many free addresses as are needed at least.
fn subnets<'s>(state: &'s State, plan: &Plan) -> Result<Vec<&'s Subnet>, ApiError> {
    let request = &plan.request;
    let zone = named_zone(request);
    let mut subnets: Vec<&Subnet> = if request.subnet_id.is_empty() {
        state.all::<Subnet>().filter(|s| s.default_for_az).collect()
    } else {
        let named = state.get::<Subnet>(&request.subnet_id);
        vec![named.ok_or_else(|| Kind::Subnet.not_found(&[&request.subnet_id]))?]
    };
    if subnets.is_empty() {
        return Err(ApiError::new(
            ErrorCode::VpcIdNotSpecified,
            "No default VPC for this user, or no default subnet in it. Name a subnet, or make one: CreateDefaultVpc, \
             CreateDefaultSubnet.",
        ));
    }
    // The order in which zones are preferred is that of their names.
    subnets.sort_by(|a, b| a.availability_zone.cmp(&b.availability_zone));
    subnets.retain(|s| zone.is_empty() || s.availability_zone == zone);
    if subnets.is_empty() {
        return Err(ApiError::new(
            ErrorCode::InvalidParameterCombination,
            format!("There is no such subnet in the availability zone '{zone}': name one of them only."),
        ));
    }
    if let Some(address) = plan.private_ip {
        return subnet_of(state, subnets, address);
    }
    subnets.retain(|subnet| addresses::free_count(state, subnet) >= plan.min);
    if subnets.is_empty() {
        return Err(ApiError::new(
            ErrorCode::InsufficientFreeAddressesInSubnet,
            format!(
                "There are not {} free private addresses in any subnet that will do. Terminate instances, or launch \
                 fewer.",
                plan.min
            ),
        ));
    }
    Ok(subnets)
}

fn subnet_of<'s>(
    state: &State,
    subnets: Vec<&'s Subnet>,
    address: Ipv4Addr,
) -> Result<Vec<&'s Subnet>, ApiError> {
    let holds = |subnet: &&Subnet| addresses::is_usable(subnet.cidr, address);
    let Some(subnet) = subnets.into_iter().find(holds) else {
        return Err(ApiError::invalid_value(
            "PrivateIpAddress",
            address,
            "It is outside of the subnet, or one of the five addresses that every subnet keeps for itself.",
        ));
    };
    if addresses::is_taken(state, &subnet.id, address) {
        return Err(ApiError::new(
            ErrorCode::InvalidIpAddressInUse,
            format!("Address {address} is in use."),
        ));
    }
    Ok(vec![subnet])
}

/// As many instances as the limit leaves.
fn allowed(app: &App, state: &State, plan: &Plan) -> Result<usize, ApiError> {
    let limit = usize::try_from(app.config.instance_limit).unwrap_or(usize::MAX);
    let [alive, _] = state.sum(&Instance::ALIVE, &app.scope().key(&[]));
    let left = limit.saturating_sub(usize::try_from(alive).unwrap_or(usize::MAX));
    if left < plan.min {
        return Err(ApiError::new(
            ErrorCode::InstanceLimitExceeded,
            format!(
                "You have requested more instances ({}) than your current instance limit of {limit} allows: {alive} \
                 exist. Terminate some, or start hearthd with a higher --instance-limit.",
                plan.min
            ),
        ));
    }
    Ok(plan.max.min(left))
}

/// The lowest free public addresses: at least `min`, at most `max`.
pub(super) fn free_public(
    app: &App,
    state: &State,
    min: usize,
    max: usize,
) -> Result<Vec<Ipv4Addr>, ApiError> {
    let pool = app.cloud.public_pool;
    let free = addresses::free_public(state, pool, max);
    if free.len() < min {
        return Err(ApiError::new(
            ErrorCode::InsufficientAddressCapacity,
            format!(
                "The pool {pool} has {} free public addresses, and {min} are needed. Stop or terminate instances, or \
                 launch without a public address.",
                free.len()
            ),
        ));
    }
    Ok(free)
}

impl Launch {
    /// Writes one instance with all that it holds.
    fn insert(
        &self,
        app: &App,
        tx: &mut Tx<'_>,
        reservation_id: &str,
        user_data: Option<&str>,
        index: usize,
    ) -> Result<String, ApiError> {
        let (Some(host), Some(private_ip)) = (self.placed.hosts().get(index), self.private_ips.get(index))
        else {
            return Err(ApiError::new(
                ErrorCode::InternalError,
                "More instances than places.",
            ));
        };
        let (plan, request, scope) = (&self.plan, &self.plan.request, &app.scope());
        let id = Id::new(Kind::Instance).to_string();
        let instance = Instance {
            id: id.clone(),
            account_id: scope.account_id().to_owned(),
            region: scope.region().to_owned(),
            reservation_id: reservation_id.to_owned(),
            ami_launch_index: u32::try_from(index).unwrap_or(u32::MAX),
            image_id: request.image_id.clone(),
            instance_type: plan.kind.name.clone(),
            vcpus: plan.kind.vcpus,
            memory_mib: plan.kind.memory_mib,
            store: self.store.clone(),
            store_run: 1,
            host_id: host.clone(),
            availability_zone: self.subnet.availability_zone.clone(),
            key_name: request.key_name.clone(),
            public_key: self.public_key.clone(),
            user_data: user_data.map(str::to_owned),
            client_token: request.client_token.clone(),
            shutdown_behavior: request.instance_initiated_shutdown_behavior.clone(),
            http_tokens: plan.metadata.http_tokens.clone(),
            http_endpoint: plan.metadata.http_endpoint.clone(),
            http_hop_limit: plan.metadata.http_put_response_hop_limit.unsigned_abs(),
            metadata_tags: plan.metadata.instance_metadata_tags.clone(),
            auto_recovery: plan.auto_recovery.clone(),
            disable_api_stop: request.disable_api_stop,
            disable_api_termination: request.disable_api_termination,
            profile: self
                .profile_id
                .as_ref()
                .map(|profile_id| ProfileAssociation::new(profile_id, tx.now())),
            public_address: !self.public_ips.is_empty(),
            launch_time: tx.now(),
            desired: Desired::Running,
            run: 1,
            reboot: 0,
            force: false,
            imaging: false,
            state: InstanceState::Pending,
            state_since: tx.now(),
            reason_code: String::new(),
            reason_message: String::new(),
            transition_reason: String::new(),
            terminated_at: None,
            tags: keep_tags(&plan.instance_tags),
        };
        self.placed.hold(tx, index, &instance, instance.run);
        tx.put(instance);
        tx.put(NetworkInterface {
            id: Id::new(Kind::NetworkInterface).to_string(),
            account_id: scope.account_id().to_owned(),
            region: scope.region().to_owned(),
            attachment: Some(Attachment::first(&id, PRIMARY, true, tx.now())),
            epoch: 1,
            vpc_id: self.subnet.vpc_id.clone(),
            subnet_id: self.subnet.id.clone(),
            mac_address: addresses::new_mac(tx),
            private_ip: *private_ip,
            public_ip: self.public_ips.get(index).copied(),
            groups: self.groups.clone(),
            tags: keep_tags(&plan.interface_tags),
        });
        for volume in &self.volumes {
            let encryption = volume.encryption.make(tx, &app.vault, scope)?;
            tx.put(Volume {
                id: Id::new(Kind::Volume).to_string(),
                account_id: scope.account_id().to_owned(),
                region: scope.region().to_owned(),
                attachment: Some(Attachment::first(
                    &id,
                    &volume.device,
                    volume.delete_on_termination,
                    tx.now(),
                )),
                epoch: 1,
                availability_zone: self.subnet.availability_zone.clone(),
                host_id: Some(host.clone()),
                image_id: volume.is_root.then(|| request.image_id.clone()),
                snapshot_id: volume.snapshot_id.clone(),
                moved: None,
                known: Known::ByHost,
                is_made: false,
                encryption,
                spec: volume.spec,
                modification: None,
                auto_enable_io: false,
                created_at: tx.now(),
                deleting: false,
                tags: keep_tags(&plan.volume_tags),
            });
        }
        tx.event("instance.pending", &id);
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Tags, Vpc};

    fn vpc(tx: &mut Tx<'_>, id: &str, group: &str) {
        tx.put(Vpc {
            id: id.into(),
            account_id: "1".into(),
            region: "local-1".into(),
            cidr: "10.0.0.0/16".parse().unwrap(),
            is_default: id == "vpc-a",
            dns_support: true,
            dns_hostnames: true,
            created_at: 0,
            tags: Tags::new(),
        });
        tx.put(SecurityGroup {
            id: group.into(),
            account_id: "1".into(),
            region: "local-1".into(),
            vpc_id: id.into(),
            name: DEFAULT_GROUP.into(),
            description: String::new(),
            created_at: 0,
            tags: Tags::new(),
        });
    }

    #[test]
    fn groups_are_of_the_subnets_vpc() {
        let mut state = State::default();
        let mut tx = Tx::new(&mut state, 0);
        vpc(&mut tx, "vpc-a", "sg-a");
        vpc(&mut tx, "vpc-b", "sg-b");
        tx.finish().unwrap();
        let named = |ids: &[&str], vpc_id| {
            let request = RunInstancesRequest {
                security_group_ids: ids.iter().map(ToString::to_string).collect(),
                ..RunInstancesRequest::default()
            };
            groups(&state, &request, vpc_id)
        };
        assert_eq!(
            named(&[], "vpc-b").unwrap(),
            ["sg-b"],
            "the VPC's own default group"
        );
        assert_eq!(named(&["sg-b"], "vpc-b").unwrap(), ["sg-b"]);
        let refused = named(&["sg-b", "sg-a"], "vpc-b").unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidParameter);
        assert!(
            refused
                .message
                .contains("sg-a and the subnet belong to different networks")
        );
        assert_eq!(
            named(&["sg-c"], "vpc-b").unwrap_err().code,
            ErrorCode::InvalidGroupNotFound
        );
    }
}
