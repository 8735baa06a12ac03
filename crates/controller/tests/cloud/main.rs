//! A real `hearthd` process against a pretended host: what users see, what hosts are told, and what survives.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agents;
mod backup;
mod bounds;
mod context;
mod crashes;
mod faults;
mod groups;
mod hosts;
mod idle;
mod images;
mod inspection;
mod joining;
mod launch;
mod life;
mod load;
mod log;
mod placement;
mod postgres;
mod recovery;
mod reflection;
mod sharing;
mod silence;
mod support;
mod uploads;
mod volumes;
