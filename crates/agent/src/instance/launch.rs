//! One launch: image, volume, network, record, spawn.

use std::io;
use std::sync::Arc;

use hearth_api::agent::{InstanceIntent, InstanceVolume};
use hearth_vmm::virtio::net::MAX_PAIRS;
use tokio::time::Instant;

use super::spawn::{self, Disk, Nic, Parts, SpawnError};
use super::{Actor, Context};
use crate::decide::rate_limit;
use crate::disk_keys::{self, KeyError};
use crate::firmware::Firmware;
use crate::images::{ImageError, ImageName};
use crate::monitor::{MonitorError, MonitorHandle};
use crate::networks::NetworksError;
use crate::paths::is_plain_id;
use crate::points::is_move_id;
use crate::record::{Phase, Record};
use crate::volume::{self, Volume, VolumeError};
use crate::{fault, instance_store};

/// As EC2's: `ephemeral0` to `ephemeral23`.
const MAX_STORE_DISKS: usize = 24;

#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    #[error("the intent names no usable {0}")]
    Malformed(&'static str),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(
        "volume {volume_id} is to lie plain on {image_id}, which is encrypted: what is written to it would give that away"
    )]
    PlainOnEncrypted { volume_id: String, image_id: String },
    #[error(transparent)]
    Network(#[from] NetworksError),
    #[error("opening the UEFI firmware {firmware}, by which images of the boot mode uefi boot")]
    Firmware { firmware: Firmware, source: io::Error },
    #[error("starting the monitor")]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    #[error("a worker of the launch ended")]
    Worker(#[from] tokio::task::JoinError),
}

impl Actor {
    /// Launches `run`. What comes before the record may be dropped at any point when the intent changes; the
    /// rest is short and is not.
    pub(super) async fn launch(&mut self, intent: &InstanceIntent, run: u64, reboot: u64, recoveries: u32) {
        let launch = self.record.launch + 1;
        let began = Instant::now();
        let step = |step: &str| {
            tracing::debug!(instance = intent.instance_id, launch, after = ?began.elapsed(), step);
        };
        let prepared = tokio::select! {
            prepared = prepare(&self.context, intent, launch, &self.record) => prepared,
            _ = self.wanted.changed() => return,
        };
        let parts = match prepared {
            Ok(parts) => parts,
            Err(error) => return self.start_failed(intent, run, error).await,
        };
        step("prepared");
        fault::point("prepared");
        let record = Record {
            run,
            launch,
            phase: Phase::Starting,
            reboot,
            start_micros: if run == self.record.run {
                self.record.start_micros
            } else {
                0
            },
            boot: self.context.boot.clone(),
            interrupted: false,
            recoveries,
            by_firmware: self.record.by_firmware,
            volume_id: parts
                .disks
                .first()
                .map(|disk| disk.id.clone())
                .unwrap_or_default(),
            volumes: parts.disks.iter().skip(1).map(|disk| disk.id.clone()).collect(),
            instance_id: self.record.instance_id.clone(),
        };
        if !self.remember(record).await {
            return;
        }
        step("recorded");
        fault::point("recorded");
        match self.spawn(parts).await {
            Ok(monitor) => {
                step("spawned");
                self.take_hold_of(Some(monitor));
            }
            Err(error) => self.start_failed(intent, run, error).await,
        }
    }

    async fn spawn(&self, parts: Parts) -> Result<MonitorHandle, LaunchError> {
        let context = Arc::clone(&self.context);
        let (id, launch) = (parts.instance_id.clone(), parts.launch);
        let pidfd = tokio::task::spawn_blocking(move || {
            let dir = &context.dir;
            let pidfd = spawn::spawn(dir, context.jail.as_ref(), &context.monitor, parts)?;
            // Old launches' traces have served.
            if let Err(error) = spawn::sweep_launches(dir, &id, launch) {
                tracing::warn!(instance = id, %error, "sweeping old launches");
            }
            Ok::<_, SpawnError>(pidfd)
        })
        .await??;
        let launch_dir = self.context.dir.launch(&self.record.instance_id, launch);
        Ok(MonitorHandle::new(pidfd, &launch_dir)?)
    }
}

fn vcpus(intent: &InstanceIntent) -> Result<u8, LaunchError> {
    u8::try_from(intent.vcpus).map_err(|_| LaunchError::Malformed("vCPU count"))
}

/// Of each network interface.
pub(super) fn queues(intent: &InstanceIntent) -> Result<usize, LaunchError> {
    Ok(usize::from(vcpus(intent)?).clamp(1, MAX_PAIRS))
}

/// Everything that a monitor needs, open. Idempotent, and may be dropped anywhere.
async fn prepare(
    context: &Arc<Context>,
    intent: &InstanceIntent,
    launch: u64,
    record: &Record,
) -> Result<Parts, LaunchError> {
    check(intent)?;
    let (vcpus, queues) = (vcpus(intent)?, queues(intent)?);
    let disks = async {
        let mut disks = Vec::new();
        for volume in intent.volumes.iter().filter(|volume| !volume.detaching) {
            // One that has come from another host may have been here once before.
            let is_root = record.volume_id == volume.volume_id;
            let was_here = is_root || record.volumes.contains(&volume.volume_id);
            let was_here = was_here && record.start_micros > 0 && !is_move_id(&volume.image_id);
            disks.push(Disk {
                id: volume.volume_id.clone(),
                volume: lay(context, volume, volume.has_run || was_here).await?,
                rate_limit: rate_limit(volume),
            });
        }
        Ok::<_, LaunchError>(disks)
    };
    let nics = async {
        let mut nics = Vec::new();
        for eni in &intent.network_interfaces {
            let taps = context
                .networks
                .open_tap(&eni.vpc_id, &eni.network_interface_id, queues);
            nics.push(Nic {
                id: eni.network_interface_id.clone(),
                mac: eni.mac_address.clone(),
                taps: taps.await?,
            });
        }
        Ok::<_, LaunchError>(nics)
    };
    // Neither needs the other.
    let (disks, nics) = tokio::join!(disks, nics);
    let (dir, of) = (context.dir.clone(), intent.clone());
    let store = tokio::task::spawn_blocking(move || instance_store::open(&dir, &of));
    Ok(Parts {
        instance_id: intent.instance_id.clone(),
        launch,
        vcpus,
        memory_mib: intent.memory_mib,
        disks: disks?,
        store: store.await??,
        nics: nics?,
        kvm: spawn::open_kvm(context.kvm)?,
        boot: spawn::boot(intent.boot_mode(), &context.firmware).map_err(|source| {
            let firmware = context.firmware.clone();
            LaunchError::Firmware { firmware, source }
        })?,
    })
}

/// A volume, made unless an instance has run with it, and open.
pub(super) async fn lay(
    context: &Arc<Context>,
    wanted: &InstanceVolume,
    has_run: bool,
) -> Result<Volume, LaunchError> {
    if wanted.image_encrypted && !wanted.encrypted {
        return Err(LaunchError::PlainOnEncrypted {
            volume_id: wanted.volume_id.clone(),
            image_id: wanted.image_id.clone(),
        });
    }
    let pin = match wanted.image_id.is_empty() {
        true => None,
        false => {
            let image = ImageName {
                image_id: wanted.image_id.clone(),
                size: wanted.image_size_bytes,
                encrypted: wanted.image_encrypted,
            };
            Some(context.images.ensure(image).await?)
        }
    };
    fault::point("image-present");
    let fetch = async |id: &str, is_encrypted: bool| match is_encrypted {
        true => disk_keys::fetch_into_pipe(&context.link, id).await.map(Some),
        false => Ok(None),
    };
    let key = fetch(&wanted.volume_id, wanted.encrypted).await?;
    let base_key = fetch(&wanted.image_id, wanted.image_encrypted).await?;
    let (dir, wanted, boot) = (context.dir.clone(), wanted.clone(), context.boot.clone());
    let laid = tokio::task::spawn_blocking(move || {
        if has_run {
            volume::demand(&dir, &wanted.volume_id)?;
        }
        volume::ensure(
            &dir,
            &wanted.volume_id,
            &wanted.image_id,
            wanted.image_size_bytes,
            wanted.size_bytes,
            wanted.encrypted,
        )?;
        volume::demand_encryption(&dir, &wanted.volume_id, wanted.encrypted)?;
        volume::hold(&dir, &wanted.volume_id, wanted.attachment_epoch)?;
        // From here on the volume keeps its base.
        drop(pin);
        let mut volume = volume::open(&dir, &wanted.volume_id, &wanted.image_id, &boot)?;
        volume.key = key;
        if let Some(base) = &mut volume.base {
            base.key = base_key;
        }
        Ok::<_, VolumeError>(volume)
    });
    Ok(laid.await??)
}

/// Ids name files here, so they are looked at first.
fn is_usable(volume: &InstanceVolume) -> bool {
    let is_image = volume.image_id.is_empty() || is_plain_id(&volume.image_id);
    is_image && is_plain_id(&volume.volume_id)
}

fn check(intent: &InstanceIntent) -> Result<(), LaunchError> {
    let (volumes, enis) = (&intent.volumes, &intent.network_interfaces);
    if volumes.is_empty() || !volumes.iter().all(is_usable) {
        return Err(LaunchError::Malformed("volumes"));
    }
    if intent.store_disks.len() > MAX_STORE_DISKS {
        return Err(LaunchError::Malformed("disks of the instance store"));
    }
    let is_usable = |id: &String, vpc_id: &String| is_plain_id(id) && is_plain_id(vpc_id);
    if enis.is_empty()
        || !enis
            .iter()
            .all(|eni| is_usable(&eni.network_interface_id, &eni.vpc_id))
    {
        return Err(LaunchError::Malformed("network interfaces"));
    }
    Ok(())
}
