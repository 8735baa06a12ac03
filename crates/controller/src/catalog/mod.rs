//! What the cloud offers without any row: instance types.

pub mod instance_types;
