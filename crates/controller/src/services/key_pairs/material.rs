//! Making and reading keys, and EC2's fingerprints of them.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/verify-keys.html>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hearth_api::{ApiError, ErrorCode};
use md5::{Digest as _, Md5};
use pkcs8::EncodePublicKey as _;
use rsa::pkcs1::EncodeRsaPrivateKey as _;
use rsa::pkcs8::DecodePrivateKey as _;
use sha1::Sha1;
use ssh_key::public::{Ed25519PublicKey, KeyData, RsaPublicKey};
use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, HashAlg, LineEnding, Mpint, PrivateKey, PublicKey};

mod formats;

pub(super) const RSA: &str = "rsa";
pub(super) const ED25519: &str = "ed25519";

/// RSA moduli that EC2 imports, in bits.
const RSA_BITS: [usize; 3] = [1024, 2048, 4096];

/// The public half, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Public {
    pub key_type: &'static str,
    pub fingerprint: String,
    /// The OpenSSH line, with the pair's name as its comment.
    pub line: String,
}

/// A pair that was just made.
pub(super) struct Created {
    pub public: Public,
    /// PEM; told once and not kept.
    pub private_pem: String,
}

/// Something within a crypto library failed; never the caller's fault.
#[derive(Debug, thiserror::Error)]
#[error("making a key pair: {0}")]
pub(super) struct MakingFailed(String);

fn failed(error: impl std::fmt::Display) -> MakingFailed {
    MakingFailed(error.to_string())
}

/// An ED25519 pair, its private half in OpenSSH's format.
pub(super) fn create_ed25519(name: &str) -> Result<Created, MakingFailed> {
    let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).map_err(failed)?;
    key.set_comment(name);
    let public = key.public_key();
    Ok(Created {
        public: Public {
            key_type: ED25519,
            fingerprint: openssh_fingerprint(public),
            line: public.to_openssh().map_err(failed)?,
        },
        private_pem: key.to_openssh(LineEnding::LF).map_err(failed)?.to_string(),
    })
}

/// An RSA pair of 2048 bits, its private half as PKCS#1.
pub(super) fn create_rsa(name: &str) -> Result<Created, MakingFailed> {
    // AWS-LC makes it: the pure Rust generator takes seconds.
    let made = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
    from_pkcs8(made.map_err(failed)?.serialized_der(), name)
}

fn from_pkcs8(der: &[u8], name: &str) -> Result<Created, MakingFailed> {
    let key = rsa::RsaPrivateKey::from_pkcs8_der(der).map_err(failed)?;
    let data = RsaPublicKey::try_from(key.to_public_key()).map_err(failed)?;
    let line = PublicKey::new(KeyData::Rsa(data), name)
        .to_openssh()
        .map_err(failed)?;
    Ok(Created {
        public: Public {
            key_type: RSA,
            fingerprint: colons(&Sha1::digest(der)),
            line,
        },
        private_pem: key
            .to_pkcs1_pem(rsa::pkcs8::LineEnding::LF)
            .map_err(failed)?
            .to_string(),
    })
}

/// Reads a public key in any format that EC2 imports.
///
/// # Errors
/// `InvalidKey.Format`, with what is wrong and what is accepted.
pub(super) fn import(name: &str, material: &[u8]) -> Result<Public, ApiError> {
    let data = formats::read(material).map_err(|why| refused(&why))?;
    let key = PublicKey::new(data, name);
    let line = key.to_openssh().map_err(|error| refused(&error.to_string()))?;
    match key.key_data() {
        KeyData::Ed25519(Ed25519PublicKey(_)) => Ok(Public {
            key_type: ED25519,
            fingerprint: openssh_fingerprint(&key),
            line,
        }),
        KeyData::Rsa(data) => Ok(Public {
            key_type: RSA,
            fingerprint: rsa_fingerprint(data).map_err(|why| refused(&why))?,
            line,
        }),
        _ => Err(refused("its type is neither RSA nor ED25519")),
    }
}

/// MD5 of the SubjectPublicKeyInfo in DER. Refuses lengths that EC2 does not import.
fn rsa_fingerprint(data: &RsaPublicKey) -> Result<String, String> {
    let number = |mpint: &Mpint| rsa::BigUint::try_from(mpint).map_err(|e| e.to_string());
    let (n, e) = (number(&data.n)?, number(&data.e)?);
    let bits = n.bits();
    if !RSA_BITS.contains(&bits) {
        return Err(format!(
            "an RSA key of {bits} bits is not 1024, 2048 or 4096 long"
        ));
    }
    // Not by ssh-key's conversion, which refuses 1024 bits.
    let key = rsa::RsaPublicKey::new(n, e).map_err(|e| e.to_string())?;
    let der = key.to_public_key_der().map_err(|e| e.to_string())?;
    Ok(colons(&Md5::digest(der.as_bytes())))
}

fn refused(why: &str) -> ApiError {
    ApiError::new(
        ErrorCode::InvalidKeyFormat,
        format!(
            "Key is not in valid OpenSSH public key format: {why}. Accepted are RSA and ED25519 public keys as the line \
             of a .pub file that ssh-keygen made, as RFC 4716, or as DER in base64."
        ),
    )
}

/// SHA-256 of the key, base64: what `ssh-keygen -l` prints after `SHA256:`, padded as EC2 does.
fn openssh_fingerprint(key: &PublicKey) -> String {
    STANDARD.encode(key.fingerprint(HashAlg::Sha256).as_bytes())
}

fn colons(digest: &[u8]) -> String {
    digest
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(":")
}

#[cfg(test)]
mod tests;
