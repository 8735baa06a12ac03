//! What volumes, snapshots and images that are made are encrypted under.
//! <https://docs.aws.amazon.com/ebs/latest/userguide/how-ebs-encryption-works.html>
//!
//! What begins with something encrypted is encrypted, under the same data key unless another KMS key is named. Else it is encrypted
//! if the request or the account's settings say so. Whether the caller may use the keys is asked before any service is
//! ([`crate::iam`]): of those that it names, and of those of the snapshots and images that it names.

use hearth_api::{ApiError, ErrorCode};

use crate::keys::{self, KeyError};
use crate::state::{Encryption, KmsAlias, KmsKey, Scope, State, Tx};
use crate::vault::Vault;

/// What a request says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked<'r> {
    pub encrypted: Option<bool>,
    /// Empty: none is named.
    pub kms_key_id: &'r str,
}

/// What is to be made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    Plain,
    /// As what it begins with.
    Same(Encryption),
    /// Under a new data key, of the KMS key with this ARN.
    Under(String),
    /// Under a new data key, of the account's default KMS key, which may not be there yet.
    Default,
}

/// `source`: what it begins with, if that is encrypted.
///
/// # Errors
/// `InvalidParameterCombination`: what begins with something encrypted is to be plain. `InvalidParameterDependency`: a key is
/// named, and nothing is encrypted. `InvalidKMSKey.NotFound`, `InvalidKMSKey.InvalidState`.
pub(super) fn wanted(
    state: &State,
    scope: &Scope,
    asked: Asked<'_>,
    source: Option<&Encryption>,
) -> Result<Wanted, ApiError> {
    let encrypts = state.account_settings(scope).ebs_encryption || asked.encrypted == Some(true);
    if let Some(source) = source {
        if asked.encrypted == Some(false) {
            return Err(ApiError::new(
                ErrorCode::InvalidParameterCombination,
                "The parameter Encrypted cannot be false with an encrypted snapshot: what is made of one is encrypted. Leave it \
                 out.",
            ));
        }
        keys::usable(state, source, scope.region())?;
    } else if !encrypts {
        return match asked.kms_key_id {
            "" => Ok(Wanted::Plain),
            _ => Err(ApiError::new(
                ErrorCode::InvalidParameterDependency,
                "The parameter KmsKeyId requires the parameter Encrypted to be set.",
            )),
        };
    }
    let key = match (asked.kms_key_id, source) {
        ("", Some(source)) => return Ok(Wanted::Same(source.clone())),
        ("", None) => match default_key(state, scope)? {
            Some(key) => key,
            None => return Ok(Wanted::Default),
        },
        (KmsAlias::EBS, _) if state.kms_key(scope, KmsAlias::EBS).is_none() => return Ok(Wanted::Default),
        (given, _) => named(state, scope, given)?,
    };
    keys::check(key)?;
    match source {
        Some(source) if source.key_id == key.id => Ok(Wanted::Same(source.clone())),
        _ => Ok(Wanted::Under(key.arn())),
    }
}

/// `source` is in another region: its key cannot be used here.
///
/// # Errors
/// As [`wanted`].
pub(super) fn wanted_abroad(
    state: &State,
    scope: &Scope,
    asked: Asked<'_>,
    source: Option<(&Encryption, &str)>,
) -> Result<Wanted, ApiError> {
    let Some((source, region)) = source else {
        return wanted(state, scope, asked, None);
    };
    keys::usable(state, source, region)?;
    let encrypted = Some(true);
    wanted(state, scope, Asked { encrypted, ..asked }, None)
}

/// The account's default KMS key; `None`: it is the one that the cloud makes, which is not there yet.
///
/// # Errors
/// `InvalidKMSKey.NotFound`: the key that was chosen was deleted.
fn default_key<'s>(state: &'s State, scope: &Scope) -> Result<Option<&'s KmsKey>, ApiError> {
    match state.account_settings(scope).ebs_key {
        Some(chosen) => named(state, scope, &chosen).map(Some),
        None => Ok(state.kms_key(scope, KmsAlias::EBS)),
    }
}

/// # Errors
/// `InvalidKMSKey.NotFound`.
pub(super) fn named<'s>(state: &'s State, scope: &Scope, given: &str) -> Result<&'s KmsKey, ApiError> {
    let key = state.kms_key(scope, given);
    key.ok_or_else(|| KeyError::Gone(given.chars().take(300).collect()).into())
}

impl Wanted {
    /// # Errors
    /// It cannot be sealed.
    pub(super) fn make(
        &self,
        tx: &mut Tx<'_>,
        vault: &Vault,
        scope: &Scope,
    ) -> Result<Option<Encryption>, ApiError> {
        let key = match self {
            Self::Plain => return Ok(None),
            Self::Same(encryption) => return Ok(Some(encryption.clone())),
            Self::Under(arn) => named(tx, scope, arn)?.clone(),
            Self::Default => keys::managed_key(tx, vault, scope)?,
        };
        Ok(Some(keys::new_data_key(vault, &key)?))
    }
}
