//! Instance states: EC2's names and codes.

use std::fmt;
use std::str::FromStr;

use crate::v1;

/// The states of an instance. The order is that of a life, and of the codes.
/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceState.html>
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InstanceState {
    Pending,
    Running,
    ShuttingDown,
    Terminated,
    Stopping,
    Stopped,
}

impl InstanceState {
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Running,
        Self::ShuttingDown,
        Self::Terminated,
        Self::Stopping,
        Self::Stopped,
    ];

    /// The low byte of EC2's state code; the high byte is EC2's own business and to be masked.
    pub const fn code(self) -> i32 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
            Self::Stopping => 64,
            Self::Stopped => 80,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }

    /// The state of a code, whatever its high byte.
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.code() == code & 0xff)
    }

    /// Whether the state is on the way to another one.
    pub const fn is_transitional(self) -> bool {
        matches!(self, Self::Pending | Self::ShuttingDown | Self::Stopping)
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no instance state's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no instance state")]
pub struct UnknownState(pub String);

impl FromStr for InstanceState {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|state| state.name() == name)
            .ok_or_else(|| UnknownState(name.to_owned()))
    }
}

impl From<InstanceState> for v1::InstanceState {
    fn from(state: InstanceState) -> Self {
        Self {
            code: state.code(),
            name: state.name().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_lead_back() {
        for state in InstanceState::ALL {
            assert_eq!(InstanceState::from_code(state.code()), Some(state));
            assert_eq!(InstanceState::from_code(state.code() | 0x0100), Some(state));
            assert_eq!(state.name().parse(), Ok(state));
        }
        assert_eq!(InstanceState::from_code(17), None);
        assert!("Running".parse::<InstanceState>().is_err());
    }
}
