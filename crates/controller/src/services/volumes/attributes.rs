//! DescribeVolumeAttribute, ModifyVolumeAttribute, EnableVolumeIO. EC2 suspends the I/O of a volume whose data may be
//! inconsistent after a fault of its host; here nothing is suspended.

use hearth_api::v1::{
    AttributeBooleanValue, DescribeVolumeAttributeRequest, DescribeVolumeAttributeResult,
    EnableVolumeIoRequest, EnableVolumeIoResponse, ModifyVolumeAttributeRequest,
    ModifyVolumeAttributeResponse,
};
use hearth_api::{ApiError, Kind};
use serde_json::json;

use crate::app::App;
use crate::services::input;
use crate::state::Volume;

pub(super) async fn describe(
    app: &App,
    request: DescribeVolumeAttributeRequest,
) -> Result<DescribeVolumeAttributeResult, ApiError> {
    let id = input::id(Kind::Volume, &request.volume_id, "VolumeId")?;
    let state = app.state();
    let row = state
        .get::<Volume>(&id)
        .ok_or_else(|| Kind::Volume.not_found(&[&id]))?;
    let auto_enable_io = match request.attribute.as_str() {
        "autoEnableIO" => Some(AttributeBooleanValue {
            value: row.auto_enable_io,
        }),
        "productCodes" => None,
        "" => return Err(ApiError::missing("Attribute")),
        other => {
            let expected = "Expecting autoEnableIO or productCodes.";
            return Err(ApiError::invalid_value("attribute", other, expected));
        }
    };
    Ok(DescribeVolumeAttributeResult {
        volume_id: row.id.clone(),
        auto_enable_io,
        // No volume has one.
        product_codes: Vec::new(),
    })
}

pub(super) async fn modify(
    app: &App,
    request: ModifyVolumeAttributeRequest,
) -> Result<ModifyVolumeAttributeResponse, ApiError> {
    let id = input::id(Kind::Volume, &request.volume_id, "VolumeId")?.to_string();
    let asked = request
        .auto_enable_io
        .ok_or_else(|| ApiError::missing("AutoEnableIO"))?;
    app.store
        .transact(move |tx| {
            if !tx.update::<Volume>(&id, |row| row.auto_enable_io = asked.value) {
                return Err(Kind::Volume.not_found(&[&id]));
            }
            tx.audit(json!({ "volume": id, "auto_enable_io": asked.value }));
            Ok(ModifyVolumeAttributeResponse {})
        })
        .await
}

pub(super) async fn enable_io(
    app: &App,
    request: EnableVolumeIoRequest,
) -> Result<EnableVolumeIoResponse, ApiError> {
    let id = input::id(Kind::Volume, &request.volume_id, "VolumeId")?;
    match app.state().get::<Volume>(&id) {
        Some(_) => Ok(EnableVolumeIoResponse {}),
        None => Err(Kind::Volume.not_found(&[&id])),
    }
}
