//! Instances: launch, describe, commands, console.

use std::sync::Arc;

use hearth_api::v1::instances_server;
use hearth_api::v1::{
    DescribeInstanceAttributeRequest, DescribeInstanceCreditSpecificationsRequest,
    DescribeInstanceCreditSpecificationsResult, DescribeInstanceStatusRequest, DescribeInstanceStatusResult,
    DescribeInstancesRequest, DescribeInstancesResponse, GetConsoleOutputRequest, GetConsoleOutputResult,
    GetPasswordDataRequest, GetPasswordDataResult, InstanceAttribute, ModifyInstanceAttributeRequest,
    ModifyInstanceAttributeResponse, ModifyInstanceMaintenanceOptionsRequest,
    ModifyInstanceMaintenanceOptionsResult, ModifyInstanceMetadataOptionsRequest,
    ModifyInstanceMetadataOptionsResult, RebootInstancesRequest, RebootInstancesResponse, Reservation,
    ResetInstanceAttributeRequest, ResetInstanceAttributeResponse, RunInstancesRequest,
    StartInstancesRequest, StartInstancesResult, StopInstancesRequest, StopInstancesResult,
    TerminateInstancesRequest, TerminateInstancesResult, UnmonitorInstancesRequest, UnmonitorInstancesResult,
};
use tonic::{Request, Response, Status};

use super::answer;
use crate::app::App;
use crate::lifecycle::Command;

mod attributes;
mod block_devices;
mod commands;
mod console;
mod describe;
pub(super) mod filters;
mod maintenance;
mod metadata_options;
pub(super) mod modest;
mod plan;
mod run;
mod start;
pub(super) mod status;

pub(crate) use metadata_options::TOKENS_OPTIONAL;
pub(super) use plan::MAX_GROUPS;

pub(super) struct Instances(pub(super) Arc<App>);

#[tonic::async_trait]
impl instances_server::Instances for Instances {
    async fn run_instances(
        &self,
        request: Request<RunInstancesRequest>,
    ) -> Result<Response<Reservation>, Status> {
        answer(run::run(&self.0, request.into_inner()).await)
    }

    async fn describe_instances(
        &self,
        request: Request<DescribeInstancesRequest>,
    ) -> Result<Response<DescribeInstancesResponse>, Status> {
        answer(describe::describe(&self.0, request.into_inner()))
    }

    async fn describe_instance_status(
        &self,
        request: Request<DescribeInstanceStatusRequest>,
    ) -> Result<Response<DescribeInstanceStatusResult>, Status> {
        answer(status::describe(&self.0, request.into_inner()))
    }

    async fn start_instances(
        &self,
        request: Request<StartInstancesRequest>,
    ) -> Result<Response<StartInstancesResult>, Status> {
        let StartInstancesRequest { instance_ids, .. } = request.into_inner();
        let done = commands::apply_to_all(&self.0, &instance_ids, Command::Start).await;
        answer(done.map(|starting_instances| StartInstancesResult { starting_instances }))
    }

    async fn stop_instances(
        &self,
        request: Request<StopInstancesRequest>,
    ) -> Result<Response<StopInstancesResult>, Status> {
        let StopInstancesRequest {
            instance_ids, force, ..
        } = request.into_inner();
        let done = commands::apply_to_all(&self.0, &instance_ids, Command::Stop { force }).await;
        answer(done.map(|stopping_instances| StopInstancesResult { stopping_instances }))
    }

    async fn reboot_instances(
        &self,
        request: Request<RebootInstancesRequest>,
    ) -> Result<Response<RebootInstancesResponse>, Status> {
        let RebootInstancesRequest { instance_ids, .. } = request.into_inner();
        let done = commands::apply_to_all(&self.0, &instance_ids, Command::Reboot);
        answer(done.await.map(|_| RebootInstancesResponse {}))
    }

    async fn terminate_instances(
        &self,
        request: Request<TerminateInstancesRequest>,
    ) -> Result<Response<TerminateInstancesResult>, Status> {
        let TerminateInstancesRequest { instance_ids, .. } = request.into_inner();
        let done = commands::apply_to_all(&self.0, &instance_ids, Command::Terminate).await;
        answer(done.map(|terminating_instances| TerminateInstancesResult {
            terminating_instances,
        }))
    }

    async fn get_console_output(
        &self,
        request: Request<GetConsoleOutputRequest>,
    ) -> Result<Response<GetConsoleOutputResult>, Status> {
        answer(console::output(&self.0, request.into_inner()).await)
    }

    async fn get_password_data(
        &self,
        request: Request<GetPasswordDataRequest>,
    ) -> Result<Response<GetPasswordDataResult>, Status> {
        answer(console::password(&self.0, request.into_inner()).await)
    }

    async fn modify_instance_maintenance_options(
        &self,
        request: Request<ModifyInstanceMaintenanceOptionsRequest>,
    ) -> Result<Response<ModifyInstanceMaintenanceOptionsResult>, Status> {
        answer(maintenance::modify(&self.0, request.into_inner()).await)
    }

    async fn modify_instance_metadata_options(
        &self,
        request: Request<ModifyInstanceMetadataOptionsRequest>,
    ) -> Result<Response<ModifyInstanceMetadataOptionsResult>, Status> {
        answer(metadata_options::modify(&self.0, request.into_inner()).await)
    }

    async fn describe_instance_attribute(
        &self,
        request: Request<DescribeInstanceAttributeRequest>,
    ) -> Result<Response<InstanceAttribute>, Status> {
        answer(attributes::describe(&self.0, &request.into_inner()).await)
    }

    async fn modify_instance_attribute(
        &self,
        request: Request<ModifyInstanceAttributeRequest>,
    ) -> Result<Response<ModifyInstanceAttributeResponse>, Status> {
        answer(attributes::modify(&self.0, request.into_inner()).await)
    }

    async fn reset_instance_attribute(
        &self,
        request: Request<ResetInstanceAttributeRequest>,
    ) -> Result<Response<ResetInstanceAttributeResponse>, Status> {
        answer(attributes::reset(&self.0, &request.into_inner()))
    }

    async fn describe_instance_credit_specifications(
        &self,
        request: Request<DescribeInstanceCreditSpecificationsRequest>,
    ) -> Result<Response<DescribeInstanceCreditSpecificationsResult>, Status> {
        answer(modest::credits(&self.0, &request.into_inner()))
    }

    async fn unmonitor_instances(
        &self,
        request: Request<UnmonitorInstancesRequest>,
    ) -> Result<Response<UnmonitorInstancesResult>, Status> {
        answer(modest::unmonitor(&self.0, &request.into_inner()))
    }
}
