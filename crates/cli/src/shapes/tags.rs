//! `DescribeTags`.

use hearth_api::v1;
use serde::Serialize;

use crate::output::{Answer, table};

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Tags {
    tags: Vec<TagDescription>,
    #[serde(skip_serializing_if = "String::is_empty")]
    next_token: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TagDescription {
    key: String,
    resource_id: String,
    resource_type: String,
    value: String,
}

impl From<v1::DescribeTagsResponse> for Tags {
    fn from(answer: v1::DescribeTagsResponse) -> Self {
        let shape = |t: v1::TagDescription| TagDescription {
            key: t.key,
            resource_id: t.resource_id,
            resource_type: t.resource_type,
            value: t.value,
        };
        Self {
            tags: answer.tags.into_iter().map(shape).collect(),
            next_token: answer.next_token,
        }
    }
}

impl Answer for Tags {
    fn table(&self) -> String {
        let row = |t: &TagDescription| {
            [
                t.resource_type.clone(),
                t.resource_id.clone(),
                t.key.clone(),
                t.value.clone(),
            ]
        };
        table::of_rows(
            ["Type", "Resource", "Key", "Value"],
            self.tags.iter().map(row).collect(),
            "No tags.",
        )
    }
}
