//! Fuzz targets: what the guest, the control socket, the agent's files and a snapshot may say. `scripts/fuzz` runs
//! them; the tests here, on the corpus only.
//!
//! A target is right about more than "no panic": what it asserts is a promise to somebody.

use crate::control::Request;
use crate::spec::VmSpec;
use crate::{boot, console, open, pci, server, snapshot, virtio};

/// A name, and what is done with an input.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("virtio_block", virtio::fuzz::block),
    ("virtio_net", virtio::fuzz::net),
    ("virtio_rng", virtio::fuzz::rng),
    ("virtio_balloon", virtio::fuzz::balloon),
    ("virtio_vsock", virtio::fuzz::vsock),
    ("pci_function", virtio::fuzz::registers),
    ("pci_bus", pci::fuzz::bus),
    ("virtio_state", virtio::fuzz::state),
    ("snapshot_state", snapshot::fuzz::state_file),
    ("control_request", control_request),
    ("control_server", server::fuzz::clients),
    ("vm_spec", vm_spec),
    ("kernel_elf", boot::fuzz::kernel_elf),
    ("console_ring", console::fuzz::ring),
];

/// A request that is understood is understood in the same way when it is said again.
fn control_request(line: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(line) {
        let again = serde_json::to_vec(&request).unwrap();
        assert_eq!(serde_json::from_slice::<Request>(&again).unwrap(), request);
    }
}

fn vm_spec(json: &[u8]) {
    if let Ok(spec) = serde_json::from_slice::<VmSpec>(json) {
        let again = serde_json::to_vec(&spec).unwrap();
        assert_eq!(serde_json::from_slice::<VmSpec>(&again).unwrap(), spec);
        let _ = open::check_shape(spec.vcpus, spec.memory_mib);
        for nic in &spec.nics {
            let _ = open::parse_mac(&nic.mac);
        }
    }
}

/// Bytes that decide what a target does; at their end all are zero.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Little-endian.
    pub(crate) fn number(&mut self, len: usize) -> u64 {
        let mut number = [0; 8];
        for (to, from) in number.iter_mut().zip(self.bytes(len)) {
            *to = *from;
        }
        u64::from_le_bytes(number)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.number(1) as u8
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_corpus_passes() {
        for (name, target) in super::TARGETS {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../fuzz/corpus")
                .join(name);
            for file in std::fs::read_dir(corpus).unwrap() {
                target(&std::fs::read(file.unwrap().path()).unwrap());
            }
        }
    }
}
