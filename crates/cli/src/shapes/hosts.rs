//! Hosts.

use hearth_api::v1;
use serde::Serialize;

use super::{readable, table, time};
use crate::output::Answer;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Hosts {
    hosts: Vec<Host>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Host {
    host_id: String,
    hostname: String,
    availability_zone: String,
    state: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    drain_state: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    silent_time: String,
    agent_version: String,
    capacity: Resources,
    claimed: Resources,
    instance_ids: Vec<String>,
    enroll_time: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    repairs: Vec<Repair>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Repair {
    time: String,
    description: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Resources {
    vcpus: i64,
    memory_mib: i64,
    disk_gib: i64,
}

impl From<Option<v1::HostResources>> for Resources {
    fn from(resources: Option<v1::HostResources>) -> Self {
        let v1::HostResources {
            vcpus,
            memory_mib,
            disk_gib,
        } = resources.unwrap_or_default();
        Self {
            vcpus,
            memory_mib,
            disk_gib,
        }
    }
}

impl From<v1::HostRepair> for Repair {
    fn from(repair: v1::HostRepair) -> Self {
        Self {
            time: time(repair.time),
            description: repair.description,
        }
    }
}

impl From<v1::ListHostsResponse> for Hosts {
    fn from(answer: v1::ListHostsResponse) -> Self {
        let shape = |h: v1::Host| Host {
            host_id: h.host_id,
            hostname: h.hostname,
            availability_zone: h.availability_zone,
            state: h.state,
            drain_state: h.drain_state,
            silent_time: time(h.silent_time),
            agent_version: h.agent_version,
            capacity: h.capacity.into(),
            claimed: h.claimed.into(),
            instance_ids: h.instance_ids,
            enroll_time: time(h.enroll_time),
            repairs: h.repairs.into_iter().map(Repair::from).collect(),
        };
        Self {
            hosts: answer.hosts.into_iter().map(shape).collect(),
        }
    }
}

impl Answer for Hosts {
    fn table(&self) -> String {
        let row = |h: &Host| {
            let of = |claimed: i64, total: i64| format!("{claimed} of {total}");
            [
                h.host_id.clone(),
                h.hostname.clone(),
                h.availability_zone.clone(),
                match h.drain_state.as_str() {
                    "" => h.state.clone(),
                    drain => format!("{}, {drain}", h.state),
                },
                h.instance_ids.len().to_string(),
                of(h.claimed.vcpus, h.capacity.vcpus),
                of(h.claimed.memory_mib, h.capacity.memory_mib),
                of(h.claimed.disk_gib, h.capacity.disk_gib),
                readable(&h.enroll_time),
            ]
        };
        let head = [
            "Host",
            "Name",
            "Zone",
            "State",
            "Instances",
            "vCPUs",
            "Memory MiB",
            "Disk GiB",
            "Joined",
        ];
        table::of_rows(head, self.hosts.iter().map(row).collect(), "No hosts.")
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Forgotten {
    host_id: String,
    terminated_instance_ids: Vec<String>,
    abandoned_volume_ids: Vec<String>,
}

impl From<v1::ForgetHostResponse> for Forgotten {
    fn from(answer: v1::ForgetHostResponse) -> Self {
        Self {
            host_id: answer.host_id,
            terminated_instance_ids: answer.terminated_instance_ids,
            abandoned_volume_ids: answer.abandoned_volume_ids,
        }
    }
}

impl Answer for Forgotten {
    fn table(&self) -> String {
        let mut text = format!("{} is forgotten.", self.host_id);
        for (what, ids) in [
            ("Terminated instances", &self.terminated_instance_ids),
            ("Volumes given up", &self.abandoned_volume_ids),
        ] {
            if !ids.is_empty() {
                text.push_str(&format!("\n{what}: {}", ids.join(", ")));
            }
        }
        text
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Drained {
    host_id: String,
    instance_ids: Vec<String>,
}

impl From<v1::DrainHostResponse> for Drained {
    fn from(answer: v1::DrainHostResponse) -> Self {
        Self {
            host_id: answer.host_id,
            instance_ids: answer.instance_ids,
        }
    }
}

impl Answer for Drained {
    fn table(&self) -> String {
        match self.instance_ids.as_slice() {
            [] => format!("{} is drained.", self.host_id),
            ids => format!(
                "{} is being drained. Instances there: {}",
                self.host_id,
                ids.join(", ")
            ),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Resumed {
    host_id: String,
}

impl From<v1::ResumeHostResponse> for Resumed {
    fn from(answer: v1::ResumeHostResponse) -> Self {
        Self {
            host_id: answer.host_id,
        }
    }
}

impl Answer for Resumed {
    fn table(&self) -> String {
        format!("{} takes instances again.", self.host_id)
    }
}
