//! Who a caller is in this account.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html#principaltable>

use std::sync::Arc;

use hearth_api::{ApiError, ErrorCode};
use hearth_iam::{Context, Kind, Layer, Policy, Principal};

use super::session::SessionPolicies;
use super::{managed, parsed};
use crate::call::{Call, Caller};
use crate::state::{self, AccessKey, Bearer, Entity as _, Grants, Group, Role, State, User};

/// Sets of policies that a request must be allowed by, each of them.
pub type Layers = Vec<(Layer, Vec<Arc<Policy>>)>;

/// Who calls, found in a state.
#[derive(Debug, Clone, PartialEq)]
pub enum Identity<'s> {
    /// The account's root user, who may do everything.
    Root {
        account_id: String,
    },
    User(&'s User),
    /// A role's session.
    Session {
        role: &'s Role,
        name: String,
        policies: Option<SessionPolicies>,
    },
    /// Whom a user, or the root user, has given credentials to.
    Federated {
        account_id: String,
        /// `None`: the root user has.
        user: Option<&'s User>,
        name: String,
        policies: SessionPolicies,
    },
}

impl<'s> Identity<'s> {
    /// # Errors
    /// `AuthFailure`: the caller is not known any more.
    pub fn of(state: &'s State, account_id: &str, caller: &Caller) -> Result<Self, ApiError> {
        let gone = || {
            let message = "AWS was not able to validate the provided access credentials: their user, role or key is gone.";
            ApiError::new(ErrorCode::AuthFailure, message)
        };
        let root = || Identity::Root {
            account_id: account_id.to_owned(),
        };
        match caller {
            Caller::Process { .. } => Ok(root()),
            Caller::AccessKey(id) => match &state.get::<AccessKey>(id).ok_or_else(gone)?.user_id {
                None => Ok(root()),
                Some(id) => state.get(id).map(Identity::User).ok_or_else(gone),
            },
            Caller::Session(session) => match &session.name {
                Some(name) => {
                    let (name, policies) = (name.clone(), session.policies.clone());
                    if let Some(role) = state.get(&session.principal_id) {
                        return Ok(Identity::Session { role, name, policies });
                    }
                    let user = state.get(&session.principal_id);
                    if user.is_none() && session.principal_id != account_id {
                        return Err(gone());
                    }
                    Ok(Identity::Federated {
                        account_id: account_id.to_owned(),
                        user,
                        name,
                        policies: policies.unwrap_or_default(),
                    })
                }
                None if session.principal_id == account_id => Ok(root()),
                None => state
                    .get(&session.principal_id)
                    .map(Identity::User)
                    .ok_or_else(gone),
            },
        }
    }

    /// Of the call that the running task serves.
    ///
    /// # Errors
    /// As [`Identity::of`].
    pub fn current(state: &'s State, account_id: &str) -> Result<Self, ApiError> {
        let call = Call::current();
        let caller = call
            .as_ref()
            .map_or(&Caller::UNKNOWN, |call| &call.principal.caller);
        Self::of(state, account_id, caller)
    }

    pub fn arn(&self) -> String {
        match self {
            Identity::Root { account_id } => format!("arn:aws:iam::{account_id}:root"),
            Identity::User(user) => user.arn(),
            Identity::Federated { account_id, name, .. } => {
                format!("arn:aws:sts::{account_id}:federated-user/{name}")
            }
            Identity::Session { role, name, .. } => {
                format!(
                    "arn:aws:sts::{}:assumed-role/{}/{name}",
                    role.account_id, role.name
                )
            }
        }
    }

    /// Its unique id, as GetCallerIdentity tells it.
    pub fn id(&self) -> String {
        match self {
            Identity::Root { account_id } => account_id.clone(),
            Identity::User(user) => user.id.clone(),
            Identity::Session { role, name, .. } => format!("{}:{name}", role.id),
            Identity::Federated { account_id, name, .. } => format!("{account_id}:{name}"),
        }
    }

    /// The name of a user; `None` for others.
    pub fn user_name(&self) -> Option<&'s str> {
        match self {
            Identity::User(user) => Some(&user.name),
            _ => None,
        }
    }

    /// As trust policies name it.
    pub fn trusted<T>(&self, then: impl FnOnce(&Principal<'_>) -> T) -> T {
        let arn = self.arn();
        match self {
            Identity::Root { .. } => then(&Principal::Root(&arn)),
            Identity::User(_) | Identity::Federated { .. } => then(&Principal::User(&arn)),
            Identity::Session { role, .. } => then(&Principal::AssumedRole {
                role_arn: &role.arn(),
                session_arn: &arn,
            }),
        }
    }

    /// The policies that hold for it, by what they are for. The root user needs none.
    ///
    /// # Errors
    /// One of them cannot be read, and might deny the call.
    pub fn policies(&self, state: &State) -> Result<Layers, ApiError> {
        let mut layers = Vec::new();
        let (user, role, session) = match self {
            Identity::Root { .. } => (None, None, None),
            Identity::User(user) => (Some(*user), None, None),
            Identity::Session { role, policies, .. } => (None, Some(*role), policies.as_ref()),
            Identity::Federated { user, policies, .. } => (*user, None, Some(policies)),
        };
        let account_id = self.account();
        if let Some(user) = user {
            let mut documents = Vec::new();
            documents_of(state, user, &mut documents);
            for group in &user.groups {
                if let Some(group) = state.get::<Group>(group) {
                    documents_of(state, group, &mut documents);
                }
            }
            layers.push((Layer::Identity, documents));
            layers.extend(boundary_of(state, user));
        }
        if let Some(role) = role {
            let mut documents = Vec::new();
            documents_of(state, role, &mut documents);
            layers.push((Layer::Identity, documents));
            layers.extend(boundary_of(state, role));
        }
        if let Some(SessionPolicies { inline, attached }) = session {
            let mut documents: Vec<&str> = inline.iter().map(String::as_str).collect();
            let attached = attached.iter();
            documents.extend(attached.filter_map(|arn| document(state, account_id, arn)));
            layers.push((Layer::Session, documents));
        }
        let parsed = |(layer, documents): (Layer, Vec<&str>)| {
            let policies: Result<_, _> = documents
                .into_iter()
                .map(|document| parsed(Kind::Identity, document))
                .collect();
            Ok((layer, policies.map_err(|error| ApiError::internal(&error))?))
        };
        layers.into_iter().map(parsed).collect()
    }

    /// The id of its account.
    pub fn account(&self) -> &str {
        match self {
            Identity::Root { account_id } | Identity::Federated { account_id, .. } => account_id,
            Identity::User(user) => &user.account_id,
            Identity::Session { role, .. } => &role.account_id,
        }
    }

    /// The condition keys that say who calls.
    pub fn tell(&self, context: &mut Context) {
        let (kind, arn, tags) = match self {
            Identity::Root { .. } => ("Account", self.arn(), None),
            Identity::User(user) => ("User", self.arn(), Some(&user.tags)),
            // Policies are about the role, whatever the session is called.
            Identity::Session { role, .. } => ("AssumedRole", role.arn(), Some(&role.tags)),
            Identity::Federated { .. } => ("FederatedUser", self.arn(), None),
        };
        context.set("aws:PrincipalArn", arn);
        context.set("aws:PrincipalType", kind);
        context.set("aws:userid", self.id());
        if let Some(name) = self.user_name() {
            context.set("aws:username", name);
        }
        for (key, value) in tags.into_iter().flatten() {
            context.set(&format!("aws:PrincipalTag/{key}"), value);
        }
    }
}

fn documents_of<'s, B: Bearer>(state: &'s State, bearer: &'s B, found: &mut Vec<&'s str>) {
    let Grants { inline, attached, .. } = bearer.grants();
    found.extend(inline.values().map(String::as_str));
    let attached = attached.iter();
    found.extend(attached.filter_map(|arn| document(state, bearer.account(), arn)));
}

/// What limits a bearer. A boundary that is gone allows nothing.
fn boundary_of<'s, B: Bearer>(state: &'s State, bearer: &'s B) -> Option<(Layer, Vec<&'s str>)> {
    let arn = bearer.grants().boundary.as_deref()?;
    let document = document(state, bearer.account(), arn);
    Some((Layer::Boundary, document.into_iter().collect()))
}

/// What a managed policy says.
fn document<'s>(state: &'s State, account_id: &str, arn: &str) -> Option<&'s str> {
    match managed::of_arn(arn) {
        Some(policy) => Some(policy.document),
        None => state
            .of_arn::<state::Policy>(account_id, arn)
            .map(|policy| policy.document()),
    }
}
