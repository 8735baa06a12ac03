//! Enumerations as the names that the database has them by.

/// By EC2's name of the state.
pub mod instance_state {
    use hearth_api::InstanceState;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(state: &InstanceState, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(state.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<InstanceState, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// By the name in the agents' protocol.
pub mod desired {
    use hearth_api::agent::instance_intent::Desired;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(desired: &Desired, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(desired.as_str_name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Desired, D::Error> {
        let name = String::deserialize(deserializer)?;
        Desired::from_str_name(&name).ok_or_else(|| D::Error::custom(format!("'{name}' cannot be desired")))
    }
}

/// In EC2's words.
pub mod boot_mode {
    use hearth_image::BootMode;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(mode: &BootMode, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(mode.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BootMode, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse()
            .map_err(|_| D::Error::custom(format!("'{name}' is no boot mode")))
    }
}
