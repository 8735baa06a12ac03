//! Keys encrypt and decrypt for callers: [`crate::keys::ciphertext`].
//! <https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html>

use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode};
use zeroize::Zeroizing;

use super::{by_any, refuse_unusable};
use crate::app::App;
use crate::keys::ciphertext::{self, Ciphertext, Context, Undecipherable};
use crate::keys::random as random_bytes;
use crate::state::{KmsKey, State};

const ALGORITHM: &str = "SYMMETRIC_DEFAULT";
/// Bytes of all pairs of an encryption context.
const MOST_CONTEXT: usize = 8192;
/// Bytes that are random.
const RANDOM: std::ops::RangeInclusive<i32> = 1..=1024;

fn check_algorithm(parameter: &str, given: &str) -> Result<(), ApiError> {
    match given {
        "" | ALGORITHM => Ok(()),
        other => Err(ApiError::new(
            ErrorCode::ValidationException,
            format!("{parameter} {other} is none of a symmetric key: leave it out, or give {ALGORITHM}."),
        )),
    }
}

fn check_context(context: &Context) -> Result<(), ApiError> {
    let bytes: usize = context.iter().map(|(name, value)| name.len() + value.len()).sum();
    match bytes {
        ..=MOST_CONTEXT => Ok(()),
        _ => Err(ApiError::new(
            ErrorCode::ValidationException,
            format!("The encryption context has {bytes} bytes; {MOST_CONTEXT} are admitted."),
        )),
    }
}

/// A key that can be used now.
///
/// # Errors
/// `NotFoundException`, `DisabledException`, `KMSInvalidStateException`.
fn usable<'s>(app: &App, state: &'s State, given: &str) -> Result<&'s KmsKey, ApiError> {
    let key = by_any(app, state, given)?;
    refuse_unusable(key)?;
    Ok(key)
}

fn encrypted(app: &App, key: &KmsKey, context: &Context, plain: Vec<u8>) -> Result<Vec<u8>, ApiError> {
    check_context(context)?;
    tracing::info!(key = key.id, "a KMS key encrypts");
    Ok(ciphertext::encrypt(&app.vault, key, context, plain)?)
}

/// What was encrypted, and the key. `given`: the key that the caller says it is; empty: it does not say.
///
/// # Errors
/// `InvalidCiphertextException`, `IncorrectKeyException`; as [`usable`].
fn decrypted<'s>(
    app: &App,
    state: &'s State,
    blob: &[u8],
    given: &str,
    context: &Context,
) -> Result<(Zeroizing<Vec<u8>>, &'s KmsKey), ApiError> {
    let invalid = || {
        let message = "The ciphertext is damaged or none of this cloud's, its encryption context is another one, or its key is gone.";
        ApiError::new(ErrorCode::InvalidCiphertextException, message)
    };
    check_context(context)?;
    let ciphertext = Ciphertext::read(blob).ok_or_else(invalid)?;
    let region = app.scope().region().to_owned();
    // Its policy was asked, whoever it belongs to.
    let key = state.of_anybody::<KmsKey>(&ciphertext.key_id);
    let key = key.filter(|key| key.region == region).ok_or_else(invalid)?;
    if !given.is_empty() && by_any(app, state, given)?.id != key.id {
        return Err(ApiError::new(
            ErrorCode::IncorrectKeyException,
            "The key ID in the request does not identify a CMK that can perform this operation: another key has encrypted it.",
        ));
    }
    refuse_unusable(key)?;
    match ciphertext.decrypt(&app.vault, key, context) {
        Ok(plain) => {
            tracing::info!(key = key.id, "a KMS key decrypts");
            Ok((plain, key))
        }
        Err(Undecipherable::Ciphertext) => Err(invalid()),
        Err(error @ Undecipherable::Material(_)) => Err(ApiError::internal(&error)),
    }
}

pub(super) async fn encrypt(app: &App, request: EncryptRequest) -> Result<EncryptResponse, ApiError> {
    check_algorithm("EncryptionAlgorithm", &request.encryption_algorithm)?;
    if request.plaintext.is_empty() {
        return Err(ApiError::missing("Plaintext"));
    }
    let state = app.state();
    let key = usable(app, &state, &request.key_id)?;
    Ok(EncryptResponse {
        ciphertext_blob: encrypted(app, key, &request.encryption_context, request.plaintext)?,
        key_id: key.arn(),
        encryption_algorithm: ALGORITHM.to_owned(),
    })
}

pub(super) async fn decrypt(app: &App, request: DecryptRequest) -> Result<DecryptResponse, ApiError> {
    check_algorithm("EncryptionAlgorithm", &request.encryption_algorithm)?;
    let state = app.state();
    let (blob, given) = (&request.ciphertext_blob, &request.key_id);
    let (plain, key) = decrypted(app, &state, blob, given, &request.encryption_context)?;
    Ok(DecryptResponse {
        key_id: key.arn(),
        plaintext: plain.to_vec(),
        encryption_algorithm: ALGORITHM.to_owned(),
    })
}

pub(super) async fn re_encrypt(app: &App, request: ReEncryptRequest) -> Result<ReEncryptResponse, ApiError> {
    check_algorithm("SourceEncryptionAlgorithm", &request.source_encryption_algorithm)?;
    check_algorithm(
        "DestinationEncryptionAlgorithm",
        &request.destination_encryption_algorithm,
    )?;
    let state = app.state();
    let (blob, given) = (&request.ciphertext_blob, &request.source_key_id);
    let (mut plain, source) = decrypted(app, &state, blob, given, &request.source_encryption_context)?;
    let key = usable(app, &state, &request.destination_key_id)?;
    let context = &request.destination_encryption_context;
    Ok(ReEncryptResponse {
        ciphertext_blob: encrypted(app, key, context, std::mem::take(&mut *plain))?,
        source_key_id: source.arn(),
        key_id: key.arn(),
        source_encryption_algorithm: ALGORITHM.to_owned(),
        destination_encryption_algorithm: ALGORITHM.to_owned(),
    })
}

/// # Errors
/// `ValidationException`: there are none, or too many.
fn count(given: Option<i32>) -> Result<usize, ApiError> {
    let expected = || format!("Expecting {} to {}.", RANDOM.start(), RANDOM.end());
    let count = given.ok_or_else(|| ApiError::missing("NumberOfBytes"))?;
    let found = Some(count).filter(|count| RANDOM.contains(count));
    let found = found.and_then(|count| usize::try_from(count).ok());
    found.ok_or_else(|| ApiError::invalid_value("NumberOfBytes", count, expected()))
}

/// A new data key, as it is and as the KMS key has encrypted it.
fn new_data_key(
    app: &App,
    key: &KmsKey,
    context: &Context,
    key_spec: &str,
    number: Option<i32>,
) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), ApiError> {
    let length = match (key_spec, number) {
        ("AES_256", None) => 32,
        ("AES_128", None) => 16,
        ("", number) => count(number)?,
        (_, Some(_)) => {
            let message = "Please specify either number of bytes or key spec.";
            return Err(ApiError::new(ErrorCode::ValidationException, message));
        }
        (other, None) => {
            let expected = "Expecting AES_256 or AES_128.";
            return Err(ApiError::invalid_value("KeySpec", other, expected));
        }
    };
    let plain = random_bytes(length);
    let blob = encrypted(app, key, context, plain.to_vec())?;
    Ok((plain, blob))
}

pub(super) async fn data_key(
    app: &App,
    request: GenerateDataKeyRequest,
) -> Result<GenerateDataKeyResponse, ApiError> {
    let state = app.state();
    let key = usable(app, &state, &request.key_id)?;
    let (spec, number) = (&request.key_spec, request.number_of_bytes);
    let (plain, ciphertext_blob) = new_data_key(app, key, &request.encryption_context, spec, number)?;
    Ok(GenerateDataKeyResponse {
        ciphertext_blob,
        plaintext: plain.to_vec(),
        key_id: key.arn(),
    })
}

pub(super) async fn data_key_without_plaintext(
    app: &App,
    request: GenerateDataKeyWithoutPlaintextRequest,
) -> Result<GenerateDataKeyWithoutPlaintextResponse, ApiError> {
    let state = app.state();
    let key = usable(app, &state, &request.key_id)?;
    let (spec, number) = (&request.key_spec, request.number_of_bytes);
    let (_, ciphertext_blob) = new_data_key(app, key, &request.encryption_context, spec, number)?;
    Ok(GenerateDataKeyWithoutPlaintextResponse {
        ciphertext_blob,
        key_id: key.arn(),
    })
}

pub(super) async fn random(
    _: &App,
    request: GenerateRandomRequest,
) -> Result<GenerateRandomResponse, ApiError> {
    let plain = random_bytes(count(request.number_of_bytes)?);
    Ok(GenerateRandomResponse {
        plaintext: plain.to_vec(),
    })
}
