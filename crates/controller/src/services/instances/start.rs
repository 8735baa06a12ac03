//! What a stopped instance takes anew when it starts: vCPUs and memory on the host that has its volumes, and a public
//! address. As in EC2 that can fail for want of capacity.

use hearth_api::ApiError;
use hearth_image::BootMode;

use super::run::free_public;
use crate::app::App;
use crate::keys;
use crate::scheduler::{Demand, Resources};
use crate::services::placement::Wish;
use crate::services::volumes::devices;
use crate::state::{Image, Instance, NetworkInterface, Tx};

pub(super) fn take_compute(app: &App, tx: &mut Tx<'_>, row: &Instance) -> Result<(), ApiError> {
    devices::check_root(tx, &row.id)?;
    keys::usable_by(tx, &row.id)?;
    // It may be shared no more.
    let image = tx.of_anybody::<Image>(&row.image_id);
    let demand = Demand {
        zones: vec![row.availability_zone.clone()],
        host: None,
        spacing: None,
        uefi: image.is_some_and(|image| image.boot_mode == BootMode::Uefi),
        each: Resources {
            vcpus: row.vcpus.into(),
            memory_mib: row.memory_mib,
            // Its volumes are there and claimed.
            disk_bytes: 0,
        },
        min: 1,
        max: 1,
    };
    let placed = Wish::of_start(tx, &row.id).place(app, tx, demand)?;
    placed.hold(tx, 0, row);
    if row.public_address {
        let address = free_public(app, tx, 1, 1)?.first().copied();
        let interface = tx.interface_of(&row.id).map(|interface| interface.id.clone());
        if let Some(interface) = interface {
            tx.update::<NetworkInterface>(&interface, |interface| interface.public_ip = address);
        }
    }
    Ok(())
}
