//! What a reader gets. The names are stable: a field may be added, none changes its meaning or its unit.
//!
//! ```json
//! {"vcpus": [{"id": 0, "cpu_ns": 91000000, "exits": {"port_read": 12, "port_write": 840, ...}}],
//!  "devices": [{"kind": "block", "id": "vol0123456789abcdef0", "operations": {
//!     "read": {"operations": 3, "bytes": 12288, "errors": 0, "throttled": 0, "throttled_ns": 0,
//!              "latency": {"sum_ns": 210000, "buckets": [[65536, 2], [131072, 1]]}}}}]}
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::device::Operation;
use super::vcpu::Exit;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Ascending by id.
    pub vcpus: Vec<VcpuReport>,
    /// Ascending by kind and id.
    pub devices: Vec<DeviceReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuReport {
    pub id: u8,
    /// CPU time of the vCPU's thread, inside and outside of the guest.
    pub cpu_ns: u64,
    /// How often the vCPU came back from KVM, by reason; all reasons are there.
    pub exits: BTreeMap<Exit, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// `block`, `net`, `rng`, `balloon` or `vsock`.
    pub kind: String,
    /// What the machine's description calls it: a volume's id, an interface's id, `rng`.
    pub id: String,
    /// What it has done, all queues together; an operation that was never asked for is absent.
    pub operations: BTreeMap<Operation, OperationReport>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationReport {
    /// How many have ended, the failed ones included.
    pub operations: u64,
    /// Moved by those that did not fail.
    pub bytes: u64,
    /// How many the driver was told have failed; packets that were dropped.
    pub errors: u64,
    /// How many a rate limit kept waiting, and for how long in all.
    pub throttled: u64,
    pub throttled_ns: u64,
    /// From when the device found the request to when it was complete; being throttled does not count.
    pub latency: LatencyReport,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyReport {
    pub sum_ns: u64,
    /// Pairs of an exclusive upper bound, a power of two in nanoseconds, and how many took less than it and no
    /// less than its half; empty buckets are left out. The last, 2^40, has all that is longer, too.
    pub buckets: Vec<(u64, u64)>,
}
