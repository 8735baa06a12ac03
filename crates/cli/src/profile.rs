//! What AWS's tools keep in `~/.aws/config` and `~/.aws/credentials`, as aws reads it.
//! <https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html>

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use configparser::ini::{Ini, IniDefault};
use hearth_api::token::Credentials;

use crate::error::CliError;

/// The name of a profile that needs not exist.
const DEFAULT: &str = "default";
/// What hearth gets no credentials by.
const OTHERS: &[&str] = &[
    "credential_process",
    "web_identity_token_file",
    "sso_session",
    "sso_start_url",
    "login_session",
];

/// Values by their names, in lower case.
type Values = HashMap<String, String>;

/// A profile of both files.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    name: String,
    values: Values,
    /// Of EC2, in the section `services` that the profile names.
    ec2: Values,
}

/// An environment variable that is set to something.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Profile {
    /// The profile of this name, or the one that the environment names.
    pub(crate) fn load(name: Option<&str>) -> Result<Self, CliError> {
        let config = sections(&file("AWS_CONFIG_FILE", "config"))?;
        let credentials = sections(&file("AWS_SHARED_CREDENTIALS_FILE", "credentials"))?;
        let named = name
            .map(str::to_owned)
            .or_else(|| variable("AWS_PROFILE"))
            .or_else(|| variable("AWS_DEFAULT_PROFILE"));
        Self::of(&config, &credentials, named.as_deref())
    }

    fn of(
        config: &HashMap<String, Values>,
        credentials: &HashMap<String, Values>,
        named: Option<&str>,
    ) -> Result<Self, CliError> {
        let name = named.unwrap_or(DEFAULT);
        let in_config = of_kind(config, "profile", name);
        let in_config = in_config.or_else(|| config.get(name).filter(|_| name == DEFAULT));
        let in_credentials = credentials.get(name);
        if in_config.is_none() && in_credentials.is_none() && named.is_some_and(|name| name != DEFAULT) {
            return Err(CliError::Failed(format!(
                "The config profile ({name}) could not be found"
            )));
        }
        let mut values = in_config.cloned().unwrap_or_default();
        values.extend(in_credentials.cloned().unwrap_or_default());
        let services = values
            .get("services")
            .and_then(|name| of_kind(config, "services", name));
        let ec2 = services
            .and_then(|services| services.get("ec2"))
            .map(|text| nested(text));
        Ok(Self {
            name: name.to_owned(),
            values,
            ec2: ec2.unwrap_or_default(),
        })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let value = self.values.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    /// EC2's endpoint, or that of all services.
    pub(crate) fn endpoint_url(&self) -> Option<&str> {
        let own = self.ec2.get("endpoint_url").map(String::as_str);
        own.or_else(|| self.get("endpoint_url"))
    }

    /// `None`: there are none.
    pub(crate) fn credentials(&self) -> Result<Option<Credentials>, CliError> {
        let by = |way: &str| {
            let name = &self.name;
            let sentence = format!(
                "The profile ({name}) gets its credentials by {way}, which hearth does not do. They come into the environment \
                 by: eval \"$(aws configure export-credentials --profile {name} --format env)\""
            );
            CliError::Configuration(sentence)
        };
        // Such a profile may have keys, too, and means the role.
        if self.get("role_arn").is_some() {
            return Err(by("role_arn"));
        }
        let key = |name: &str| self.get(name).map(str::to_owned);
        let place = "shared-credentials-file";
        let found = pair(
            place,
            key,
            "aws_access_key_id",
            "aws_secret_access_key",
            "aws_session_token",
        )?;
        match OTHERS.iter().find(|way| self.get(way).is_some()) {
            Some(way) if found.is_none() => Err(by(way)),
            _ => Ok(found),
        }
    }
}

/// Credentials of the environment.
pub(crate) fn of_environment() -> Result<Option<Credentials>, CliError> {
    let names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN");
    pair("env", variable, names.0, names.1, names.2)
}

fn pair(
    place: &str,
    get: impl Fn(&str) -> Option<String>,
    id: &str,
    secret: &str,
    token: &str,
) -> Result<Option<Credentials>, CliError> {
    let Some(access_key_id) = get(id) else {
        return Ok(None);
    };
    let secret_access_key = get(secret).ok_or_else(|| {
        CliError::Configuration(format!("Partial credentials found in {place}, missing: {secret}"))
    })?;
    Ok(Some(Credentials {
        access_key_id,
        secret_access_key,
        session_token: get(token),
    }))
}

/// Where a file is that aws reads.
fn file(variable_name: &str, usual: &str) -> PathBuf {
    let home = std::env::home_dir().unwrap_or_default();
    match variable(variable_name) {
        Some(path) => match path.strip_prefix("~/") {
            Some(rest) => home.join(rest),
            None => PathBuf::from(path),
        },
        None => home.join(".aws").join(usual),
    }
}

/// A file's sections. One that is not there has none.
fn sections(path: &Path) -> Result<HashMap<String, Values>, CliError> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text).ok_or_else(|| {
            CliError::Configuration(format!("Unable to parse config file: {}", path.display()))
        }),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(HashMap::new())
        }
        Err(error) => Err(CliError::io(format!("reading {}", path.display()), error)),
    }
}

fn parse(text: &str) -> Option<HashMap<String, Values>> {
    let mut dialect = IniDefault::default();
    // What stands before the first section is in none.
    dialect.default_section = String::new();
    dialect.case_sensitive = true;
    dialect.multiline = true;
    // A secret may have such characters in it.
    dialect.enable_inline_comments = false;
    let sections = Ini::new_from_defaults(dialect).read(text.to_owned()).ok()?;
    let sections = sections.into_iter().map(|(name, values)| {
        let values = values.into_iter();
        let values = values.map(|(name, value)| (name.to_lowercase(), value.unwrap_or_default()));
        (name, values.collect())
    });
    Some(sections.collect())
}

/// The section `[KIND NAME]`; a name with spaces has quotation marks.
fn of_kind<'s>(sections: &'s HashMap<String, Values>, kind: &str, name: &str) -> Option<&'s Values> {
    let found = sections.iter().find(|(section, _)| {
        let rest = section.strip_prefix(kind).unwrap_or_default();
        let is_apart = rest.starts_with(char::is_whitespace);
        is_apart && rest.trim().trim_matches(['"', '\'']) == name
    });
    found.map(|(_, values)| values)
}

/// The lines that are indented under a name.
fn nested(text: &str) -> Values {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines
        .map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
# A comment.
[default]
region = local-1
ca_bundle=/run/hearthd/ca.pem
s3 =
    addressing_style = path
output = json

[profile lab]
endpoint_url = https://all.example:7602
services = lab
Region: lab-1

[profile "two words"]
role_arn = arn:aws:iam::123456789012:role/x

[profile sso]
sso_session = x

[lab-but-no-profile]
region = wrong

[services lab]
s3 =
  endpoint_url = https://s3.example
ec2 =
  endpoint_url = https://ec2.example:7602
"#;
    const CREDENTIALS: &str = "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = a/b+c#d;e=f\nregion = local-2\n\
                               [half]\naws_access_key_id=AKIAHALF\n\
                               [session]\r\naws_access_key_id = ASIA\r\naws_secret_access_key = s\r\naws_session_token = t==\r\n";

    fn profile(name: Option<&str>) -> Result<Profile, CliError> {
        Profile::of(&parse(CONFIG).unwrap(), &parse(CREDENTIALS).unwrap(), name)
    }

    fn refused(name: &str) -> String {
        let found = profile(Some(name)).and_then(|profile| profile.credentials());
        found.unwrap_err().to_string()
    }

    #[test]
    fn files_are_read_as_aws_reads_them() {
        let default = profile(None).unwrap();
        assert_eq!(default.get("region"), Some("local-2"), "credentials come last");
        assert_eq!(default.get("ca_bundle"), Some("/run/hearthd/ca.pem"));
        assert_eq!(
            (default.get("output"), default.endpoint_url()),
            (Some("json"), None)
        );
        let key = default.credentials().unwrap().unwrap();
        assert_eq!(key.access_key_id, "AKIADEFAULT");
        assert_eq!(key.secret_access_key, "a/b+c#d;e=f");
        let lab = profile(Some("lab")).unwrap();
        assert_eq!(lab.endpoint_url(), Some("https://ec2.example:7602"));
        assert_eq!(lab.get("region"), Some("lab-1"));
        assert!(lab.credentials().unwrap().is_none());
        let session = profile(Some("session")).unwrap().credentials().unwrap().unwrap();
        assert_eq!(session.session_token.as_deref(), Some("t=="));
        assert!(profile(Some(DEFAULT)).is_ok());
        assert_eq!(
            refused("lab-but-no-profile"),
            "The config profile (lab-but-no-profile) could not be found"
        );
        assert_eq!(
            refused("half"),
            "Partial credentials found in shared-credentials-file, missing: aws_secret_access_key"
        );
        assert!(refused("two words").contains("by role_arn, which hearth does not do"));
        assert!(refused("sso").contains("by sso_session"));
        assert!(parse("[default\nx = y").is_none());
    }
}
