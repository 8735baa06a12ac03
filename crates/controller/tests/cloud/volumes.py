"""The life of volumes, and what is refused, as botocore has them. usage: volumes.py ENDPOINT REGION CREDENTIALS AMI"""

import json
import sys
import time

import cloud

endpoint, region, path, image = sys.argv[1:]
ROOT = cloud.owner(path)
client = cloud.Cloud(endpoint, region, ROOT).client
ZONE, OTHER_ZONE = f"{region}a", f"{region}b"
ROOT_DEVICE = "/dev/vda"

ec2, iam, quotas = client("ec2"), client("iam"), client("service-quotas")
wait = cloud.waits(ec2)
refusals = 0


def refused(code, call, **parameters):
    global refusals
    refusals += 1
    return cloud.refused(code, (400, 403, 412, 500), call, **parameters)


def volume(id):
    [found] = ec2.describe_volumes(VolumeIds=[id])["Volumes"]
    return found


def attachment(id):
    [found] = volume(id)["Attachments"]
    return found


def devices(id):
    [reservation] = ec2.describe_instances(InstanceIds=[id])["Reservations"]
    return {one["DeviceName"]: one["Ebs"] for one in reservation["Instances"][0]["BlockDeviceMappings"]}


def until(what, is_so):
    for _ in range(300):
        if is_so():
            return
        time.sleep(0.1)
    raise AssertionError(f"not {what}")


def attached(id):
    until(f"{id} attached", lambda: attachment(id)["State"] == "attached")


def launch(**more):
    [instance] = ec2.run_instances(ImageId=image, InstanceType="t2.micro", MinCount=1, MaxCount=1, **more)["Instances"]
    return instance["InstanceId"]


def create(size=1, **more):
    return ec2.create_volume(**{"AvailabilityZone": ZONE, "Size": size, **more})


# A volume is made in a zone, and is there.
tags = [{"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": "data"}]}]
made = create(10, VolumeType="gp3", Iops=4000, Throughput=200, TagSpecifications=tags)
data = made["VolumeId"]
expected = {
    "AvailabilityZone": ZONE, "Encrypted": False, "Iops": 4000, "MultiAttachEnabled": False, "Size": 10, "SnapshotId": "",
    "State": "available", "Tags": [{"Key": "Name", "Value": "data"}], "Throughput": 200, "VolumeType": "gp3",
}
for told in (made, volume(data)):
    assert {name: told[name] for name in expected} == expected, told
assert volume(data)["Attachments"] == [] and volume(data)["CreateTime"] == made["CreateTime"]
wait("volume_available", VolumeIds=[data])
gp2 = create(100)
assert (gp2["VolumeType"], gp2["Iops"]) == ("gp2", 300) and "Throughput" not in gp2, gp2
st1 = create(125, VolumeType="st1")
assert "Iops" not in st1 and "Throughput" not in st1 and "Tags" not in st1, st1
by_id = ec2.create_volume(AvailabilityZoneId=made["AvailabilityZoneId"], Size=1)
assert by_id["AvailabilityZone"] == ZONE, by_id
for one in (gp2, st1, by_id):
    # Nothing of them lies anywhere.
    ec2.delete_volume(VolumeId=one["VolumeId"])
    refused("InvalidVolume.NotFound", ec2.describe_volumes, VolumeIds=[one["VolumeId"]])

# The same token makes the same volume, in each zone.
token = {"ClientToken": "once", "VolumeType": "io1", "Iops": 200}
first, again = create(4, **token), create(4, **token)
assert first["VolumeId"] == again["VolumeId"] and first["CreateTime"] == again["CreateTime"]
refused("IdempotentParameterMismatch", create, size=5, **token)
elsewhere = create(4, AvailabilityZone=OTHER_ZONE, **token)
assert elsewhere["VolumeId"] != first["VolumeId"] and elsewhere["AvailabilityZone"] == OTHER_ZONE
ec2.delete_volume(VolumeId=first["VolumeId"])
refused("IncorrectState", create, size=4, **token)

# It is attached to a running instance, by its host.
one = launch()
wait("instance_running", InstanceIds=[one])
answer = ec2.attach_volume(VolumeId=data, InstanceId=one, Device="/dev/sdf")
assert answer["State"] == "attaching" and answer["Device"] == "/dev/sdf" and answer["DeleteOnTermination"] is False, answer
wait("volume_in_use", VolumeIds=[data])
attached(data)
found = attachment(data)
assert (found["InstanceId"], found["Device"], found["VolumeId"]) == (one, "/dev/sdf", data), found
assert {device: ebs["Status"] for device, ebs in devices(one).items()} == {ROOT_DEVICE: "attached", "/dev/sdf": "attached"}
root = devices(one)[ROOT_DEVICE]["VolumeId"]
by = lambda name, *values: {v["VolumeId"] for v in ec2.describe_volumes(Filters=[{"Name": name, "Values": list(values)}])["Volumes"]}
assert by("attachment.device", "/dev/sdf") == {data} and by("attachment.status", "attached") == {root, data}
assert by("status", "available") == {elsewhere["VolumeId"]} and by("volume-type", "gp3") == {root, data}
assert by("tag:Name", "d?ta") == {data} and by("availability-zone", OTHER_ZONE) == {elsewhere["VolumeId"]}
assert by("multi-attach-enabled", "true") == set() and by("size", "10") == {data}
assert by("attachment.instance-id", one) == {root, data} and by("availability-zone-id", made["AvailabilityZoneId"]) == {root, data}

# What is refused.
gone = "vol-0123456789abcdef0"
nobody = "i-0123456789abcdef0"
spare = create(1)["VolumeId"]
for code, call, parameters in [
    ("MissingParameter", ec2.create_volume, dict(AvailabilityZone=ZONE)),
    ("MissingParameter", ec2.create_volume, dict(Size=1)),
    ("MissingParameter", create, dict(VolumeType="io1", size=4)),
    ("MissingParameter", create, dict(VolumeType="io2", size=4)),
    ("InvalidZone.NotFound", create, dict(AvailabilityZone="us-east-1a")),
    ("InvalidZone.NotFound", ec2.create_volume, dict(AvailabilityZoneId="use1-az1", Size=1)),
    ("InvalidParameterCombination", create, dict(AvailabilityZoneId=made["AvailabilityZoneId"])),
    ("InvalidParameterValue", create, dict(size=0)),
    ("InvalidParameterValue", create, dict(size=-1)),
    ("InvalidParameterValue", create, dict(size=16385)),
    ("InvalidParameterValue", create, dict(size=2147483647, VolumeType="gp3")),
    ("InvalidParameterValue", create, dict(size=124, VolumeType="sc1")),
    ("InvalidParameterValue", create, dict(size=1025, VolumeType="standard")),
    ("UnknownVolumeType", create, dict(VolumeType="gp4")),
    ("UnknownVolumeType", create, dict(VolumeType="GP3")),
    ("InvalidParameterCombination", create, dict(Iops=3000)),
    ("InvalidParameterValue", create, dict(VolumeType="gp3", Iops=3001)),
    ("InvalidParameterValue", create, dict(VolumeType="gp3", Throughput=1000)),
    ("InvalidParameterDependency", create, dict(Throughput=125)),
    ("InvalidParameterDependency", create, dict(MultiAttachEnabled=True)),
    ("InvalidParameterValue", create, dict(size=4, VolumeType="io2", Iops=100, MultiAttachEnabled=True)),
    ("InvalidParameterDependency", create, dict(KmsKeyId="alias/mine")),
    ("InvalidKMSKey.NotFound", create, dict(Encrypted=True, KmsKeyId="alias/mine")),
    ("InvalidSnapshot.NotFound", ec2.create_volume, dict(AvailabilityZone=ZONE, SnapshotId="snap-0123456789abcdef0")),
    ("InvalidParameterValue", create, dict(ClientToken="x" * 65)),
    ("InvalidParameterValue", create, dict(TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}])),
    ("DryRunOperation", create, dict(DryRun=True)),
    ("UnknownParameter", create, dict(OutpostArn="arn:aws:outposts:x")),
    ("InvalidVolume.NotFound", ec2.delete_volume, dict(VolumeId=gone)),
    ("InvalidVolumeID.Malformed", ec2.delete_volume, dict(VolumeId="vol-x")),
    ("MissingParameter", ec2.delete_volume, dict()),
    ("VolumeInUse", ec2.delete_volume, dict(VolumeId=data)),
    ("VolumeInUse", ec2.delete_volume, dict(VolumeId=root)),
    ("MissingParameter", ec2.attach_volume, dict(VolumeId=spare, InstanceId=one)),
    ("MissingParameter", ec2.attach_volume, dict(VolumeId=spare, Device="/dev/sdg")),
    ("MissingParameter", ec2.attach_volume, dict(InstanceId=one, Device="/dev/sdg")),
    ("InvalidVolume.NotFound", ec2.attach_volume, dict(VolumeId=gone, InstanceId=one, Device="/dev/sdg")),
    ("InvalidInstanceID.NotFound", ec2.attach_volume, dict(VolumeId=spare, InstanceId=nobody, Device="/dev/sdg")),
    ("InvalidParameterValue", ec2.attach_volume, dict(VolumeId=spare, InstanceId=one, Device="/dev/sdf")),
    ("InvalidParameterValue", ec2.attach_volume, dict(VolumeId=spare, InstanceId=one, Device="xvdf")),
    ("InvalidParameterValue", ec2.attach_volume, dict(VolumeId=spare, InstanceId=one, Device="/dev/sdg1")),
    ("InvalidParameterValue", ec2.attach_volume, dict(VolumeId=spare, InstanceId=one, Device="/dev/nvme1n1")),
    ("IncorrectState", ec2.attach_volume, dict(VolumeId=spare, InstanceId=one, Device="/dev/sda1")),
    ("VolumeInUse", ec2.attach_volume, dict(VolumeId=data, InstanceId=one, Device="/dev/sdg")),
    ("InvalidVolume.ZoneMismatch", ec2.attach_volume, dict(VolumeId=elsewhere["VolumeId"], InstanceId=one, Device="/dev/sdg")),
    ("DryRunOperation", ec2.attach_volume, dict(VolumeId=spare, InstanceId=one, Device="/dev/sdg", DryRun=True)),
    ("IncorrectState", ec2.detach_volume, dict(VolumeId=spare)),
    ("InvalidAttachment.NotFound", ec2.detach_volume, dict(VolumeId=spare, InstanceId=one, Device="/dev/sdg")),
    ("InvalidAttachment.NotFound", ec2.detach_volume, dict(VolumeId=data, Device="/dev/sdg")),
    ("InvalidParameterValue", ec2.detach_volume, dict(VolumeId=data, Device="/dev/null")),
    ("InvalidInstanceID.NotFound", ec2.detach_volume, dict(VolumeId=data, InstanceId=nobody)),
    ("InvalidInstanceID.Malformed", ec2.detach_volume, dict(VolumeId=data, InstanceId="x")),
    ("InvalidVolume.NotFound", ec2.detach_volume, dict(VolumeId=gone)),
    ("OperationNotPermitted", ec2.detach_volume, dict(VolumeId=root)),
    ("OperationNotPermitted", ec2.detach_volume, dict(VolumeId=root, Force=True)),
    ("DryRunOperation", ec2.detach_volume, dict(VolumeId=data, DryRun=True)),
    ("MissingParameter", ec2.modify_volume, dict(VolumeId=data)),
    ("InvalidVolume.NotFound", ec2.modify_volume, dict(VolumeId=gone, Size=20)),
    ("InvalidParameterValue", ec2.modify_volume, dict(VolumeId=data, Size=9)),
    ("InvalidParameterValue", ec2.modify_volume, dict(VolumeId=data, Size=0)),
    ("InvalidParameterValue", ec2.modify_volume, dict(VolumeId=data, VolumeType="st1")),
    ("InvalidParameterValue", ec2.modify_volume, dict(VolumeId=data, Iops=80000)),
    ("InvalidParameterDependency", ec2.modify_volume, dict(VolumeId=data, VolumeType="gp2", Throughput=200)),
    ("UnknownVolumeType", ec2.modify_volume, dict(VolumeId=data, VolumeType="gp5")),
    ("InvalidParameterValue", ec2.modify_volume, dict(VolumeId=data, MultiAttachEnabled=True)),
    ("InvalidParameterValue", ec2.modify_volume, dict(VolumeId=root, VolumeType="sc1", Size=125)),
    ("InsufficientVolumeCapacity", ec2.modify_volume, dict(VolumeId=data, Size=16384)),
    ("InvalidVolumeModification.NotFound", ec2.describe_volumes_modifications, dict(VolumeIds=[data])),
    ("InvalidVolume.NotFound", ec2.describe_volumes_modifications, dict(VolumeIds=[gone])),
    ("InvalidVolume.NotFound", ec2.describe_volume_status, dict(VolumeIds=[gone])),
    ("InvalidParameterValue", ec2.describe_volumes, dict(Filters=[{"Name": "nonsense", "Values": ["x"]}])),
    ("InvalidParameterCombination", ec2.describe_volumes, dict(VolumeIds=[data], MaxResults=5)),
    ("InvalidParameterValue", ec2.describe_volume_attribute, dict(VolumeId=data, Attribute="size")),
    ("MissingParameter", ec2.modify_volume_attribute, dict(VolumeId=data)),
    ("InvalidVolume.NotFound", ec2.modify_volume_attribute, dict(VolumeId=gone, AutoEnableIO={"Value": True})),
    ("InvalidVolume.NotFound", ec2.enable_volume_io, dict(VolumeId=gone)),
]:
    refused(code, call, **parameters)
mapped = lambda *mappings: dict(ImageId=image, MinCount=1, MaxCount=1, BlockDeviceMappings=list(mappings))
for code, mappings in [
    ("MissingParameter", [{"DeviceName": "/dev/sdf"}]),
    ("MissingParameter", [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeType": "gp2"}}]),
    ("MissingParameter", [{"Ebs": {"VolumeSize": 1}}]),
    ("InvalidBlockDeviceMapping", [{"DeviceName": "/dev/sda2", "Ebs": {"VolumeSize": 1}}]),
    ("InvalidBlockDeviceMapping", [{"DeviceName": name, "Ebs": {"VolumeSize": 1}} for name in ("/dev/sdf", "/dev/xvdf")]),
    ("InvalidBlockDeviceMapping", [{"DeviceName": name, "Ebs": {"VolumeSize": 1}} for name in ("/dev/sda1", "/dev/xvda")]),
    ("InvalidBlockDeviceMapping", [{"DeviceName": "/dev/sda1", "NoDevice": ""}]),
    ("InvalidBlockDeviceMapping", [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeType": "st1", "VolumeSize": 125}}]),
    ("InvalidKMSKey.NotFound", [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "Encrypted": True, "KmsKeyId": "alias/mine"}}]),
    ("InvalidParameterDependency", [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "KmsKeyId": "alias/mine"}}]),
    ("InvalidSnapshot.NotFound", [{"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": "snap-0123456789abcdef0"}}]),
    ("InvalidRequest", [{"DeviceName": "/dev/sdf", "NoDevice": "yes"}]),
    ("InvalidParameterValue", [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "VolumeType": "gp3", "Iops": 3001}}]),
    ("InvalidParameterValue", [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": -1}}]),
    ("AttachmentLimitExceeded", [{"DeviceName": f"/dev/xvdb{chr(n)}", "Ebs": {"VolumeSize": 1}} for n in range(97, 123)]),
    ("InsufficientInstanceCapacity", [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 16384}}]),
    ("InvalidBlockDeviceMapping", [{"DeviceName": "/dev/sdf", "VirtualName": "memory0"}]),
]:
    refused(code, ec2.run_instances, **mapped(*mappings))

# Its size grows while it runs; a type changes at once.
change = ec2.modify_volume(VolumeId=data, Size=12, Iops=5000)["VolumeModification"]
assert change["ModificationState"] == "modifying" and (change["OriginalSize"], change["TargetSize"]) == (10, 12), change
assert (change["OriginalIops"], change["TargetIops"], change["TargetThroughput"]) == (4000, 5000, 200), change
modification = lambda id: ec2.describe_volumes_modifications(VolumeIds=[id])["VolumesModifications"][0]
until("completed", lambda: modification(data)["ModificationState"] == "completed")
assert modification(data)["Progress"] == 100 and modification(data)["EndTime"], modification(data)
assert (volume(data)["Size"], volume(data)["Iops"]) == (12, 5000), volume(data)
for kind, progress in [("io1", "completed"), ("gp2", "completed"), ("gp3", "completed")]:
    parameters = {"Iops": 500} if kind == "io1" else {}
    change = ec2.modify_volume(VolumeId=data, VolumeType=kind, **parameters)["VolumeModification"]
    assert change["ModificationState"] == progress and change["TargetVolumeType"] == kind, change
assert (volume(data)["Iops"], volume(data)["Throughput"]) == (3000, 125), volume(data)
assert "24 hours" in refused("VolumeModificationRateExceeded", ec2.modify_volume, VolumeId=data, Size=13)
states = [{"Name": "modification-state", "Values": ["completed"]}, {"Name": "target-volume-type", "Values": ["gp3"]}]
[found] = ec2.describe_volumes_modifications(Filters=states)["VolumesModifications"]
assert found["VolumeId"] == data and found["OriginalVolumeType"] == "gp2", found

# Its status, and its attribute.
[status] = ec2.describe_volume_status(VolumeIds=[data])["VolumeStatuses"]
assert status["VolumeStatus"]["Status"] == "ok" and status["AvailabilityZone"] == ZONE, status
assert {"Name": "io-enabled", "Status": "passed"} in status["VolumeStatus"]["Details"], status
ok = [{"Name": "volume-status.status", "Values": ["ok"]}]
assert len(ec2.describe_volume_status(Filters=ok)["VolumeStatuses"]) == 4
auto = lambda: ec2.describe_volume_attribute(VolumeId=data, Attribute="autoEnableIO")["AutoEnableIO"]["Value"]
assert auto() is False
ec2.modify_volume_attribute(VolumeId=data, AutoEnableIO={"Value": True})
assert auto() is True
assert ec2.describe_volume_attribute(VolumeId=data, Attribute="productCodes")["ProductCodes"] == []
ec2.enable_volume_io(VolumeId=data)
pages = ec2.get_paginator("describe_volumes").paginate(PaginationConfig={"PageSize": 5})
assert len([v for page in pages for v in page["Volumes"]]) == 4

# It is detached, attached to another instance on the same host, and is gone from the first.
answer = ec2.detach_volume(VolumeId=data, InstanceId=one, Device="/dev/xvdf")
assert answer["State"] == "detaching", answer
wait("volume_available", VolumeIds=[data])
assert list(devices(one)) == [ROOT_DEVICE]
other = launch(BlockDeviceMappings=[
    {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 2, "VolumeType": "gp2"}},
    {"DeviceName": "/dev/sdh", "Ebs": {"VolumeSize": 3, "DeleteOnTermination": False}},
    {"DeviceName": "/dev/sdg", "Ebs": {"VolumeSize": 4, "VolumeType": "io2", "Iops": 1000}},
    {"DeviceName": "/dev/sdi", "NoDevice": ""},
])
wait("instance_running", InstanceIds=[other])
assert list(devices(other)) == [ROOT_DEVICE, "/dev/sdg", "/dev/sdh"], devices(other)
kept, goes = devices(other)["/dev/sdh"]["VolumeId"], devices(other)["/dev/sdg"]["VolumeId"]
other_root = devices(other)[ROOT_DEVICE]["VolumeId"]
assert (volume(other_root)["VolumeType"], volume(other_root)["Size"]) == ("gp2", 2)
assert (volume(goes)["VolumeType"], volume(goes)["Iops"], volume(goes)["Size"]) == ("io2", 1000, 4)
assert attachment(goes)["DeleteOnTermination"] is True and attachment(kept)["DeleteOnTermination"] is False
ec2.attach_volume(VolumeId=data, InstanceId=other, Device="/dev/xvdba")
attached(data)

# A stopped instance gets and loses volumes at once, its root volume, too.
ec2.stop_instances(InstanceIds=[other])
wait("instance_stopped", InstanceIds=[other])
assert ec2.attach_volume(VolumeId=spare, InstanceId=other, Device="sdf")["State"] == "attached"
assert ec2.detach_volume(VolumeId=data)["State"] == "detached" and volume(data)["State"] == "available"
assert ec2.modify_volume(VolumeId=spare, Size=2)["VolumeModification"]["ModificationState"] == "completed"
ec2.detach_volume(VolumeId=other_root)
message = refused("InvalidParameterValue", ec2.start_instances, InstanceIds=[other])
assert "volume attached at root" in message, message
ec2.attach_volume(VolumeId=other_root, InstanceId=other, Device="/dev/sda1")
assert attachment(other_root)["Device"] == ROOT_DEVICE
ec2.start_instances(InstanceIds=[other])
wait("instance_running", InstanceIds=[other])
assert list(devices(other)) == [ROOT_DEVICE, "/dev/sdg", "/dev/sdh", "sdf"], devices(other)

# DeleteOnTermination, of any device.
attribute = lambda *mappings: ec2.modify_instance_attribute(InstanceId=other, BlockDeviceMappings=[
    {"DeviceName": device, "Ebs": {"DeleteOnTermination": is_so}} for device, is_so in mappings
])
attribute(("/dev/sdf", True), ("/dev/xvdg", True), ("/dev/sda1", False))
refused("InvalidInstanceAttributeValue", lambda: attribute(("/dev/sdz", True)))
assert {device: ebs["DeleteOnTermination"] for device, ebs in devices(other).items()} == {
    ROOT_DEVICE: False, "/dev/sdg": True, "/dev/sdh": False, "sdf": True,
}
ec2.terminate_instances(InstanceIds=[other])
wait("instance_terminated", InstanceIds=[other])
wait("volume_deleted", VolumeIds=[spare])
refused("InvalidVolume.NotFound", ec2.describe_volumes, VolumeIds=[goes])
for left in (kept, other_root, data):
    assert volume(left)["State"] == "available" and volume(left)["Attachments"] == [], volume(left)
    ec2.delete_volume(VolumeId=left)
    wait("volume_deleted", VolumeIds=[left])

# Quotas count what is there, whether it lies anywhere or not.
quota = lambda code: quotas.get_service_quota(ServiceCode="ebs", QuotaCode=code)["Quota"]
assert quota("L-D18FCD1D")["Value"] == 50 and "gp2" in quota("L-D18FCD1D")["QuotaName"]
large = [create(16384)["VolumeId"] for _ in range(3)]
refused("VolumeLimitExceeded", create, size=16384)
create(2048)
fast = [create(256, VolumeType="io2", Iops=100000)["VolumeId"]]
refused("MaxIOPSLimitExceeded", create, size=4, VolumeType="io2", Iops=100)
large = [id for id in by("status", "available") if id != elsewhere["VolumeId"]]
for id in large:
    ec2.delete_volume(VolumeId=id)

# Who may do what with which volume.
iam.create_user(UserName="anna")
key = iam.create_access_key(UserName="anna")["AccessKey"]
hers = client("ec2", (key["AccessKeyId"], key["SecretAccessKey"]))
account = client("sts").get_caller_identity()["Account"]
arn = lambda kind, id: f"arn:aws:ec2:{region}:{account}:{kind}/{id}"


def may(*statements):
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **one} for one in statements]}
    iam.put_user_policy(UserName="anna", PolicyName="may", PolicyDocument=json.dumps(document))


small = {"NumericLessThanEquals": {"ec2:VolumeSize": "10"}, "StringEquals": {"ec2:VolumeType": "gp3"}}
may({"Action": "ec2:CreateVolume", "Resource": arn("volume", "*"), "Condition": small})
allowed = hers.create_volume(AvailabilityZone=ZONE, Size=10, VolumeType="gp3")["VolumeId"]
for parameters in (dict(Size=11, VolumeType="gp3"), dict(Size=10), dict(Size=10, VolumeType="gp3", TagSpecifications=tags)):
    refused("UnauthorizedOperation", hers.create_volume, AvailabilityZone=ZONE, **parameters)
may({"Action": "ec2:AttachVolume", "Resource": [arn("volume", allowed), arn("instance", "*")]})
refused("UnauthorizedOperation", hers.attach_volume, VolumeId=elsewhere["VolumeId"], InstanceId=one, Device="/dev/sdf")
hers.attach_volume(VolumeId=allowed, InstanceId=one, Device="/dev/sdf")
attached(allowed)
refused("UnauthorizedOperation", hers.detach_volume, VolumeId=allowed)
may({"Action": "ec2:DetachVolume", "Resource": arn("volume", "*")})
# The instance is a resource of it, also when it is not named.
refused("UnauthorizedOperation", hers.detach_volume, VolumeId=allowed)
may({"Action": "ec2:DetachVolume", "Resource": [arn("volume", "*"), arn("instance", one)]})
hers.detach_volume(VolumeId=allowed)
wait("volume_available", VolumeIds=[allowed])
launching = {"Action": "ec2:RunInstances", "Resource": "*"}
of_volumes = {"StringEqualsIfExists": {"ec2:VolumeType": "gp3"}}
may({**launching, "Condition": of_volumes})
dry = dict(ImageId=image, MinCount=1, MaxCount=1, DryRun=True)
blank = lambda kind: [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "VolumeType": kind}}]
refused("DryRunOperation", hers.run_instances, **dry, BlockDeviceMappings=blank("gp3"))
refused("UnauthorizedOperation", hers.run_instances, **dry, BlockDeviceMappings=blank("gp2"))
ec2.delete_volume(VolumeId=allowed)
wait("volume_deleted", VolumeIds=[allowed])
ec2.delete_volume(VolumeId=elsewhere["VolumeId"])
ec2.terminate_instances(InstanceIds=[one])
wait("instance_terminated", InstanceIds=[one])
assert ec2.describe_volumes()["Volumes"] == [], ec2.describe_volumes()
print(f"FIGURE volumes: {refusals} refusals; done")
