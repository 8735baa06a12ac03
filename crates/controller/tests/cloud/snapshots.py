"""The life of snapshots, and what is refused, as botocore has them.
usage: snapshots.py ENDPOINT REGION CREDENTIALS AMI OTHER-REGION TENANT-KEY-ID TENANT-SECRET"""

import json
import sys

import cloud

endpoint, region, path, image, far_region, *TENANT = sys.argv[1:]
ROOT = cloud.owner(path)
client = cloud.Cloud(endpoint, region, ROOT).client
ZONE = f"{region}a"
ROOT_DEVICE = "/dev/vda"

ec2, far, tenant, iam = client("ec2"), client("ec2", region=far_region), client("ec2", TENANT), client("iam")
wait = cloud.waits(ec2)
account, tenant_account = (client("sts", key).get_caller_identity()["Account"] for key in (ROOT, TENANT))
refusals = 0


def refused(code, call, **parameters):
    global refusals
    refusals += 1
    return cloud.refused(code, (400, 401, 403, 412), call, **parameters)


def snapshot(id, ec2=ec2):
    [found] = ec2.describe_snapshots(SnapshotIds=[id])["Snapshots"]
    return found


def ids(ec2=ec2, **parameters):
    return {found["SnapshotId"] for found in ec2.describe_snapshots(**parameters)["Snapshots"]} - UPLOADED


def by(name, *values):
    return ids(OwnerIds=["self"], Filters=[{"Name": name, "Values": list(values)}])


def tagged(**tags):
    return [{"ResourceType": "snapshot", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]


# A volume of a running instance.
UPLOADED = set()
UPLOADED = ids(OwnerIds=["self"])
assert len(UPLOADED) == 1, "the image's"
[instance] = ec2.run_instances(ImageId=image, InstanceType="t2.micro", MinCount=1, MaxCount=1, BlockDeviceMappings=[
    {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 3}}, {"DeviceName": "/dev/sdg", "Ebs": {"VolumeSize": 4}},
])["Instances"]
one = instance["InstanceId"]
wait("instance_running", InstanceIds=[one])
[reservation] = ec2.describe_instances(InstanceIds=[one])["Reservations"]
devices = {found["DeviceName"]: found["Ebs"]["VolumeId"] for found in reservation["Instances"][0]["BlockDeviceMappings"]}
root, data, more = devices[ROOT_DEVICE], devices["/dev/sdf"], devices["/dev/sdg"]
ec2.create_tags(Resources=[data], Tags=[{"Key": "Name", "Value": "data"}, {"Key": "own", "Value": "volume"}])
made = ec2.create_snapshot(VolumeId=data, Description="before", TagSpecifications=tagged(Name="first"))
first = made["SnapshotId"]
expected = {
    "VolumeId": data, "VolumeSize": 3, "Description": "before", "Encrypted": False, "OwnerId": account, "StorageTier": "standard",
    "Tags": [{"Key": "Name", "Value": "first"}],
}
wait("snapshot_completed", SnapshotIds=[first])
for told in (made, snapshot(first)):
    assert {name: told[name] for name in expected} == expected, told
told = snapshot(first)
assert (told["State"], told["Progress"], told["StartTime"]) == ("completed", "100%", made["StartTime"]), told
assert told["CompletionTime"] >= told["StartTime"] and "StateMessage" not in told, told

# A set of all volumes, and of some.
answer = ec2.create_snapshots(
    InstanceSpecification={"InstanceId": one}, Description="set", CopyTagsFromSource="volume", TagSpecifications=tagged(own="snapshot")
)["Snapshots"]
assert [(told["VolumeId"], told["VolumeSize"]) for told in answer] == [(root, 1), (data, 3), (more, 4)], answer
assert {tag["Key"]: tag["Value"] for tag in answer[1]["Tags"]} == {"Name": "data", "own": "snapshot"}, answer
whole_set = [told["SnapshotId"] for told in answer]
wait("snapshot_completed", SnapshotIds=whole_set)
part = {"InstanceId": one, "ExcludeBootVolume": True, "ExcludeDataVolumeIds": [data]}
[told] = ec2.create_snapshots(InstanceSpecification=part)["Snapshots"]
assert told["VolumeId"] == more and "Tags" not in told, told
wait("snapshot_completed", SnapshotIds=[told["SnapshotId"]])
ec2.delete_snapshot(SnapshotId=told["SnapshotId"])

# A copy, near and far.
near = ec2.copy_snapshot(SourceRegion=region, SourceSnapshotId=first, Description="copy", TagSpecifications=tagged(a="b"))
assert near["Tags"] == [{"Key": "a", "Value": "b"}]
near = near["SnapshotId"]
told = snapshot(near)
assert (told["State"], told["VolumeId"], told["VolumeSize"], told["Description"]) == ("completed", "vol-ffffffff", 3, "copy"), told
away = far.copy_snapshot(SourceRegion=region, SourceSnapshotId=first, DestinationRegion=far_region)["SnapshotId"]
wait("snapshot_completed", ec2=far, SnapshotIds=[away])
assert snapshot(away, far)["VolumeSize"] == 3
refused("InvalidSnapshot.NotFound", ec2.describe_snapshots, SnapshotIds=[away])
refused("InvalidSnapshot.NotFound", far.describe_snapshots, SnapshotIds=[first])

# All filters, and pages.
mine = {first, near, *whole_set}
assert ids(OwnerIds=["self"]) == mine and ids(OwnerIds=[account]) == mine and ids(OwnerIds=[tenant_account]) == set()
for name, value, found in [
    ("description", "bef*", {first}), ("encrypted", "false", mine), ("encrypted", "true", set()), ("owner-alias", "amazon", set()),
    ("owner-id", account, mine), ("progress", "100%", mine), ("snapshot-id", near, {near}), ("status", "completed", mine),
    ("status", "pending", set()), ("storage-tier", "standard", mine), ("storage-tier", "archive", set()), ("transfer-type", "standard", set()),
    ("volume-id", data, {first, whole_set[1]}), ("volume-size", "4", {whole_set[2]}), ("tag:Name", "first", {first}),
    ("tag-key", "own", set(whole_set)), ("start-time", made["StartTime"].strftime("%Y-%m-%dT%H:%M:*"), mine),
]:
    assert by(name, value) == found, (name, by(name, value))
pages = ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], PaginationConfig={"PageSize": 5})
assert len([found for page in pages for found in page["Snapshots"]]) == len(mine | UPLOADED)
assert {tag["ResourceId"] for tag in ec2.describe_tags(Filters=[{"Name": "resource-type", "Values": ["snapshot"]}])["Tags"]} == {
    first, near, *whole_set
}

# Shared with an account, with all, and taken back.
attribute = lambda: ec2.describe_snapshot_attribute(SnapshotId=first, Attribute="createVolumePermission")["CreateVolumePermissions"]
assert attribute() == [] and ids(ec2=tenant) == set()
refused("InvalidSnapshot.NotFound", tenant.create_volume, AvailabilityZone=ZONE, SnapshotId=first)
ec2.modify_snapshot_attribute(SnapshotId=first, CreateVolumePermission={"Add": [{"UserId": tenant_account}]})
assert attribute() == [{"UserId": tenant_account}]
assert ids(ec2=tenant) == {first} and ids(ec2=tenant, RestorableByUserIds=["self"]) == {first} and ids(ec2=tenant, OwnerIds=["self"]) == set()
assert "Tags" not in snapshot(first, tenant), "tags are the owner's alone"
theirs = tenant.create_volume(AvailabilityZone=ZONE, SnapshotId=first)
assert (theirs["Size"], theirs["SnapshotId"]) == (3, first), theirs
copied = tenant.copy_snapshot(SourceRegion=region, SourceSnapshotId=first)["SnapshotId"]
assert snapshot(copied, tenant)["OwnerId"] == tenant_account
for call, parameters in [
    (tenant.delete_snapshot, {}),
    (tenant.modify_snapshot_attribute, {"Attribute": "createVolumePermission", "OperationType": "add", "GroupNames": ["all"]}),
    (tenant.reset_snapshot_attribute, {"Attribute": "createVolumePermission"}),
    (tenant.describe_snapshot_attribute, {"Attribute": "createVolumePermission"}),
]:
    refused("AuthFailure", call, SnapshotId=first, **parameters)
ec2.modify_snapshot_attribute(SnapshotId=first, Attribute="createVolumePermission", OperationType="add", GroupNames=["all"])
assert {"Group": "all"} in attribute() and ids(RestorableByUserIds=["all"]) == {first}
ec2.modify_snapshot_attribute(SnapshotId=first, Attribute="createVolumePermission", OperationType="remove", UserIds=[tenant_account])
assert attribute() == [{"Group": "all"}] and ids(ec2=tenant, OwnerIds=[account]) == {first}
ec2.reset_snapshot_attribute(SnapshotId=first, Attribute="createVolumePermission")
assert attribute() == [] and ids(ec2=tenant) == {copied}
answer = ec2.describe_snapshot_attribute(SnapshotId=first, Attribute="productCodes")
assert answer["SnapshotId"] == first and answer["ProductCodes"] == [], answer

# Volumes of it, and what is refused.
spare = ec2.create_volume(AvailabilityZone=ZONE, SnapshotId=near, Size=5, VolumeType="gp3")
assert (spare["Size"], spare["SnapshotId"], spare["VolumeType"]) == (5, near, "gp3"), spare
[found] = ec2.describe_volumes(Filters=[{"Name": "snapshot-id", "Values": [near]}])["Volumes"]
assert found["VolumeId"] == spare["VolumeId"]
[other] = ec2.run_instances(ImageId=image, InstanceType="t2.micro", MinCount=1, MaxCount=1, BlockDeviceMappings=[
    {"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": first}}, {"DeviceName": "/dev/sdg", "Ebs": {"SnapshotId": first, "VolumeSize": 9}},
])["Instances"]
wait("instance_running", InstanceIds=[other["InstanceId"]])
filters = [{"Name": "attachment.instance-id", "Values": [other["InstanceId"]]}]
found = sorted((v["Size"], v["SnapshotId"]) for v in ec2.describe_volumes(Filters=filters)["Volumes"])
assert [size for size, _ in found] == [1, 3, 9] and [id for _, id in found][1:] == [first, first], found
gone, nobody = "snap-0123456789abcdef0", "i-0123456789abcdef0"
launch = dict(ImageId=image, MinCount=1, MaxCount=1)
mapped = lambda device, **ebs: {**launch, "BlockDeviceMappings": [{"DeviceName": device, "Ebs": ebs}]}
for code, call, parameters in [
    ("MissingParameter", ec2.create_snapshot, dict()),
    ("InvalidVolumeID.Malformed", ec2.create_snapshot, dict(VolumeId="vol-x")),
    ("InvalidVolume.NotFound", ec2.create_snapshot, dict(VolumeId="vol-0123456789abcdef0")),
    ("InvalidVolume.NotFound", tenant.create_snapshot, dict(VolumeId=data)),
    ("InvalidParameterValue", ec2.create_snapshot, dict(VolumeId=data, Description="x" * 256)),
    ("InvalidParameterValue", ec2.create_snapshot, dict(VolumeId=data, TagSpecifications=[{"ResourceType": "volume", "Tags": []}])),
    ("UnknownParameter", ec2.create_snapshot, dict(VolumeId=data, OutpostArn="arn:aws:outposts:x")),
    ("DryRunOperation", ec2.create_snapshot, dict(VolumeId=data, DryRun=True)),
    ("MissingParameter", ec2.create_snapshots, dict()),
    ("MissingParameter", ec2.create_snapshots, dict(InstanceSpecification={})),
    ("InvalidInstanceID.NotFound", ec2.create_snapshots, dict(InstanceSpecification={"InstanceId": nobody})),
    ("InvalidParameterValue", ec2.create_snapshots, dict(InstanceSpecification={"InstanceId": one}, CopyTagsFromSource="instance")),
    ("InvalidParameterValue", ec2.create_snapshots, dict(InstanceSpecification={"InstanceId": one, "ExcludeDataVolumeIds": [root]})),
    ("InvalidParameterValue", ec2.create_snapshots, dict(InstanceSpecification={"InstanceId": one, "ExcludeDataVolumeIds": [spare["VolumeId"]]})),
    ("InvalidVolumeID.Malformed", ec2.create_snapshots, dict(InstanceSpecification={"InstanceId": one, "ExcludeDataVolumeIds": ["x"]})),
    ("InvalidParameterCombination", ec2.create_snapshots, dict(InstanceSpecification={
        "InstanceId": one, "ExcludeBootVolume": True, "ExcludeDataVolumeIds": [data, more],
    })),
    ("DryRunOperation", ec2.create_snapshots, dict(InstanceSpecification={"InstanceId": one}, DryRun=True)),
    ("InvalidSnapshot.NotFound", ec2.describe_snapshots, dict(SnapshotIds=[gone])),
    ("InvalidSnapshotID.Malformed", ec2.describe_snapshots, dict(SnapshotIds=["snap-x"])),
    ("InvalidParameterValue", ec2.describe_snapshots, dict(Filters=[{"Name": "nonsense", "Values": ["x"]}])),
    ("InvalidParameterCombination", ec2.describe_snapshots, dict(SnapshotIds=[first], MaxResults=5)),
    ("MissingParameter", ec2.delete_snapshot, dict()),
    ("InvalidSnapshot.NotFound", ec2.delete_snapshot, dict(SnapshotId=gone)),
    ("InvalidSnapshotID.Malformed", ec2.delete_snapshot, dict(SnapshotId="ami-0123456789abcdef0")),
    ("InvalidSnapshot.NotFound", tenant.delete_snapshot, dict(SnapshotId=first)),
    ("DryRunOperation", ec2.delete_snapshot, dict(SnapshotId=first, DryRun=True)),
    ("MissingParameter", ec2.copy_snapshot, dict(SourceSnapshotId=first, PresignedUrl="x")),
    ("MissingParameter", ec2.copy_snapshot, dict(SourceRegion=region)),
    ("InvalidSnapshot.NotFound", ec2.copy_snapshot, dict(SourceRegion=region, SourceSnapshotId=gone)),
    ("InvalidSnapshot.NotFound", ec2.copy_snapshot, dict(SourceRegion=far_region, SourceSnapshotId=first, PresignedUrl="x")),
    ("InvalidSnapshot.NotFound", tenant.copy_snapshot, dict(SourceRegion=region, SourceSnapshotId=first)),
    ("InvalidParameterValue", ec2.copy_snapshot, dict(SourceRegion="us-west-9", SourceSnapshotId=first, PresignedUrl="x")),
    ("InvalidParameterValue", ec2.copy_snapshot, dict(SourceRegion=region, SourceSnapshotId=first, DestinationRegion=far_region, PresignedUrl="x")),
    ("InvalidKMSKey.NotFound", ec2.copy_snapshot, dict(SourceRegion=region, SourceSnapshotId=first, Encrypted=True, KmsKeyId="alias/mine")),
    ("InvalidParameterDependency", ec2.copy_snapshot, dict(SourceRegion=region, SourceSnapshotId=first, KmsKeyId="alias/mine")),
    ("DryRunOperation", ec2.copy_snapshot, dict(SourceRegion=region, SourceSnapshotId=first, DryRun=True)),
    ("InvalidParameterValue", ec2.describe_snapshot_attribute, dict(SnapshotId=first, Attribute="size")),
    ("MissingParameter", ec2.describe_snapshot_attribute, dict(SnapshotId=first)),
    ("MissingParameter", ec2.modify_snapshot_attribute, dict(SnapshotId=first)),
    ("InvalidParameterValue", ec2.modify_snapshot_attribute, dict(SnapshotId=first, Attribute="productCodes")),
    ("MissingParameter", ec2.modify_snapshot_attribute, dict(SnapshotId=first, Attribute="createVolumePermission")),
    ("InvalidAMIAttributeItemValue", ec2.modify_snapshot_attribute, dict(
        SnapshotId=first, Attribute="createVolumePermission", OperationType="add", GroupNames=["some"],
    )),
    ("InvalidAMIAttributeItemValue", ec2.modify_snapshot_attribute, dict(SnapshotId=first, CreateVolumePermission={"Add": [{"UserId": "x"}]})),
    ("InvalidParameterValue", ec2.reset_snapshot_attribute, dict(SnapshotId=first, Attribute="x")),
    ("InvalidParameterValue", ec2.create_volume, dict(AvailabilityZone=ZONE, SnapshotId=first, Size=2)),
    ("InvalidParameterValue", ec2.create_volume, dict(AvailabilityZone=ZONE, SnapshotId=first, VolumeType="st1")),
    ("InvalidSnapshotID.Malformed", ec2.create_volume, dict(AvailabilityZone=ZONE, SnapshotId="snap-x")),
    ("InvalidBlockDeviceMapping", ec2.run_instances, mapped("/dev/sdf", SnapshotId=first, VolumeSize=2)),
    ("InvalidBlockDeviceMapping", ec2.run_instances, mapped("/dev/sda1", SnapshotId=first)),
    ("InvalidSnapshotID.Malformed", ec2.run_instances, mapped("/dev/sdf", SnapshotId="x")),
]:
    refused(code, call, **parameters)

# A policy for one snapshot: ARNs of snapshots have no account.
iam.create_user(UserName="restorer")
key = iam.create_access_key(UserName="restorer")["AccessKey"]
restorer = client("ec2", (key["AccessKeyId"], key["SecretAccessKey"]))
statements = [
    {"Effect": "Allow", "Action": "ec2:CreateVolume", "Resource": [f"arn:aws:ec2:{region}:{account}:volume/*", f"arn:aws:ec2:{region}::snapshot/{first}"]},
    {"Effect": "Allow", "Action": "ec2:CreateSnapshot", "Resource": f"arn:aws:ec2:{region}:{account}:volume/{data}"},
    {"Effect": "Allow", "Action": "ec2:CreateSnapshot", "Resource": f"arn:aws:ec2:{region}::snapshot/*",
     "Condition": {"StringEquals": {"aws:RequestTag/stack": "test"}}},
    {"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": f"arn:aws:ec2:{region}::snapshot/*",
     "Condition": {"StringEquals": {"ec2:CreateAction": "CreateSnapshot"}}},
    {"Effect": "Allow", "Action": "ec2:DeleteSnapshot", "Resource": "*", "Condition": {"StringEquals": {"ec2:ResourceTag/stack": "test"}}},
]
iam.put_user_policy(UserName="restorer", PolicyName="one", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}))
refused("DryRunOperation", restorer.create_volume, AvailabilityZone=ZONE, SnapshotId=first, DryRun=True)
refused("UnauthorizedOperation", restorer.create_volume, AvailabilityZone=ZONE, SnapshotId=near)
refused("UnauthorizedOperation", restorer.create_snapshot, VolumeId=data)
refused("UnauthorizedOperation", restorer.create_snapshot, VolumeId=more, TagSpecifications=tagged(stack="test"))
own = restorer.create_snapshot(VolumeId=data, TagSpecifications=tagged(stack="test"))["SnapshotId"]
refused("UnauthorizedOperation", restorer.delete_snapshot, SnapshotId=first)
restorer.delete_snapshot(SnapshotId=own)

# Deleted, it is gone, whatever was made from it.
for id in mine:
    ec2.delete_snapshot(SnapshotId=id)
    refused("InvalidSnapshot.NotFound", ec2.describe_snapshots, SnapshotIds=[id])
    refused("InvalidSnapshot.NotFound", ec2.delete_snapshot, SnapshotId=id)
    refused("InvalidSnapshot.NotFound", ec2.create_volume, AvailabilityZone=ZONE, SnapshotId=id)
    refused("InvalidSnapshot.NotFound", ec2.create_tags, Resources=[id], Tags=[{"Key": "a", "Value": "b"}])
assert ids(OwnerIds=["self"]) == set() and snapshot(away, far)["State"] == "completed"
[found] = ec2.describe_volumes(VolumeIds=[spare["VolumeId"]])["Volumes"]
assert found["SnapshotId"] == near, found
print("FIGURE refusals", refusals)
print("done")
