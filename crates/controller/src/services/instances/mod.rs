//! Instances: launch, describe, watch, commands, console.

use std::sync::Arc;

use hearth_api::v1::instances_server;
use hearth_api::v1::{
    DescribeInstanceStatusRequest, DescribeInstanceStatusResult, DescribeInstancesRequest,
    DescribeInstancesResponse, GetConsoleOutputRequest, GetConsoleOutputResponse, Instance,
    InstanceStateChanges, ModifyInstanceMaintenanceOptionsRequest, ModifyInstanceMaintenanceOptionsResult,
    RebootInstancesRequest, RebootInstancesResponse, Reservation, RunInstancesRequest, StartInstancesRequest,
    StopInstancesRequest, TerminateInstancesRequest, WatchInstancesRequest,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::answer;
use crate::app::App;
use crate::lifecycle::Command;

mod commands;
mod console;
mod describe;
mod maintenance;
mod plan;
mod run;
mod start;
mod status;
mod watch;

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

    type WatchInstancesStream = ReceiverStream<Result<Instance, Status>>;

    async fn watch_instances(
        &self,
        request: Request<WatchInstancesRequest>,
    ) -> Result<Response<Self::WatchInstancesStream>, Status> {
        answer(watch::watch(&self.0, request.into_inner()).await)
    }

    async fn start_instances(
        &self,
        request: Request<StartInstancesRequest>,
    ) -> Result<Response<InstanceStateChanges>, Status> {
        let StartInstancesRequest { instance_ids, .. } = request.into_inner();
        let done = commands::apply_to_all(&self.0, &instance_ids, Command::Start);
        answer(done.await)
    }

    async fn stop_instances(
        &self,
        request: Request<StopInstancesRequest>,
    ) -> Result<Response<InstanceStateChanges>, Status> {
        let StopInstancesRequest {
            instance_ids, force, ..
        } = request.into_inner();
        let stop = Command::Stop { force };
        let done = commands::apply_to_all(&self.0, &instance_ids, stop);
        answer(done.await)
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
    ) -> Result<Response<InstanceStateChanges>, Status> {
        let TerminateInstancesRequest { instance_ids, .. } = request.into_inner();
        let done = commands::apply_to_all(&self.0, &instance_ids, Command::Terminate);
        answer(done.await)
    }

    async fn get_console_output(
        &self,
        request: Request<GetConsoleOutputRequest>,
    ) -> Result<Response<GetConsoleOutputResponse>, Status> {
        answer(console::output(&self.0, request.into_inner()).await)
    }

    async fn modify_instance_maintenance_options(
        &self,
        request: Request<ModifyInstanceMaintenanceOptionsRequest>,
    ) -> Result<Response<ModifyInstanceMaintenanceOptionsResult>, Status> {
        answer(maintenance::modify(&self.0, request.into_inner()).await)
    }
}
