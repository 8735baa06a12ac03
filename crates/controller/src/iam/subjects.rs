//! What a request is about: the resources whose ARNs policies are held against, and what conditions may ask of each.
//! <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html>

use std::collections::BTreeSet;

use hearth_api::{Kind, zones};
use hearth_iam::Context;
use prost_reflect::{DynamicMessage, Value};

use super::Identity;
use super::members::{pairs, specified, text, texts_of};
use crate::app::App;
use crate::catalog::volume_types::VolumeType;
use crate::services::{Slot, TOKENS_OPTIONAL, ssm};
use crate::state::{
    Instance, KeyPair, NetworkInterface, PlacementGroup, RouteTable, Scope, SecurityGroup, State, Subnet,
    Volume,
};
use crate::store::bootstrap::DEFAULT_GROUP;
use crate::views;

mod identities;
mod keys;

pub(super) use keys::may_name_keys;

/// One thing that the caller must be allowed.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Such as `ec2:RunInstances`.
    pub action: String,
    /// An ARN, or `*`.
    pub resource: String,
    /// What is said of the resource, beyond what is said of the call.
    pub context: Context,
}

/// A request, and what it is read with.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub app: &'a App,
    /// Whose and where it is.
    pub scope: &'a Scope,
    pub state: &'a State,
    pub identity: &'a Identity<'a>,
    /// As credential scopes name it: `ec2`, `iam`; or `hearth`.
    pub service: &'a str,
    /// EC2's name of the call.
    pub action: &'a str,
    pub message: &'a DynamicMessage,
}

/// Calls that make resources, and of which kinds.
const MAKES: &[(&str, &[Kind])] = &[
    (
        "RunInstances",
        &[Kind::Instance, Kind::NetworkInterface, Kind::Volume],
    ),
    ("CreateVpc", &[Kind::Vpc]),
    ("CreateSubnet", &[Kind::Subnet]),
    ("CreateInternetGateway", &[Kind::InternetGateway]),
    ("CreateRouteTable", &[Kind::RouteTable]),
    ("CreateSecurityGroup", &[Kind::SecurityGroup]),
    ("AuthorizeSecurityGroupIngress", &[Kind::SecurityGroupRule]),
    ("AuthorizeSecurityGroupEgress", &[Kind::SecurityGroupRule]),
    ("CreateKeyPair", &[Kind::KeyPair]),
    ("ImportKeyPair", &[Kind::KeyPair]),
    ("CreatePlacementGroup", &[Kind::PlacementGroup]),
    ("CreateVolume", &[Kind::Volume]),
    ("CreateSnapshot", &[Kind::Snapshot]),
    ("CreateSnapshots", &[Kind::Snapshot]),
    ("CopySnapshot", &[Kind::Snapshot]),
    ("RegisterImage", &[Kind::Image]),
    ("CreateImage", &[Kind::Image, Kind::Snapshot]),
    ("CopyImage", &[Kind::Image]),
];
/// All that the caller must be allowed for a request.
pub fn of(asked: &Asked<'_>) -> Vec<Subject> {
    match asked.service {
        "iam" => asked.of_iam(),
        "ssm" => asked.of_ssm(),
        "kms" => asked.of_kms(),
        "ec2-instance-connect" => asked.of_instance_connect(),
        "sts" => vec![asked.of_sts()],
        "hearth" if asked.action == "UploadImage" => {
            let mut subjects = vec![asked.everything()];
            subjects.extend(asked.data_keys());
            subjects
        }
        "ec2" if !asked.action.starts_with("Describe") => asked.of_ec2(),
        _ => vec![asked.everything()],
    }
}

impl Asked<'_> {
    fn subject(&self, resource: String, context: Context) -> Subject {
        Subject {
            action: format!("{}:{}", self.service, self.action),
            resource,
            context,
        }
    }

    /// For calls that are about no resource of their own.
    fn everything(&self) -> Subject {
        self.subject("*".to_owned(), Context::default())
    }

    fn account(&self) -> &str {
        self.scope.account_id()
    }

    fn text(&self, field: &str) -> Option<String> {
        text(self.message, field)
    }

    fn of_ec2(&self) -> Vec<Subject> {
        let makes = MAKES.iter().find(|(action, _)| *action == self.action);
        let makes = makes.map_or(&[][..], |(_, kinds)| kinds);
        let tags = specified(self.message);
        let mut subjects = Vec::new();
        let mut named = self.named();
        for (kind, mut context) in makes.iter().flat_map(|kind| self.made(*kind)) {
            // Some are named by who makes them.
            let name = named.iter().find(|(found, _)| *found == kind).cloned();
            let name = match name.filter(|_| matches!(kind, Kind::KeyPair | Kind::PlacementGroup)) {
                Some(found) => {
                    named.remove(&found);
                    found.1
                }
                None => "*".to_owned(),
            };
            let own = tags.iter().filter(|(of, ..)| of == kind.resource_type());
            let own: Vec<_> = own
                .map(|(_, key, value)| (key.as_str(), value.as_str()))
                .collect();
            tell_tags("aws:RequestTag", &own, &mut context);
            let resource = self.arn(kind, &name);
            if !own.is_empty() {
                let mut context = context.clone();
                context.set("ec2:CreateAction", self.action);
                subjects.push(Subject {
                    action: "ec2:CreateTags".to_owned(),
                    resource: resource.clone(),
                    context,
                });
            }
            subjects.push(self.subject(resource, context));
        }
        // Of CreateTags and DeleteTags.
        let asked = pairs(self.message, "tags");
        for (kind, id) in named {
            let mut context = Context::default();
            let asked: Vec<_> = asked.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            tell_tags("aws:RequestTag", &asked, &mut context);
            self.tell_existing(kind, &id, &mut context);
            subjects.push(self.subject(self.arn(kind, &id), context));
        }
        subjects.extend(self.passed_role());
        subjects.extend(self.data_keys());
        if let Some(name) = self.text("image_id").as_deref().and_then(ssm::resolved) {
            subjects.push(Subject {
                action: "ssm:GetParameters".to_owned(),
                resource: ssm::arn(self.scope.region(), ssm::name_of(name)),
                context: Context::default(),
            });
        }
        if subjects.is_empty() {
            subjects.push(self.everything());
        }
        subjects
    }

    /// The resources that a request names, or that it means when it names none.
    fn named(&self) -> BTreeSet<(Kind, String)> {
        let mut texts = Vec::new();
        texts_of(self.message, &mut texts);
        let mut named = BTreeSet::new();
        let is_launch = self.action == "RunInstances";
        for (field, value) in texts {
            let has_ids = field.ends_with("_id")
                || field.ends_with("_ids")
                || ["resources", "groups"].contains(&&*field);
            match (field.as_str(), Kind::of(&value)) {
                ("key_name", _) => named.insert((Kind::KeyPair, value)),
                ("group_name", _) if is_launch || self.action.contains("PlacementGroup") => {
                    named.insert((Kind::PlacementGroup, value))
                }
                ("group_name", _) if self.action == "CreateSecurityGroup" => false,
                ("group_name" | "security_groups", _) => match self.default_group(&value) {
                    Some(id) => named.insert((Kind::SecurityGroup, id)),
                    None => false,
                },
                ("image_id", None) => match ssm::image_id(self.app, self.state, self.scope, &value) {
                    Ok(id) => named.insert((Kind::Image, id)),
                    Err(_) => false,
                },
                ("association_id", _) if value.starts_with("rtbassoc-") => {
                    let table = self.state.first_by(&RouteTable::BY_ASSOCIATION, &value);
                    named.extend(table.iter().flat_map(|table| association(table, &value)));
                    true
                }
                ("association_id", _) => match self.state.first_by(&Instance::BY_ASSOCIATION, &value) {
                    Some(row) => named.insert((Kind::Instance, row.id.clone())),
                    None => false,
                },
                (_, Some(kind)) if has_ids => named.insert((kind, self.name_of(kind, value))),
                _ => false,
            };
        }
        let has = |named: &BTreeSet<(Kind, String)>, kind| named.iter().any(|(found, _)| *found == kind);
        if self.action == "CreateSnapshots" {
            let instances: Vec<String> = named.iter().map(|(_, id)| id.clone()).collect();
            let volumes = instances
                .iter()
                .flat_map(|id| self.state.by(&Volume::BY_INSTANCE, id));
            named.extend(volumes.map(|volume| (Kind::Volume, volume.id.clone())));
        }
        if self.action == "DetachVolume" && !has(&named, Kind::Instance) {
            let volume = self
                .text("volume_id")
                .and_then(|id| self.state.get::<Volume>(&id));
            let instance = volume.and_then(|volume| volume.instance_id());
            named.extend(instance.map(|id| (Kind::Instance, id.to_owned())));
        }
        if is_launch && !has(&named, Kind::Subnet) {
            let subnets = self.state.all::<Subnet>().filter(|subnet| subnet.default_for_az);
            named.extend(subnets.map(|subnet| (Kind::Subnet, subnet.id.clone())));
        }
        if is_launch && !has(&named, Kind::SecurityGroup) {
            let group = self.default_group(DEFAULT_GROUP);
            named.extend(group.map(|id| (Kind::SecurityGroup, id)));
        }
        named
    }

    /// What ARNs call a resource whose id is given: key pairs and placement groups have names there.
    fn name_of(&self, kind: Kind, id: String) -> String {
        match kind {
            Kind::KeyPair => self
                .state
                .get::<KeyPair>(&id)
                .map_or(id, |pair| pair.name.clone()),
            Kind::PlacementGroup => {
                let group = self.state.get::<PlacementGroup>(&id);
                group.map_or(id, |group| group.name.clone())
            }
            _ => id,
        }
    }

    /// The id of a group of the default VPC.
    fn default_group(&self, name: &str) -> Option<String> {
        let vpc = self.state.default_vpc(self.scope)?;
        Some(self.state.group_named(&vpc.id, name)?.id.clone())
    }

    /// `id`: an id, a name, or `*`.
    fn arn(&self, kind: Kind, id: &str) -> String {
        let (region, account) = (self.scope.region(), self.account());
        let word = kind.resource_type();
        match kind {
            // Images and snapshots belong to no account there.
            Kind::Image | Kind::Snapshot => format!("arn:aws:ec2:{region}::{word}/{id}"),
            _ => format!("arn:aws:ec2:{region}:{account}:{word}/{id}"),
        }
    }

    /// The resources of a kind that a request makes, with what it says of them: of volumes, of each.
    fn made(&self, kind: Kind) -> Vec<(Kind, Context)> {
        let volumes = match kind {
            Kind::Volume => self.new_volumes(),
            Kind::Instance => vec![self.new_instance()],
            _ => vec![Context::default()],
        };
        volumes.into_iter().map(|context| (kind, context)).collect()
    }

    /// The volume of CreateVolume, or those of a launch.
    fn new_volumes(&self) -> Vec<Context> {
        let Some(mappings) = self.message.get_field_by_name("block_device_mappings") else {
            let mut context = self.new_volume(self.message, "size", VolumeType::Gp2);
            let zones = &self.app.config.zones;
            let id = self.text("availability_zone_id");
            let by_id = || zones.iter().find(|zone| Some(zones::id(zone)) == id).cloned();
            if let Some(zone) = self.text("availability_zone").or_else(by_id) {
                context.set("ec2:AvailabilityZone", zone);
            }
            return vec![context];
        };
        let mappings = mappings.as_list().unwrap_or_default().iter();
        let mappings: Vec<&DynamicMessage> = mappings.filter_map(Value::as_message).collect();
        let is_root = |mapping: &&DynamicMessage| {
            let slot = text(mapping, "device_name").and_then(|name| Slot::of(&name));
            slot.is_some_and(|slot| slot.is_root())
        };
        let mut volumes = Vec::new();
        if !mappings.iter().any(is_root) {
            volumes.push(self.plain_volume(VolumeType::Gp3));
        }
        let mapped = mappings
            .iter()
            .filter(|mapping| !mapping.has_field_by_name("no_device"))
            .filter(|mapping| text(mapping, "virtual_name").is_none());
        volumes.extend(mapped.map(|mapping| {
            let ebs = mapping.get_field_by_name("ebs");
            let ebs = ebs.as_ref().and_then(|ebs| ebs.as_message());
            ebs.map_or_else(
                || self.plain_volume(VolumeType::Gp3),
                |ebs| self.new_volume(ebs, "volume_size", VolumeType::Gp3),
            )
        }));
        volumes
    }

    /// A volume of which nothing but its type is said.
    fn plain_volume(&self, kind: VolumeType) -> Context {
        let mut context = Context::default();
        let is_default = self.state.account_settings(self.scope).ebs_encryption;
        context.set("ec2:Encrypted", is_default.to_string());
        context.set("ec2:VolumeType", kind.as_str());
        context
    }

    /// A volume as a request describes it, by the fields of CreateVolume or of a block device.
    fn new_volume(&self, of: &DynamicMessage, size: &str, default: VolumeType) -> Context {
        let mut context = self.plain_volume(default);
        if let Some(kind) = text(of, "volume_type") {
            context.set("ec2:VolumeType", kind);
        }
        let asked = of
            .get_field_by_name("encrypted")
            .and_then(|value| value.as_bool());
        let snapshot = text(of, "snapshot_id").and_then(|id| self.state.snapshot(&id));
        if asked == Some(true) || snapshot.is_some_and(|snapshot| snapshot.encryption.is_some()) {
            context.set("ec2:Encrypted", "true");
        }
        for (field, key) in [
            (size, "ec2:VolumeSize"),
            ("iops", "ec2:VolumeIops"),
            ("throughput", "ec2:VolumeThroughput"),
        ] {
            let number = of.get_field_by_name(field).and_then(|value| value.as_i32());
            set_number(&mut context, key, number.filter(|number| *number != 0));
        }
        context
    }

    fn new_instance(&self) -> Context {
        let mut context = Context::default();
        if let Some(given) = self.text("instance_type") {
            context.set("ec2:InstanceType", given);
        }
        let options = self.message.get_field_by_name("metadata_options");
        let tokens = options.and_then(|options| text(options.as_message()?, "http_tokens"));
        // What launches have when they do not say.
        context.set(
            "ec2:MetadataHttpTokens",
            tokens.unwrap_or_else(|| {
                let settings = self.state.account_settings(self.scope);
                let default = settings.metadata_defaults.http_tokens;
                default.unwrap_or_else(|| TOKENS_OPTIONAL.to_owned())
            }),
        );
        context
    }

    fn tell_existing(&self, kind: Kind, id: &str, context: &mut Context) {
        let state = self.state;
        let id = match kind {
            Kind::KeyPair => state.key_pair_named(self.scope, id).map_or(id, |pair| &pair.id),
            Kind::PlacementGroup => state
                .placement_group_named(self.scope, id)
                .map_or(id, |group| &group.id),
            _ => id,
        };
        let tags = state.tags(kind, id).into_iter().flatten();
        for (key, value) in tags {
            context.set(&format!("aws:ResourceTag/{key}"), value);
            context.set(&format!("ec2:ResourceTag/{key}"), value);
        }
        let mut vpc = None;
        match kind {
            Kind::Instance => {
                if let Some(row) = state.get::<Instance>(id) {
                    context.set("ec2:InstanceType", &row.instance_type);
                    context.set("ec2:AvailabilityZone", &row.availability_zone);
                }
            }
            Kind::Volume => {
                if let Some(row) = state.get::<Volume>(id) {
                    let spec = &row.spec;
                    context.set("ec2:AvailabilityZone", state.zone_of(row));
                    context.set("ec2:Encrypted", row.encryption.is_some().to_string());
                    context.set("ec2:VolumeID", id);
                    context.set("ec2:VolumeType", spec.volume_type.as_str());
                    context.set("ec2:VolumeSize", row.told_gib().to_string());
                    set_number(context, "ec2:VolumeIops", spec.told_iops());
                    set_number(context, "ec2:VolumeThroughput", spec.throughput);
                }
            }
            Kind::Snapshot => {
                if let Some(row) = state.snapshot(id) {
                    context.set("ec2:Encrypted", row.encryption.is_some().to_string());
                    context.set("ec2:Owner", &row.account_id);
                    context.set("ec2:ParentVolume", self.arn(Kind::Volume, &row.volume_id));
                    context.set("ec2:SnapshotID", id);
                    context.set("ec2:SnapshotTime", views::time(row.started_at));
                    context.set("ec2:VolumeSize", row.size_gib.to_string());
                }
            }
            Kind::Subnet => {
                if let Some(row) = state.get::<Subnet>(id) {
                    context.set("ec2:AvailabilityZone", &row.availability_zone);
                    vpc = Some(&row.vpc_id);
                }
            }
            Kind::SecurityGroup => vpc = state.get::<SecurityGroup>(id).map(|row| &row.vpc_id),
            Kind::RouteTable => vpc = state.get::<RouteTable>(id).map(|row| &row.vpc_id),
            Kind::NetworkInterface => {
                let row = state.get::<NetworkInterface>(id);
                let subnet = row.and_then(|row| state.get::<Subnet>(&row.subnet_id));
                vpc = subnet.map(|subnet| &subnet.vpc_id);
            }
            _ => {}
        }
        if let Some(vpc) = vpc {
            context.set("ec2:Vpc", self.arn(Kind::Vpc, vpc));
        }
    }

    /// The parameters that a request names, or all below its path.
    fn of_ssm(&self) -> Vec<Subject> {
        let mut texts = Vec::new();
        texts_of(self.message, &mut texts);
        let named = texts.iter().filter_map(|(field, value)| match field.as_str() {
            "name" | "names" => Some(ssm::arn(self.scope.region(), ssm::name_of(value))),
            "path" => Some(ssm::arn(self.scope.region(), value.trim_end_matches('/'))),
            _ => None,
        });
        let subjects: Vec<_> = named.map(|arn| self.subject(arn, Context::default())).collect();
        match subjects.is_empty() {
            true => vec![self.everything()],
            false => subjects,
        }
    }

    /// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/permissions-for-ec2-instance-connect.html>
    fn of_instance_connect(&self) -> Vec<Subject> {
        let id = self.text("instance_id").unwrap_or_default();
        let mut context = Context::default();
        self.tell_existing(Kind::Instance, &id, &mut context);
        if let Some(user) = self.text("instance_os_user") {
            context.set("ec2:osuser", user);
        }
        vec![self.subject(self.arn(Kind::Instance, &id), context)]
    }

    fn of_sts(&self) -> Subject {
        match (self.action, self.text("name")) {
            ("GetFederationToken", Some(name)) => {
                let arn = format!("arn:aws:sts::{}:federated-user/{name}", self.account());
                self.subject(arn, Context::default())
            }
            _ => self.everything(),
        }
    }
}

/// A table and the subnet that one of its associations is about.
fn association(table: &RouteTable, id: &str) -> Vec<(Kind, String)> {
    let own = table.associations.iter().filter(|one| one.id == id);
    let subnets = own.filter_map(|one| Some((Kind::Subnet, one.subnet_id.clone()?)));
    subnets.chain([(Kind::RouteTable, table.id.clone())]).collect()
}

fn set_number<N: ToString>(context: &mut Context, key: &str, number: Option<N>) {
    if let Some(number) = number {
        context.set(key, number.to_string());
    }
}

/// `aws:RequestTag/KEY`, and `aws:TagKeys`.
fn tell_tags(prefix: &str, tags: &[(&str, &str)], context: &mut Context) {
    for (key, value) in tags {
        context.set(&format!("{prefix}/{key}"), *value);
        context.add("aws:TagKeys", *key);
    }
}
