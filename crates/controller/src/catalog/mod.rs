//! What the cloud offers without any row: instance types, volume types.

pub mod instance_types;
pub mod volume_types;
