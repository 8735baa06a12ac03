//! Resource ids in EC2's shape: a prefix that says the kind, and 17 hex digits.

use std::fmt;
use std::ops::Deref;

use serde::Serialize;

use crate::error::{ApiError, ErrorCode};

/// The kinds of resources that have ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Instance,
    Image,
    SecurityGroup,
    SecurityGroupRule,
    Volume,
    Snapshot,
    NetworkInterface,
    KeyPair,
    Reservation,
    Vpc,
    Subnet,
    InternetGateway,
    RouteTable,
    PlacementGroup,
    /// A host that runs an agent (EC2 has such ids for dedicated hosts).
    Host,
}

impl Kind {
    pub const ALL: [Self; 15] = [
        Self::Instance,
        Self::Image,
        Self::SecurityGroup,
        Self::SecurityGroupRule,
        Self::Volume,
        Self::Snapshot,
        Self::NetworkInterface,
        Self::KeyPair,
        Self::Reservation,
        Self::Vpc,
        Self::Subnet,
        Self::InternetGateway,
        Self::RouteTable,
        Self::PlacementGroup,
        Self::Host,
    ];

    /// What stands before the dash.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Instance => "i",
            Self::Image => "ami",
            Self::SecurityGroup => "sg",
            Self::SecurityGroupRule => "sgr",
            Self::Volume => "vol",
            Self::Snapshot => "snap",
            Self::NetworkInterface => "eni",
            Self::KeyPair => "key",
            Self::Reservation => "r",
            Self::Vpc => "vpc",
            Self::Subnet => "subnet",
            Self::InternetGateway => "igw",
            Self::RouteTable => "rtb",
            Self::PlacementGroup => "pg",
            Self::Host => "h",
        }
    }

    /// The `ResourceType` of tag specifications and of `DescribeTags`.
    pub const fn resource_type(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Image => "image",
            Self::SecurityGroup => "security-group",
            Self::SecurityGroupRule => "security-group-rule",
            Self::Volume => "volume",
            Self::Snapshot => "snapshot",
            Self::NetworkInterface => "network-interface",
            Self::KeyPair => "key-pair",
            Self::Reservation => "reservation",
            Self::Vpc => "vpc",
            Self::Subnet => "subnet",
            Self::InternetGateway => "internet-gateway",
            Self::RouteTable => "route-table",
            Self::PlacementGroup => "placement-group",
            Self::Host => "dedicated-host",
        }
    }

    /// The kind that a `ResourceType` names.
    pub fn from_resource_type(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.resource_type() == name)
    }

    /// The kind of an id by its prefix alone; the rest may still be malformed.
    pub fn of(id: &str) -> Option<Self> {
        let (prefix, _) = id.split_once('-')?;
        Self::ALL.into_iter().find(|kind| kind.prefix() == prefix)
    }

    /// EC2's code for an id of this kind that cannot be one.
    pub fn malformed_code(self) -> ErrorCode {
        match self {
            Self::Instance => ErrorCode::InvalidInstanceIdMalformed,
            Self::Image => ErrorCode::InvalidAmiIdMalformed,
            Self::SecurityGroup => ErrorCode::InvalidGroupIdMalformed,
            Self::SecurityGroupRule => ErrorCode::InvalidSecurityGroupRuleIdMalformed,
            Self::Volume => ErrorCode::InvalidVolumeIdMalformed,
            Self::Snapshot => ErrorCode::InvalidSnapshotIdMalformed,
            Self::NetworkInterface => ErrorCode::InvalidNetworkInterfaceIdMalformed,
            Self::KeyPair => ErrorCode::InvalidKeyPairIdMalformed,
            Self::Reservation => ErrorCode::InvalidReservationIdMalformed,
            Self::Vpc => ErrorCode::InvalidVpcIdMalformed,
            Self::Subnet => ErrorCode::InvalidSubnetIdMalformed,
            Self::InternetGateway => ErrorCode::InvalidInternetGatewayIdMalformed,
            Self::RouteTable => ErrorCode::InvalidRouteTableIdMalformed,
            Self::PlacementGroup => ErrorCode::InvalidPlacementGroupIdMalformed,
            Self::Host => ErrorCode::InvalidHostIdMalformed,
        }
    }

    /// EC2's code for an id of this kind that names nothing.
    pub fn not_found_code(self) -> ErrorCode {
        match self {
            Self::Instance => ErrorCode::InvalidInstanceIdNotFound,
            Self::Image => ErrorCode::InvalidAmiIdNotFound,
            Self::SecurityGroup => ErrorCode::InvalidGroupNotFound,
            Self::SecurityGroupRule => ErrorCode::InvalidSecurityGroupRuleIdNotFound,
            Self::Volume => ErrorCode::InvalidVolumeNotFound,
            Self::Snapshot => ErrorCode::InvalidSnapshotNotFound,
            Self::NetworkInterface => ErrorCode::InvalidNetworkInterfaceIdNotFound,
            Self::KeyPair => ErrorCode::InvalidKeyPairNotFound,
            Self::Reservation => ErrorCode::InvalidReservationIdNotFound,
            Self::Vpc => ErrorCode::InvalidVpcIdNotFound,
            Self::Subnet => ErrorCode::InvalidSubnetIdNotFound,
            Self::InternetGateway => ErrorCode::InvalidInternetGatewayIdNotFound,
            Self::RouteTable => ErrorCode::InvalidRouteTableIdNotFound,
            Self::PlacementGroup => ErrorCode::InvalidPlacementGroupUnknown,
            Self::Host => ErrorCode::InvalidHostIdNotFound,
        }
    }

    /// The error for ids (one or several) that name nothing, in EC2's sentence.
    pub fn not_found<S: AsRef<str>>(self, ids: &[S]) -> ApiError {
        let noun = match self {
            Self::Instance => "instance ID",
            Self::Image => return self.no_images(ids),
            Self::SecurityGroup => "security group",
            Self::SecurityGroupRule => "security group rule ID",
            Self::Volume => "volume",
            Self::Snapshot => "snapshot",
            Self::NetworkInterface => "network interface ID",
            Self::KeyPair => "key pair",
            Self::Reservation => "reservation ID",
            Self::Vpc => "vpc ID",
            Self::Subnet => "subnet ID",
            Self::InternetGateway => "internetGateway ID",
            Self::RouteTable => "routeTable ID",
            Self::PlacementGroup => "placement group",
            Self::Host => "host ID",
        };
        let list = ids.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
        let message = match ids.len() {
            1 => format!("The {noun} '{list}' does not exist"),
            _ => format!("The {noun}s '{list}' do not exist"),
        };
        ApiError::new(self.not_found_code(), message)
    }

    /// EC2 writes ids of images in another way.
    fn no_images<S: AsRef<str>>(self, ids: &[S]) -> ApiError {
        let list = ids.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
        let message = match ids.len() {
            1 => format!("The image id '[{list}]' does not exist"),
            _ => format!("The image ids '[{list}]' do not exist"),
        };
        ApiError::new(self.not_found_code(), message)
    }
}

/// A well-formed id of a known kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    text: String,
    kind: Kind,
}

impl Id {
    /// A new random id. As in EC2 the first digit is 0, which leaves 64 random bits.
    pub fn new(kind: Kind) -> Self {
        Self {
            text: format!("{}-0{:016x}", kind.prefix(), rand::random::<u64>()),
            kind,
        }
    }

    /// Checks an id that a caller gave: the prefix of `kind`, a dash, and 17 hex digits (or 8, as EC2's ids once had).
    ///
    /// # Errors
    /// EC2's `Invalid...Malformed` of the kind.
    pub fn parse(kind: Kind, text: &str) -> Result<Self, ApiError> {
        let digits = text
            .strip_prefix(kind.prefix())
            .and_then(|rest| rest.strip_prefix('-'));
        let hex = |d: &str| d.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match digits {
            Some(d) if (d.len() == 17 || d.len() == 8) && hex(d) => Ok(Self {
                text: text.to_owned(),
                kind,
            }),
            _ => Err(ApiError::new(
                kind.malformed_code(),
                format!("Invalid id: \"{text}\" (expecting \"{}-...\")", kind.prefix()),
            )),
        }
    }

    /// Checks an id of any kind, as `CreateTags` takes them.
    ///
    /// # Errors
    /// `InvalidID` for an unknown prefix, else as [`Id::parse`].
    pub fn parse_any(text: &str) -> Result<Self, ApiError> {
        let unknown = || ApiError::new(ErrorCode::InvalidId, format!("The ID '{text}' is not valid"));
        Self::parse(Kind::of(text).ok_or_else(unknown)?, text)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Deref for Id {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.text
    }
}

impl Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn new_ids_parse_back_and_differ() {
        for kind in Kind::ALL {
            let id = Id::new(kind);
            assert_eq!(Id::parse(kind, &id).as_ref(), Ok(&id));
            assert_eq!(Id::parse_any(&id).map(|i| i.kind()), Ok(kind));
            assert_ne!(id, Id::new(kind));
            assert_eq!(Kind::from_resource_type(kind.resource_type()), Some(kind));
        }
    }

    #[test]
    fn malformed_ids_get_their_kinds_code() {
        for text in [
            "",
            "i",
            "i-",
            "i-xyz",
            "i-0123456789abcdeF0",
            "i-0123456789abcdef01",
            "ami-0123456789abcdef0",
        ] {
            let error = Id::parse(Kind::Instance, text).map_err(|e| e.code);
            assert_eq!(error, Err(ErrorCode::InvalidInstanceIdMalformed), "{text}");
        }
        let error = Id::parse(Kind::SecurityGroup, "sgr-0123456789abcdef0").map_err(|e| e.code);
        assert_eq!(error, Err(ErrorCode::InvalidGroupIdMalformed));
        assert_eq!(
            Id::parse_any("spaceship-1").map_err(|e| e.code),
            Err(ErrorCode::InvalidId)
        );
    }

    #[test]
    fn not_found_counts() {
        assert_eq!(
            Kind::Instance.not_found(&["i-1"]).message,
            "The instance ID 'i-1' does not exist"
        );
        assert_eq!(
            Kind::Instance.not_found(&["i-1", "i-2"]).message,
            "The instance IDs 'i-1, i-2' do not exist"
        );
        assert_eq!(
            Kind::Image.not_found(&["ami-1", "ami-2"]).message,
            "The image ids '[ami-1, ami-2]' do not exist"
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = Id::parse_any(&text);
            for kind in Kind::ALL {
                let _ = Id::parse(kind, &text);
            }
        }
    }
}
