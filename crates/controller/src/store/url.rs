//! Where the database is.

use std::fmt;
use std::str::FromStr;

/// `sqlite`, or a URL of PostgreSQL. Shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is neither `sqlite` nor a URL like postgres://USER:PASSWORD@HOST:5432/DATABASE")]
pub struct MalformedUrl;

impl DatabaseUrl {
    /// A file in the data directory.
    pub const SQLITE: &'static str = "sqlite";

    pub fn is_sqlite(&self) -> bool {
        self.0 == Self::SQLITE
    }

    /// With its password.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl FromStr for DatabaseUrl {
    type Err = MalformedUrl;

    fn from_str(text: &str) -> Result<Self, MalformedUrl> {
        let is_postgres = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.starts_with(scheme));
        // Its own error would show what it could not read.
        let is_url = is_postgres && text.parse::<sqlx::postgres::PgConnectOptions>().is_ok();
        match text == Self::SQLITE || is_url {
            true => Ok(Self(text.to_owned())),
            false => Err(MalformedUrl),
        }
    }
}

/// Without user, password and parameters.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or((&self.0, ""));
        if rest.is_empty() {
            return f.write_str(scheme);
        }
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        write!(f, "{scheme}://{place}")
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "postgres://hearth:hunter2@db.example:5432/hearth",
            "postgresql://hearth:hunter2@db.example/hearth?sslmode=verify-full",
            "postgres:///hearth?host=/run/postgresql&user=hearth&password=hunter2",
            "postgres://hearth:hun%40ter2@[::1]/hearth#hunter2",
        ] {
            let read: DatabaseUrl = url.parse().unwrap();
            for shown in [read.to_string(), format!("{read:?}")] {
                assert!(!shown.contains("hun"), "{shown}");
                assert!(shown.contains("/hearth"), "{shown}");
            }
        }
        for wrong in [
            "",
            "mysql://h/hearth",
            "postgres://h:hunter2@h:port/x",
            "hearth.db",
        ] {
            let error = wrong.parse::<DatabaseUrl>().unwrap_err();
            assert!(!error.to_string().contains("hunter2"));
        }
        assert_eq!("sqlite".parse::<DatabaseUrl>().unwrap().to_string(), "sqlite");
    }
}
