//! Keys that log in for a minute.
//! <https://docs.aws.amazon.com/ec2-instance-connect/latest/APIReference/API_SendSSHPublicKey.html>

use hearth_api::agent::SshPublicKey;
use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode, Id, InstanceState, Kind};
use serde_json::json;

use super::key_pairs::check_login_key;
use super::serve;
use crate::app::App;
use crate::call::{Call, new_request_id};
use crate::state::{Instance, State};

/// Seconds for which a key logs in.
const LIFE: u32 = 60;
/// Characters of a user's name.
const LONGEST_USER: usize = 32;

serve! { ec2_instance_connect_server::Ec2InstanceConnect as InstanceConnect {
    send_ssh_public_key(SendSshPublicKeyRequest) -> SendSshPublicKeyResponse: send;
    send_serial_console_ssh_public_key(SendSerialConsoleSshPublicKeyRequest) -> SendSerialConsoleSshPublicKeyResponse: send_to_console;
} }

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidArgsException, message)
}

/// The instance that a request names, which runs.
fn running<'s>(state: &'s State, id: &str) -> Result<&'s Instance, ApiError> {
    Id::parse(Kind::Instance, id).map_err(|error| invalid(error.message))?;
    let row = state.get::<Instance>(id).ok_or_else(|| {
        let message = format!("The instance {id} does not exist.");
        ApiError::new(ErrorCode::Ec2InstanceNotFoundException, message)
    })?;
    if row.state != InstanceState::Running {
        let message = format!(
            "The instance {id} is {}: keys are sent to running ones.",
            row.state
        );
        return Err(ApiError::new(
            ErrorCode::Ec2InstanceStateInvalidException,
            message,
        ));
    }
    Ok(row)
}

/// A name that is a segment of a path and an argument of a command, too.
fn is_user(name: &str) -> bool {
    let is_first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let is_other = |b: u8| b.is_ascii_alphanumeric() || b"@._-".contains(&b);
    name.len() <= LONGEST_USER && name.bytes().next().is_some_and(is_first) && name.bytes().all(is_other)
}

async fn send(app: &App, request: SendSshPublicKeyRequest) -> Result<SendSshPublicKeyResponse, ApiError> {
    let (id, user) = (request.instance_id, request.instance_os_user);
    let public_key = check_login_key(&request.ssh_public_key).map_err(invalid)?;
    if !is_user(&user) {
        return Err(invalid(format!(
            "The user '{user}' is none: 1 to {LONGEST_USER} letters, digits and @._- are, which begin with a letter or _."
        )));
    }
    let state = app.state();
    let row = running(&state, &id)?;
    if ![String::new(), row.availability_zone.clone()].contains(&request.availability_zone) {
        return Err(invalid(format!(
            "The instance {id} is in {}, and not in {}.",
            row.availability_zone, request.availability_zone
        )));
    }
    let detail = json!({ "instance": id, "user": user, "key": public_key });
    app.store
        .transact(move |tx| {
            tx.audit(detail);
            Ok::<_, ApiError>(())
        })
        .await?;
    let key = SshPublicKey {
        request_id: 0,
        instance_id: id.clone(),
        os_user: user,
        public_key,
        seconds: LIFE,
    };
    app.sessions.give_key(&row.host_id, key).await.map_err(|error| {
        let message = format!("The instance {id} cannot be reached now: {error}. Try again later.");
        ApiError::new(ErrorCode::Ec2InstanceUnavailableException, message)
    })?;
    Ok(SendSshPublicKeyResponse {
        request_id: Call::current().map_or_else(new_request_id, |call| call.request_id.clone()),
        success: true,
    })
}

async fn send_to_console(
    app: &App,
    request: SendSerialConsoleSshPublicKeyRequest,
) -> Result<SendSerialConsoleSshPublicKeyResponse, ApiError> {
    check_login_key(&request.ssh_public_key).map_err(invalid)?;
    if request.serial_port != 0 {
        return Err(invalid("An instance has the serial port 0 only."));
    }
    let state = app.state();
    if !state.account_settings(&app.scope()).serial_console_access {
        let message =
            "Serial console access is disabled in this account. EnableSerialConsoleAccess enables it.";
        return Err(ApiError::new(
            ErrorCode::SerialConsoleAccessDisabledException,
            message,
        ));
    }
    running(&state, &request.instance_id)?;
    let message = "No server of this cloud connects SSH to serial consoles. GetConsoleOutput tells what an instance has written.";
    Err(ApiError::new(
        ErrorCode::SerialConsoleSessionUnsupportedException,
        message,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_segments_of_paths() {
        for name in ["root", "_apt", "ec2-user", "a@b.c"] {
            assert!(is_user(name), "{name}");
        }
        let long = "a".repeat(33);
        for name in ["", "-a", ".", "..", "a/b", "a b", "1a", "ä", "a\n", &long] {
            assert!(!is_user(name), "{name}");
        }
    }
}
