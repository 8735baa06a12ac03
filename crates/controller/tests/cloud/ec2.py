"""botocore, with an endpoint, a region and the owner's access key, and nothing else. usage: ec2.py ENDPOINT REGION CREDENTIALS AMI"""

import base64
import datetime
import http.client
import sys
from unittest import mock
from urllib.parse import urlsplit

import botocore.auth
from cloud import Cloud, owner, refused

endpoint, region, path, image = sys.argv[1:]
cloud = Cloud(endpoint, region, owner(path))
key, secret = cloud.key


def client(key=key, secret=secret, token=None, region=region):
    return cloud.client("ec2", (key, secret, token), region)


ec2 = client()

# What the cloud begins with.
[only] = ec2.describe_regions()["Regions"]
assert only["RegionName"] == region and only["Endpoint"] == endpoint, only
zones = ec2.describe_availability_zones()["AvailabilityZones"]
assert [zone["State"] for zone in zones].count("available") == 1, zones
[vpc] = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
assert vpc["IsDefault"] is True and vpc["CidrBlock"] == "172.31.0.0/16", vpc
subnets = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["Subnets"]
assert len(subnets) == len(zones) and all(subnet["DefaultForAz"] for subnet in subnets), subnets
[found] = ec2.describe_images(ImageIds=[image])["Images"]
assert found["Name"] == "tiny" and found["State"] == "available", found
types = ec2.describe_instance_types(InstanceTypes=["t2.micro"])["InstanceTypes"]
assert [one["InstanceType"] for one in types] == ["t2.micro"], types

# A group and its rules.
group = ec2.create_security_group(
    GroupName="web",
    Description="a & b; {c}",
    VpcId=vpc["VpcId"],
    TagSpecifications=[{"ResourceType": "security-group", "Tags": [{"Key": "a", "Value": "<b> & \"ä'"}]}],
)["GroupId"]
ec2.authorize_security_group_ingress(
    GroupId=group,
    IpPermissions=[
        {
            "IpProtocol": "tcp",
            "FromPort": 443,
            "ToPort": 443,
            "IpRanges": [{"CidrIp": "0.0.0.0/0", "Description": "all"}, {"CidrIp": "10.0.0.0/8"}],
        },
        {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]},
    ],
)
[web] = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
assert web["Description"] == "a & b; {c}" and web["Tags"] == [{"Key": "a", "Value": "<b> & \"ä'"}], web
ports = {permission["IpProtocol"]: permission for permission in web["IpPermissions"]}
assert {block["CidrIp"] for block in ports["tcp"]["IpRanges"]} == {"0.0.0.0/0", "10.0.0.0/8"}, web
assert ports["-1"]["UserIdGroupPairs"][0]["GroupId"] == group, web
assert refused(
    "InvalidPermission.Duplicate",
    400,
    ec2.authorize_security_group_ingress,
    GroupId=group,
    IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}],
)

# Pages.
names = {f"group-{number}" for number in range(12)}
for name in names:
    ec2.create_security_group(GroupName=name, Description="one of many", VpcId=vpc["VpcId"])
pages = ec2.get_paginator("describe_security_groups").paginate(PaginationConfig={"PageSize": 5})
pages = [[group["GroupName"] for group in page["SecurityGroups"]] for page in pages]
assert [len(page) for page in pages] == [5, 5, 4] and names < {name for page in pages for name in page}, pages
refused("InvalidParameterValue", 400, ec2.describe_security_groups, MaxResults=3)
refused("InvalidNextToken", 400, ec2.describe_security_groups, NextToken="x")

# A group's rules, by their ids and in one line.
[rule] = ec2.authorize_security_group_ingress(
    GroupId=group,
    IpProtocol="udp",
    FromPort=53,
    ToPort=53,
    CidrIp="10.0.0.0/8",
    TagSpecifications=[{"ResourceType": "security-group-rule", "Tags": [{"Key": "a", "Value": "b"}]}],
)["SecurityGroupRules"]
assert rule["CidrIpv4"] == "10.0.0.0/8" and rule["Tags"] == [{"Key": "a", "Value": "b"}], rule
done = ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]])
assert done["Return"] is True and len(done["RevokedSecurityGroupRules"]) == 1, done

# Key pairs.
made = ec2.create_key_pair(KeyName="k", KeyType="ed25519")
assert made["KeyMaterial"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----"), made
[told] = ec2.describe_key_pairs(KeyNames=["k"], IncludePublicKey=True)["KeyPairs"]
assert told["KeyPairId"] == made["KeyPairId"] and told["KeyFingerprint"] == made["KeyFingerprint"], told
imported = ec2.import_key_pair(KeyName="l", PublicKeyMaterial=told["PublicKey"].encode())
assert imported["KeyFingerprint"] == made["KeyFingerprint"], imported
assert ec2.delete_key_pair(KeyName="l")["Return"] is True

# An instance.
refused("DryRunOperation", 412, ec2.run_instances, ImageId=image, MinCount=1, MaxCount=1, DryRun=True)
reservation = ec2.run_instances(
    ImageId=image,
    MinCount=1,
    MaxCount=1,
    InstanceType="t2.micro",
    KeyName="k",
    UserData="#!/bin/sh\n",
    NetworkInterfaces=[{"DeviceIndex": 0, "Groups": [group], "AssociatePublicIpAddress": False}],
    BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 2, "VolumeType": "gp3"}}],
    Monitoring={"Enabled": False},
    EbsOptimized=False,
    TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "one"}]}],
)
[instance] = reservation["Instances"]
assert instance["State"] == {"Code": 0, "Name": "pending"} and instance["ImageId"] == image, instance
assert isinstance(instance["LaunchTime"], datetime.datetime) and instance["AmiLaunchIndex"] == 0, instance
identity = instance["InstanceId"]
ec2.create_tags(Resources=[identity], Tags=[{"Key": "role", "Value": ""}])
[reservation] = ec2.describe_instances(Filters=[{"Name": "tag:Name", "Values": ["o*"]}])["Reservations"]
[instance] = reservation["Instances"]
assert instance["InstanceId"] == identity and reservation["ReservationId"].startswith("r-"), reservation
assert {tag["Key"]: tag["Value"] for tag in instance["Tags"]} == {"Name": "one", "role": ""}, instance
assert instance["SecurityGroups"] == [{"GroupId": group, "GroupName": "web"}], instance
assert "PublicIpAddress" not in instance and instance["Monitoring"] == {"State": "disabled"}, instance
[interface] = instance["NetworkInterfaces"]
assert interface["Attachment"]["DeviceIndex"] == 0 and interface["Groups"][0]["GroupId"] == group, interface
[mapping] = instance["BlockDeviceMappings"]
[volume] = ec2.describe_volumes(VolumeIds=[mapping["Ebs"]["VolumeId"]])["Volumes"]
assert volume["Size"] == 2 and volume["VolumeType"] == "gp3", volume
for parameters in (
    {"UserData": b"\xff" * 16385},
    {"SubnetId": subnets[0]["SubnetId"], "NetworkInterfaces": [{"DeviceIndex": 0}]},
    {"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "NoDevice": ""}]},
    {"Monitoring": {"Enabled": True}},
):
    code = {"SubnetId": "InvalidParameterCombination", "BlockDeviceMappings": "InvalidBlockDeviceMapping"}
    code = code.get(next(iter(parameters)), "InvalidParameterValue")
    refused(code, 400, ec2.run_instances, ImageId=image, MinCount=1, MaxCount=1, **parameters)
[change] = ec2.terminate_instances(InstanceIds=[identity])["TerminatingInstances"]
assert change["InstanceId"] == identity and change["CurrentState"]["Code"] in (32, 48), change

# Refusals of services, with their codes.
message = refused("InvalidInstanceID.NotFound", 400, ec2.describe_instances, InstanceIds=["i-0123456789abcdef0"])
assert "i-0123456789abcdef0" in message, message
refused("InvalidAction", 400, ec2.create_vpn_gateway, Type="ipsec.1")
refused("MissingParameter", 400, ec2.register_image, Name="of no snapshot")

# Whoever is not the owner.
refused("AuthFailure", 401, client(secret="x" * 40).describe_vpcs)
refused("AuthFailure", 401, client(key="AKIAIOSFODNN7EXAMPLE").describe_vpcs)
refused("AuthFailure", 401, client(region="us-east-1").describe_vpcs)
refused("AuthFailure", 401, client(token="token").describe_vpcs)
for hours in (-1, 1):
    moment = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None) + datetime.timedelta(hours=hours)
    with mock.patch("botocore.auth.get_current_datetime", lambda *_, **__: moment):
        refused("RequestExpired", 400, ec2.describe_vpcs)

# What botocore does not send.
def raw(body, method="POST", target="/", **headers):
    address = urlsplit(endpoint)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    headers = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    connection.request(method, target, body, headers)
    response = connection.getresponse()
    return response.status, response.read().decode()


status, said = raw("Action=DescribeVpcs&Version=2016-11-15")
assert status == 403 and "<Code>MissingAuthenticationToken</Code>" in said, (status, said)
status, said = raw("Action=DescribeVpcs", Authorization="AWS4-HMAC-SHA256 Credential=a/b/c")
assert status == 400 and "<Code>IncompleteSignature</Code>" in said, (status, said)
status, said = raw("Action=DescribeVpcs", Authorization="Basic " + base64.b64encode(b"a:b").decode())
assert status in (400, 403) and "<Errors>" in said, (status, said)
status, said = raw("a" * (1 << 20) + "b")
assert status == 413, (status, said)
status, said = raw("", "GET", "/?" + "a" * 100_000)
assert status in (400, 414, 431), (status, said)
print("done")

# What an instance is set to.
identity = ec2.run_instances(
    ImageId=image, MinCount=1, MaxCount=1, InstanceType="t2.nano", DisableApiTermination=True, UserData="one"
)["Instances"][0]["InstanceId"]


def attribute(name):
    return ec2.describe_instance_attribute(InstanceId=identity, Attribute=name)


assert attribute("disableApiTermination")["DisableApiTermination"] == {"Value": True}
assert attribute("disableApiStop")["DisableApiStop"] == {"Value": False}
assert base64.b64decode(attribute("userData")["UserData"]["Value"]) == b"one"
assert attribute("groupSet")["Groups"][0]["GroupName"] == "default"
message = refused("OperationNotPermitted", 400, ec2.terminate_instances, InstanceIds=[identity])
assert "disableApiTermination" in message, message
refused("IncorrectInstanceState", 400, ec2.modify_instance_attribute, InstanceId=identity, InstanceType={"Value": "t2.micro"})
refused("InvalidParameterCombination", 400, ec2.modify_instance_attribute, InstanceId=identity)
ec2.modify_instance_attribute(InstanceId=identity, Groups=[group])
assert attribute("groupSet")["Groups"] == [{"GroupId": group, "GroupName": "web"}]
ec2.modify_instance_attribute(InstanceId=identity, Attribute="instanceInitiatedShutdownBehavior", Value="terminate")
told = attribute("instanceInitiatedShutdownBehavior")["InstanceInitiatedShutdownBehavior"]
assert told == {"Value": "terminate"}, told
refused("IncorrectInstanceState", 400, ec2.modify_instance_attribute, InstanceId=identity, UserData={"Value": b"two"})
told = ec2.modify_instance_metadata_options(InstanceId=identity, HttpTokens="required", HttpPutResponseHopLimit=2)
told = told["InstanceMetadataOptions"]
assert (told["HttpTokens"], told["HttpPutResponseHopLimit"], told["HttpEndpoint"]) == ("required", 2, "enabled"), told
told = ec2.describe_instance_credit_specifications(InstanceIds=[identity])["InstanceCreditSpecifications"]
assert told == [{"InstanceId": identity, "CpuCredits": "unlimited"}], told
assert ec2.unmonitor_instances(InstanceIds=[identity])["InstanceMonitorings"][0]["Monitoring"]["State"] == "disabled"
[told] = ec2.describe_instances(InstanceIds=[identity])["Reservations"][0]["Instances"]
told = told["MetadataOptions"]
assert (told["State"], told["HttpProtocolIpv6"]) == ("applied", "disabled"), told
refused(
    "InvalidParameterValue", 400, ec2.modify_instance_metadata_options, InstanceId=identity, HttpProtocolIpv6="enabled"
)
for name in ("kernel", "ramdisk", "productCodes", "sriovNetSupport"):
    assert attribute(name)["InstanceId"] == identity and attribute(name)["ProductCodes"] == [], name
[told] = ec2.describe_instances(InstanceIds=[identity])["Reservations"][0]["Instances"]
assert told["ProductCodes"] == [], told
message = refused("InvalidParameterValue", 400, ec2.describe_instance_attribute, InstanceId=identity, Attribute="Kernel")
assert message == "Value (Kernel) for parameter attribute is invalid. Unknown attribute.", message

# Whether its volume goes with it.
[mapping] = attribute("blockDeviceMapping")["BlockDeviceMappings"]
assert mapping["Ebs"]["DeleteOnTermination"] is True, mapping
kept = {"DeviceName": mapping["DeviceName"], "Ebs": {"DeleteOnTermination": False}}
ec2.modify_instance_attribute(InstanceId=identity, BlockDeviceMappings=[kept])
[mapping] = attribute("blockDeviceMapping")["BlockDeviceMappings"]
assert mapping["Ebs"]["DeleteOnTermination"] is False, mapping
for wrong, code in (
    ([{**kept, "DeviceName": "/dev/sdf"}], "InvalidInstanceAttributeValue"),
    ([{**kept, "DeviceName": "nonsense"}], "InvalidInstanceAttributeValue"),
    ([kept, kept], "InvalidBlockDeviceMapping"),
    ([{"DeviceName": mapping["DeviceName"]}], "MissingParameter"),
):
    refused(code, 400, ec2.modify_instance_attribute, InstanceId=identity, BlockDeviceMappings=wrong)
kept["Ebs"]["DeleteOnTermination"] = True
ec2.modify_instance_attribute(InstanceId=identity, BlockDeviceMappings=[kept])

# Zones have ids, which filters know.
[zone] = {subnet["AvailabilityZoneId"] for subnet in subnets if subnet["AvailabilityZone"] == "local-1a"}
assert zone == "local1-az1" and zone in {one["ZoneId"] for one in zones}, zone
for name, values, passes in (
    ("availability-zone-id", [zone], True),
    ("availability-zone-id", ["local1-az2"], False),
    ("launch-time", ["20*Z"], True),
    ("network-interface.tag-key", ["*"], False),
    ("spot-instance-request-id", ["*"], False),
    ("tenancy", ["default"], True),
    ("metadata-options.state", ["appl?ed"], True),
    ("iam-instance-profile.arn", ["*"], False),
):
    told = ec2.describe_instances(Filters=[{"Name": name, "Values": values}, {"Name": "instance-id", "Values": [identity]}])
    assert bool(told["Reservations"]) is passes, (name, values, told)
for wrong in ({"Tenancy": "dedicated"}, {"AvailabilityZoneId": zone}):
    refused("InvalidParameterValue", 400, ec2.run_instances, ImageId=image, MinCount=1, MaxCount=1, Placement=wrong)
offered = ec2.describe_instance_type_offerings(
    LocationType="availability-zone-id", Filters=[{"Name": "location", "Values": [zone]}]
)["InstanceTypeOfferings"]
assert offered and {one["Location"] for one in offered} == {zone}, offered
account = reservation["OwnerId"]
[told] = ec2.describe_security_groups(Filters=[{"Name": "tag-value", "Values": ["<b>*"]}])["SecurityGroups"]
assert told["SecurityGroupArn"] == f"arn:aws:ec2:{region}:{account}:security-group/{group}", told

# As EC2 refuses.
message = refused("InvalidParameterCombination", 400, ec2.terminate_instances, InstanceIds=[])
assert message == "No instances specified", message
message = refused("InvalidAMIID.NotFound", 400, ec2.describe_images, ImageIds=["ami-abcd1234", "ami-abcd1235"])
assert message == "The image ids '[ami-abcd1234, ami-abcd1235]' do not exist", message
message = refused("InvalidAMIID.Malformed", 400, ec2.describe_images, ImageIds=["foo"])
assert message == 'Invalid id: "foo" (expecting "ami-...")', message
refused("InvalidID", 400, ec2.create_tags, Resources=["ami-blah"], Tags=[{"Key": "a", "Value": "b"}])
message = refused("MissingParameter", 400, ec2.create_tags, Resources=[], Tags=[{"Key": "a", "Value": "b"}])
assert message == "The request must contain the parameter resourceIdSet", message

# Its network interface, and the VPC.
[interface] = ec2.describe_network_interfaces(Filters=[{"Name": "attachment.instance-id", "Values": [identity]}])[
    "NetworkInterfaces"
]
assert interface["Groups"] == [{"GroupId": group, "GroupName": "web"}] and interface["Status"] == "in-use", interface
assert interface["Attachment"]["InstanceOwnerId"] == interface["OwnerId"] and interface["TagSet"] == [], interface
ec2.modify_instance_attribute(InstanceId=identity, DisableApiTermination={"Value": False})
ec2.terminate_instances(InstanceIds=[identity])
told = ec2.describe_vpc_attribute(VpcId=vpc["VpcId"], Attribute="enableDnsSupport")
assert told["EnableDnsSupport"] == {"Value": True}, told
assert ec2.describe_images(Owners=["self"])["Images"] == [found]
assert ec2.describe_images(Owners=["000000000001"])["Images"] == []
gone = [{"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}]
told = ec2.revoke_security_group_egress(GroupId=group, IpPermissions=gone)
assert told["UnknownIpPermissions"][0]["Ipv6Ranges"] == [{"CidrIpv6": "::/0"}], told

# Rules as resources.
[rule] = ec2.authorize_security_group_ingress(
    GroupId=group, IpPermissions=[{"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}]
)["SecurityGroupRules"]
by_id = {"SecurityGroupRuleIds": [rule["SecurityGroupRuleId"]]}
update = {"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080, "CidrIpv4": "10.0.0.0/8", "Description": "web"}
update = [{"SecurityGroupRuleId": rule["SecurityGroupRuleId"], "SecurityGroupRule": update}]
assert ec2.modify_security_group_rules(GroupId=group, SecurityGroupRules=update)["Return"] is True
[told] = ec2.describe_security_group_rules(**by_id)["SecurityGroupRules"]
assert (told["FromPort"], told["Description"], told["GroupId"]) == (8080, "web", group), told
anew = [{"SecurityGroupRuleId": rule["SecurityGroupRuleId"], "Description": "all of it"}]
ec2.update_security_group_rule_descriptions_ingress(GroupId=group, SecurityGroupRuleDescriptions=anew)
[told] = ec2.describe_security_group_rules(**by_id)["SecurityGroupRules"]
assert told["Description"] == "all of it", told
of_group = [{"Name": "group-id", "Values": [group]}]
told = ec2.describe_security_group_rules(Filters=of_group)["SecurityGroupRules"]
assert len(told) == 5 and {rule["IsEgress"] for rule in told} == {True, False}, told
refused("InvalidPermission.Duplicate", 400, ec2.modify_security_group_rules, GroupId=group, SecurityGroupRules=[
    {"SecurityGroupRuleId": rule["SecurityGroupRuleId"],
     "SecurityGroupRule": {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "CidrIpv4": "10.0.0.0/8"}}
])

refused("InvalidParameterCombination", 400, ec2.modify_security_group_rules, GroupId=group, SecurityGroupRules=[
    {"SecurityGroupRuleId": rule["SecurityGroupRuleId"],
     "SecurityGroupRule": {"IpProtocol": "-1", "CidrIpv4": "10.0.0.0/8", "ReferencedGroupId": group}}
])

# Where there are types, and what the account may have.
offerings = ec2.describe_instance_type_offerings(
    LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": ["t2.micro"]}]
)["InstanceTypeOfferings"]
assert len(offerings) == len(zones), offerings
told = ec2.describe_account_attributes(AttributeNames=["default-vpc"])["AccountAttributes"]
assert told == [{"AttributeName": "default-vpc", "AttributeValues": [{"AttributeValue": vpc["VpcId"]}]}], told

# Who calls, by another service's protocol on the same port.
for signed_for in (region, "us-east-1"):
    sts = cloud.client("sts", region=signed_for)
    told = sts.get_caller_identity()
    assert told["Arn"] == f"arn:aws:iam::{told['Account']}:root" and told["UserId"] == told["Account"], told
