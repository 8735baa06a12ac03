//! Where instances shall be: placement groups, what a launch or a start demands of the scheduler, and the filters by it.

use std::sync::Arc;

use hearth_api::filter::{Filters, Known};
use hearth_api::known;
use hearth_api::v1::{
    CreatePlacementGroupRequest, CreatePlacementGroupResult, DeletePlacementGroupRequest,
    DeletePlacementGroupResult, DescribePlacementGroupsRequest, DescribePlacementGroupsResult, Placement,
    PlacementGroup, placement_groups_server,
};
use hearth_api::{ApiError, ErrorCode, Id, InstanceState, Kind};
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{answer, input};
use crate::app::App;
use crate::scheduler::{self, Demand, Other, Spacing, schedule};
use crate::state::noun::{keep_tags, tell_tags};
use crate::state::{
    self, DEFAULT_TENANCY, Incarnation, Instance, PlacementGroupMember, Scope, State, Strategy, Tx,
};

/// Filters of DescribePlacementGroups.
pub(super) const FILTERS: Known<PlacementGroup> = known! {
    tags: |item| &item.tags;
    "group-arn" => group_arn,
    "group-name" => group_name,
    "spread-level" => spread_level,
    "state" => state,
    "strategy" => strategy,
};
const MAX_PARTITIONS: u32 = 7;
const DEFAULT_PARTITIONS: u32 = 2;
/// Running instances of a spread group in an availability zone: EC2's limit at the level of racks.
const RACKS: usize = 7;
const RACK: &str = "rack";
const HOST: &str = "host";

pub(super) struct PlacementGroups(pub(super) Arc<App>);

#[tonic::async_trait]
impl placement_groups_server::PlacementGroups for PlacementGroups {
    async fn create_placement_group(
        &self,
        request: Request<CreatePlacementGroupRequest>,
    ) -> Result<Response<CreatePlacementGroupResult>, Status> {
        answer(create(&self.0, request.into_inner()).await)
    }

    async fn describe_placement_groups(
        &self,
        request: Request<DescribePlacementGroupsRequest>,
    ) -> Result<Response<DescribePlacementGroupsResult>, Status> {
        answer(describe(&self.0, &request.into_inner()))
    }

    async fn delete_placement_group(
        &self,
        request: Request<DeletePlacementGroupRequest>,
    ) -> Result<Response<DeletePlacementGroupResult>, Status> {
        answer(delete(&self.0, request.into_inner()).await)
    }
}

async fn create(
    app: &Arc<App>,
    request: CreatePlacementGroupRequest,
) -> Result<CreatePlacementGroupResult, ApiError> {
    let name = request.group_name.clone();
    if name.is_empty() {
        return Err(ApiError::missing("GroupName"));
    }
    if !name.is_ascii() || name.bytes().any(|b| b.is_ascii_control()) {
        let expected = "Expecting up to 255 ASCII characters.";
        return Err(ApiError::invalid_value("GroupName", name, expected));
    }
    let strategy = strategy(&request)?;
    let made = Kind::PlacementGroup;
    let tags = input::tags_for(&request.tag_specifications, &[made], made)?;
    let shared = Arc::clone(app);
    app.store
        .transact(move |tx| {
            let scope = shared.scope();
            if tx.placement_group_named(&scope, &name).is_some() {
                return Err(ApiError::new(
                    ErrorCode::InvalidPlacementGroupDuplicate,
                    format!("The placement group '{name}' already exists."),
                ));
            }
            let row = state::PlacementGroup {
                id: Id::new(Kind::PlacementGroup).to_string(),
                account_id: scope.account_id().to_owned(),
                region: scope.region().to_owned(),
                name,
                strategy,
                created_at: tx.now(),
                tags: keep_tags(&tags),
            };
            tx.audit(json!({ "placement_group": row.id, "name": row.name }));
            tx.event("placement-group.created", &row.id);
            let placement_group = Some(tell(&row));
            tx.put(row);
            Ok(CreatePlacementGroupResult { placement_group })
        })
        .await
}

fn strategy(request: &CreatePlacementGroupRequest) -> Result<Strategy, ApiError> {
    let refused = |parameter, strategy| {
        let message = format!("{parameter} can only be given with the strategy {strategy}.");
        ApiError::new(ErrorCode::InvalidParameterCombination, message)
    };
    let (count, level) = (request.partition_count, request.spread_level.as_str());
    if count.is_some() && request.strategy != "partition" {
        return Err(refused("PartitionCount", "partition"));
    }
    if !level.is_empty() && request.strategy != "spread" {
        return Err(refused("SpreadLevel", "spread"));
    }
    match request.strategy.as_str() {
        "" | "cluster" => Ok(Strategy::Cluster),
        "spread" if ["", RACK, HOST].contains(&level) => Ok(Strategy::Spread {
            level: if level.is_empty() { RACK } else { level }.to_owned(),
        }),
        "spread" => Err(ApiError::invalid_value(
            "SpreadLevel",
            level,
            "Expecting rack or host.",
        )),
        "partition" => match count.map_or(Ok(DEFAULT_PARTITIONS), u32::try_from) {
            Ok(count @ 1..=MAX_PARTITIONS) => Ok(Strategy::Partition { count }),
            _ => {
                let given = count.unwrap_or_default();
                Err(ApiError::invalid_value(
                    "PartitionCount",
                    given,
                    "Expecting 1 to 7.",
                ))
            }
        },
        other => {
            let expected = "Expecting cluster, spread or partition.";
            Err(ApiError::invalid_value("Strategy", other, expected))
        }
    }
}

fn tell(row: &state::PlacementGroup) -> PlacementGroup {
    let (strategy, partition_count, spread_level) = match &row.strategy {
        Strategy::Cluster => ("cluster", None, String::new()),
        Strategy::Spread { level } => ("spread", None, level.clone()),
        Strategy::Partition { count } => ("partition", Some(count.cast_signed()), String::new()),
    };
    PlacementGroup {
        group_name: row.name.clone(),
        state: "available".into(),
        strategy: strategy.into(),
        partition_count,
        group_id: row.id.clone(),
        tags: tell_tags(&row.tags),
        group_arn: format!(
            "arn:aws:ec2:{}:{}:placement-group/{}",
            row.region, row.account_id, row.name
        ),
        spread_level,
    }
}

fn describe(
    app: &App,
    request: &DescribePlacementGroupsRequest,
) -> Result<DescribePlacementGroupsResult, ApiError> {
    let filters = Filters::new(&request.filters, &FILTERS)?;
    let (names, ids) = (&request.group_names, &request.group_ids);
    let state = app.state();
    input::all_known(Kind::PlacementGroup, ids, |id| {
        state.get::<state::PlacementGroup>(id).is_some()
    })?;
    for name in names {
        named(&state, &app.scope(), name)?;
    }
    let mut rows: Vec<&state::PlacementGroup> = state
        .all::<state::PlacementGroup>()
        .filter(|row| {
            (names.is_empty() && ids.is_empty()) || names.contains(&row.name) || ids.contains(&row.id)
        })
        .collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    let told = rows.into_iter().map(tell);
    let told = told.filter(|group| filters.matches(group));
    Ok(DescribePlacementGroupsResult {
        placement_groups: told.collect(),
    })
}

/// Terminated instances forget that they were in it.
async fn delete(
    app: &App,
    request: DeletePlacementGroupRequest,
) -> Result<DeletePlacementGroupResult, ApiError> {
    let (scope, name) = (app.scope(), request.group_name);
    if name.is_empty() {
        return Err(ApiError::missing("GroupName"));
    }
    app.store
        .transact(move |tx| {
            let id = named(tx, &scope, &name)?.id.clone();
            if let Some((user, _)) = tx.placed_in(&id).next() {
                return Err(ApiError::new(
                    ErrorCode::InvalidPlacementGroupInUse,
                    format!(
                        "The placement group '{name}' is in use and may not be deleted: terminate its instances first, \
                         such as {}.",
                        user.id
                    ),
                ));
            }
            let members = tx.by(&PlacementGroupMember::BY_GROUP, &id);
            let members: Vec<String> = members.map(|member| member.instance_id.clone()).collect();
            tx.remove_all::<PlacementGroupMember>(members);
            tx.remove::<state::PlacementGroup>(&id);
            tx.audit(json!({ "placement_group": id, "name": name }));
            tx.event("placement-group.deleted", &id);
            Ok(DeletePlacementGroupResult {})
        })
        .await
}

fn named<'s>(state: &'s State, scope: &Scope, name: &str) -> Result<&'s state::PlacementGroup, ApiError> {
    let found = state.placement_group_named(scope, name);
    found.ok_or_else(|| Kind::PlacementGroup.not_found(&[name]))
}

/// What a caller asks of the placement of instances, with what it names found.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish {
    host: Option<String>,
    group: Option<Grouped>,
}

/// A placement group that instances are to be in.
#[derive(Debug, Clone)]
struct Grouped {
    group: state::PlacementGroup,
    /// 0: any, or none.
    partition: u32,
    /// The instance that is in it already, and is placed anew.
    member: Option<String>,
}

impl Wish {
    /// # Errors
    /// What it names is not there.
    pub(super) fn of_launch(app: &App, state: &State, asked: Option<&Placement>) -> Result<Self, ApiError> {
        let Some(asked) = asked else {
            return Ok(Self::default());
        };
        if !asked.availability_zone_id.is_empty() {
            return Err(ApiError::invalid_value(
                "Placement.AvailabilityZoneId",
                &asked.availability_zone_id,
                "Name the zone by Placement.AvailabilityZone.",
            ));
        }
        let (zone, scope) = (&asked.availability_zone, app.scope());
        let zones = state
            .region(scope.region())
            .map_or(&[][..], |region| &region.zones);
        if !zone.is_empty() && !zones.contains(zone) {
            let expected = format!("The zones of {} are {}.", scope.region(), zones.join(", "));
            return Err(ApiError::invalid_value("AvailabilityZone", zone, expected));
        }
        if !["", DEFAULT_TENANCY].contains(&asked.tenancy.as_str()) {
            let expected = "Only default is possible in this version: hosts are shared.";
            return Err(ApiError::invalid_value(
                "Placement.Tenancy",
                &asked.tenancy,
                expected,
            ));
        }
        let host = Some(asked.host_id.clone()).filter(|host| !host.is_empty());
        if let Some(host) = &host
            && state
                .host(host)
                .is_none_or(|host| state.is_abroad(&host.availability_zone, scope.region()))
        {
            return Err(Kind::Host.not_found(&[host]));
        }
        let group = group(state, &scope, asked)?;
        Ok(Self { host, group })
    }

    /// Of an instance that starts again.
    pub(super) fn of_start(state: &State, instance_id: &str) -> Self {
        let grouped = |member: &PlacementGroupMember| {
            Some(Grouped {
                group: state.get::<state::PlacementGroup>(&member.group_id)?.clone(),
                partition: member.partition,
                member: Some(member.instance_id.clone()),
            })
        };
        Self {
            host: None,
            group: state.get(instance_id).and_then(grouped),
        }
    }

    /// The same, on one host.
    pub(super) fn on(&self, host_id: &str) -> Self {
        Self {
            host: Some(host_id.to_owned()),
            ..self.clone()
        }
    }

    /// Chooses hosts.
    ///
    /// # Errors
    /// `InsufficientInstanceCapacity` with what was short, per host; or what the wish and the demand have against each other.
    pub(super) fn place(self, app: &App, state: &State, mut demand: Demand) -> Result<Placed, ApiError> {
        self.narrow(state, &mut demand)?;
        let placement = schedule(state, &demand, |id| app.sessions.is_connected(id));
        let placement = placement
            .map_err(|refusal| ApiError::new(ErrorCode::InsufficientInstanceCapacity, refusal.to_string()))?;
        Ok(Placed {
            placement,
            group_id: self.group.map(|grouped| grouped.group.id),
        })
    }

    /// Adds the wish to what is demanded.
    fn narrow(&self, state: &State, demand: &mut Demand) -> Result<(), ApiError> {
        if let Some(host) = self.host.as_ref().and_then(|id| state.host(id))
            && !demand.zones.contains(&host.availability_zone)
        {
            return Err(ApiError::new(
                ErrorCode::InvalidParameterCombination,
                format!(
                    "The host {} is in {}, and the launch is for {}.",
                    host.id,
                    host.availability_zone,
                    demand.zones.join(", ")
                ),
            ));
        }
        demand.host.clone_from(&self.host);
        if let Some(grouped) = &self.group {
            grouped.narrow(state, demand)?;
        }
        Ok(())
    }
}

/// The placement group that a launch names, by its name or its id.
fn group(state: &State, scope: &Scope, asked: &Placement) -> Result<Option<Grouped>, ApiError> {
    let partition = asked.partition_number;
    let group = match (asked.group_name.as_str(), asked.group_id.as_str()) {
        ("", "") if partition.is_none() => return Ok(None),
        ("", "") => {
            let message = "PartitionNumber can only be given with a placement group.";
            return Err(ApiError::new(ErrorCode::InvalidParameterCombination, message));
        }
        (name, "") => named(state, scope, name)?,
        ("", id) => {
            let id = Id::parse(Kind::PlacementGroup, id)?;
            let found = state.get::<state::PlacementGroup>(&id);
            found.ok_or_else(|| Kind::PlacementGroup.not_found(&[&id]))?
        }
        _ => return Err(ApiError::combination("GroupName", "GroupId")),
    };
    let partition = match (&group.strategy, partition) {
        (_, None) => 0,
        (Strategy::Partition { count }, Some(number)) => match u32::try_from(number) {
            Ok(partition) if (1..=*count).contains(&partition) => partition,
            _ => {
                let expected = format!("Expecting 1 to {count}, which the placement group has.");
                return Err(ApiError::invalid_value("PartitionNumber", number, expected));
            }
        },
        _ => {
            let message = format!(
                "PartitionNumber can only be given with the strategy partition, which '{}' does not have.",
                group.name
            );
            return Err(ApiError::new(ErrorCode::InvalidParameterCombination, message));
        }
    };
    Ok(Some(Grouped {
        group: group.clone(),
        partition,
        member: None,
    }))
}

impl Grouped {
    /// Adds to what is demanded how the instances stand to those of the group that are there already.
    fn narrow(&self, state: &State, demand: &mut Demand) -> Result<(), ApiError> {
        let others = state.placed_in(&self.group.id);
        let others = others.filter(|(row, _)| self.member.as_ref() != Some(&row.id));
        let others = others.map(|(row, partition)| Other {
            host: row.host_id.clone(),
            zone: row.availability_zone.clone(),
            cell: partition,
            runs: row.state != InstanceState::Stopped,
        });
        let others: Vec<Other> = others.collect();
        let strategy = match &self.group.strategy {
            Strategy::Cluster => {
                if let Some(other) = others.first() {
                    demand.zones.retain(|zone| *zone == other.zone);
                    if demand.zones.is_empty() {
                        return Err(ApiError::new(
                            ErrorCode::InvalidPlacementGroupInUse,
                            format!(
                                "The placement group '{}' is in use in another availability zone: {}",
                                self.group.name, other.zone
                            ),
                        ));
                    }
                }
                scheduler::Strategy::Together
            }
            Strategy::Spread { level } => scheduler::Strategy::Apart {
                per_zone: (level == RACK).then_some(RACKS),
            },
            Strategy::Partition { count } => scheduler::Strategy::Cells {
                count: *count,
                cell: (self.partition > 0).then_some(self.partition),
            },
        };
        demand.spacing = Some(Spacing { strategy, others });
        Ok(())
    }
}

/// Where the instances of a launch go.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    placement: scheduler::Placement,
    group_id: Option<String>,
}

impl Placed {
    pub(super) fn zone(&self) -> &str {
        &self.placement.availability_zone
    }

    /// One host id per instance.
    pub(super) fn hosts(&self) -> &[String] {
        &self.placement.hosts
    }

    /// Keeps the first so many instances.
    pub(super) fn truncate(&mut self, count: usize) {
        self.placement.hosts.truncate(count);
    }

    /// Writes what a run of an instance, the launch's with this index, holds where it was placed.
    pub(super) fn hold(&self, tx: &mut Tx<'_>, index: usize, instance: &Instance, run: u64) {
        let Some(host_id) = self.placement.hosts.get(index) else {
            return;
        };
        tx.put(Incarnation::new(instance, host_id, run));
        if let Some(group_id) = &self.group_id {
            tx.put(PlacementGroupMember {
                instance_id: instance.id.clone(),
                account_id: instance.account_id.clone(),
                region: instance.region.clone(),
                group_id: group_id.clone(),
                partition: self.placement.cells.get(index).copied().unwrap_or(0),
            });
        }
    }
}
