//! IMDSv2 session tokens: signed, not stored, so that they outlive the agent.
//!
//! A token is its expiry (nanoseconds since 1970), a nonce, and a keyed BLAKE3 hash over both and the instance it was
//! given to. The guest sees base64.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE as BASE64;

/// Of the header `X-aws-ec2-metadata-token-ttl-seconds`.
pub(super) const TTL_SECONDS: std::ops::RangeInclusive<u64> = 1..=21_600;

const EXPIRY_BYTES: usize = 8;
const NONCE_BYTES: usize = 8;
const HASH_BYTES: usize = 32;

/// Whom a token is for. An address that passes to another instance does not take its tokens along.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bearer<'a> {
    pub(super) vpc_id: &'a str,
    pub(super) address: Ipv4Addr,
    pub(super) instance_id: &'a str,
}

/// Signs and checks tokens.
#[derive(Clone)]
pub(super) struct TokenKey([u8; 32]);

impl TokenKey {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    pub(super) fn issue(&self, bearer: Bearer<'_>, ttl_seconds: u64, now: SystemTime) -> String {
        let expiry = nanoseconds(now + Duration::from_secs(ttl_seconds)).to_be_bytes();
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let hash = self.sign(bearer, &expiry, &nonce);
        BASE64.encode([expiry.as_slice(), &nonce, hash.as_bytes()].concat())
    }

    pub(super) fn is_valid(&self, bearer: Bearer<'_>, token: &[u8], now: SystemTime) -> bool {
        let Ok(bytes) = BASE64.decode(token) else {
            return false;
        };
        let Some((expiry, rest)) = bytes.split_first_chunk::<EXPIRY_BYTES>() else {
            return false;
        };
        let Some((nonce, rest)) = rest.split_first_chunk::<NONCE_BYTES>() else {
            return false;
        };
        let Ok(hash) = <[u8; HASH_BYTES]>::try_from(rest) else {
            return false;
        };
        // Compared in constant time.
        self.sign(bearer, expiry, nonce) == blake3::Hash::from_bytes(hash)
            && nanoseconds(now) < u64::from_be_bytes(*expiry)
    }

    fn sign(
        &self,
        bearer: Bearer<'_>,
        expiry: &[u8; EXPIRY_BYTES],
        nonce: &[u8; NONCE_BYTES],
    ) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher
            .update(expiry)
            .update(nonce)
            .update(&bearer.address.octets());
        for id in [bearer.vpc_id, bearer.instance_id] {
            // Ids hold no zero byte, so that no two bearers read the same.
            hasher.update(id.as_bytes()).update(&[0]);
        }
        hasher.finalize()
    }
}

/// Since 1970. Whole seconds would shorten a token's life by up to one of them.
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
