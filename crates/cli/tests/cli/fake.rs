//! A small service that answers from a script and remembers what it was asked.

use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hearth_api::v1::hosts_server::{Hosts, HostsServer};
use hearth_api::v1::image_disks_server::{ImageDisks, ImageDisksServer};
use hearth_api::v1::images_server::{Images, ImagesServer};
use hearth_api::v1::instances_server::{Instances, InstancesServer};
use hearth_api::v1::key_pairs_server::{KeyPairs, KeyPairsServer};
use hearth_api::v1::regions_server::{Regions, RegionsServer};
use hearth_api::v1::security_groups_server::{SecurityGroups, SecurityGroupsServer};
use hearth_api::v1::tags_server::{Tags, TagsServer};
use hearth_api::v1::vpcs_server::{Vpcs, VpcsServer};
use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode, InstanceState as State};
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

type Answer<T> = Result<Response<T>, Status>;

pub(crate) const INSTANCE: &str = "i-0123456789abcdef0";
pub(crate) const HOST: &str = "h-0123456789abcdef0";
pub(crate) const GROUP: &str = "sg-0123456789abcdef0";

/// What the service was asked, and what its instances go through.
#[derive(Clone, Default)]
pub(crate) struct Script {
    /// Requests as Rust's debug format has them, except for uploads.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    /// The states in which its instance is found, one after the other; the last stays.
    pub(crate) states: Arc<Mutex<Vec<State>>>,
    /// An uploaded disk.
    pub(crate) disk: Arc<Mutex<Vec<u8>>>,
    /// What is kept of an upload that was cut off.
    pub(crate) kept: Arc<Mutex<GetImageUploadResponse>>,
    /// How many bytes of it travelled.
    pub(crate) travelled: Arc<Mutex<usize>>,
    /// What the console says, one more piece at each call.
    pub(crate) console: Arc<Mutex<Vec<Vec<u8>>>>,
}

pub(crate) struct Fake {
    pub(crate) endpoint: String,
    pub(crate) script: Script,
    pub(crate) home: tempfile::TempDir,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let script = Script::default();
        let server = Server::builder()
            .add_service(HostsServer::new(script.clone()))
            .add_service(ImageDisksServer::new(script.clone()))
            .add_service(ImagesServer::new(script.clone()))
            .add_service(InstancesServer::new(script.clone()))
            .add_service(KeyPairsServer::new(script.clone()))
            .add_service(RegionsServer::new(script.clone()))
            .add_service(SecurityGroupsServer::new(script.clone()))
            .add_service(TagsServer::new(script.clone()))
            .add_service(VpcsServer::new(script.clone()));
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Self {
            endpoint: format!("unix:{}", socket.display()),
            script,
            home,
        }
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        hearth(&self.endpoint, self.home.path(), arguments).await
    }

    /// Starts a command, and answers it to the one who waits for its end.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        command(&self.endpoint, self.home.path(), arguments)
            .spawn()
            .unwrap()
    }

    /// Runs a command that must succeed, and answers its standard output.
    pub(crate) async fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{arguments:?}: {} {errors}",
            output.status
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.script.asked.lock().unwrap().clone()
    }
}

pub(crate) async fn hearth(endpoint: &str, home: &Path, arguments: &[&str]) -> Output {
    command(endpoint, home, arguments).output().await.unwrap()
}

fn command(endpoint: &str, home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command
        .args(arguments)
        .env("HEARTH_ENDPOINT", endpoint)
        .env("HEARTH_HOME", home)
        .env_remove("HEARTH_OUTPUT")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Script {
    fn note(&self, request: &impl std::fmt::Debug) {
        self.asked.lock().unwrap().push(format!("{request:?}"));
    }
}

fn in_zone(zone: &str) -> Placement {
    Placement {
        availability_zone: zone.into(),
        ..Default::default()
    }
}

pub(crate) fn instance(id: &str, state: State) -> Instance {
    let group = GroupIdentifier {
        group_id: GROUP.into(),
        group_name: "ssh".into(),
    };
    Instance {
        instance_id: id.into(),
        image_id: "ami-0123456789abcdef0".into(),
        instance_type: "t2.micro".into(),
        state: Some(state.into()),
        state_reason: (state == State::Terminated).then(|| StateReason {
            code: "Server.InternalError".into(),
            message: "Server.InternalError: the host is out of luck".into(),
        }),
        key_name: "k".into(),
        launch_time: Some(prost_types::Timestamp {
            seconds: 1_763_892_000,
            nanos: 5,
        }),
        placement: Some(Placement {
            host_id: HOST.into(),
            ..in_zone("hearth-1a")
        }),
        private_ip_address: "172.31.0.4".into(),
        public_ip_address: "198.18.0.2".into(),
        private_dns_name: "ip-172-31-0-4.ec2.internal".into(),
        subnet_id: "subnet-0123456789abcdef0".into(),
        vpc_id: "vpc-0123456789abcdef0".into(),
        security_groups: vec![group.clone()],
        root_device_name: "/dev/vda".into(),
        block_device_mappings: vec![InstanceBlockDeviceMapping {
            device_name: "/dev/vda".into(),
            ebs: Some(EbsInstanceBlockDevice {
                attach_time: None,
                delete_on_termination: true,
                status: "attached".into(),
                volume_id: "vol-0123456789abcdef0".into(),
            }),
        }],
        network_interfaces: vec![InstanceNetworkInterface {
            network_interface_id: "eni-0123456789abcdef0".into(),
            mac_address: "02:00:00:00:00:01".into(),
            private_ip_address: "172.31.0.4".into(),
            association: Some(InstanceNetworkInterfaceAssociation {
                public_ip: "198.18.0.2".into(),
                ..Default::default()
            }),
            subnet_id: "subnet-0123456789abcdef0".into(),
            vpc_id: "vpc-0123456789abcdef0".into(),
            groups: vec![group],
            ..Default::default()
        }],
        tags: vec![Tag {
            key: "Name".into(),
            value: "web".into(),
        }],
        metadata_options: Some(InstanceMetadataOptionsResponse {
            http_tokens: "required".into(),
            http_endpoint: "enabled".into(),
            http_put_response_hop_limit: 1,
            instance_metadata_tags: "disabled".into(),
            ..Default::default()
        }),
        maintenance_options: Some(InstanceMaintenanceOptions {
            auto_recovery: "default".into(),
        }),
        architecture: "x86_64".into(),
        ..Default::default()
    }
}

fn reservation(instances: Vec<Instance>) -> Reservation {
    Reservation {
        reservation_id: "r-0123456789abcdef0".into(),
        owner_id: "000000000000".into(),
        instances,
        groups: Vec::new(),
    }
}

fn changes(ids: Vec<String>, from: State, to: State) -> Vec<InstanceStateChange> {
    let change = |instance_id| InstanceStateChange {
        instance_id,
        current_state: Some(to.into()),
        previous_state: Some(from.into()),
    };
    ids.into_iter().map(change).collect()
}

#[tonic::async_trait]
impl Instances for Script {
    async fn run_instances(&self, request: Request<RunInstancesRequest>) -> Answer<Reservation> {
        let request = request.into_inner();
        self.note(&request);
        if request.dry_run {
            return Err(ApiError::dry_run().into());
        }
        Ok(Response::new(reservation(vec![instance(
            INSTANCE,
            State::Pending,
        )])))
    }

    async fn describe_instances(
        &self,
        request: Request<DescribeInstancesRequest>,
    ) -> Answer<DescribeInstancesResponse> {
        let request = request.into_inner();
        self.note(&request);
        if request.instance_ids.iter().any(|id| id != INSTANCE) {
            return Err(hearth_api::Kind::Instance.not_found(&request.instance_ids).into());
        }
        let mut states = self.states.lock().unwrap();
        let state = match states.len() {
            0 => State::Running,
            1 => states[0],
            _ => states.remove(0),
        };
        let reservations = vec![reservation(vec![instance(INSTANCE, state)])];
        Ok(Response::new(DescribeInstancesResponse {
            reservations,
            next_token: String::new(),
        }))
    }

    async fn start_instances(&self, request: Request<StartInstancesRequest>) -> Answer<StartInstancesResult> {
        let ids = request.into_inner().instance_ids;
        Ok(Response::new(StartInstancesResult {
            starting_instances: changes(ids, State::Stopped, State::Pending),
        }))
    }

    async fn stop_instances(&self, request: Request<StopInstancesRequest>) -> Answer<StopInstancesResult> {
        let ids = request.into_inner().instance_ids;
        Ok(Response::new(StopInstancesResult {
            stopping_instances: changes(ids, State::Running, State::Stopping),
        }))
    }

    async fn reboot_instances(
        &self,
        request: Request<RebootInstancesRequest>,
    ) -> Answer<RebootInstancesResponse> {
        self.note(request.get_ref());
        Ok(Response::new(RebootInstancesResponse {}))
    }

    async fn terminate_instances(
        &self,
        request: Request<TerminateInstancesRequest>,
    ) -> Answer<TerminateInstancesResult> {
        let ids = request.into_inner().instance_ids;
        Ok(Response::new(TerminateInstancesResult {
            terminating_instances: changes(ids, State::Running, State::ShuttingDown),
        }))
    }

    async fn modify_instance_maintenance_options(
        &self,
        request: Request<ModifyInstanceMaintenanceOptionsRequest>,
    ) -> Answer<ModifyInstanceMaintenanceOptionsResult> {
        self.note(request.get_ref());
        let request = request.into_inner();
        Ok(Response::new(ModifyInstanceMaintenanceOptionsResult {
            instance_id: request.instance_id,
            auto_recovery: request.auto_recovery,
        }))
    }

    async fn describe_instance_status(
        &self,
        request: Request<DescribeInstanceStatusRequest>,
    ) -> Answer<DescribeInstanceStatusResult> {
        self.note(&request.into_inner());
        let summary = InstanceStatusSummary {
            details: vec![InstanceStatusDetails {
                impaired_since: Some(prost_types::Timestamp {
                    seconds: 1_763_892_000,
                    nanos: 0,
                }),
                name: "reachability".into(),
                status: "failed".into(),
            }],
            status: "impaired".into(),
        };
        Ok(Response::new(DescribeInstanceStatusResult {
            instance_statuses: vec![InstanceStatus {
                availability_zone: "hearth-1a".into(),
                instance_id: INSTANCE.into(),
                instance_state: Some(InstanceState {
                    code: 16,
                    name: "running".into(),
                }),
                instance_status: Some(summary.clone()),
                system_status: Some(summary),
                ..Default::default()
            }],
            next_token: String::new(),
        }))
    }

    async fn get_password_data(&self, _: Request<GetPasswordDataRequest>) -> Answer<GetPasswordDataResult> {
        Err(Status::unimplemented("the script has none"))
    }

    async fn get_console_output(
        &self,
        request: Request<GetConsoleOutputRequest>,
    ) -> Answer<GetConsoleOutputResult> {
        let mut console = self.console.lock().unwrap();
        if console.is_empty() {
            return Err(ApiError::new(ErrorCode::IncorrectInstanceState, "The script is over.").into());
        }
        Ok(Response::new(GetConsoleOutputResult {
            instance_id: request.into_inner().instance_id,
            timestamp: None,
            output: BASE64_STANDARD.encode(console.remove(0)),
        }))
    }

    async fn modify_instance_metadata_options(
        &self,
        _: Request<ModifyInstanceMetadataOptionsRequest>,
    ) -> Answer<ModifyInstanceMetadataOptionsResult> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn describe_instance_attribute(
        &self,
        _: Request<DescribeInstanceAttributeRequest>,
    ) -> Answer<InstanceAttribute> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn modify_instance_attribute(
        &self,
        _: Request<ModifyInstanceAttributeRequest>,
    ) -> Answer<ModifyInstanceAttributeResponse> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn reset_instance_attribute(
        &self,
        _: Request<ResetInstanceAttributeRequest>,
    ) -> Answer<ResetInstanceAttributeResponse> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn describe_instance_credit_specifications(
        &self,
        _: Request<DescribeInstanceCreditSpecificationsRequest>,
    ) -> Answer<DescribeInstanceCreditSpecificationsResult> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn unmonitor_instances(
        &self,
        _: Request<UnmonitorInstancesRequest>,
    ) -> Answer<UnmonitorInstancesResult> {
        Err(Status::unimplemented("no test asks for it"))
    }
}

#[tonic::async_trait]
impl Hosts for Script {
    async fn list_hosts(&self, _: Request<ListHostsRequest>) -> Answer<ListHostsResponse> {
        let resources = |vcpus, memory_mib, disk_gib| HostResources {
            vcpus,
            memory_mib,
            disk_gib,
        };
        let host = Host {
            host_id: HOST.into(),
            hostname: "iron".into(),
            availability_zone: "hearth-1a".into(),
            state: "connected".into(),
            drain_state: "draining".into(),
            silent_time: None,
            agent_version: "0.1.0".into(),
            capacity: Some(resources(16, 32_000, 200)),
            claimed: Some(resources(1, 1024, 8)),
            instance_ids: vec![INSTANCE.into()],
            repairs: vec![HostRepair {
                time: Some(prost_types::Timestamp {
                    seconds: 1_763_892_001,
                    nanos: 0,
                }),
                description: "the host's rules: another hand".into(),
            }],
            enroll_time: Some(prost_types::Timestamp {
                seconds: 1_763_892_000,
                nanos: 5,
            }),
        };
        Ok(Response::new(ListHostsResponse { hosts: vec![host] }))
    }

    async fn drain_host(&self, request: Request<DrainHostRequest>) -> Answer<DrainHostResponse> {
        let request = request.into_inner();
        self.note(&request);
        Ok(Response::new(DrainHostResponse {
            host_id: request.host_id,
            instance_ids: vec![INSTANCE.into()],
        }))
    }

    async fn resume_host(&self, request: Request<ResumeHostRequest>) -> Answer<ResumeHostResponse> {
        let request = request.into_inner();
        self.note(&request);
        Ok(Response::new(ResumeHostResponse {
            host_id: request.host_id,
        }))
    }

    async fn forget_host(&self, request: Request<ForgetHostRequest>) -> Answer<ForgetHostResponse> {
        let request = request.into_inner();
        self.note(&request);
        if !request.force {
            let message = format!("The host '{}' has 1 instances: {INSTANCE}.", request.host_id);
            return Err(ApiError::new(ErrorCode::DependencyViolation, message).into());
        }
        Ok(Response::new(ForgetHostResponse {
            host_id: request.host_id,
            terminated_instance_ids: vec![INSTANCE.into()],
            abandoned_volume_ids: vec!["vol-0123456789abcdef0".into()],
        }))
    }

    async fn create_join_token(&self, _: Request<CreateJoinTokenRequest>) -> Answer<CreateJoinTokenResponse> {
        Err(Status::unimplemented("no command asks for it"))
    }

    async fn list_join_tokens(&self, _: Request<ListJoinTokensRequest>) -> Answer<ListJoinTokensResponse> {
        Err(Status::unimplemented("no command asks for it"))
    }

    async fn revoke_join_tokens(
        &self,
        _: Request<RevokeJoinTokensRequest>,
    ) -> Answer<RevokeJoinTokensResponse> {
        Err(Status::unimplemented("no command asks for it"))
    }
}

#[tonic::async_trait]
impl ImageDisks for Script {
    async fn upload_image(
        &self,
        request: Request<Streaming<UploadImageRequest>>,
    ) -> Answer<UploadImageResponse> {
        use upload_image_request::Part;
        let mut parts = request.into_inner();
        while let Some(part) = parts.next().await {
            match part?.part {
                Some(Part::Parameters(parameters)) => {
                    self.note(&parameters);
                    *self.disk.lock().unwrap() = vec![0; parameters.size as usize];
                    if parameters.name == "taken" {
                        let message = "AMI name taken is already in use by AMI ami-1";
                        return Err(ApiError::new(ErrorCode::InvalidAmiNameDuplicate, message).into());
                    }
                }
                Some(Part::Chunk(chunk)) => {
                    let start = chunk.offset as usize;
                    self.disk.lock().unwrap()[start..start + chunk.data.len()].copy_from_slice(&chunk.data);
                    *self.travelled.lock().unwrap() += chunk.data.len();
                }
                None => return Err(ApiError::missing("part").into()),
            }
        }
        Ok(Response::new(UploadImageResponse {
            image_id: "ami-0123456789abcdef0".into(),
        }))
    }

    async fn get_image_upload(&self, _: Request<GetImageUploadRequest>) -> Answer<GetImageUploadResponse> {
        Ok(Response::new(self.kept.lock().unwrap().clone()))
    }

    async fn describe_image_disks(
        &self,
        _: Request<DescribeImageDisksRequest>,
    ) -> Answer<DescribeImageDisksResponse> {
        Err(Status::unimplemented("no test asks for it"))
    }
}

#[tonic::async_trait]
impl Images for Script {
    async fn describe_images(&self, _: Request<DescribeImagesRequest>) -> Answer<DescribeImagesResponse> {
        let image = Image {
            image_id: "ami-0123456789abcdef0".into(),
            name: "tiny".into(),
            state: "available".into(),
            architecture: "x86_64".into(),
            creation_date: "2025-11-23T10:00:00.000Z".into(),
            root_device_name: "/dev/vda".into(),
            block_device_mappings: vec![BlockDeviceMapping {
                device_name: "/dev/vda".into(),
                ebs: Some(EbsBlockDevice {
                    volume_size: 1,
                    encrypted: Some(false),
                    ..Default::default()
                }),
                ..Default::default()
            }],
            owner_id: "000000000000".into(),
            boot_mode: "legacy-bios".into(),
            ..Default::default()
        };
        Ok(Response::new(DescribeImagesResponse {
            images: vec![image],
            next_token: String::new(),
        }))
    }

    async fn deregister_image(&self, _: Request<DeregisterImageRequest>) -> Answer<DeregisterImageResponse> {
        Ok(Response::new(DeregisterImageResponse {
            r#return: true,
            ..Default::default()
        }))
    }

    async fn register_image(&self, _: Request<RegisterImageRequest>) -> Answer<RegisterImageResult> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn create_image(&self, _: Request<CreateImageRequest>) -> Answer<CreateImageResult> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn copy_image(&self, _: Request<CopyImageRequest>) -> Answer<CopyImageResult> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn describe_image_attribute(
        &self,
        _: Request<DescribeImageAttributeRequest>,
    ) -> Answer<ImageAttribute> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn modify_image_attribute(
        &self,
        _: Request<ModifyImageAttributeRequest>,
    ) -> Answer<ModifyImageAttributeResponse> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn reset_image_attribute(
        &self,
        _: Request<ResetImageAttributeRequest>,
    ) -> Answer<ResetImageAttributeResponse> {
        Err(Status::unimplemented("no test asks for it"))
    }
}

#[tonic::async_trait]
impl KeyPairs for Script {
    async fn create_key_pair(&self, request: Request<CreateKeyPairRequest>) -> Answer<KeyPair> {
        let request = request.into_inner();
        self.note(&request);
        if request.key_name == "taken" {
            let message = "The keypair 'taken' already exists.";
            return Err(ApiError::new(ErrorCode::InvalidKeyPairDuplicate, message).into());
        }
        Ok(Response::new(KeyPair {
            key_pair_id: "key-0123456789abcdef0".into(),
            key_name: request.key_name,
            key_fingerprint: "1f:51:ae".into(),
            key_material: "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----".into(),
            ..Default::default()
        }))
    }

    async fn import_key_pair(&self, request: Request<ImportKeyPairRequest>) -> Answer<ImportKeyPairResult> {
        self.note(request.get_ref());
        let key_name = request.into_inner().key_name;
        Ok(Response::new(ImportKeyPairResult {
            key_pair_id: "key-1".into(),
            key_name,
            ..Default::default()
        }))
    }

    async fn describe_key_pairs(
        &self,
        _: Request<DescribeKeyPairsRequest>,
    ) -> Answer<DescribeKeyPairsResponse> {
        Ok(Response::new(DescribeKeyPairsResponse::default()))
    }

    async fn delete_key_pair(&self, _: Request<DeleteKeyPairRequest>) -> Answer<DeleteKeyPairResponse> {
        Ok(Response::new(DeleteKeyPairResponse::default()))
    }
}

#[tonic::async_trait]
impl SecurityGroups for Script {
    async fn create_security_group(
        &self,
        _: Request<CreateSecurityGroupRequest>,
    ) -> Answer<CreateSecurityGroupResponse> {
        Ok(Response::new(CreateSecurityGroupResponse {
            group_id: GROUP.into(),
            ..Default::default()
        }))
    }

    async fn describe_security_groups(
        &self,
        _: Request<DescribeSecurityGroupsRequest>,
    ) -> Answer<DescribeSecurityGroupsResponse> {
        let permission = |ip_protocol: &str, port, cidr: &str| IpPermission {
            ip_protocol: ip_protocol.into(),
            from_port: port,
            to_port: port,
            ip_ranges: vec![IpRange {
                cidr_ip: cidr.into(),
                description: String::new(),
            }],
            ..Default::default()
        };
        let group = SecurityGroup {
            group_id: GROUP.into(),
            group_name: "ssh".into(),
            description: "ssh from anywhere".into(),
            vpc_id: "vpc-0123456789abcdef0".into(),
            ip_permissions: vec![permission("tcp", Some(22), "0.0.0.0/0")],
            ip_permissions_egress: vec![permission("-1", None, "0.0.0.0/0")],
            owner_id: "000000000000".into(),
            ..Default::default()
        };
        Ok(Response::new(DescribeSecurityGroupsResponse {
            security_groups: vec![group],
            next_token: String::new(),
        }))
    }

    async fn delete_security_group(
        &self,
        request: Request<DeleteSecurityGroupRequest>,
    ) -> Answer<DeleteSecurityGroupResponse> {
        let group = request.into_inner();
        let message = format!(
            "resource {}{} has a dependent object",
            group.group_id, group.group_name
        );
        Err(ApiError::new(ErrorCode::DependencyViolation, message).into())
    }

    async fn authorize_security_group_ingress(
        &self,
        request: Request<AuthorizeSecurityGroupIngressRequest>,
    ) -> Answer<AuthorizeSecurityGroupIngressResult> {
        self.note(request.get_ref());
        let rule = SecurityGroupRule {
            security_group_rule_id: "sgr-0123456789abcdef0".into(),
            group_id: GROUP.into(),
            is_egress: false,
            ip_protocol: "tcp".into(),
            from_port: 22,
            to_port: 22,
            cidr_ipv4: "0.0.0.0/0".into(),
            ..Default::default()
        };
        Ok(Response::new(AuthorizeSecurityGroupIngressResult {
            r#return: true,
            security_group_rules: vec![rule],
        }))
    }

    async fn authorize_security_group_egress(
        &self,
        _: Request<AuthorizeSecurityGroupEgressRequest>,
    ) -> Answer<AuthorizeSecurityGroupEgressResult> {
        Err(Status::unimplemented("no test asks for it"))
    }

    /// Knows none of the rules.
    async fn revoke_security_group_ingress(
        &self,
        request: Request<RevokeSecurityGroupIngressRequest>,
    ) -> Answer<RevokeSecurityGroupIngressResult> {
        self.note(request.get_ref());
        Ok(Response::new(RevokeSecurityGroupIngressResult {
            r#return: true,
            revoked_security_group_rules: Vec::new(),
            unknown_ip_permissions: request.into_inner().ip_permissions,
        }))
    }

    async fn revoke_security_group_egress(
        &self,
        _: Request<RevokeSecurityGroupEgressRequest>,
    ) -> Answer<RevokeSecurityGroupEgressResult> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn describe_security_group_rules(
        &self,
        _: Request<DescribeSecurityGroupRulesRequest>,
    ) -> Answer<DescribeSecurityGroupRulesResult> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn modify_security_group_rules(
        &self,
        _: Request<ModifySecurityGroupRulesRequest>,
    ) -> Answer<ModifySecurityGroupRulesResult> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn update_security_group_rule_descriptions_ingress(
        &self,
        _: Request<UpdateSecurityGroupRuleDescriptionsIngressRequest>,
    ) -> Answer<UpdateSecurityGroupRuleDescriptionsIngressResult> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn update_security_group_rule_descriptions_egress(
        &self,
        _: Request<UpdateSecurityGroupRuleDescriptionsEgressRequest>,
    ) -> Answer<UpdateSecurityGroupRuleDescriptionsEgressResult> {
        Err(Status::unimplemented("no test asks for it"))
    }
}

#[tonic::async_trait]
impl Regions for Script {
    async fn describe_regions(&self, _: Request<DescribeRegionsRequest>) -> Answer<DescribeRegionsResponse> {
        Err(Status::unimplemented("not here"))
    }

    async fn describe_availability_zones(
        &self,
        _: Request<DescribeAvailabilityZonesRequest>,
    ) -> Answer<DescribeAvailabilityZonesResponse> {
        let zone = AvailabilityZone {
            zone_name: "hearth-1a".into(),
            state: "available".into(),
            ..Default::default()
        };
        Ok(Response::new(DescribeAvailabilityZonesResponse {
            availability_zones: vec![zone],
        }))
    }

    async fn describe_account_attributes(
        &self,
        _: Request<DescribeAccountAttributesRequest>,
    ) -> Answer<DescribeAccountAttributesResult> {
        Err(Status::unimplemented("no test asks for it"))
    }
}

/// A page of seven VPCs, with two unless told. The token says how many came before.
fn page(request: &DescribeVpcsRequest) -> DescribeVpcsResponse {
    let start: usize = request.next_token.parse().unwrap_or(0);
    let size = match request.max_results {
        0 => 2,
        size => size as usize,
    };
    let vpc = |number| Vpc {
        vpc_id: format!("vpc-{number}"),
        ..Default::default()
    };
    let end = 7.min(start + size);
    DescribeVpcsResponse {
        vpcs: (start..end).map(vpc).collect(),
        next_token: if end < 7 { end.to_string() } else { String::new() },
    }
}

#[tonic::async_trait]
impl Vpcs for Script {
    async fn describe_vpcs(&self, request: Request<DescribeVpcsRequest>) -> Answer<DescribeVpcsResponse> {
        self.note(request.get_ref());
        let request = request.into_inner();
        if request.filters.iter().any(|filter| filter.name == "pages") {
            return Ok(Response::new(page(&request)));
        }
        let vpcs = match request.vpc_ids.as_slice() {
            [] => Vec::new(),
            _ => vec![Vpc {
                vpc_id: "vpc-0123456789abcdef0".into(),
                cidr_block: "172.31.0.0/16".into(),
                tags: vec![Tag {
                    key: "a".into(),
                    value: "b".into(),
                }],
                ..Default::default()
            }],
        };
        Ok(Response::new(DescribeVpcsResponse {
            vpcs,
            next_token: String::new(),
        }))
    }

    async fn describe_vpc_attribute(
        &self,
        _: Request<DescribeVpcAttributeRequest>,
    ) -> Answer<DescribeVpcAttributeResult> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn create_vpc(&self, _: Request<CreateVpcRequest>) -> Answer<CreateVpcResult> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn create_default_vpc(
        &self,
        _: Request<CreateDefaultVpcRequest>,
    ) -> Answer<CreateDefaultVpcResult> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn delete_vpc(&self, _: Request<DeleteVpcRequest>) -> Answer<DeleteVpcResult> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn modify_vpc_attribute(
        &self,
        _: Request<ModifyVpcAttributeRequest>,
    ) -> Answer<ModifyVpcAttributeResult> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn describe_vpc_classic_link(
        &self,
        _: Request<DescribeVpcClassicLinkRequest>,
    ) -> Answer<DescribeVpcClassicLinkResult> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn describe_vpc_classic_link_dns_support(
        &self,
        _: Request<DescribeVpcClassicLinkDnsSupportRequest>,
    ) -> Answer<DescribeVpcClassicLinkDnsSupportResult> {
        Err(Status::unimplemented("no test asks for it"))
    }
}

#[tonic::async_trait]
impl Tags for Script {
    async fn create_tags(&self, request: Request<CreateTagsRequest>) -> Answer<CreateTagsResponse> {
        self.note(request.get_ref());
        Ok(Response::new(CreateTagsResponse {}))
    }

    async fn delete_tags(&self, request: Request<DeleteTagsRequest>) -> Answer<DeleteTagsResponse> {
        self.note(request.get_ref());
        Ok(Response::new(DeleteTagsResponse {}))
    }

    async fn describe_tags(&self, _: Request<DescribeTagsRequest>) -> Answer<DescribeTagsResponse> {
        Ok(Response::new(DescribeTagsResponse::default()))
    }
}
