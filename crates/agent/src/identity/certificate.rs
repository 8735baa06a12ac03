//! How long the host's certificate is valid, and when it is to be renewed.

use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::TlsError;

/// Certificates that are valid for longer are of a control plane that did not renew them yet: renewed at once.
const LONGEST_LIFE: Duration = Duration::from_secs(366 * 24 * 3600);

/// When a certificate is valid (RFC 5280, 4.1.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Validity {
    pub(super) fn read(pem: &str) -> Result<Validity, TlsError> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&certificate).map_err(|_| TlsError::Certificate)?;
        let time = |time: x509_parser::time::ASN1Time| {
            // Before 1970 is as good as then.
            let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
            SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_secs(seconds))
                .ok_or(TlsError::Certificate)
        };
        Ok(Validity {
            not_before: time(parsed.validity().not_before)?,
            not_after: time(parsed.validity().not_after)?,
        })
    }

    /// Between attempts to renew, and the least time between two renewals: with a wrong clock the agent does not renew
    /// without end.
    pub fn pause(&self) -> Duration {
        (self.life() / 30).min(Duration::from_secs(3600))
    }

    fn life(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }

    /// At two thirds of its life, so that a host may be away for the last third.
    pub(super) fn renewal(&self) -> SystemTime {
        if self.life() > LONGEST_LIFE {
            return self.not_before;
        }
        self.not_before + self.life() / 3 * 2
    }

    /// By this host's clock.
    pub fn has_ended(&self) -> bool {
        self.not_after < SystemTime::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn valid(days: u32) -> Validity {
        let not_before = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        Validity {
            not_before,
            not_after: not_before + days * DAY,
        }
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_and_an_old_long_one_at_once() {
        let months = valid(90);
        assert_eq!(months.renewal(), months.not_before + 60 * DAY);
        let years = valid(3650);
        assert_eq!(years.renewal(), years.not_before);
    }
}
