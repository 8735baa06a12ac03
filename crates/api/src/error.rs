//! The error model: EC2's error codes over gRPC.
//!
//! An [`ApiError`] is EC2's error code and a sentence that says what to do. On the wire it is a gRPC status whose
//! message is that sentence and whose details hold a `google.rpc.ErrorInfo` with the EC2 code as `reason` and
//! [`DOMAIN`] as `domain`, so that any gRPC client can tell errors apart without parsing sentences.
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html>

use std::error::Error;
use std::fmt;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The `domain` of the `google.rpc.ErrorInfo` of every error that Hearth's API makes.
pub const DOMAIN: &str = "ec2.hearth";

macro_rules! error_codes {
    ($($name:ident = $text:literal, $grpc:ident;)*) => {
        /// EC2's error codes, as far as Hearth uses them.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = concat!("`", $text, "`")] $name,)*
            /// A code that this version does not know, as a newer server sends it.
            Other(Box<str>),
        }

        impl ErrorCode {
            /// The code as EC2 writes it.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other(text) => text,
                }
            }

            /// The gRPC status code that goes with it.
            pub fn grpc(&self) -> Code {
                match self {
                    $(Self::$name => Code::$grpc,)*
                    Self::Other(_) => Code::Unknown,
                }
            }
        }

        impl From<&str> for ErrorCode {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$name,)*
                    other => Self::Other(other.into()),
                }
            }
        }

        #[cfg(test)]
        const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];
    };
}

error_codes! {
    // The request by itself.
    InvalidParameterValue = "InvalidParameterValue", InvalidArgument;
    InvalidParameterCombination = "InvalidParameterCombination", InvalidArgument;
    InvalidParameter = "InvalidParameter", InvalidArgument;
    MissingParameter = "MissingParameter", InvalidArgument;
    InvalidUserDataMalformed = "InvalidUserData.Malformed", InvalidArgument;
    InvalidBlockDeviceMapping = "InvalidBlockDeviceMapping", InvalidArgument;
    InvalidNextToken = "InvalidNextToken", InvalidArgument;
    InvalidId = "InvalidID", InvalidArgument;
    InvalidInstanceType = "InvalidInstanceType", InvalidArgument;
    InvalidInstanceAttributeValue = "InvalidInstanceAttributeValue", InvalidArgument;
    InvalidParameterDependency = "InvalidParameterDependency", InvalidArgument;
    InvalidRequest = "InvalidRequest", InvalidArgument;
    UnknownVolumeType = "UnknownVolumeType", InvalidArgument;
    InvalidPermissionMalformed = "InvalidPermission.Malformed", InvalidArgument;
    InvalidGroupReserved = "InvalidGroup.Reserved", InvalidArgument;
    InvalidKeyFormat = "InvalidKey.Format", InvalidArgument;
    InvalidManifest = "InvalidManifest", InvalidArgument;
    InvalidAmiNameMalformed = "InvalidAMIName.Malformed", InvalidArgument;
    InvalidTagKeyMalformed = "InvalidTagKey.Malformed", InvalidArgument;
    FilterLimitExceeded = "FilterLimitExceeded", InvalidArgument;
    TagLimitExceeded = "TagLimitExceeded", InvalidArgument;

    // Ids of the wrong shape.
    InvalidInstanceIdMalformed = "InvalidInstanceID.Malformed", InvalidArgument;
    InvalidAmiIdMalformed = "InvalidAMIID.Malformed", InvalidArgument;
    InvalidGroupIdMalformed = "InvalidGroupId.Malformed", InvalidArgument;
    InvalidSecurityGroupRuleIdMalformed = "InvalidSecurityGroupRuleId.Malformed", InvalidArgument;
    InvalidVolumeIdMalformed = "InvalidVolumeID.Malformed", InvalidArgument;
    InvalidSnapshotIdMalformed = "InvalidSnapshotID.Malformed", InvalidArgument;
    InvalidNetworkInterfaceIdMalformed = "InvalidNetworkInterfaceId.Malformed", InvalidArgument;
    InvalidKeyPairIdMalformed = "InvalidKeyPairId.Malformed", InvalidArgument;
    InvalidReservationIdMalformed = "InvalidReservationID.Malformed", InvalidArgument;
    InvalidVpcIdMalformed = "InvalidVpcId.Malformed", InvalidArgument;
    InvalidSubnetIdMalformed = "InvalidSubnetId.Malformed", InvalidArgument;
    InvalidInternetGatewayIdMalformed = "InvalidInternetGatewayId.Malformed", InvalidArgument;
    InvalidRouteTableIdMalformed = "InvalidRouteTableId.Malformed", InvalidArgument;
    InvalidVpcRange = "InvalidVpc.Range", InvalidArgument;
    InvalidSubnetRange = "InvalidSubnet.Range", InvalidArgument;
    InvalidPlacementGroupIdMalformed = "InvalidPlacementGroupId.Malformed", InvalidArgument;
    InvalidHostIdMalformed = "InvalidHostID.Malformed", InvalidArgument;

    // Things that are not there.
    InvalidInstanceIdNotFound = "InvalidInstanceID.NotFound", NotFound;
    InvalidAmiIdNotFound = "InvalidAMIID.NotFound", NotFound;
    InvalidGroupNotFound = "InvalidGroup.NotFound", NotFound;
    InvalidSecurityGroupRuleIdNotFound = "InvalidSecurityGroupRuleId.NotFound", NotFound;
    InvalidPermissionNotFound = "InvalidPermission.NotFound", NotFound;
    InvalidVolumeNotFound = "InvalidVolume.NotFound", NotFound;
    InvalidSnapshotNotFound = "InvalidSnapshot.NotFound", NotFound;
    InvalidVolumeModificationNotFound = "InvalidVolumeModification.NotFound", NotFound;
    InvalidAttachmentNotFound = "InvalidAttachment.NotFound", NotFound;
    InvalidZoneNotFound = "InvalidZone.NotFound", NotFound;
    InvalidNetworkInterfaceIdNotFound = "InvalidNetworkInterfaceID.NotFound", NotFound;
    InvalidKeyPairNotFound = "InvalidKeyPair.NotFound", NotFound;
    InvalidReservationIdNotFound = "InvalidReservationID.NotFound", NotFound;
    InvalidVpcIdNotFound = "InvalidVpcID.NotFound", NotFound;
    InvalidSubnetIdNotFound = "InvalidSubnetID.NotFound", NotFound;
    InvalidInternetGatewayIdNotFound = "InvalidInternetGatewayID.NotFound", NotFound;
    InvalidRouteTableIdNotFound = "InvalidRouteTableID.NotFound", NotFound;
    InvalidNetworkAclIdNotFound = "InvalidNetworkAclID.NotFound", NotFound;
    InvalidAssociationIdNotFound = "InvalidAssociationID.NotFound", NotFound;
    InvalidGatewayIdNotFound = "InvalidGatewayID.NotFound", NotFound;
    InvalidRouteNotFound = "InvalidRoute.NotFound", NotFound;
    DefaultVpcDoesNotExist = "DefaultVpcDoesNotExist", NotFound;
    InvalidPlacementGroupUnknown = "InvalidPlacementGroup.Unknown", NotFound;
    InvalidHostIdNotFound = "InvalidHostID.NotFound", NotFound;
    VpcIdNotSpecified = "VPCIdNotSpecified", NotFound;

    // Things that are there already.
    InvalidKeyPairDuplicate = "InvalidKeyPair.Duplicate", AlreadyExists;
    InvalidGroupDuplicate = "InvalidGroup.Duplicate", AlreadyExists;
    InvalidPlacementGroupDuplicate = "InvalidPlacementGroup.Duplicate", AlreadyExists;
    InvalidPermissionDuplicate = "InvalidPermission.Duplicate", AlreadyExists;
    RouteAlreadyExists = "RouteAlreadyExists", AlreadyExists;
    DefaultVpcAlreadyExists = "DefaultVpcAlreadyExists", AlreadyExists;
    DefaultSubnetAlreadyExists = "DefaultSubnetAlreadyExistsInAvailabilityZone", AlreadyExists;
    InvalidAmiNameDuplicate = "InvalidAMIName.Duplicate", AlreadyExists;

    // The state of things forbids it.
    InvalidGroupInUse = "InvalidGroup.InUse", FailedPrecondition;
    InvalidPlacementGroupInUse = "InvalidPlacementGroup.InUse", FailedPrecondition;
    VolumeInUse = "VolumeInUse", FailedPrecondition;
    InvalidSnapshotInUse = "InvalidSnapshot.InUse", FailedPrecondition;
    InvalidVolumeZoneMismatch = "InvalidVolume.ZoneMismatch", FailedPrecondition;
    IncorrectModificationState = "IncorrectModificationState", FailedPrecondition;
    InvalidAmiAttributeItemValue = "InvalidAMIAttributeItemValue", InvalidArgument;
    InvalidAmiIdUnavailable = "InvalidAMIID.Unavailable", FailedPrecondition;
    InvalidIpAddressInUse = "InvalidIPAddress.InUse", FailedPrecondition;
    InvalidSubnetConflict = "InvalidSubnet.Conflict", FailedPrecondition;
    ResourceAlreadyAssociated = "Resource.AlreadyAssociated", FailedPrecondition;
    GatewayNotAttached = "Gateway.NotAttached", FailedPrecondition;
    DependencyViolation = "DependencyViolation", FailedPrecondition;
    CannotDelete = "CannotDelete", FailedPrecondition;
    IncorrectState = "IncorrectState", FailedPrecondition;
    IncorrectInstanceState = "IncorrectInstanceState", FailedPrecondition;
    UnsupportedOperation = "UnsupportedOperation", FailedPrecondition;
    Unsupported = "Unsupported", FailedPrecondition;
    OperationNotPermitted = "OperationNotPermitted", FailedPrecondition;
    IdempotentParameterMismatch = "IdempotentParameterMismatch", FailedPrecondition;
    IdempotentInstanceTerminated = "IdempotentInstanceTerminated", FailedPrecondition;
    DryRunOperation = "DryRunOperation", FailedPrecondition;

    // Who asks.
    UnauthorizedOperation = "UnauthorizedOperation", PermissionDenied;
    AccessDenied = "AccessDenied", PermissionDenied;
    AuthFailure = "AuthFailure", Unauthenticated;
    InvalidClientTokenId = "InvalidClientTokenId", Unauthenticated;
    ExpiredToken = "ExpiredToken", Unauthenticated;
    SignatureDoesNotMatch = "SignatureDoesNotMatch", Unauthenticated;

    // IAM and STS.
    NoSuchEntity = "NoSuchEntity", NotFound;
    NoSuchAssociation = "NoSuchAssociation", NotFound;
    EntityAlreadyExists = "EntityAlreadyExists", AlreadyExists;
    DeleteConflict = "DeleteConflict", FailedPrecondition;
    LimitExceeded = "LimitExceeded", ResourceExhausted;
    MalformedPolicyDocument = "MalformedPolicyDocument", InvalidArgument;
    ValidationError = "ValidationError", InvalidArgument;
    InvalidAuthorizationMessage = "InvalidAuthorizationMessageException", InvalidArgument;

    InvalidInput = "InvalidInput", InvalidArgument;
    PackedPolicyTooLarge = "PackedPolicyTooLarge", InvalidArgument;

    // SSM, Service Quotas, EC2 Instance Connect.
    ValidationException = "ValidationException", InvalidArgument;
    ParameterNotFound = "ParameterNotFound", NotFound;
    ParameterVersionNotFound = "ParameterVersionNotFound", NotFound;
    NoSuchResourceException = "NoSuchResourceException", NotFound;
    InvalidPaginationTokenException = "InvalidPaginationTokenException", InvalidArgument;
    InvalidArgsException = "InvalidArgsException", InvalidArgument;
    Ec2InstanceNotFoundException = "EC2InstanceNotFoundException", NotFound;
    Ec2InstanceStateInvalidException = "EC2InstanceStateInvalidException", FailedPrecondition;
    Ec2InstanceUnavailableException = "EC2InstanceUnavailableException", FailedPrecondition;
    SerialConsoleAccessDisabledException = "SerialConsoleAccessDisabledException", FailedPrecondition;
    SerialConsoleSessionUnsupportedException = "SerialConsoleSessionUnsupportedException", FailedPrecondition;

    // KMS, and keys of KMS in EC2.
    NotFoundException = "NotFoundException", NotFound;
    AlreadyExistsException = "AlreadyExistsException", AlreadyExists;
    DisabledException = "DisabledException", FailedPrecondition;
    KmsInvalidStateException = "KMSInvalidStateException", FailedPrecondition;
    InvalidAliasNameException = "InvalidAliasNameException", InvalidArgument;
    InvalidArnException = "InvalidArnException", InvalidArgument;
    InvalidMarkerException = "InvalidMarkerException", InvalidArgument;
    LimitExceededException = "LimitExceededException", ResourceExhausted;
    NotAuthorizedException = "NotAuthorizedException", PermissionDenied;
    TagException = "TagException", InvalidArgument;
    InvalidGrantTokenException = "InvalidGrantTokenException", InvalidArgument;
    InvalidCiphertextException = "InvalidCiphertextException", InvalidArgument;
    IncorrectKeyException = "IncorrectKeyException", InvalidArgument;
    MalformedPolicyDocumentException = "MalformedPolicyDocumentException", InvalidArgument;
    UnsupportedOperationException = "UnsupportedOperationException", InvalidArgument;
    InvalidKmsKeyNotFound = "InvalidKMSKey.NotFound", NotFound;
    InvalidKmsKeyInvalidState = "InvalidKMSKey.InvalidState", FailedPrecondition;

    // Not enough of something.
    InsufficientInstanceCapacity = "InsufficientInstanceCapacity", ResourceExhausted;
    InsufficientCapacity = "InsufficientCapacity", ResourceExhausted;
    InsufficientVolumeCapacity = "InsufficientVolumeCapacity", ResourceExhausted;
    AttachmentLimitExceeded = "AttachmentLimitExceeded", ResourceExhausted;
    VolumeLimitExceeded = "VolumeLimitExceeded", ResourceExhausted;
    SnapshotLimitExceeded = "SnapshotLimitExceeded", ResourceExhausted;
    ConcurrentSnapshotLimitExceeded = "ConcurrentSnapshotLimitExceeded", ResourceExhausted;
    MaxIopsLimitExceeded = "MaxIOPSLimitExceeded", ResourceExhausted;
    VolumeModificationRateExceeded = "VolumeModificationRateExceeded", ResourceExhausted;
    InsufficientAddressCapacity = "InsufficientAddressCapacity", ResourceExhausted;
    InsufficientFreeAddressesInSubnet = "InsufficientFreeAddressesInSubnet", ResourceExhausted;
    VpcLimitExceeded = "VpcLimitExceeded", ResourceExhausted;
    SubnetLimitExceeded = "SubnetLimitExceeded", ResourceExhausted;
    InternetGatewayLimitExceeded = "InternetGatewayLimitExceeded", ResourceExhausted;
    RouteTableLimitExceeded = "RouteTableLimitExceeded", ResourceExhausted;
    RouteLimitExceeded = "RouteLimitExceeded", ResourceExhausted;
    InstanceLimitExceeded = "InstanceLimitExceeded", ResourceExhausted;
    RulesPerSecurityGroupLimitExceeded = "RulesPerSecurityGroupLimitExceeded", ResourceExhausted;
    SecurityGroupLimitExceeded = "SecurityGroupLimitExceeded", ResourceExhausted;
    SecurityGroupsPerInterfaceLimitExceeded = "SecurityGroupsPerInterfaceLimitExceeded", ResourceExhausted;
    RequestLimitExceeded = "RequestLimitExceeded", ResourceExhausted;
    ResourceLimitExceeded = "ResourceLimitExceeded", ResourceExhausted;
    RequestExpired = "RequestExpired", DeadlineExceeded;

    // The server.
    InternalError = "InternalError", Internal;
    Unavailable = "Unavailable", Unavailable;
    InvalidAction = "InvalidAction", Unimplemented;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a call is refused with: EC2's code, and a sentence for the person who called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    pub code: ErrorCode,
    pub message: String,
}

/// Bytes of a message. It travels twice in the headers of an answer, percent-encoded and in base64, and clients take
/// 16 KiB of headers (hyper's default): four times this and some more.
const MAX_MESSAGE: usize = 3000;
/// Bytes of a value that a message repeats.
const MAX_VALUE: usize = 300;

/// A text with its middle left out if it is longer than `limit` bytes: the sentence around a long value stays.
fn shortened(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let head = text.floor_char_boundary(limit / 2);
        let tail = text.ceil_char_boundary(text.len() - limit / 3);
        let omitted = format!(" [... {} bytes ...] ", tail - head);
        text.replace_range(head..tail, &omitted);
    }
    text
}

impl ApiError {
    /// `message` is shortened if it is very long: it may repeat what a caller sent.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: shortened(message.into(), MAX_MESSAGE),
        }
    }

    /// `InvalidParameterValue`, naming the parameter, what was given and what would do.
    pub fn invalid_value(parameter: &str, given: impl fmt::Display, expected: impl fmt::Display) -> Self {
        let given = shortened(given.to_string(), MAX_VALUE);
        let message = format!("Value ({given}) for parameter {parameter} is invalid. {expected}");
        Self::new(ErrorCode::InvalidParameterValue, message)
    }

    /// `MissingParameter`, in EC2's sentence.
    pub fn missing(parameter: &str) -> Self {
        let message = format!("The request must contain the parameter {parameter}");
        Self::new(ErrorCode::MissingParameter, message)
    }

    /// `InvalidParameterCombination`, in EC2's sentence.
    pub fn combination(one: &str, other: &str) -> Self {
        let message = format!("The parameter {one} cannot be used with the parameter {other}");
        Self::new(ErrorCode::InvalidParameterCombination, message)
    }

    /// `DryRunOperation`: all checks passed, and nothing was done because the caller asked for that.
    pub fn dry_run() -> Self {
        Self::new(
            ErrorCode::DryRunOperation,
            "Request would have succeeded, but DryRun flag is set.",
        )
    }

    /// `InternalError` for a cause that is none of the caller's business: the cause and its sources go to the
    /// server's log under a reference, and the caller learns the reference alone.
    pub fn internal(cause: &(dyn Error + 'static)) -> Self {
        let reference = format!("{:08x}", rand::random::<u32>());
        let mut chain = cause.to_string();
        let mut source = cause.source();
        while let Some(inner) = source {
            chain.push_str(": ");
            chain.push_str(&inner.to_string());
            source = inner.source();
        }
        tracing::error!(%reference, cause = %chain, "internal error");
        let message = format!(
            "An internal error has occurred. The server's log explains it under reference {reference}."
        );
        Self::new(ErrorCode::InternalError, message)
    }

    /// The status of this error, for a service that has another name for it.
    pub fn status_as(self, name: &str) -> Status {
        let details = ErrorDetails::with_error_info(name, DOMAIN, []);
        Status::with_error_details(self.code.grpc(), self.message, details)
    }

    /// Reads the error out of a status that Hearth's API answered with; `None` for anything else, such as a lost
    /// connection or an unknown method.
    pub fn from_status(status: &Status) -> Option<Self> {
        let info = status.get_details_error_info()?;
        (info.domain == DOMAIN).then(|| Self::new(info.reason.as_str().into(), status.message()))
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let name = error.code.as_str().to_owned();
        error.status_as(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for code in ALL {
            let error = ApiError::new(code.clone(), "The thing 'x' is wrong.");
            let status = Status::from(error.clone());
            assert_eq!(status.code(), code.grpc());
            assert_eq!(status.message(), "The thing 'x' is wrong.");
            assert_eq!(ApiError::from_status(&status), Some(error));
        }
    }

    #[test]
    fn sixty_megabytes_are_not_sent_back() {
        let long = "ü\n".repeat(20 << 20);
        let name = ApiError::invalid_value("Name", &long, "Expecting a name.");
        assert!(name.message.len() < 2 * MAX_VALUE, "{}", name.message.len());
        assert!(
            name.message
                .ends_with("for parameter Name is invalid. Expecting a name.")
        );
        let code = ErrorCode::InvalidParameterValue;
        for message in [long.clone(), "\n".repeat(60 << 20), format!("x{long}")] {
            let error = ApiError::new(code.clone(), message);
            assert!(error.message.len() <= MAX_MESSAGE, "{}", error.message.len());
            // As headers of an answer, which clients take 16 KiB of.
            let headers = Status::from(error).into_http::<()>().into_parts().0.headers;
            let size = headers
                .iter()
                .map(|(k, v)| k.as_str().len() + v.len() + 32)
                .sum::<usize>();
            assert!(size < 16 << 10, "{size} bytes of headers");
        }
        let id = crate::Id::parse(crate::Kind::Instance, &long).unwrap_err();
        assert!(id.message.ends_with("(expecting \"i-...\")"), "{id}");
        let short = ApiError::new(code, "y".repeat(MAX_MESSAGE));
        assert_eq!(short.message.len(), MAX_MESSAGE);
    }

    #[test]
    fn a_code_from_the_future_is_kept() {
        let error = ApiError::new("InvalidSpaceship.NotFound".into(), "No such ship.");
        assert_eq!(ApiError::from_status(&Status::from(error.clone())), Some(error));
    }

    #[test]
    fn foreign_statuses_are_not_ours() {
        assert_eq!(
            ApiError::from_status(&Status::unavailable("connection refused")),
            None
        );
        let foreign = ErrorDetails::with_error_info("NOPE", "example.com", []);
        assert_eq!(
            ApiError::from_status(&Status::with_error_details(Code::NotFound, "", foreign)),
            None
        );
    }

    #[test]
    fn internal_errors_tell_nothing() {
        let cause = std::io::Error::other("/var/lib/hearth/secret.db is locked");
        let error = ApiError::internal(&cause);
        assert_eq!(error.code, ErrorCode::InternalError);
        assert!(!error.message.contains("secret"));
    }
}
