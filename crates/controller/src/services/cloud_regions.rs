//! Regions beside the home region, for the operator.

use std::collections::BTreeSet;
use std::sync::Arc;

use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode};
use serde_json::json;

use super::serve;
use crate::app::App;
use crate::state::{
    self, Account, AccountSettings, ClientToken, InternetGateway, KmsAlias, KmsKey, Noun as _, Reservation,
    RouteTable, SecurityGroup, SecurityGroupRule, State, Subnet, Tx, Vpc,
};
use crate::store::bootstrap::{DEFAULT_GROUP, furnish};

/// Regions of a cloud.
const MOST: usize = 64;

serve! { cloud_regions_server::CloudRegions as CloudRegions {
    create_region(CreateRegionRequest) -> CreateRegionResponse: create;
    add_availability_zones(AddAvailabilityZonesRequest) -> AddAvailabilityZonesResponse: add_zones;
    delete_region(DeleteRegionRequest) -> DeleteRegionResponse: delete;
} }

fn tell(row: &state::Region) -> CloudRegion {
    CloudRegion {
        region_name: row.name.clone(),
        availability_zones: row.zones.clone(),
    }
}

/// Zone ids are made of such names ([`hearth_api::zones`]).
fn is_name(name: &str) -> bool {
    let admitted = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.ends_with(|c: char| c.is_ascii_digit())
        && name.chars().all(admitted)
}

/// # Errors
/// There is none, a zone's name does not tell its region, or a region has it already.
fn check_zones(state: &State, region: &str, zones: &[String]) -> Result<(), ApiError> {
    if zones.is_empty() {
        return Err(ApiError::missing("AvailabilityZone"));
    }
    let mut seen = BTreeSet::new();
    for zone in zones {
        let letter = zone.strip_prefix(region).unwrap_or_default();
        if letter.len() != 1 || !letter.starts_with(|c: char| c.is_ascii_lowercase()) {
            let expected = format!("Expecting the region's name and a letter, such as {region}a.");
            return Err(ApiError::invalid_value("AvailabilityZone", zone, expected));
        }
        let of = state.region_of_zone(zone);
        if of.is_some() || !seen.insert(zone) {
            let of = of.map_or(region, |of| &of.name);
            let message = format!("The region {of} has the zone '{zone}' already. Choose another name.");
            return Err(ApiError::new(ErrorCode::EntityAlreadyExists, message));
        }
    }
    Ok(())
}

/// Makes what accounts begin with in a region, as far as they do not have it.
fn furnish_all(app: &App, tx: &mut Tx<'_>, region: &state::Region) {
    let accounts: Vec<String> = tx.all::<Account>().map(|account| account.id.clone()).collect();
    for account in accounts {
        furnish(tx, &account, region, app.config.vpc_cidr);
    }
}

async fn create(app: &Arc<App>, request: CreateRegionRequest) -> Result<CreateRegionResponse, ApiError> {
    let name = request.region_name;
    if name.is_empty() {
        return Err(ApiError::missing("RegionName"));
    }
    if !is_name(&name) {
        let expected =
            "Expecting up to 32 lowercase letters, digits and hyphens, with a letter first and a digit last.";
        return Err(ApiError::invalid_value("RegionName", &name, expected));
    }
    let shared = Arc::clone(app);
    app.store
        .transact(move |tx| {
            if tx.region(&name).is_some() {
                let message = format!("There is a region '{name}' already. Choose another name.");
                return Err(ApiError::new(ErrorCode::EntityAlreadyExists, message));
            }
            if tx.count::<state::Region>() >= MOST {
                let message = format!("There are {MOST} regions, as many as may be.");
                return Err(ApiError::new(ErrorCode::ResourceLimitExceeded, message));
            }
            check_zones(tx, &name, &request.availability_zones)?;
            let region = state::Region {
                name,
                zones: request.availability_zones,
                created_at: tx.now(),
            };
            tx.put(region.clone());
            furnish_all(&shared, tx, &region);
            tx.audit(json!({ "created": region.name, "zones": region.zones }));
            tx.event("region.created", &region.name);
            Ok(CreateRegionResponse {
                region: Some(tell(&region)),
            })
        })
        .await
}

/// # Errors
/// It is not there, or it is the home region, which `hearthd` is started with.
fn further(app: &App, state: &State, name: &str) -> Result<state::Region, ApiError> {
    if name.is_empty() {
        return Err(ApiError::missing("RegionName"));
    }
    let refused = |expected: &str| ApiError::invalid_value("RegionName", name, expected);
    if name == app.config.region {
        return Err(refused(
            "It is the home region, whose name and zones hearthd is started with: --region, --zones.",
        ));
    }
    let found = state.region(name).cloned();
    found.ok_or_else(|| refused("There is no such region; DescribeRegions tells those that there are."))
}

async fn add_zones(
    app: &Arc<App>,
    request: AddAvailabilityZonesRequest,
) -> Result<AddAvailabilityZonesResponse, ApiError> {
    let shared = Arc::clone(app);
    app.store
        .transact(move |tx| {
            let mut region = further(&shared, tx, &request.region_name)?;
            check_zones(tx, &region.name, &request.availability_zones)?;
            tx.audit(json!({ "region_of_zones": region.name, "zones": request.availability_zones }));
            region.zones.extend(request.availability_zones);
            tx.put(region.clone());
            furnish_all(&shared, tx, &region);
            Ok(AddAvailabilityZonesResponse {
                region: Some(tell(&region)),
            })
        })
        .await
}

/// What goes with a region, in this order: what refers to something goes before it. Anything else must be gone before, and so
/// must what of this an account has made itself.
macro_rules! goes {
    ($($noun:ty),* $(,)?) => {
        const GOES: &[&str] = &[$(<$noun>::KIND),*];

        fn remove_all(tx: &mut Tx<'_>, region: &str) {
            $(remove::<$noun>(tx, region);)*
        }
    };
}

goes! {
    ClientToken, Reservation, AccountSettings, SecurityGroupRule, SecurityGroup, RouteTable, InternetGateway, Subnet, Vpc, KmsAlias,
    KmsKey,
}

/// Something in a region that it did not begin with.
fn left(state: &State, region: &state::Region) -> Option<(&'static str, String)> {
    let is_in = |zone: &String| region.zones.contains(zone);
    let host = state.hosts().find(|host| is_in(&host.availability_zone));
    let host = host.map(|host| (state::Host::KIND, host.id.clone()));
    let group = || {
        let mut groups = state.all::<SecurityGroup>();
        let group = groups.find(|group| group.region == region.name && group.name != DEFAULT_GROUP);
        group.map(|group| (SecurityGroup::KIND, group.id.clone()))
    };
    let vpc = || {
        let mut vpcs = state.all::<Vpc>();
        let vpc = vpcs.find(|vpc| vpc.region == region.name && !vpc.is_default);
        vpc.map(|vpc| (Vpc::KIND, vpc.id.clone()))
    };
    host.or_else(|| state.in_region(&region.name, GOES))
        .or_else(group)
        .or_else(vpc)
}

async fn delete(app: &Arc<App>, request: DeleteRegionRequest) -> Result<DeleteRegionResponse, ApiError> {
    let shared = Arc::clone(app);
    app.store
        .transact(move |tx| {
            let region = further(&shared, tx, &request.region_name)?;
            if let Some((kind, left)) = left(tx, &region) {
                let message = format!(
                    "The region {} still has the {kind} {left}. Delete what is in it first, and have its hosts forgotten; \
                     instances are gone an hour after their termination.",
                    region.name
                );
                return Err(ApiError::new(ErrorCode::DependencyViolation, message));
            }
            remove_all(tx, &region.name);
            tx.remove::<state::Region>(&region.name);
            tx.audit(json!({ "deleted": region.name }));
            tx.event("region.deleted", &region.name);
            Ok(DeleteRegionResponse {
                region_name: region.name,
            })
        })
        .await
}

fn remove<N: state::Held>(tx: &mut Tx<'_>, region: &str) {
    let within = tx.all::<N>().filter(|object| object.region() == region);
    let ids: Vec<String> = within.map(|object| object.id().to_owned()).collect();
    tx.remove_all::<N>(ids);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_have_names_that_zones_are_called_after() {
        for name in ["eu-west-1", "lab-2", "a1", "us-gov-east-1"] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "", "1", "lab", "Lab-1", "lab_1", "lab 1", "-1", "läb-1", "lab-1\n",
        ] {
            assert!(!is_name(name), "{name:?}");
        }
        let state = State::default();
        let check = |zones: &[&str]| {
            let zones: Vec<String> = zones.iter().map(ToString::to_string).collect();
            check_zones(&state, "lab-1", &zones)
        };
        assert!(check(&["lab-1a", "lab-1z"]).is_ok());
        for zones in [
            &[][..],
            &["lab-1"],
            &["lab-1A"],
            &["lab-1ab"],
            &["lab-2a"],
            &["a"],
            &["lab-1ä"],
            &["lab-1a", "lab-1a"],
        ] {
            assert!(check(zones).is_err(), "{zones:?}");
        }
    }
}
