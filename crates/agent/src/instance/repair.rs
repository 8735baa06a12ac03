//! What somebody has taken away from a running instance, and is given back to it.

use std::os::fd::RawFd;

use hearth_api::agent::{InstanceIntent, NetworkInterface};
use hearth_vmm::control::Request;

use super::Actor;
use super::launch::{LaunchError, queues};
use crate::chain;

impl Actor {
    /// Gives the monitor another TAP for each interface whose own was deleted. What fails is tried again when the TAPs
    /// are looked at next.
    pub(super) async fn replace_taps(&mut self, intent: &InstanceIntent) {
        for eni in &intent.network_interfaces {
            let (instance, interface) = (&intent.instance_id, &eni.network_interface_id);
            if !self.without_tap.borrow().contains(interface) {
                continue;
            }
            match self.replace_tap(intent, eni).await {
                Ok(()) => {
                    tracing::warn!(
                        instance,
                        interface,
                        "a TAP was deleted by somebody else; gave the instance another one"
                    );
                    let what = format!("the TAP of {interface} of {instance} was deleted");
                    self.context.board.post_repair(&what);
                }
                Err(error) => {
                    tracing::error!(instance, interface, error = %chain(&error), "giving an interface another TAP");
                    self.context.networks.leave_to_next_look(interface);
                }
            }
        }
    }

    async fn replace_tap(&self, intent: &InstanceIntent, eni: &NetworkInterface) -> Result<(), LaunchError> {
        let Some(monitor) = &self.monitor else {
            return Ok(());
        };
        let networks = &self.context.networks;
        let taps = networks
            .open_tap(&eni.vpc_id, &eni.network_interface_id, queues(intent)?)
            .await?;
        let request = Request::ReplaceTap {
            device: eni.network_interface_id.clone(),
            tap_fds: (0..).take(taps.len()).collect::<Vec<RawFd>>(),
        };
        monitor.ask_with(request, taps).await?;
        Ok(())
    }
}
