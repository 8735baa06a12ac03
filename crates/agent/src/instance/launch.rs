//! One launch: image, volume, network, record, spawn.

use std::io;
use std::sync::Arc;

use hearth_api::agent::{InstanceIntent, NetworkInterface, RootVolume};
use hearth_vmm::virtio::net::MAX_PAIRS;
use tokio::time::Instant;

use super::spawn::{self, Parts, SpawnError};
use super::{Actor, Context};
use crate::fault;
use crate::firmware::Firmware;
use crate::images::{ImageError, ImageName};
use crate::monitor::{MonitorError, MonitorHandle};
use crate::networks::{MTU, NetworksError};
use crate::paths::is_plain_id;
use crate::record::{Phase, Record};
use crate::volume::{self, VolumeError};

#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    #[error("the intent names no usable {0}")]
    Malformed(&'static str),
    #[error(transparent)]
    Image(#[from] Arc<ImageError>),
    #[error(transparent)]
    Volume(#[from] VolumeError),
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
            prepared = prepare(&self.context, intent, launch, self.has_run(intent)) => prepared,
            _ = self.wanted.changed() => return,
        };
        let parts = match prepared {
            Ok(parts) => parts,
            Err(error) => return self.start_failed(run, error).await,
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
            volume_id: parts.volume_id.clone(),
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
                self.monitor = Some(monitor);
                self.since = Instant::now();
            }
            Err(error) => self.start_failed(run, error).await,
        }
    }

    /// Whether the instance has run with its root volume, as far as the control plane and the record know.
    fn has_run(&self, intent: &InstanceIntent) -> bool {
        let Some(root) = &intent.root_volume else {
            return false;
        };
        let here = self.record.volume_id == root.volume_id && self.record.start_micros > 0;
        root.has_run || here
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

/// Everything that a monitor needs, open. Idempotent, and may be dropped anywhere.
async fn prepare(
    context: &Arc<Context>,
    intent: &InstanceIntent,
    launch: u64,
    has_run: bool,
) -> Result<Parts, LaunchError> {
    let (root, eni) = checked(intent)?;
    let vcpus = u8::try_from(intent.vcpus).map_err(|_| LaunchError::Malformed("vCPU count"))?;
    let pin = context
        .images
        .ensure(ImageName {
            image_id: root.image_id.clone(),
            size: root.image_size_bytes,
            digest: root.image_digest.clone(),
        })
        .await?;
    fault::point("image-present");
    let (dir, volume) = (context.dir.clone(), root.clone());
    let laid = tokio::task::spawn_blocking(move || {
        if has_run {
            volume::demand(&dir, &volume.volume_id)?;
        }
        volume::ensure(
            &dir,
            &volume.volume_id,
            &volume.image_id,
            volume.image_size_bytes,
            volume.size_bytes,
        )?;
        // From here on the volume keeps its base.
        drop(pin);
        volume::open(&dir, &volume.volume_id, &volume.image_id)
    });
    // Neither needs the other.
    let queues = usize::from(vcpus).clamp(1, MAX_PAIRS);
    let taps = context
        .networks
        .open_tap(&eni.vpc_id, &eni.network_interface_id, queues);
    let (volume, taps) = tokio::join!(laid, taps);
    Ok(Parts {
        instance_id: intent.instance_id.clone(),
        launch,
        vcpus,
        memory_mib: intent.memory_mib,
        volume_id: root.volume_id.clone(),
        volume: volume??,
        network_interface_id: eni.network_interface_id.clone(),
        mac: eni.mac_address.clone(),
        mtu: MTU,
        taps: taps?,
        kvm: spawn::open_kvm(context.kvm)?,
        boot: spawn::boot(intent.boot_mode(), &context.firmware).map_err(|source| {
            let firmware = context.firmware.clone();
            LaunchError::Firmware { firmware, source }
        })?,
    })
}

/// Ids name files here, so they are looked at first.
fn checked(intent: &InstanceIntent) -> Result<(&RootVolume, &NetworkInterface), LaunchError> {
    let root = intent
        .root_volume
        .as_ref()
        .filter(|root| is_plain_id(&root.volume_id) && is_plain_id(&root.image_id))
        .ok_or(LaunchError::Malformed("root volume"))?;
    let eni = intent
        .network_interface
        .as_ref()
        .filter(|eni| is_plain_id(&eni.network_interface_id) && is_plain_id(&eni.vpc_id))
        .ok_or(LaunchError::Malformed("network interface"))?;
    Ok((root, eni))
}
