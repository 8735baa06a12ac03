//! Statements: what a document has one or more of.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_statement.html>

use crate::arn::ArnPattern;
use crate::condition::Condition;
use crate::context::Context;
use crate::json::{Json, Object};
use crate::malformed::Malformed;
use crate::pattern::{Pattern, Syntax};
use crate::policy::Kind;
use crate::principal::{Named, Naming, Principal};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Allow,
    Deny,
}

/// Items of an element, or of its `Not...` form: everything else.
#[derive(Debug, Clone)]
enum Items<T> {
    Of(Vec<T>),
    Except(Vec<T>),
}

#[derive(Debug, Clone)]
pub(crate) struct Statement {
    pub effect: Effect,
    /// Folded.
    actions: Items<Pattern>,
    /// Of identity policies and key policies.
    resources: Option<Items<ArnPattern>>,
    /// Of trust policies and key policies.
    principals: Option<Items<Named>>,
    conditions: Vec<Condition>,
}

impl Statement {
    /// The statement and its `Sid`.
    pub fn parse(kind: Kind, element: Json, variables: bool) -> Result<(Self, Option<String>), Malformed> {
        let mut members = element.into_object("A statement")?;
        let sid = match members.remove("Sid") {
            Some(sid) => Some(sid.into_text("Sid")?),
            None => None,
        };
        let effect = effect(&mut members)?;
        let (resources, principals) = match kind {
            Kind::Identity => (Some(resources(&mut members, kind, variables)?), None),
            Kind::Trust => (None, Some(principals(&mut members, kind, effect)?)),
            Kind::Key => {
                let principals = principals(&mut members, kind, effect)?;
                (Some(resources(&mut members, kind, variables)?), Some(principals))
            }
        };
        let actions = actions(&mut members, kind)?;
        let conditions = match members.remove("Condition") {
            Some(block) => Condition::parse_all(block, variables)?,
            None => Vec::new(),
        };
        if let Some(name) = members.keys().next() {
            return Err(Malformed::syntax(format_args!(
                "A statement has no element \"{name}\"."
            )));
        }
        let statement = Self {
            effect,
            actions,
            resources,
            principals,
            conditions,
        };
        Ok((statement, sid))
    }

    /// Whether a request is one of those that the statement is about, whoever asks. `action` is folded.
    pub fn covers(&self, action: &str, resource: &str, context: &Context) -> bool {
        let covers = |resources| covers_resource(resources, self.effect, resource, context);
        self.covers_action(action)
            && self.resources.as_ref().is_none_or(covers)
            && self.conditions.iter().all(|condition| condition.holds(context))
    }

    /// Whether it says whom it is about.
    pub fn has_principals(&self) -> bool {
        self.principals.is_some()
    }

    fn covers_action(&self, action: &str) -> bool {
        // Actions have no variables.
        let matches = |pattern: &Pattern| pattern.matches(action, &Context::default());
        match &self.actions {
            Items::Of(patterns) => patterns.iter().any(matches),
            Items::Except(patterns) => !patterns.iter().any(matches),
        }
    }

    /// How a statement of a trust policy or a key policy names a principal.
    pub fn names(&self, principal: &Principal<'_>) -> Option<Naming> {
        match self.principals.as_ref()? {
            Items::Of(named) => {
                let namings = named.iter().filter_map(|named| named.names(principal));
                namings.reduce(|one, other| match (one, other) {
                    (Naming::Account, Naming::Account) => Naming::Account,
                    _ => Naming::Itself,
                })
            }
            Items::Except(named) => {
                let excepted = named.iter().any(|named| named.excepts(principal));
                (!excepted).then_some(Naming::Itself)
            }
        }
    }
}

/// A pattern with a variable that has no value matches no resource. In `NotResource` it denies all other resources, and
/// allows none: an error of a policy does not give permissions.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html#policy-vars-no-value>
fn covers_resource(items: &Items<ArnPattern>, effect: Effect, resource: &str, context: &Context) -> bool {
    let matches = |pattern: &ArnPattern| pattern.matches(resource, context);
    match items {
        Items::Of(patterns) => patterns.iter().any(matches),
        Items::Except(patterns) => {
            let resolved = || patterns.iter().all(|pattern| pattern.resolves(context));
            !patterns.iter().any(matches) && (effect == Effect::Deny || resolved())
        }
    }
}

fn effect(members: &mut Object) -> Result<Effect, Malformed> {
    let Some(effect) = members.remove("Effect") else {
        return Err(Malformed::new("Missing required field Effect"));
    };
    match effect.into_text("Effect")?.as_str() {
        "Allow" => Ok(Effect::Allow),
        "Deny" => Ok(Effect::Deny),
        other => Err(Malformed::new(format!("Invalid effect: {other}"))),
    }
}

/// The texts of an element or of its `Not...` form.
fn one_of(members: &mut Object, name: &str, not: &str) -> Result<Option<Items<Json>>, Malformed> {
    match (members.remove(name), members.remove(not)) {
        (Some(_), Some(_)) => Err(Malformed::syntax(format_args!(
            "A statement cannot have both {name} and {not}."
        ))),
        (Some(items), None) => Ok(Some(Items::Of(items.into_list()))),
        (None, Some(items)) => Ok(Some(Items::Except(items.into_list()))),
        (None, None) => Ok(None),
    }
}

impl<T> Items<T> {
    fn is_empty(&self) -> bool {
        match self {
            Items::Of(items) | Items::Except(items) => items.is_empty(),
        }
    }

    fn parse<U>(self, parse: impl FnMut(T) -> Result<U, Malformed>) -> Result<Items<U>, Malformed> {
        Ok(match self {
            Items::Of(items) => Items::Of(items.into_iter().map(parse).collect::<Result<_, _>>()?),
            Items::Except(items) => Items::Except(items.into_iter().map(parse).collect::<Result<_, _>>()?),
        })
    }
}

fn actions(members: &mut Object, kind: Kind) -> Result<Items<Pattern>, Malformed> {
    let items = one_of(members, "Action", "NotAction")?.filter(|items| !items.is_empty());
    let items = items.ok_or_else(|| Malformed::new("Policy statement must contain actions."))?;
    items.parse(|item| action(&item.into_text("Action")?, kind))
}

/// `service:name`, in which the name may have wildcards; or `*`.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_action.html>
fn action(text: &str, kind: Kind) -> Result<Pattern, Malformed> {
    let vendor = match text.split(':').collect::<Vec<_>>()[..] {
        ["*"] => "*",
        [_] => {
            return Err(Malformed::new(
                "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
            ));
        }
        [vendor, _] => vendor,
        _ => return Err(Malformed::new("Actions/Condition can contain only one colon.")),
    };
    let in_vendor = |character: char| character.is_ascii_alphanumeric() || "-.".contains(character);
    if vendor.is_empty() || (vendor != "*" && !vendor.chars().all(in_vendor)) {
        return Err(Malformed::new(format!("Vendor {vendor} is not valid")));
    }
    if kind == Kind::Trust && !vendor.eq_ignore_ascii_case("sts") {
        return Err(Malformed::new(
            "AssumeRole policy may only specify STS AssumeRole actions.",
        ));
    }
    let syntax = Syntax {
        variables: false,
        wildcards: true,
        fold: true,
    };
    Pattern::parse(text, syntax)
}

fn resources(members: &mut Object, kind: Kind, variables: bool) -> Result<Items<ArnPattern>, Malformed> {
    if kind == Kind::Identity && (members.contains_key("Principal") || members.contains_key("NotPrincipal")) {
        return Err(Malformed::new("Policy document should not specify a principal."));
    }
    let items = one_of(members, "Resource", "NotResource")?.filter(|items| !items.is_empty());
    let items = items.ok_or_else(|| Malformed::new("Policy statement must contain resources."))?;
    items.parse(|item| ArnPattern::parse_resource(&item.into_text("Resource")?, variables))
}

fn principals(members: &mut Object, kind: Kind, effect: Effect) -> Result<Items<Named>, Malformed> {
    if kind == Kind::Trust && members.contains_key("Resource") {
        return Err(Malformed::new("Has prohibited field Resource"));
    }
    if kind == Kind::Trust && members.contains_key("NotResource") {
        return Err(Malformed::new("AssumeRole policy must not contain resources."));
    }
    match (members.remove("Principal"), members.remove("NotPrincipal")) {
        (Some(_), Some(_)) => Err(Malformed::syntax(
            "A statement cannot have both Principal and NotPrincipal.",
        )),
        (Some(named), None) => Ok(Items::Of(Named::parse_all(named)?)),
        // It would trust everybody except those that are named.
        (None, Some(_)) if effect == Effect::Allow => {
            Err(Malformed::new("Allow with NotPrincipal is not allowed."))
        }
        (None, Some(named)) => Ok(Items::Except(Named::parse_all(named)?)),
        (None, None) => Err(Malformed::new("Missing required field Principal")),
    }
}
