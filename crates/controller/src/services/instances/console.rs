//! What instances have written to their consoles, and what is in it: asks their hosts.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hearth_api::agent::ConsoleOutput;
use hearth_api::v1::{
    GetConsoleOutputRequest, GetConsoleOutputResult, GetPasswordDataRequest, GetPasswordDataResult,
};
use hearth_api::{ApiError, ErrorCode, Kind};

use crate::app::App;
use crate::services::input;
use crate::state::Instance;
use crate::store::now;
use crate::views;

/// Bytes of a password in base64, encrypted with an RSA key of 4096 bits at most; twice as many.
const LONGEST_PASSWORD: usize = 1368;

/// An instance's id, and its console as it is now.
async fn console(app: &App, given: &str) -> Result<(String, ConsoleOutput), ApiError> {
    let id = input::id(Kind::Instance, given, "InstanceId")?;
    let state = app.state();
    let row = state
        .get::<Instance>(&id)
        .ok_or_else(|| Kind::Instance.not_found(&[&id]))?;
    // Hosts keep the consoles of terminated instances for an hour, as long as these are visible.
    let console = app.sessions.console(&row.host_id, &id).await.map_err(|error| {
        ApiError::new(
            ErrorCode::Unavailable,
            format!("The console of '{id}' cannot be read now: {error}. Try again later."),
        )
    })?;
    Ok((id.into(), console))
}

/// When a console was written, or now.
fn written(console: &ConsoleOutput) -> prost_types::Timestamp {
    views::timestamp(match console.written_at {
        0 => now(),
        written_at => written_at,
    })
}

pub(super) async fn output(
    app: &App,
    request: GetConsoleOutputRequest,
) -> Result<GetConsoleOutputResult, ApiError> {
    let (instance_id, console) = console(app, &request.instance_id).await?;
    Ok(GetConsoleOutputResult {
        instance_id,
        timestamp: Some(written(&console)),
        output: BASE64_STANDARD.encode(console.output),
    })
}

pub(super) async fn password(
    app: &App,
    request: GetPasswordDataRequest,
) -> Result<GetPasswordDataResult, ApiError> {
    let (instance_id, console) = console(app, &request.instance_id).await?;
    Ok(GetPasswordDataResult {
        instance_id,
        timestamp: Some(written(&console)),
        password_data: password_in(&console.output).unwrap_or_default(),
    })
}

/// The password that a console tells last: base64 between two tags, which EC2Launch writes. Other text between them is none.
/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetPasswordData.html>
fn password_in(console: &[u8]) -> Option<String> {
    let console = String::from_utf8_lossy(console);
    let (before, _) = console.rsplit_once("</Password>")?;
    let (_, told) = before.rsplit_once("<Password>")?;
    let password: String = told.split_whitespace().collect();
    let is_one = password.len() <= LONGEST_PASSWORD && BASE64_STANDARD.decode(&password).is_ok();
    is_one.then_some(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_password_of_a_console_is_told() {
        let long = format!("<Password>{}</Password>", "A".repeat(2000));
        for (console, password) in [
            ("", None),
            ("<Password>", None),
            ("</Password><Password>", None),
            ("<Password>\r\nQUJD\r\nREVG\r\n</Password>", Some("QUJDREVG")),
            (
                "a<Password>QQ==</Password>b<Password>Qg==</Password>c",
                Some("Qg=="),
            ),
            ("<Password>QQ==</Password><Password>half", Some("QQ==")),
            ("<Password>no_base64</Password>", None),
            ("<Password></Password>", Some("")),
            ("\u{fffd}<Password>QQ==</Password>", Some("QQ==")),
            (&long, None),
        ] {
            assert_eq!(
                password_in(console.as_bytes()).as_deref(),
                password,
                "{console:?}"
            );
        }
        assert_eq!(
            password_in(b"\xff<Password>QQ==</Password>\xff").as_deref(),
            Some("QQ==")
        );
    }
}
