//! The nouns, one file for each or for a few that belong together.

mod cloud;
mod hosts;
mod images;
mod instances;
mod key_pairs;
mod names;
mod networks;
mod security_groups;
mod volumes;

pub use cloud::{ClientToken, Cloud};
pub use hosts::{Admission, Drain, Host, HostKey, HostReport, JoinToken};
pub use images::{AVAILABLE, DEREGISTERED, Image};
pub use instances::{
    AUTO_RECOVERY_DEFAULT, AUTO_RECOVERY_DISABLED, Claim, Instance, METADATA_TAGS_ENABLED, Observation,
    Reservation, SHUTDOWN_STOP, SHUTDOWN_TERMINATE,
};
pub use key_pairs::KeyPair;
pub use networks::{NetworkInterface, Subnet, Vpc, address_key, block_key, hex};
pub use security_groups::{SecurityGroup, SecurityGroupRule, folded};
pub use volumes::Volume;
