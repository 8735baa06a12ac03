//! Key pairs.

use hearth_api::v1;
use serde::Serialize;

use super::{Tag, readable, table, tags, time};
use crate::output::Answer;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct KeyPairs {
    key_pairs: Vec<KeyPairInfo>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyPairInfo {
    key_pair_id: String,
    key_type: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Tag>,
    #[serde(skip_serializing_if = "String::is_empty")]
    public_key: String,
    create_time: String,
    key_name: String,
    key_fingerprint: String,
}

impl From<v1::DescribeKeyPairsResponse> for KeyPairs {
    fn from(answer: v1::DescribeKeyPairsResponse) -> Self {
        let shape = |k: v1::KeyPair| KeyPairInfo {
            key_pair_id: k.key_pair_id,
            key_type: k.key_type,
            tags: tags(k.tags),
            public_key: k.public_key,
            create_time: time(k.create_time),
            key_name: k.key_name,
            key_fingerprint: k.key_fingerprint,
        };
        Self {
            key_pairs: answer.key_pairs.into_iter().map(shape).collect(),
        }
    }
}

impl Answer for KeyPairs {
    fn table(&self) -> String {
        let row = |k: &KeyPairInfo| {
            [
                k.key_name.clone(),
                k.key_pair_id.clone(),
                k.key_type.clone(),
                k.key_fingerprint.clone(),
                readable(&k.create_time),
            ]
        };
        let head = ["Name", "Id", "Type", "Fingerprint", "Created"];
        table::of_rows(head, self.key_pairs.iter().map(row).collect(), "No key pairs.")
    }
}

/// The answers of `CreateKeyPair` and, without material, of `ImportKeyPair`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NewKeyPair {
    key_pair_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Tag>,
    key_name: String,
    key_fingerprint: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    key_material: String,
}

impl NewKeyPair {
    /// `key_material` may be empty: an imported one, or kept in a file.
    pub(crate) fn new(pair: v1::KeyPair, key_material: String) -> Self {
        Self {
            key_pair_id: pair.key_pair_id,
            tags: tags(pair.tags),
            key_name: pair.key_name,
            key_fingerprint: pair.key_fingerprint,
            key_material,
        }
    }
}

impl Answer for NewKeyPair {
    fn table(&self) -> String {
        let pairs = [
            ("KeyName", self.key_name.as_str()),
            ("KeyPairId", &self.key_pair_id),
            ("KeyFingerprint", &self.key_fingerprint),
        ];
        // Material outside of the frame: it is to be copied.
        format!("{}\n{}", table::of_pairs(&pairs), self.key_material)
    }
}
