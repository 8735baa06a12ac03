//! Formats of public keys that EC2 imports: an OpenSSH line, RFC 4716, and DER in base64.
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImportKeyPair.html>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pkcs8::{ObjectIdentifier, SubjectPublicKeyInfoRef};
use rsa::pkcs8::DecodePublicKey as _;
use ssh_key::PublicKey;
use ssh_key::public::{Ed25519PublicKey, KeyData, RsaPublicKey};

/// Bytes. An RSA key of 4096 bits has 750; RFC 4716 admits header values of 1024 bytes beside it.
const MAX_SIZE: usize = 16 << 10;

/// RFC 4716, sections 3.2 and 3.5.
const RFC4716_BEGIN: &str = "---- BEGIN SSH2 PUBLIC KEY ----";
const RFC4716_END: &str = "---- END SSH2 PUBLIC KEY ----";

/// RFC 8410, section 3.
const ID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Reads a public key in whichever of the three formats it is. Comments are left out.
///
/// # Errors
/// Half a sentence that says what is wrong; it repeats nothing of the key.
pub(super) fn read(material: &[u8]) -> Result<KeyData, String> {
    if material.len() > MAX_SIZE {
        return Err(format!("it is longer than {MAX_SIZE} bytes"));
    }
    let text = std::str::from_utf8(material).map_err(|_| "it is no text")?.trim();
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if text.starts_with("--") && text.contains("PRIVATE KEY") {
        return Err("it is a private key, which nobody but you should have".into());
    }
    if text.starts_with(RFC4716_BEGIN) {
        return rfc4716(text);
    }
    let joined: String = text.split_whitespace().collect();
    match STANDARD.decode(joined) {
        Ok(bytes) => der(&bytes),
        Err(_) => openssh(text),
    }
}

/// The format of `~/.ssh/authorized_keys` without options: type, base64 and a comment, with blanks between them.
fn openssh(line: &str) -> Result<KeyData, String> {
    if line.lines().count() > 1 {
        return Err("it has several lines".into());
    }
    let mut fields = line.split_whitespace();
    let (Some(key_type), Some(base64)) = (fields.next(), fields.next()) else {
        return Err("it has neither the two fields of an OpenSSH line nor valid base64".into());
    };
    let key = PublicKey::from_openssh(&format!("{key_type} {base64}")).map_err(|e| e.to_string())?;
    Ok(key.into())
}

/// Headers are lines with a colon, which a backslash at the end continues; the key in base64 follows them.
fn rfc4716(text: &str) -> Result<KeyData, String> {
    let mut lines = text.lines().map(str::trim).skip(1);
    let mut base64 = String::new();
    let mut header_goes_on = false;
    loop {
        match lines.next() {
            None => return Err(format!("it does not end with '{RFC4716_END}'")),
            Some(RFC4716_END) => break,
            Some(line) => {
                let in_header = header_goes_on || base64.is_empty() && line.contains(':');
                header_goes_on = in_header && line.ends_with('\\');
                if !in_header {
                    base64.push_str(line);
                }
            }
        }
    }
    if lines.next().is_some() {
        return Err("it has more than one key".into());
    }
    let blob = STANDARD
        .decode(base64)
        .map_err(|e| format!("its base64 is malformed: {e}"))?;
    let key = PublicKey::from_bytes(&blob).map_err(|e| e.to_string())?;
    Ok(key.into())
}

/// A SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7), as `openssl pkey -pubout -outform DER` writes it.
fn der(bytes: &[u8]) -> Result<KeyData, String> {
    let malformed = |e: &dyn std::fmt::Display| format!("its base64 holds no public key in DER: {e}");
    let info = SubjectPublicKeyInfoRef::try_from(bytes).map_err(|e| malformed(&e))?;
    if info.algorithm.oid == ID_ED25519 {
        let raw = info.subject_public_key.raw_bytes();
        let key = Ed25519PublicKey::try_from(raw).map_err(|e| malformed(&e))?;
        return Ok(KeyData::Ed25519(key));
    }
    let key = rsa::RsaPublicKey::from_public_key_der(bytes).map_err(|e| malformed(&e))?;
    let key = RsaPublicKey::try_from(key).map_err(|e| e.to_string())?;
    Ok(KeyData::Rsa(key))
}
