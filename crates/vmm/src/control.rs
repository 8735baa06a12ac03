//! The control protocol of a running monitor.
//!
//! A client connects to the monitor's Unix stream socket and exchanges lines of JSON: it sends
//! [`Request`]s and gets one [`Message::Reply`] for each, in order; [`Message::Event`]s come in between
//! whenever they happen. Several clients may be connected. A client that does not read is dropped.

use serde::{Deserialize, Serialize};

use crate::metrics::Report;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Status,
    /// Asks for what has been counted so far; nothing stops for it.
    Metrics,
    /// Presses the ACPI power button.
    PowerButton,
    /// Pulls the reset line: a fresh boot in the same process, with the same disks and NICs.
    Reset,
    /// Ends the machine at once; disks are flushed first.
    Stop,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    Reply(Reply),
    Event(Event),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Status(Status),
    Metrics(Report),
    Ok,
    Error { message: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub instance_id: String,
    pub state: VmState,
    /// Boots of this process: 1 after the start, one more for each reset by whomever.
    pub boots: u64,
    /// Microseconds from the process's start to the first vCPU entry of the first boot; 0 before it.
    pub first_entry_micros: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// Being built.
    Starting,
    /// A vCPU has been entered.
    Running,
    /// On its way out.
    Ending,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The first vCPU of boot number `boots` was entered.
    Entered { boots: u64, first_entry_micros: u64 },
    /// The guest (or a client) reset the machine; boot number `boots` comes next.
    Reset { boots: u64 },
}
