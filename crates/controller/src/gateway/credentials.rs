//! Credentials of roles for instances, which their hosts hand on by instance metadata.

use hearth_api::agent::RoleCredentials;
use hearth_iam::{Context, Kind, Policy, Principal, Request, Trust, trusts};
use tonic::Status;

use crate::iam::session;
use crate::state::{Entity as _, Instance, InstanceProfile, Role, State};
use crate::store::now;
use crate::vault::Vault;

/// Seconds. Hosts renew them far earlier.
const LIFE: i64 = 6 * 3600;

/// # Errors
/// `NOT_FOUND`: the host has no such instance, it has no role, or the role does not trust instances.
pub(super) fn of_instance(
    state: &State,
    vault: &Vault,
    host_id: &str,
    instance_id: &str,
) -> Result<RoleCredentials, Status> {
    let none = || Status::not_found(format!("the host has no instance {instance_id:?} with a role"));
    let row = state.get::<Instance>(instance_id);
    let row = row.filter(|row| row.host_id == host_id).ok_or_else(none)?;
    let profile = row.profile.as_ref().map(|association| &association.profile_id);
    let profile: &InstanceProfile = profile.and_then(|id| state.get(id)).ok_or_else(none)?;
    let role: Option<&Role> = profile.role_id.as_deref().and_then(|id| state.get(id));
    let role = role.ok_or_else(none)?;
    let broken = |error: &dyn std::error::Error| {
        tracing::error!(%error, role = role.id, "making credentials of a role");
        Status::internal("the control plane cannot make credentials; its log says why")
    };
    let trust = Policy::parse(Kind::Trust, &role.trust).map_err(|error| broken(&error))?;
    let service = Principal::Service("ec2.amazonaws.com");
    let request = Request {
        action: "sts:AssumeRole",
        resource: &role.arn(),
        context: &Context::default(),
    };
    if trusts([&trust], &service, &request) != Trust::Direct {
        return Err(Status::not_found(format!(
            "the role {} does not trust ec2.amazonaws.com to assume it",
            role.name
        )));
    }
    let made_at = now() / 1000;
    // The session is called as its instance is.
    let made = session::begin(vault, &role.id, Some(instance_id), None, (made_at + LIFE) * 1000);
    let made = made.map_err(|error| broken(&error))?;
    tracing::info!(
        host = host_id,
        instance = instance_id,
        role = role.name,
        access_key = made.access_key_id,
        "a host fetched credentials"
    );
    Ok(RoleCredentials {
        role_name: role.name.clone(),
        access_key_id: made.access_key_id,
        secret_access_key: made.secret.0,
        token: made.token,
        last_updated: made_at,
        expiration: made_at + LIFE,
    })
}
