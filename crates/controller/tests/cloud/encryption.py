"""Encrypted volumes, snapshots and images, and what is refused, as botocore has them.
usage: encryption.py ENDPOINT REGION CREDENTIALS AMI OTHER-REGION TENANT-KEY-ID TENANT-SECRET"""

import json
import pathlib
import sys
import time

import cloud

endpoint, region, path, image, far_region, *TENANT = sys.argv[1:]
ROOT = cloud.owner(path)
client = cloud.Cloud(endpoint, region, ROOT).client
ZONE = f"{region}a"
ec2, far, tenant = client("ec2"), client("ec2", region=far_region), client("ec2", TENANT)
wait = cloud.waits(ec2)
kms, far_kms = client("kms"), client("kms", region=far_region)
account, tenant_account = (client("sts", key).get_caller_identity()["Account"] for key in (ROOT, TENANT))
chunks = pathlib.Path(path).parent / "repository" / "chunks"
refusals = 0


def refused(code, call, **parameters):
    global refusals
    refusals += 1
    return cloud.refused(code, (400, 401, 403, 412), call, **parameters)


def volume(id):
    [found] = ec2.describe_volumes(VolumeIds=[id])["Volumes"]
    return found


def snapshot(id, ec2=ec2):
    [found] = ec2.describe_snapshots(SnapshotIds=[id])["Snapshots"]
    return found


def made(**more):
    return ec2.create_volume(AvailabilityZone=ZONE, **{"Size": 1, **more} if "SnapshotId" not in more else more)


def launch(id=image, ec2=ec2, **more):
    [instance] = ec2.run_instances(ImageId=id, InstanceType="t2.micro", MinCount=1, MaxCount=1, **more)["Instances"]
    return instance["InstanceId"]


def volumes(instance):
    filters = [{"Name": "attachment.instance-id", "Values": [instance]}]
    return {found["Attachments"][0]["Device"]: found for found in ec2.describe_volumes(Filters=filters)["Volumes"]}


def snap(volume, ec2=ec2, **more):
    id = ec2.create_snapshot(VolumeId=volume, **more)["SnapshotId"]
    wait("snapshot_completed", SnapshotIds=[id])
    return id


def stored(text):
    """Whether something lies in the repository as it is."""
    return any(text.encode() in file.read_bytes() for file in chunks.glob("*/*"))


def count():
    return sum(1 for _ in chunks.glob("*/*"))


one, two = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))

# Volumes.
plain = made()
assert plain["Encrypted"] is False and "KmsKeyId" not in plain, plain
assert made(Encrypted=False)["Encrypted"] is False
blank = made(Encrypted=True, KmsKeyId=one.rsplit("/")[-1])
assert (blank["Encrypted"], blank["KmsKeyId"]) == (True, one), blank
kms.create_alias(AliasName="alias/two", TargetKeyId=two.rsplit("/")[-1])
assert made(Encrypted=True, KmsKeyId="alias/two")["KmsKeyId"] == two
usual = made(Encrypted=True)
managed = kms.describe_key(KeyId="alias/aws/ebs")["KeyMetadata"]["Arn"]
assert usual["KmsKeyId"] == managed == made(Encrypted=True, KmsKeyId="alias/aws/ebs")["KmsKeyId"], usual
found = {one["VolumeId"] for one in ec2.describe_volumes(Filters=[{"Name": "encrypted", "Values": ["true"]}])["Volumes"]}
assert len(found) == 4 and blank["VolumeId"] in found and plain["VolumeId"] not in found

# Encryption by default.
assert ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False
assert ec2.enable_ebs_encryption_by_default()["EbsEncryptionByDefault"] is True
assert ec2.get_ebs_encryption_by_default()["SseType"] == "sse-kms"
assert far.get_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False
assert tenant.get_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False
assert made()["KmsKeyId"] == managed and made(Encrypted=False)["Encrypted"] is True
assert ec2.modify_ebs_default_kms_key_id(KmsKeyId=two)["KmsKeyId"] == two == ec2.get_ebs_default_kms_key_id()["KmsKeyId"]
assert made()["KmsKeyId"] == two and made(KmsKeyId=one)["KmsKeyId"] == one
assert all(found["KmsKeyId"] == two for found in volumes(launch()).values())
assert ec2.reset_ebs_default_kms_key_id()["KmsKeyId"] == managed
assert ec2.disable_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False
assert made()["Encrypted"] is False

# What is stored of an encrypted volume cannot be read there, and what is stored of a plain one can.
instance = launch(BlockDeviceMappings=[
    {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 2, "Encrypted": True, "KmsKeyId": one}}, {"DeviceName": "/dev/sdg", "Ebs": {"VolumeSize": 1}},
    {"DeviceName": "/dev/sda1", "Ebs": {"Encrypted": True, "KmsKeyId": "alias/two"}},
])
wait("instance_running", InstanceIds=[instance])
devices = volumes(instance)
assert [devices[name].get("KmsKeyId") for name in ("/dev/vda", "/dev/sdf", "/dev/sdg")] == [two, one, None], devices
secret, open_ = devices["/dev/sdf"]["VolumeId"], devices["/dev/sdg"]["VolumeId"]
first = ec2.create_snapshot(VolumeId=secret)
assert first["Encrypted"] is True and first["KmsKeyId"] == one, first
first = first["SnapshotId"]
wait("snapshot_completed", SnapshotIds=[first])
unlocked = snap(open_)
assert snapshot(unlocked)["Encrypted"] is False and "KmsKeyId" not in snapshot(unlocked)
assert stored(open_) and not stored(secret)
found = ec2.describe_snapshots(OwnerIds=["self"], Filters=[{"Name": "encrypted", "Values": ["true"]}])["Snapshots"]
assert [told["SnapshotId"] for told in found] == [first]
# The same again is stored once.
before = count()
assert snapshot(snap(secret))["KmsKeyId"] == one and count() == before
assert [told["Encrypted"] for told in ec2.create_snapshots(InstanceSpecification={"InstanceId": instance})["Snapshots"]] == [True, True, False]

# Volumes of it.
assert made(SnapshotId=first)["KmsKeyId"] == one and made(SnapshotId=first, Encrypted=True)["KmsKeyId"] == one
assert made(SnapshotId=first, Encrypted=True, KmsKeyId=two)["KmsKeyId"] == two
assert made(SnapshotId=unlocked, Encrypted=True, KmsKeyId=two)["KmsKeyId"] == two
assert volumes(launch(BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": first}}]))["/dev/sdf"]["KmsKeyId"] == one

# Copies: under the same key what is stored is shared; under another it is written anew.
before = count()
copy = lambda ec2=ec2, **more: ec2.copy_snapshot(SourceRegion=region, **{"SourceSnapshotId": first, **more})["SnapshotId"]
same = copy()
assert (snapshot(same)["State"], snapshot(same)["KmsKeyId"]) == ("completed", one) and count() == before
anew = copy(Encrypted=True, KmsKeyId=two)
wait("snapshot_completed", SnapshotIds=[anew])
assert snapshot(anew)["KmsKeyId"] == two and count() == before + 1
locked = copy(SourceSnapshotId=unlocked, Encrypted=True)
wait("snapshot_completed", SnapshotIds=[locked])
assert snapshot(locked)["KmsKeyId"] == managed and count() == before + 2
away = copy(far)
wait("snapshot_completed", ec2=far, SnapshotIds=[away])
assert snapshot(away, far)["KmsKeyId"] == far_kms.describe_key(KeyId="alias/aws/ebs")["KeyMetadata"]["Arn"] and count() == before + 3
assert not stored(secret)
# Of a volume that lies nowhere, and is under another key than its snapshot.
nowhere = made(SnapshotId=first, Encrypted=True, KmsKeyId=two)["VolumeId"]
assert snapshot(snap(nowhere))["KmsKeyId"] == two
assert snapshot(snap(made(SnapshotId=first)["VolumeId"]))["KmsKeyId"] == one

# Images.
name = iter(range(100))
create = lambda **more: ec2.create_image(InstanceId=instance, Name=f"image {next(name)}", NoReboot=True, **more)["ImageId"]
whole = create()
wait("image_available", ImageIds=[whole])
mapped = lambda id, ec2=ec2: {
    found["DeviceName"]: found["Ebs"] for found in ec2.describe_images(ImageIds=[id])["Images"][0]["BlockDeviceMappings"]
}
assert {device: ebs["Encrypted"] for device, ebs in mapped(whole).items()} == {"/dev/vda": True, "/dev/sdf": True, "/dev/sdg": False}
assert whole in {found["ImageId"] for found in ec2.describe_images(Filters=[{"Name": "block-device-mapping.encrypted", "Values": ["true"]}])["Images"]}
assert [volumes(launch(whole))[device].get("KmsKeyId") for device in ("/dev/vda", "/dev/sdf", "/dev/sdg")] == [two, one, None]
copied = ec2.copy_image(SourceImageId=image, SourceRegion=region, Name="encrypted", Encrypted=True, KmsKeyId=one)["ImageId"]
wait("image_available", ImageIds=[copied])
[root] = mapped(copied).values()
assert root["Encrypted"] is True and snapshot(root["SnapshotId"])["KmsKeyId"] == one, root
assert volumes(launch(copied))["/dev/vda"]["KmsKeyId"] == one
shared = ec2.copy_image(SourceImageId=copied, SourceRegion=region, Name="same")["ImageId"]
[found] = ec2.describe_images(ImageIds=[shared])["Images"]
assert found["State"] == "available", "nothing is written"
registered = ec2.register_image(Name="registered", RootDeviceName="/dev/sda1", BlockDeviceMappings=[
    {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": root["SnapshotId"]}}, {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "Encrypted": True}},
])["ImageId"]
found = volumes(launch(registered))
assert [found[device]["KmsKeyId"] for device in ("/dev/vda", "/dev/sdf")] == [one, managed], found

# Sharing: nobody else may use the key, unless its policy says so.
share = dict(CreateVolumePermission={"Add": [{"UserId": tenant_account}]})
refused("OperationNotPermitted", ec2.modify_snapshot_attribute, SnapshotId=locked, **share)
refused("OperationNotPermitted", ec2.modify_snapshot_attribute, SnapshotId=first, CreateVolumePermission={"Add": [{"Group": "all"}]})
ec2.modify_snapshot_attribute(SnapshotId=first, **share)
assert snapshot(first, tenant)["KmsKeyId"] == one
refused("InvalidKMSKey.NotFound", tenant.create_volume, AvailabilityZone=ZONE, SnapshotId=first)
refused("InvalidKMSKey.NotFound", tenant.copy_snapshot, SourceRegion=region, SourceSnapshotId=first)
refused("InvalidKMSKey.NotFound", tenant.create_volume, AvailabilityZone=ZONE, Size=1, Encrypted=True, KmsKeyId=one)
managed_image = ec2.copy_image(SourceImageId=image, SourceRegion=region, Name="managed", Encrypted=True)["ImageId"]
wait("image_available", ImageIds=[managed_image])
share = dict(LaunchPermission={"Add": [{"UserId": tenant_account}]})
refused("InvalidParameter", ec2.modify_image_attribute, ImageId=managed_image, **share)
refused("InvalidParameter", ec2.modify_image_attribute, ImageId=copied, LaunchPermission={"Add": [{"Group": "all"}]})
ec2.modify_image_attribute(ImageId=copied, **share)
refused("InvalidKMSKey.NotFound", launch, id=copied, ec2=tenant)
usual = kms.get_key_policy(KeyId=one)["Policy"]
let = lambda whom, *actions: {"Effect": "Allow", "Principal": {"AWS": whom}, "Action": [f"kms:{action}" for action in actions], "Resource": "*"}
grant = lambda *actions: kms.put_key_policy(KeyId=one, Policy=json.dumps({
    "Version": "2012-10-17", "Statement": [let(f"arn:aws:iam::{account}:root", "*"), let(tenant_account, *actions)],
}))
grant("DescribeKey", "Decrypt")
theirs = tenant.create_volume(AvailabilityZone=ZONE, SnapshotId=first)
assert theirs["KmsKeyId"] == one, theirs
refused("InvalidKMSKey.NotFound", tenant.create_volume, AvailabilityZone=ZONE, Size=1, Encrypted=True, KmsKeyId=one)
again = tenant.copy_snapshot(SourceRegion=region, SourceSnapshotId=first)["SnapshotId"]
assert snapshot(again, tenant)["KmsKeyId"] == one and snapshot(again, tenant)["OwnerId"] == tenant_account
moved = tenant.copy_snapshot(SourceRegion=region, SourceSnapshotId=first, Encrypted=True, KmsKeyId="alias/aws/ebs")["SnapshotId"]
wait("snapshot_completed", ec2=tenant, SnapshotIds=[moved])
assert snapshot(moved, tenant)["KmsKeyId"].startswith(f"arn:aws:kms:{region}:{tenant_account}:")
launched = launch(id=copied, ec2=tenant)
wait("instance_running", ec2=tenant, InstanceIds=[launched])
[device] = tenant.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [launched]}])["Volumes"]
assert device["KmsKeyId"] == one, device
copy_image = dict(SourceImageId=copied, SourceRegion=region, Name="theirs")
assert tenant.copy_image(**copy_image)["ImageId"]
attach = dict(VolumeId=theirs["VolumeId"], InstanceId=launched, Device="/dev/sdf")
refused("InvalidKMSKey.NotFound", tenant.attach_volume, **attach)
grant("Decrypt", "CreateGrant", "GenerateDataKeyWithoutPlaintext")
tenant.attach_volume(**attach)
assert tenant.create_volume(AvailabilityZone=ZONE, Size=1, Encrypted=True, KmsKeyId=one)["KmsKeyId"] == one
assert tenant.modify_ebs_default_kms_key_id(KmsKeyId=one)["KmsKeyId"] == one == tenant.get_ebs_default_kms_key_id()["KmsKeyId"]
assert tenant.create_volume(AvailabilityZone=ZONE, Size=1, Encrypted=True)["KmsKeyId"] == one
# What was let is not let any more: what runs goes on, and nothing begins.
kms.put_key_policy(KeyId=one, Policy=usual)
wait("volume_in_use", ec2=tenant, VolumeIds=[theirs["VolumeId"]])
for call, parameters in [
    (tenant.create_volume, dict(AvailabilityZone=ZONE, SnapshotId=first)), (tenant.create_volume, dict(AvailabilityZone=ZONE, Size=1, Encrypted=True)),
    (tenant.copy_snapshot, dict(SourceRegion=region, SourceSnapshotId=again)), (tenant.copy_image, copy_image | {"Name": "more"}),
    (launch, dict(id=copied, ec2=tenant)),
]:
    refused("InvalidKMSKey.NotFound", call, **parameters)
tenant.stop_instances(InstanceIds=[launched])
wait("instance_stopped", ec2=tenant, InstanceIds=[launched])
refused("InvalidKMSKey.NotFound", tenant.start_instances, InstanceIds=[launched])

# What is refused.
of = lambda device="/dev/sdf", **ebs: dict(BlockDeviceMappings=[{"DeviceName": device, "Ebs": ebs}])
register = lambda **ebs: dict(Name="of nothing", **of("/dev/sda1", SnapshotId=root["SnapshotId"], **ebs))
for code, call, parameters in [
    ("InvalidParameterCombination", ec2.create_volume, dict(AvailabilityZone=ZONE, SnapshotId=first, Encrypted=False)),
    ("InvalidParameterDependency", ec2.create_volume, dict(AvailabilityZone=ZONE, Size=1, KmsKeyId=one)),
    ("InvalidKMSKey.NotFound", ec2.create_volume, dict(AvailabilityZone=ZONE, Size=1, Encrypted=True, KmsKeyId="alias/nothing")),
    ("InvalidKMSKey.NotFound", far.create_volume, dict(AvailabilityZone=f"{far_region}a", Size=1, Encrypted=True, KmsKeyId=one)),
    ("InvalidParameterCombination", ec2.copy_snapshot, dict(SourceRegion=region, SourceSnapshotId=first, Encrypted=False)),
    ("InvalidParameterCombination", launch, of(SnapshotId=first, Encrypted=False)),
    ("InvalidBlockDeviceMapping", ec2.register_image, register(Encrypted=True)),
    ("InvalidBlockDeviceMapping", ec2.register_image, register(Encrypted=False)),
    ("InvalidBlockDeviceMapping", ec2.register_image, register(KmsKeyId=one)),
    ("InvalidBlockDeviceMapping", create, of(VolumeSize=2, Encrypted=False)),
    ("InvalidKMSKey.NotFound", ec2.modify_ebs_default_kms_key_id, dict(KmsKeyId="alias/nothing")),
    ("MissingParameter", ec2.modify_ebs_default_kms_key_id, dict()),
    ("DryRunOperation", ec2.enable_ebs_encryption_by_default, dict(DryRun=True)),
]:
    refused(code, call, **parameters)

# A key that is disabled: what runs goes on, and nothing begins.
spare = made(Encrypted=True, KmsKeyId=one)["VolumeId"]
idle = launch(BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "Encrypted": True, "KmsKeyId": one}}])
wait("instance_running", InstanceIds=[idle])
ec2.stop_instances(InstanceIds=[idle])
wait("instance_stopped", InstanceIds=[idle])
kms.disable_key(KeyId=one)
beginnings = [
    (ec2.create_volume, dict(AvailabilityZone=ZONE, Size=1, Encrypted=True, KmsKeyId=one)), (ec2.create_volume, dict(AvailabilityZone=ZONE, SnapshotId=first)),
    (ec2.attach_volume, dict(VolumeId=spare, InstanceId=instance, Device="/dev/sdh")), (ec2.start_instances, dict(InstanceIds=[idle])),
    (launch, dict(id=copied)), (launch, of(SnapshotId=first)), (ec2.copy_snapshot, dict(SourceRegion=region, SourceSnapshotId=first)),
    (ec2.modify_ebs_default_kms_key_id, dict(KmsKeyId=one)), (ec2.register_image, register()),
]
for call, parameters in beginnings:
    refused("InvalidKMSKey.InvalidState", call, **parameters)
[reservation] = ec2.describe_instances(InstanceIds=[instance])["Reservations"]
assert reservation["Instances"][0]["State"]["Name"] == "running"
assert snapshot(snap(secret))["State"] == "completed", "its volume is still open"
kms.enable_key(KeyId=one)
kms.schedule_key_deletion(KeyId=one, PendingWindowInDays=7)
for call, parameters in beginnings:
    assert "pending deletion" in refused("InvalidKMSKey.InvalidState", call, **parameters)
kms.cancel_key_deletion(KeyId=one)
kms.enable_key(KeyId=one)
ec2.attach_volume(VolumeId=spare, InstanceId=instance, Device="/dev/sdh")
ec2.start_instances(InstanceIds=[idle])
wait("instance_running", InstanceIds=[idle])
print("FIGURE refusals", refusals)
print("done")
