//! How callers and agents get in: the API's Unix socket.

pub mod socket;
