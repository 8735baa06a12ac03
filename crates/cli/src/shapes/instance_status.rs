//! The status of instances and of their hosts.

use hearth_api::v1;
use serde::Serialize;

use super::{table, time};
use crate::output::Answer;

/// The answer of `DescribeInstanceStatus`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct InstanceStatuses {
    instance_statuses: Vec<Status>,
    #[serde(skip_serializing_if = "String::is_empty")]
    next_token: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Status {
    availability_zone: String,
    instance_id: String,
    instance_state: State,
    instance_status: Summary,
    system_status: Summary,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    code: i32,
    name: String,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    details: Vec<Detail>,
    status: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Detail {
    #[serde(skip_serializing_if = "String::is_empty")]
    impaired_since: String,
    name: String,
    status: String,
}

impl From<v1::InstanceStatusSummary> for Summary {
    fn from(summary: v1::InstanceStatusSummary) -> Self {
        let detail = |detail: v1::InstanceStatusDetails| Detail {
            impaired_since: time(detail.impaired_since),
            name: detail.name,
            status: detail.status,
        };
        Self {
            details: summary.details.into_iter().map(detail).collect(),
            status: summary.status,
        }
    }
}

impl From<v1::DescribeInstanceStatusResult> for InstanceStatuses {
    fn from(answer: v1::DescribeInstanceStatusResult) -> Self {
        let shape = |status: v1::InstanceStatus| {
            let state = status.instance_state.unwrap_or_default();
            Status {
                availability_zone: status.availability_zone,
                instance_id: status.instance_id,
                instance_state: State {
                    code: state.code,
                    name: state.name,
                },
                instance_status: status.instance_status.map(Into::into).unwrap_or_default(),
                system_status: status.system_status.map(Into::into).unwrap_or_default(),
            }
        };
        Self {
            instance_statuses: answer.instance_statuses.into_iter().map(shape).collect(),
            next_token: answer.next_token,
        }
    }
}

impl Answer for InstanceStatuses {
    fn table(&self) -> String {
        let row = |s: &Status| {
            let since = s.system_status.details.first();
            [
                s.instance_id.clone(),
                s.instance_state.name.clone(),
                s.instance_status.status.clone(),
                s.system_status.status.clone(),
                since
                    .map(|detail| detail.impaired_since.clone())
                    .unwrap_or_default(),
                s.availability_zone.clone(),
            ]
        };
        let head = [
            "Instance",
            "State",
            "Instance status",
            "System status",
            "Impaired since",
            "Zone",
        ];
        table::of_rows(
            head,
            self.instance_statuses.iter().map(row).collect(),
            "No instances.",
        )
    }
}
