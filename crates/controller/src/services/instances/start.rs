//! What a stopped instance takes anew when it starts: vCPUs and memory on the host that has its volume, and a public
//! address. As in EC2 that can fail for want of capacity.

use hearth_api::{ApiError, ErrorCode};
use hearth_image::BootMode;
use sqlx::SqliteConnection;

use super::run::free_public;
use crate::app::App;
use crate::catalog::instance_types;
use crate::scheduler::{Demand, Resources, place};
use crate::services::Failure;
use crate::store::instances::{self, InstanceRow};
use crate::store::{addresses, hosts, images};

pub(super) async fn take_compute(
    app: &App,
    c: &mut SqliteConnection,
    row: &InstanceRow,
) -> Result<(), Failure> {
    let kind = instance_types::find(&row.instance_type).ok_or_else(|| {
        ApiError::new(
            ErrorCode::InvalidInstanceType,
            format!(
                "This version does not know the instance type '{}' any more.",
                row.instance_type
            ),
        )
    })?;
    let boot_mode = images::boot_mode(c, &row.image_id).await?;
    let demand = Demand {
        zones: vec![row.availability_zone.clone()],
        host: Some(row.host_id.clone()),
        uefi: boot_mode.is_some_and(|mode| mode == BootMode::Uefi.as_str()),
        each: Resources {
            vcpus: kind.vcpus.into(),
            memory_mib: kind.memory_mib,
            // Its volume is there and claimed.
            disk_bytes: 0,
        },
        min: 1,
        max: 1,
    };
    let picture = hosts::picture(c, |id| app.sessions.is_connected(id)).await?;
    place(&picture, &demand)
        .map_err(|refusal| ApiError::new(ErrorCode::InsufficientInstanceCapacity, refusal.to_string()))?;
    instances::claim(c, &row.id, &row.host_id, kind.vcpus.into(), kind.memory_mib).await?;
    if row.public_address {
        for address in free_public(app, c, 1, 1).await? {
            addresses::assign_public(c, &row.id, address).await?;
        }
    }
    Ok(())
}
