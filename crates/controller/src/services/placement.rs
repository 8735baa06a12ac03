//! Where instances shall be: what a launch or a start demands of the scheduler, and the filters by it.

use hearth_api::filter::Values;
use hearth_api::v1::Placement;
use hearth_api::{ApiError, ErrorCode, Kind};

use crate::app::App;
use crate::scheduler::{self, Demand, schedule};
use crate::state::{Claim, Instance, State, Tx};

/// Filters of DescribeInstances by the placement.
pub(super) const FILTERS: &[&str] = &["availability-zone", "host-id"];

/// What a placement has under the name of a filter.
pub(super) fn values<'p>(placement: &'p Placement, name: &str) -> Values<'p> {
    let value = match name {
        "availability-zone" => placement.availability_zone.as_str().into(),
        "host-id" => placement.host_id.as_str().into(),
        _ => return Vec::new(),
    };
    vec![value]
}

/// What a caller asks of the placement of instances, with what it names found.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish {
    host: Option<String>,
}

impl Wish {
    /// # Errors
    /// What it names is not there.
    pub(super) fn of_launch(app: &App, state: &State, asked: Option<&Placement>) -> Result<Self, ApiError> {
        let Some(asked) = asked else {
            return Ok(Self::default());
        };
        let (zone, zones) = (&asked.availability_zone, &app.config.zones);
        if !zone.is_empty() && !zones.contains(zone) {
            let expected = format!("The zones of {} are {}.", app.config.region, zones.join(", "));
            return Err(ApiError::invalid_value("AvailabilityZone", zone, expected));
        }
        let host = Some(asked.host_id.clone()).filter(|host| !host.is_empty());
        if let Some(host) = &host
            && state.host(host).is_none()
        {
            return Err(Kind::Host.not_found(&[host]));
        }
        Ok(Self { host })
    }

    /// Of an instance that starts again: its volume is where it is.
    pub(super) fn of_start(state: &State, instance_id: &str) -> Self {
        Self {
            host: state.get::<Instance>(instance_id).map(|row| row.host_id.clone()),
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
        Ok(Placed { placement })
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
        Ok(())
    }
}

/// Where the instances of a launch go.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    placement: scheduler::Placement,
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

    /// Writes what an instance, the launch's with this index, holds where it was placed.
    pub(super) fn hold(&self, tx: &mut Tx<'_>, index: usize, instance: &Instance) {
        let Some(host_id) = self.placement.hosts.get(index) else {
            return;
        };
        tx.put(Claim {
            instance_id: instance.id.clone(),
            host_id: host_id.clone(),
            vcpus: instance.vcpus.into(),
            memory_mib: instance.memory_mib,
        });
    }
}
