"""Images that are snapshots, and what is refused, as botocore has them.
usage: amis.py ENDPOINT REGION CREDENTIALS AMI OTHER-REGION TENANT-KEY-ID TENANT-SECRET"""

import sys
import time

import cloud

endpoint, region, path, image, far_region, *TENANT = sys.argv[1:]
ROOT = cloud.owner(path)
client = cloud.Cloud(endpoint, region, ROOT).client
ZONE = f"{region}a"
ROOT_DEVICE = "/dev/vda"

ec2, far, tenant = client("ec2"), client("ec2", region=far_region), client("ec2", TENANT)
wait = cloud.waits(ec2)
account, tenant_account = (client("sts", key).get_caller_identity()["Account"] for key in (ROOT, TENANT))
refusals = 0


def refused(code, call, **parameters):
    global refusals
    refusals += 1
    return cloud.refused(code, None, call, **parameters)


def until(what, is_so):
    for _ in range(300):
        if is_so():
            return
        time.sleep(0.1)
    raise AssertionError(f"not {what}")


def told(id, ec2=ec2):
    [found] = ec2.describe_images(ImageIds=[id])["Images"]
    return found


def mapped(id, ec2=ec2):
    return {found["DeviceName"]: found["Ebs"] for found in told(id, ec2)["BlockDeviceMappings"]}


def launch(id, ec2=ec2, **more):
    [instance] = ec2.run_instances(ImageId=id, InstanceType="t2.micro", MinCount=1, MaxCount=1, **more)["Instances"]
    return instance["InstanceId"]


def volumes(instance, ec2=ec2):
    filters = [{"Name": "attachment.instance-id", "Values": [instance]}]
    return {found["Attachments"][0]["Device"]: found for found in ec2.describe_volumes(Filters=filters)["Volumes"]}


def snapshots(**parameters):
    return {found["SnapshotId"] for found in ec2.describe_snapshots(OwnerIds=["self"], **parameters)["Snapshots"]}


# An uploaded image has a snapshot, which is its own.
[root] = mapped(image).values()
assert list(mapped(image)) == [ROOT_DEVICE] and root["VolumeSize"] == 1 and root["DeleteOnTermination"] is True, root
base = root["SnapshotId"]
[found] = ec2.describe_snapshots(SnapshotIds=[base])["Snapshots"]
assert (found["State"], found["VolumeSize"], found["VolumeId"], found["OwnerId"]) == ("completed", 1, "vol-ffffffff", account), found
assert image in refused("InvalidSnapshot.InUse", ec2.delete_snapshot, SnapshotId=base)
one = launch(image, BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 3, "DeleteOnTermination": False}}])
wait("instance_running", InstanceIds=[one])
assert volumes(one)[ROOT_DEVICE]["SnapshotId"] == base and volumes(one)["/dev/sdf"]["SnapshotId"] == "", volumes(one)
data = ec2.create_snapshot(VolumeId=volumes(one)["/dev/sdf"]["VolumeId"])["SnapshotId"]
wait("snapshot_completed", SnapshotIds=[data])

# An image is registered of snapshots, with names of its own for devices.
mappings = [
    {"DeviceName": "/dev/sdg", "Ebs": {"VolumeSize": 4, "VolumeType": "io1", "Iops": 200}},
    {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": base, "VolumeSize": 2, "VolumeType": "gp2"}},
    {"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": data, "DeleteOnTermination": False}},
]
register = lambda **more: ec2.register_image(**{
    "Name": "by snapshots", "RootDeviceName": "/dev/xvda", "BlockDeviceMappings": mappings, "Architecture": "x86_64",
    "VirtualizationType": "hvm", **more,
})
drivers = dict(EnaSupport=True, SriovNetSupport="simple")
made = register(**drivers, Description="of snapshots", TagSpecifications=[{"ResourceType": "image", "Tags": [{"Key": "Name", "Value": "mine"}]}])["ImageId"]
wait("image_available", ImageIds=[made])
found = told(made)
assert (found["RootDeviceName"], found["Description"], found["BootMode"], found["State"]) == ("/dev/xvda", "of snapshots", "legacy-bios", "available"), found
assert found["Tags"] == [{"Key": "Name", "Value": "mine"}]
# The drivers that an image is said to have are told of it, and of no other.
driver = ec2.describe_image_attribute(ImageId=made, Attribute="sriovNetSupport")["SriovNetSupport"]
assert (found["EnaSupport"], found["SriovNetSupport"], driver) == (True, "simple", {"Value": "simple"}), found
assert told(image)["EnaSupport"] is False and "SriovNetSupport" not in told(image), told(image)
for attribute in ("imdsSupport", "kernel", "productCodes", "ramdisk", "sriovNetSupport", "tpmSupport"):
    answer = ec2.describe_image_attribute(ImageId=image, Attribute=attribute)
    assert {name: value for name, value in answer.items() if name != "ResponseMetadata" and value != []} == {"ImageId": image}, answer
    assert answer["ProductCodes"] == [], answer
devices = mapped(made)
assert list(devices) == ["/dev/xvda", "/dev/sdf", "/dev/sdg"], devices
assert (devices["/dev/xvda"]["SnapshotId"], devices["/dev/xvda"]["VolumeSize"], devices["/dev/xvda"]["VolumeType"]) == (base, 2, "gp2")
assert (devices["/dev/sdf"]["SnapshotId"], devices["/dev/sdf"]["VolumeSize"], devices["/dev/sdf"]["DeleteOnTermination"]) == (data, 3, False)
assert "SnapshotId" not in devices["/dev/sdg"] and devices["/dev/sdg"]["Iops"] == 200, devices
by = lambda name, value: {found["ImageId"] for found in ec2.describe_images(Filters=[{"Name": name, "Values": [value]}])["Images"]}
assert by("block-device-mapping.snapshot-id", data) == {made} and by("block-device-mapping.snapshot-id", base) == {image, made}
assert by("sriov-net-support", "simple") == by("ena-support", "true") == {made}
assert made in refused("InvalidSnapshot.InUse", ec2.delete_snapshot, SnapshotId=data)
other = launch(made, BlockDeviceMappings=[
    {"DeviceName": "/dev/xvdf", "Ebs": {"VolumeSize": 5, "DeleteOnTermination": True}}, {"DeviceName": "/dev/sdg", "NoDevice": ""},
])
wait("instance_running", InstanceIds=[other])
there = volumes(other)
assert {device: (v["Size"], v["SnapshotId"], v["VolumeType"]) for device, v in there.items()} == {
    ROOT_DEVICE: (2, base, "gp2"), "/dev/xvdf": (5, data, "gp3"),
}, there
plain = launch(made)
wait("instance_running", InstanceIds=[plain])
there = volumes(plain)
assert {device: (v["Size"], v["SnapshotId"]) for device, v in there.items()} == {
    ROOT_DEVICE: (2, base), "/dev/sdf": (3, data), "/dev/sdg": (4, ""),
}, there
assert there["/dev/sdg"]["Iops"] == 200 and there["/dev/sdf"]["Attachments"][0]["DeleteOnTermination"] is False

# An image of an instance: of one that runs only without a reboot.
create = lambda **more: ec2.create_image(**{"InstanceId": plain, "Name": "of an instance", **more})
tags = [{"ResourceType": kind, "Tags": [{"Key": "of", "Value": kind}]} for kind in ("image", "snapshot")]
before = snapshots()
running = create(NoReboot=True, Description="it runs", TagSpecifications=tags, BlockDeviceMappings=[
    {"DeviceName": "/dev/xvdg", "NoDevice": ""}, {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 6, "VolumeType": "gp2"}},
    {"DeviceName": "/dev/sdh", "Ebs": {"VolumeSize": 1}},
])["ImageId"]
wait("image_available", ImageIds=[running])
found = told(running)
assert (found["SourceInstanceId"], found["Tags"], found["BootMode"]) == (plain, [{"Key": "of", "Value": "image"}], "legacy-bios"), found
devices = mapped(running)
assert {device: (ebs["VolumeSize"], ebs["VolumeType"]) for device, ebs in devices.items()} == {
    ROOT_DEVICE: (2, "gp2"), "/dev/sdf": (6, "gp2"), "/dev/sdh": (1, "gp3"),
}, devices
new = snapshots() - before
assert new == {devices[ROOT_DEVICE]["SnapshotId"], devices["/dev/sdf"]["SnapshotId"]} and "SnapshotId" not in devices["/dev/sdh"]
assert snapshots(Filters=[{"Name": "tag:of", "Values": ["snapshot"]}]) == new
[found] = ec2.describe_snapshots(SnapshotIds=[devices[ROOT_DEVICE]["SnapshotId"]])["Snapshots"]
assert found["Description"] == f"Created by CreateImage({plain}) for {running}", found
assert by("source-instance-id", plain) == {running}
state = lambda id: ec2.describe_instances(InstanceIds=[id])["Reservations"][0]["Instances"][0]
address = state(plain)["PublicIpAddress"]
rebooted = create(Name="of a rebooted one")["ImageId"]
wait("image_available", ImageIds=[rebooted])
wait("instance_running", InstanceIds=[plain])
assert state(plain)["PublicIpAddress"] == address and list(mapped(rebooted)) == [ROOT_DEVICE, "/dev/sdf", "/dev/sdg"]
ec2.stop_instances(InstanceIds=[plain])
wait("instance_stopped", InstanceIds=[plain])
stopped = create(Name="of a stopped one")["ImageId"]
wait("image_available", ImageIds=[stopped])
assert list(mapped(stopped)) == [ROOT_DEVICE, "/dev/sdf", "/dev/sdg"]
again = launch(running)
wait("instance_running", InstanceIds=[again])
assert volumes(again)["/dev/sdf"]["SnapshotId"] == devices["/dev/sdf"]["SnapshotId"]

# Copies share what is stored, near and far; a token makes one.
copy = dict(SourceRegion=region, SourceImageId=made, Name="copy", ClientToken="once", CopyImageTags=True)
near = ec2.copy_image(**copy)["ImageId"]
assert ec2.copy_image(**copy)["ImageId"] == near and near != made
refused("IdempotentParameterMismatch", ec2.copy_image, **{**copy, "Name": "another"})
wait("image_available", ImageIds=[near])
assert (told(near)["SourceImageId"], told(near)["SourceImageRegion"], told(near)["Tags"]) == (made, region, told(made)["Tags"])
assert mapped(near)["/dev/xvda"]["SnapshotId"] not in (None, base) and list(mapped(near)) == list(mapped(made))
away = far.copy_image(SourceRegion=region, SourceImageId=made, Name="copy", Description="away", TagSpecifications=tags)["ImageId"]
wait("image_available", ec2=far, ImageIds=[away])
assert told(away, far)["Description"] == "away" and told(away, far)["Tags"] == [{"Key": "of", "Value": "image"}]
for ebs in mapped(away, far).values():
    if "SnapshotId" in ebs:
        [found] = far.describe_snapshots(SnapshotIds=[ebs["SnapshotId"]])["Snapshots"]
        assert (found["State"], found["Tags"]) == ("completed", [{"Key": "of", "Value": "snapshot"}]), found

# Whoever may launch an image gets its volumes, and no right to its snapshots.
ec2.modify_image_attribute(ImageId=made, Attribute="LaunchPermission", LaunchPermission={"Add": [{"UserId": tenant_account}]})
theirs = launch(made, tenant)
wait("instance_running", ec2=tenant, InstanceIds=[theirs])
assert volumes(theirs, tenant)["/dev/sdf"]["SnapshotId"] == data
refused("InvalidSnapshot.NotFound", tenant.create_volume, AvailabilityZone=ZONE, SnapshotId=data)

# What is refused.
blank = ec2.create_snapshot(VolumeId=ec2.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"])["SnapshotId"]
ec2.modify_snapshot_attribute(SnapshotId=blank, Attribute="createVolumePermission", OperationType="add", GroupNames=["all"])
root_of = lambda id, **ebs: {"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": id, **ebs}}]}
gone, nobody = "snap-0123456789abcdef0", "i-0123456789abcdef0"
for code, call, parameters in [
    ("InvalidAMIName.Duplicate", register, dict()),
    ("UnknownParameter", register, dict(Name="new", KernelId="aki-0123abcd")),
    ("InvalidParameterValue", register, dict(Name="new", SriovNetSupport="other")),
    ("InvalidParameterValue", register, dict(Name="new", ImageLocation="bucket/manifest.xml")),
    ("MissingParameter", ec2.register_image, dict()),
    ("InvalidAMIName.Malformed", register, dict(Name="x")),
    ("InvalidParameterValue", register, dict(Name="new", Description="x" * 256)),
    ("InvalidParameterValue", register, dict(Name="new", Architecture="arm64")),
    ("InvalidParameterValue", register, dict(Name="new", VirtualizationType="paravirtual")),
    ("InvalidParameterValue", register, dict(Name="new", BootMode="bios")),
    ("InvalidParameterValue", register, dict(Name="new", BootMode="uefi")),
    ("InvalidParameterValue", register, dict(Name="new", RootDeviceName="/dev/sdf")),
    ("MissingParameter", register, dict(Name="new", BlockDeviceMappings=[])),
    ("MissingParameter", register, dict(Name="new", **root_of("", VolumeSize=1))),
    ("InvalidSnapshot.NotFound", register, dict(Name="new", **root_of(gone))),
    ("InvalidSnapshotID.Malformed", register, dict(Name="new", **root_of("x"))),
    ("InvalidBlockDeviceMapping", register, dict(Name="new", **root_of(data, VolumeSize=2))),
    ("InvalidBlockDeviceMapping", register, dict(Name="new", **root_of(base, VolumeType="st1", VolumeSize=125))),
    ("InvalidBlockDeviceMapping", register, dict(Name="new", **root_of(blank))),
    ("InvalidParameterValue", register, dict(Name="new", **root_of(data))),
    ("DryRunOperation", register, dict(Name="new", DryRun=True)),
    ("AuthFailure", tenant.register_image, dict(Name="new", **root_of(blank))),
    ("InvalidInstanceID.NotFound", create, dict(Name="new", InstanceId=nobody)),
    ("InvalidAMIName.Duplicate", create, dict()),
    ("InvalidBlockDeviceMapping", create, dict(Name="new", **root_of(base))),
    ("InvalidBlockDeviceMapping", create, dict(Name="new", BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "NoDevice": ""}])),
    ("InvalidBlockDeviceMapping", create, dict(Name="new", BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 2}}])),
    ("DryRunOperation", create, dict(Name="new", DryRun=True)),
    ("MissingParameter", ec2.copy_image, dict(Name="new", SourceImageId=made)),
    ("InvalidAMIID.NotFound", ec2.copy_image, dict(Name="new", SourceImageId="ami-0123456789abcdef0", SourceRegion=region)),
    ("InvalidAMIID.NotFound", ec2.copy_image, dict(Name="new", SourceImageId=made, SourceRegion=far_region)),
    ("InvalidAMIID.NotFound", tenant.copy_image, dict(Name="new", SourceImageId=running, SourceRegion=region)),
    ("InvalidAMIName.Duplicate", ec2.copy_image, dict(Name="copy", SourceImageId=made, SourceRegion=region)),
    ("InvalidKMSKey.NotFound", ec2.copy_image, dict(Name="new", SourceImageId=made, SourceRegion=region, Encrypted=True, KmsKeyId="alias/mine")),
    ("DryRunOperation", ec2.copy_image, dict(Name="new", SourceImageId=made, SourceRegion=region, DryRun=True)),
]:
    refused(code, call, **parameters)

# Deregistered, an image leaves its snapshots, unless they shall go, and other images are not made of them.
answer = ec2.deregister_image(ImageId=running)
assert answer["Return"] is True and not answer.get("DeleteSnapshotResults") and new <= snapshots()
for id in new:
    ec2.delete_snapshot(SnapshotId=id)
answer = ec2.deregister_image(ImageId=made, DeleteAssociatedSnapshots=True)["DeleteSnapshotResults"]
assert {found["SnapshotId"]: found["ReturnCode"] for found in answer} == {base: "skipped", data: "success"}, answer
refused("InvalidAMIID.Unavailable", launch, id=made)
refused("InvalidSnapshot.NotFound", ec2.describe_snapshots, SnapshotIds=[data])
assert volumes(again)["/dev/sdf"]["SnapshotId"] in new
print("FIGURE refusals", refusals)
print("done")
