//! What a stopped instance takes anew when it starts: vCPUs and memory on a host, and a public address. As in EC2 that can fail
//! for want of capacity.
//!
//! It starts where its root volume lies. If that host does not take it, because it is full, drained or lost, or because of the
//! instance's placement group, it starts on another one, and its volumes move there first.

use std::collections::BTreeSet;

use hearth_api::{ApiError, InstanceState};
use hearth_image::BootMode;

use super::run::free_public;
use crate::app::App;
use crate::keys;
use crate::lifecycle::MOVING;
use crate::scheduler::{Demand, Resources};
use crate::services::placement::{Placed, Wish};
use crate::services::volumes::{devices, moving};
use crate::state::{Image, Instance, NetworkInterface, State, Tx, Volume, store_gib};

pub(super) fn take_compute(app: &App, tx: &mut Tx<'_>, row: &Instance) -> Result<(), ApiError> {
    devices::check_root(tx, &row.id)?;
    keys::usable_by(tx, &row.id)?;
    let volumes: Vec<Volume> = tx.by(&Volume::BY_INSTANCE, &row.id).cloned().collect();
    let placed = place(app, tx, row, &volumes)?;
    let host = placed.hosts().first().cloned().unwrap_or_default();
    tx.leave(&row.id, &host);
    tx.update::<Instance>(&row.id, |row| row.host_id.clone_from(&host));
    placed.hold(tx, 0, row, row.run + 1);
    for volume in &volumes {
        tx.relocate(&volume.id, &host);
    }
    if row.public_address {
        let address = free_public(app, tx, 1, 1)?.first().copied();
        let interface = tx.interface_of(&row.id).map(|interface| interface.id.clone());
        if let Some(interface) = interface {
            tx.update::<NetworkInterface>(&interface, |interface| interface.public_ip = address);
        }
    }
    Ok(())
}

/// Chooses the host.
///
/// # Errors
/// `InsufficientInstanceCapacity`: no host takes it, or its volumes cannot leave theirs.
fn place(app: &App, state: &State, row: &Instance, volumes: &[Volume]) -> Result<Placed, ApiError> {
    let wish = Wish::of_start(state, &row.id);
    let root = devices::root(state, &row.id).and_then(|root| root.host_id.as_deref());
    let home = root.unwrap_or(&row.host_id);
    let elsewhere = |volume: &Volume, host: &str| volume.host_id.as_deref() != Some(host);
    let obstacle = |host: &str| {
        let mut moved = volumes.iter().filter(|volume| elsewhere(volume, host));
        moved.find_map(|volume| moving::obstacle(app, state, volume))
    };
    let here = match state.host(home) {
        Some(_) => {
            let taken = volumes.iter().filter(|volume| elsewhere(volume, home));
            let here = demand(
                state,
                row,
                volumes,
                taken.map(|volume| volume.spec.size_gib).sum(),
            );
            Some(wish.on(home).place(app, state, here))
        }
        None => None,
    };
    let refused = match here {
        Some(Ok(placed)) if obstacle(home).is_none() => return Ok(placed),
        Some(Err(error)) => Some(error),
        Some(Ok(_)) | None => None,
    };
    // On the way out of a host all of its volumes go with it.
    if let Some(obstacle) = obstacle("") {
        let mut error = refused.unwrap_or_else(|| {
            let code = hearth_api::ErrorCode::InsufficientInstanceCapacity;
            ApiError::new(code, "The instance's volumes cannot come together on a host.")
        });
        error.message = format!("{} {obstacle}", error.message);
        return Err(error);
    }
    let all = volumes.iter().map(|volume| volume.spec.size_gib).sum();
    wish.place(app, state, demand(state, row, volumes, all))
}

/// For one instance, in its zone.
fn demand(state: &State, row: &Instance, volumes: &[Volume], gib: u64) -> Demand {
    // It may be shared no more.
    let image = state.of_anybody::<Image>(&row.image_id);
    let copies = volumes.iter().flat_map(|volume| state.old_copies(&volume.id));
    let lives = state.left_by(&row.id);
    let except: BTreeSet<String> = copies.chain(lives).map(str::to_owned).collect();
    Demand {
        zones: vec![row.availability_zone.clone()],
        host: None,
        except,
        spacing: None,
        uefi: image.is_some_and(|image| image.boot_mode == BootMode::Uefi),
        each: Resources {
            vcpus: row.vcpus.into(),
            memory_mib: row.memory_mib,
            disk_bytes: (gib + store_gib(&row.store)) << 30,
        },
        min: 1,
        max: 1,
    }
}

/// An instance that waits for its volumes says so.
pub(super) fn tell_moves(tx: &mut Tx<'_>, id: &str) {
    let waits = |row: &&Instance| row.state == InstanceState::Pending && tx.awaits_volumes(row);
    let Some(host) = tx
        .get::<Instance>(id)
        .filter(waits)
        .map(|row| row.host_id.clone())
    else {
        return;
    };
    tx.update::<Instance>(id, |row| {
        row.reason_code = MOVING.to_owned();
        row.reason_message = format!("{MOVING}: The instance's volumes are moving to the host {host}");
    });
}
