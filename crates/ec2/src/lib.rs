//! AWS's protocols over Hearth's messages, without a line of code for any call: Query as EC2 speaks it, Query as IAM and STS
//! do, and JSON 1.1 of the younger services.
//!
//! AWS's [model] of a service says what each call's members are called on the wire. The protos under `proto/hearth/v1`
//! mirror it with names in snake case. [`Table::join`] joins both: a message's field, its number and its type on one side,
//! its parameter and its XML element on the other. Then a [form] becomes a message's bytes and a message's bytes become
//! [xml], in one pass each; services that speak [json] have it in place of both.
//!
//! ```text
//! Filter.1.Name=..., MaxResults=5  ── form ──►  bytes  ──►  the service that gRPC calls, too
//! <DescribeVpcsResponse> ...       ◄── xml ───  bytes  ◄──
//! ```
//!
//! A [`Face`] is the whole way of a request: its [signature], the two above, and the services in between.
//!
//! What is refused, is refused with EC2's codes ([`Refusal`]). Where the protocols are described:
//! <https://smithy.io/2.0/aws/protocols/aws-ec2-query-protocol.html>,
//! <https://smithy.io/2.0/aws/protocols/aws-query-protocol.html> and
//! <https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html>.

pub mod face;
pub mod form;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
pub mod json;
pub mod model;
mod parameters;
pub mod refusal;
pub mod signature;
mod table;
mod wire;
pub mod xml;

pub use face::Face;
pub use model::{Model, Service};
pub use refusal::Refusal;
pub use table::{Call, Difference, Table};
pub use wire::Malformed;
