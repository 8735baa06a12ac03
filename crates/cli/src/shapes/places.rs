//! Availability zones.

use hearth_api::v1;
use serde::Serialize;

use super::table;
use crate::output::Answer;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AvailabilityZones {
    availability_zones: Vec<AvailabilityZone>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct AvailabilityZone {
    opt_in_status: String,
    messages: Vec<Message>,
    region_name: String,
    zone_name: String,
    zone_id: String,
    zone_type: String,
    state: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Message {
    message: String,
}

impl From<v1::DescribeAvailabilityZonesResponse> for AvailabilityZones {
    fn from(answer: v1::DescribeAvailabilityZonesResponse) -> Self {
        let shape = |z: v1::AvailabilityZone| AvailabilityZone {
            opt_in_status: z.opt_in_status,
            messages: z
                .messages
                .into_iter()
                .map(|message| Message { message })
                .collect(),
            region_name: z.region_name,
            zone_name: z.zone_name,
            zone_id: z.zone_id,
            zone_type: z.zone_type,
            state: z.state,
        };
        Self {
            availability_zones: answer.availability_zones.into_iter().map(shape).collect(),
        }
    }
}

impl Answer for AvailabilityZones {
    fn table(&self) -> String {
        let row = |z: &AvailabilityZone| {
            let messages: Vec<&str> = z.messages.iter().map(|m| m.message.as_str()).collect();
            [
                z.zone_name.clone(),
                z.zone_id.clone(),
                z.region_name.clone(),
                z.state.clone(),
                messages.join("\n"),
            ]
        };
        let rows = self.availability_zones.iter().map(row).collect();
        table::of_rows(
            ["Zone", "Id", "Region", "State", "Messages"],
            rows,
            "No availability zones.",
        )
    }
}
