//! Users, groups, roles, policies and instance profiles that a request is about, and roles that it gives away.

use hearth_iam::Context;
use prost_reflect::ReflectMessage as _;

use super::{Asked, Subject, tell_tags};
use crate::iam::members::{pairs, text};
use crate::state::{Entity, Group, InstanceProfile, Policy, Role, User, iam};

impl Asked<'_> {
    pub(super) fn of_iam(&self) -> Vec<Subject> {
        let mut context = Context::default();
        let tags = pairs(self.message, "tags");
        let tags: Vec<_> = tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        tell_tags("aws:RequestTag", &tags, &mut context);
        let policy = self.text("policy_arn");
        if let Some(arn) = &policy {
            context.set("iam:PolicyARN", arn);
        }
        if let Some(arn) = self.boundary() {
            context.set("iam:PermissionsBoundary", arn);
        }
        let resource = self
            .entity::<InstanceProfile>("instance_profile_name", &mut context)
            .or_else(|| self.entity::<Group>("group_name", &mut context))
            .or_else(|| self.entity::<Role>("role_name", &mut context))
            .or_else(|| self.entity::<User>("user_name", &mut context))
            .or(policy)
            .or_else(|| self.entity::<Policy>("policy_name", &mut context))
            .or_else(|| self.own());
        let mut subjects = vec![self.subject(resource.unwrap_or_else(|| "*".to_owned()), context)];
        // Whoever renames a user, or moves it, needs the right to both.
        if let ("UpdateUser", Some(name)) = (self.action, self.text("user_name"))
            && let Some(user) = self.state.named::<User>(self.account(), &name)
        {
            let name = self.text("new_user_name").unwrap_or_else(|| user.name.clone());
            let path = self.text("new_path").unwrap_or_else(|| user.path.clone());
            let becomes = iam::arn(self.account(), User::WORD, &path, &name);
            subjects.push(self.subject(becomes, Context::default()));
        }
        if self.action == "AddRoleToInstanceProfile"
            && let Some(role) = self.text("role_name")
            && let Some(role) = self.state.named::<Role>(self.account(), &role)
        {
            subjects.push(pass(role));
        }
        subjects
    }

    /// The permissions boundary that a request sets; or that the user or role has which it changes.
    /// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsidentityandaccessmanagementiam.html>
    fn boundary(&self) -> Option<String> {
        if let Some(given) = self.text("permissions_boundary") {
            return Some(given);
        }
        let user = self
            .text("user_name")
            .and_then(|name| self.state.named::<User>(self.account(), &name));
        let role = self
            .text("role_name")
            .and_then(|name| self.state.named::<Role>(self.account(), &name));
        let grants = user.map(|user| &user.grants).or(role.map(|role| &role.grants));
        grants.and_then(|grants| grants.boundary.clone())
    }

    /// The ARN of what a field names, whether it exists or is to be made.
    fn entity<E: Entity>(&self, field: &str, context: &mut Context) -> Option<String> {
        let name = self.text(field)?;
        let Some(found) = self.state.named::<E>(self.account(), &name) else {
            let path = self.text("path").unwrap_or_else(|| "/".to_owned());
            return Some(iam::arn(self.account(), E::WORD, &path, &name));
        };
        for (key, value) in found.tags().into_iter().flatten() {
            context.set(&format!("aws:ResourceTag/{key}"), value);
            context.set(&format!("iam:ResourceTag/{key}"), value);
        }
        Some(found.arn())
    }

    /// Calls about users that name none are about the caller.
    fn own(&self) -> Option<String> {
        let is_of_users = self.message.descriptor().get_field_by_name("user_name").is_some();
        is_of_users.then(|| self.identity.arn())
    }

    /// `iam:PassRole` for the role that a request gives to instances.
    pub(super) fn passed_role(&self) -> Option<Subject> {
        let profile = self.message.get_field_by_name("iam_instance_profile")?;
        let profile = profile.as_message()?;
        let profile: &InstanceProfile = match text(profile, "arn") {
            Some(arn) => self.state.of_arn(self.account(), &arn)?,
            None => self.state.named(self.account(), &text(profile, "name")?)?,
        };
        let role: &Role = self.state.get(profile.role_id.as_deref()?)?;
        Some(pass(role))
    }
}

fn pass(role: &Role) -> Subject {
    let mut context = Context::default();
    context.set("iam:PassedToService", "ec2.amazonaws.com");
    Subject {
        action: "iam:PassRole".to_owned(),
        resource: role.arn(),
        context,
    }
}
