//! Volumes: made, attached, modified, detached, deleted, described. Their states and deadlines: `docs/states.md`.
//! <https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volumes.html>

use super::serve;

mod attach;
mod attributes;
mod create;
mod delete;
pub(super) mod describe;
pub(super) mod devices;
pub(super) mod modifications;
mod modify;
pub(super) mod moving;
pub(super) mod quotas;
mod room;
pub(super) mod status;

serve! { volumes_server::Volumes as Volumes {
    create_volume(CreateVolumeRequest) -> Volume: create::create;
    delete_volume(DeleteVolumeRequest) -> DeleteVolumeResult: delete::delete;
    attach_volume(AttachVolumeRequest) -> VolumeAttachment: attach::attach;
    detach_volume(DetachVolumeRequest) -> VolumeAttachment: attach::detach;
    modify_volume(ModifyVolumeRequest) -> ModifyVolumeResult: modify::modify;
    describe_volumes(DescribeVolumesRequest) -> DescribeVolumesResult: describe::describe;
    describe_volumes_modifications(DescribeVolumesModificationsRequest) -> DescribeVolumesModificationsResult: modifications::describe;
    describe_volume_status(DescribeVolumeStatusRequest) -> DescribeVolumeStatusResult: status::describe;
    describe_volume_attribute(DescribeVolumeAttributeRequest) -> DescribeVolumeAttributeResult: attributes::describe;
    modify_volume_attribute(ModifyVolumeAttributeRequest) -> ModifyVolumeAttributeResponse: attributes::modify;
    enable_volume_io(EnableVolumeIoRequest) -> EnableVolumeIoResponse: attributes::enable_io;
} }
