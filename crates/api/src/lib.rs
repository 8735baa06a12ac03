//! Hearth's API: the generated gRPC types of `proto/`, ids, states, filters, pages, the error model and a client.
//! Imports nothing of ours; everything else imports it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bounds;
pub mod client;
pub mod codec;
pub mod deltas;
pub mod endpoint;
pub mod error;
pub mod fence;
pub mod filter;
pub mod ids;
pub mod join;
pub mod page;
pub mod remote;
pub mod state;
pub mod token;
pub mod zones;

pub use client::Client;
pub use error::{ApiError, ErrorCode};
pub use ids::{Id, Kind};
pub use state::InstanceState;

/// The public API: one proto file per EC2 noun.
#[allow(clippy::all, missing_docs, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("hearth.v1");
}

/// What host agents and the control plane say to each other.
#[allow(clippy::all, missing_docs, unreachable_pub)]
pub mod agent {
    tonic::include_proto!("hearth.agent.v1");

    impl std::fmt::Debug for DiskKey {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("DiskKey(..)")
        }
    }
}

/// The descriptors of all of `proto/`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
