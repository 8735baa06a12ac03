"""Two regions of one cloud: nothing of one is there in the other, and the same names are. Arguments: the port, a key as
ID:SECRET, then a region and its AMI, and another region and its AMI."""

import json
import re
import sys

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

PORT, KEY, HOME, HOME_IMAGE, FAR, FAR_IMAGE = sys.argv[1:]
FIGURES = {"refused": 0, "listed": 0}


def client(service, region, key=KEY):
    access, secret = key.split(":", 1)
    return botocore.session.get_session().create_client(
        service,
        endpoint_url=f"http://127.0.0.1:{PORT}",
        region_name=region,
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}),
    )


def refused(code, call, **arguments):
    try:
        answer = call(**arguments)
    except ClientError as error:
        assert re.fullmatch(code, error.response["Error"]["Code"]), (code, arguments, error)
        FIGURES["refused"] += 1
        return str(error)
    raise AssertionError((code, arguments, answer))


here, there = client("ec2", HOME), client("ec2", FAR)
account = client("sts", HOME).get_caller_identity()["Account"]
both = [(here, HOME, HOME_IMAGE), (there, FAR, FAR_IMAGE)]

# Each tells the same regions, and its own zones.
for ec2, region, _ in both:
    assert {told["RegionName"] for told in ec2.describe_regions()["Regions"]} == {HOME, FAR}
    (named,) = ec2.describe_regions(RegionNames=[FAR])["Regions"]
    assert named["RegionName"] == FAR
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    assert zones and all(zone["RegionName"] == region and zone["ZoneName"].startswith(region) for zone in zones), zones
    offered = ec2.describe_instance_type_offerings(LocationType="availability-zone")["InstanceTypeOfferings"]
    assert {offer["Location"] for offer in offered} == {zone["ZoneName"] for zone in zones}
refused("InvalidParameterValue", here.describe_regions, RegionNames=["mars-1"])
refused("InvalidParameterValue", here.describe_availability_zones, ZoneNames=[f"{FAR}a"])

# The same names in both.
owned = {}
for ec2, region, image in both:
    (vpc,) = ec2.describe_vpcs()["Vpcs"]
    assert vpc["IsDefault"] and vpc["OwnerId"] == account, vpc
    (attribute,) = ec2.describe_account_attributes(AttributeNames=["default-vpc"])["AccountAttributes"]
    assert attribute["AttributeValues"] == [{"AttributeValue": vpc["VpcId"]}], attribute
    subnets = ec2.describe_subnets()["Subnets"]
    assert all(f":{region}:" in subnet["SubnetArn"] for subnet in subnets), subnets
    assert sorted(subnet["AvailabilityZone"] for subnet in subnets) == sorted(
        zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]
    )
    (group,) = ec2.describe_security_groups()["SecurityGroups"]
    assert group["GroupName"] == "default" and f":{region}:" in group["SecurityGroupArn"], group
    (found,) = ec2.describe_images()["Images"]
    assert found["ImageId"] == image, found
    key = ec2.create_key_pair(KeyName="key")["KeyPairId"]
    group = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    rules = ec2.authorize_security_group_ingress(
        GroupId=group, IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    )["SecurityGroupRules"]
    placement = ec2.create_placement_group(GroupName="near", Strategy="spread")["PlacementGroup"]
    assert f":{region}:" in placement["GroupArn"], placement
    ec2.create_tags(Resources=[image], Tags=[{"Key": "hearth:ssm-parameter", "Value": "/aws/service/tiny"}])
    owned[region] = {"key": key, "sg": group, "sgr": rules[0]["SecurityGroupRuleId"], "pg": placement["GroupId"], "ami": image}
    refused("InvalidKeyPair.Duplicate", ec2.create_key_pair, KeyName="key")
    refused("InvalidGroup.Duplicate", ec2.create_security_group, GroupName="web", Description="web")
    refused("InvalidPlacementGroup.Duplicate", ec2.create_placement_group, GroupName="near", Strategy="spread")

# A launch goes to a host of its region; its client token is the region's own, and so is the name of its AMI.
launch = {"InstanceType": "t2.nano", "MinCount": 1, "MaxCount": 1, "KeyName": "key", "SecurityGroups": ["web"], "ClientToken": "same"}
for ec2, region, image in both:
    parameter = client("ssm", region).get_parameter(Name="/aws/service/tiny")["Parameter"]
    assert parameter["Value"] == image and f":{region}:" in parameter["ARN"], parameter
    (instance,) = ec2.run_instances(**launch, ImageId="resolve:ssm:/aws/service/tiny")["Instances"]
    ec2.get_waiter("instance_running").wait(InstanceIds=[instance["InstanceId"]], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    (reservation,) = ec2.describe_instances()["Reservations"]
    (told,) = reservation["Instances"]
    assert told["Placement"]["AvailabilityZone"].startswith(region), told
    assert told["PrivateDnsName"].endswith(f".{region}.compute.internal"), told
    owned[region] |= {
        "i": told["InstanceId"],
        "eni": told["NetworkInterfaces"][0]["NetworkInterfaceId"],
        "vol": told["BlockDeviceMappings"][0]["Ebs"]["VolumeId"],
        "subnet": told["SubnetId"],
        "vpc": told["VpcId"],
        "r": reservation["ReservationId"],
        "mac": told["NetworkInterfaces"][0]["MacAddress"],
        "public": told["PublicIpAddress"],
    }
for kind in owned[HOME]:
    assert owned[HOME][kind] != owned[FAR][kind], kind
other_zone = {"Placement": {"AvailabilityZone": f"{FAR}a"}}
refused("InvalidParameterValue", here.run_instances, ImageId=HOME_IMAGE, MinCount=1, MaxCount=1, InstanceType="t2.nano", **other_zone)

# Whatever is listed, nothing of the other region is in it.
for ec2, other in [(here, FAR), (there, HOME)]:
    for name in sorted(dir(ec2)):
        if not name.startswith("describe_") or name in ("describe_instance_types", "describe_regions"):
            continue
        try:
            answer = json.dumps(getattr(ec2, name)(), default=str)
        except Exception:  # It is not served, or asks for more.
            continue
        FIGURES["listed"] += 1
        for kind, foreign in [*owned[other].items(), ("region", f"{other}a")]:
            assert foreign not in answer, (name, kind, foreign)

# What is in the other region is not there, by whatever call it is named.
far = owned[FAR]
before = there.describe_instances()["Reservations"]
for call in ["describe_instances", "describe_instance_status", "start_instances", "stop_instances", "reboot_instances", "terminate_instances"]:
    refused("InvalidInstanceID.NotFound", getattr(here, call), InstanceIds=[far["i"]])
refused("InvalidInstanceID.NotFound", here.get_console_output, InstanceId=far["i"])
refused("InvalidInstanceID.NotFound", here.modify_instance_attribute, InstanceId=far["i"], DisableApiStop={"Value": True})
refused("InvalidGroup.NotFound", here.modify_instance_attribute, InstanceId=owned[HOME]["i"], Groups=[far["sg"]])
refused("InvalidGroup.NotFound", here.delete_security_group, GroupId=far["sg"])
opened = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": far["sg"]}]}]
refused("InvalidGroup.NotFound", here.authorize_security_group_ingress, GroupId=owned[HOME]["sg"], IpPermissions=opened)
refused("InvalidSecurityGroupRuleId.NotFound", here.describe_security_group_rules, SecurityGroupRuleIds=[far["sgr"]])
refused("InvalidKeyPair.NotFound", here.describe_key_pairs, KeyPairIds=[far["key"]])
refused("InvalidVolume.NotFound", here.describe_volumes, VolumeIds=[far["vol"]])
refused("InvalidNetworkInterfaceID.NotFound", here.describe_network_interfaces, NetworkInterfaceIds=[far["eni"]])
refused("InvalidVpcID.NotFound", here.create_security_group, GroupName="x", Description="x", VpcId=far["vpc"])
refused("InvalidAMIID.NotFound", here.describe_images, ImageIds=[far["ami"]])
refused("InvalidAMIID.NotFound|InvalidAMIID.Unavailable", here.deregister_image, ImageId=far["ami"])
one = {"InstanceType": "t2.nano", "MinCount": 1, "MaxCount": 1}
refused("InvalidAMIID.NotFound", here.run_instances, ImageId=far["ami"], **one)
refused("InvalidSubnetID.NotFound", here.run_instances, ImageId=HOME_IMAGE, SubnetId=far["subnet"], **one)
refused("InvalidGroup.NotFound", here.run_instances, ImageId=HOME_IMAGE, SecurityGroupIds=[far["sg"]], **one)
host = before[0]["Instances"][0]["Placement"]["HostId"]
refused("InvalidHostID.NotFound", here.run_instances, ImageId=HOME_IMAGE, Placement={"HostId": host}, **one)
for kind, code in [("i", "InvalidInstanceID"), ("vol", "InvalidVolume"), ("vpc", "InvalidVpcID"), ("subnet", "InvalidSubnetID"),
                   ("sg", "InvalidGroup"), ("eni", "InvalidNetworkInterfaceID"), ("key", "InvalidKeyPair")]:
    refused(f"{code}.NotFound", here.create_tags, Resources=[far[kind]], Tags=[{"Key": "a", "Value": "b"}])
send = {"InstanceOSUser": "root", "SSHPublicKey": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBYuBbLuqJwQrh0gVZ6Ds9Q5K4q5a0W2l5h8Ff1mOeXj"}
refused("EC2InstanceNotFoundException|InvalidArgs.*", client("ec2-instance-connect", HOME).send_ssh_public_key, InstanceId=far["i"], **send)
here.delete_key_pair(KeyPairId=far["key"])
assert there.describe_key_pairs(KeyPairIds=[far["key"]])["KeyPairs"]
assert there.describe_instances()["Reservations"] == before

# Settings are a region's own.
there.enable_serial_console_access()
there.modify_instance_metadata_defaults(HttpTokens="required")
assert there.get_serial_console_access_status()["SerialConsoleAccessEnabled"]
assert not here.get_serial_console_access_status()["SerialConsoleAccessEnabled"]
assert here.get_instance_metadata_defaults()["AccountLevel"].get("HttpTokens") is None
quota = client("service-quotas", FAR).get_service_quota(ServiceCode="vpc", QuotaCode="L-0EA8095F")["Quota"]
assert f":{FAR}:" in quota["QuotaArn"], quota

# IAM and STS are in no region, and sign for any, or for us-east-1.
for region in (HOME, FAR, "us-east-1"):
    assert client("sts", region).get_caller_identity()["Account"] == account
iam = client("iam", FAR)
iam.create_user(UserName="anna")
secret = iam.create_access_key(UserName="anna")["AccessKey"]
anna = f"{secret['AccessKeyId']}:{secret['SecretAccessKey']}"


def may(*statements):
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement} for statement in statements]}
    iam.put_user_policy(UserName="anna", PolicyName="may", PolicyDocument=json.dumps(document))


# Policies name regions.
may({"Action": "ec2:*", "Resource": "*", "Condition": {"StringEquals": {"aws:RequestedRegion": FAR}}})
assert client("ec2", FAR, anna).describe_vpcs()["Vpcs"]
refused("UnauthorizedOperation", client("ec2", HOME, anna).describe_vpcs)
may({"Action": "ec2:RebootInstances", "Resource": f"arn:aws:ec2:{FAR}:{account}:instance/*"})
client("ec2", FAR, anna).reboot_instances(InstanceIds=[far["i"]])
refused("UnauthorizedOperation", client("ec2", HOME, anna).reboot_instances, InstanceIds=[owned[HOME]["i"]])
may({"Action": "iam:GetUser", "Resource": "*", "Condition": {"StringEquals": {"aws:RequestedRegion": "us-east-1"}}})
for region in (HOME, FAR):
    assert client("iam", region, anna).get_user()["User"]["UserName"] == "anna"

# A region that is not here.
for name, call in [("ec2", "describe_vpcs"), ("service-quotas", "list_services")]:
    message = refused("AuthFailure|SignatureDoesNotMatch|InvalidSignatureException", getattr(client(name, "mars-1"), call))
    assert "'mars-1'" in message, message

for ec2, region, _ in both:
    ec2.terminate_instances(InstanceIds=[owned[region]["i"]])
print(f"FIGURE regions: {FIGURES['refused']} calls refused, {FIGURES['listed']} lists compared")
