//! CreateVolume: a volume that is blank, or begins with a snapshot. It is a row until it is attached: nothing of it lies
//! anywhere.
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateVolume.html>

use std::sync::Arc;

use hearth_api::v1::{self, CreateVolumeRequest};
use hearth_api::{ApiError, ErrorCode, Id, Kind, zones};
use prost::Message as _;
use serde_json::json;

use super::describe::{self, gib};
use super::quotas;
use crate::app::App;
use crate::catalog::volume_types::{VolumeSpec, VolumeType};
use crate::services::encryption::{self, Wanted};
use crate::services::{client_tokens, input, snapshots};
use crate::state::noun::keep_tags;
use crate::state::{ClientToken, Known, Scope, State, Tx, Volume};
use crate::vault::Vault;

const ACTION: &str = "CreateVolume";

/// A volume that makes sense by itself.
#[derive(Debug, Clone)]
struct Plan {
    zone: String,
    volume_type: VolumeType,
    size: Option<i32>,
    iops: Option<i32>,
    throughput: Option<i32>,
    snapshot_id: Option<String>,
    encrypted: Option<bool>,
    kms_key_id: String,
    tags: Vec<v1::Tag>,
    token: String,
    /// BLAKE3 of what was asked for.
    hash: String,
}

pub(super) async fn create(app: &App, request: CreateVolumeRequest) -> Result<v1::Volume, ApiError> {
    let (state, scope) = (app.state(), app.scope());
    let zones = state
        .region(scope.region())
        .map_or(&[][..], |region| &region.zones);
    let plan = check(zones, &request)?;
    let vault = Arc::clone(&app.vault);
    app.store
        .transact(move |tx| insert(tx, &vault, &scope, plan))
        .await
}

fn check(zones: &[String], request: &CreateVolumeRequest) -> Result<Plan, ApiError> {
    input::check_client_token(&request.client_token)?;
    let zone = zone(zones, request)?;
    let volume_type = match request.volume_type.as_str() {
        "" => VolumeType::Gp2,
        name => VolumeType::parse(name)?,
    };
    refuse_what_is_not_there(request, volume_type)?;
    if request.tag_specifications.iter().any(|of| of.tags.is_empty()) {
        return Err(ApiError::new(
            ErrorCode::InvalidParameterValue,
            "Tag specification must have at least one tag",
        ));
    }
    let snapshot_id = match request.snapshot_id.as_str() {
        "" => None,
        id => Some(Id::parse(Kind::Snapshot, id)?.to_string()),
    };
    match request.size {
        Some(size) => drop(VolumeSpec::new(
            volume_type,
            size,
            request.iops,
            request.throughput,
        )?),
        None if snapshot_id.is_none() => return Err(ApiError::missing("size/snapshot")),
        None => {}
    }
    Ok(Plan {
        zone,
        volume_type,
        size: request.size,
        iops: request.iops,
        throughput: request.throughput,
        snapshot_id,
        encrypted: request.encrypted,
        kms_key_id: request.kms_key_id.clone(),
        tags: input::tags_for(&request.tag_specifications, &[Kind::Volume], Kind::Volume)?,
        token: request.client_token.clone(),
        hash: hash(request),
    })
}

/// The availability zone that is named, by its name or its id.
fn zone(zones: &[String], request: &CreateVolumeRequest) -> Result<String, ApiError> {
    let (name, id) = (&request.availability_zone, &request.availability_zone_id);
    let found = match (name.as_str(), id.as_str()) {
        ("", "") => return Err(ApiError::missing("zone")),
        (name, "") => zones.iter().find(|zone| *zone == name),
        ("", id) => zones.iter().find(|zone| zones::id(zone) == id),
        _ => return Err(ApiError::combination("AvailabilityZone", "AvailabilityZoneId")),
    };
    found.cloned().ok_or_else(|| {
        let given = if name.is_empty() { id } else { name };
        ApiError::new(
            ErrorCode::InvalidZoneNotFound,
            format!(
                "The zone '{given}' does not exist. The zones are {}.",
                zones.join(", ")
            ),
        )
    })
}

fn refuse_what_is_not_there(request: &CreateVolumeRequest, kind: VolumeType) -> Result<(), ApiError> {
    let dependency = |message: &str| Err(ApiError::new(ErrorCode::InvalidParameterDependency, message));
    if request.multi_attach_enabled.unwrap_or(false) {
        if !matches!(kind, VolumeType::Io1 | VolumeType::Io2) {
            return dependency("The parameter MultiAttachEnabled is supported for io1 and io2 volumes only.");
        }
        return Err(no_multi_attach());
    }
    Ok(())
}

pub(super) fn no_multi_attach() -> ApiError {
    let expected = "A volume has one instance at a time in this version; leave it out.";
    ApiError::invalid_value("MultiAttachEnabled", true, expected)
}

/// Of the request without what does not change the volume.
fn hash(request: &CreateVolumeRequest) -> String {
    let mut request = request.clone();
    request.client_token.clear();
    request.dry_run = false;
    blake3::hash(&request.encode_to_vec()).to_hex().to_string()
}

impl Plan {
    /// What the volume is: as large as its snapshot, or larger.
    ///
    /// # Errors
    /// The snapshot is not there, is not completed, or is larger; no such volume has its size.
    fn spec(&self, state: &State) -> Result<VolumeSpec, ApiError> {
        let least = match &self.snapshot_id {
            Some(id) => gib(snapshots::usable(state, id)?.size_gib),
            None => 0,
        };
        let size = self.size.unwrap_or(least);
        if size < least {
            let expected =
                format!("The snapshot is of a volume of {least} GiB, and the volume can be larger.");
            return Err(ApiError::invalid_value("Size", size, expected));
        }
        VolumeSpec::new(self.volume_type, size, self.iops, self.throughput)
    }

    /// # Errors
    /// As [`encryption::wanted`].
    fn encryption(&self, state: &State, scope: &Scope) -> Result<Wanted, ApiError> {
        let snapshot = self.snapshot_id.as_deref().and_then(|id| state.snapshot(id));
        let source = snapshot.and_then(|snapshot| snapshot.encryption.as_ref());
        let asked = encryption::Asked {
            encrypted: self.encrypted,
            kms_key_id: &self.kms_key_id,
        };
        encryption::wanted(state, scope, asked, source)
    }
}

fn insert(tx: &mut Tx<'_>, vault: &Vault, scope: &Scope, plan: Plan) -> Result<v1::Volume, ApiError> {
    let token_id = ClientToken::id_of(scope, ACTION, &plan.zone, &plan.token);
    if let Some(before) = client_tokens::recall(tx, &plan.token, &token_id, &plan.hash)? {
        let volume = tx.get::<Volume>(&before.resource_id);
        let told = volume.map(|volume| describe::tell(tx, volume));
        return told.ok_or_else(|| {
            ApiError::new(
                ErrorCode::IncorrectState,
                format!(
                    "The client token '{}' stands for the volume {}, which is deleted. Choose a new token to make another.",
                    plan.token, before.resource_id
                ),
            )
        });
    }
    let spec = plan.spec(tx)?;
    quotas::check(tx, scope, [spec], None)?;
    let wanted = plan.encryption(tx, scope)?;
    let volume = Volume {
        id: Id::new(Kind::Volume).to_string(),
        account_id: scope.account_id().to_owned(),
        region: scope.region().to_owned(),
        attachment: None,
        epoch: 0,
        availability_zone: plan.zone,
        host_id: None,
        image_id: None,
        snapshot_id: plan.snapshot_id,
        moved: None,
        known: Known::AsItBegan,
        is_made: false,
        encryption: wanted.make(tx, vault, scope)?,
        spec,
        modification: None,
        auto_enable_io: false,
        created_at: tx.now(),
        deleting: false,
        tags: keep_tags(&plan.tags),
    };
    tx.put(volume.clone());
    client_tokens::keep(tx, scope, &plan.token, token_id, plan.hash, &volume.id);
    tx.event("volume.available", &volume.id);
    let detail = json!({ "volume": volume.id, "zone": volume.availability_zone, "spec": volume.spec,
        "snapshot": volume.snapshot_id, "encrypted": volume.encryption.is_some() });
    tx.audit(detail);
    Ok(describe::tell(tx, &volume))
}
