"""Two accounts of one cloud: nothing of one is there for the other. Arguments: the port, then a key of the operator's
account and one of the tenant's, each as ID:SECRET."""

import json
import sys

import cloud

PORT, *KEYS = sys.argv[1:]
CLOUD = cloud.Cloud(f"http://127.0.0.1:{PORT}", "local-1", KEYS[0].split(":", 1))
FIGURES = {"refused": 0, "listed": 0}
INSTANCES = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def client(service, key, token=None):
    return CLOUD.client(service, (*key.split(":", 1), token))


def refused(code, call, **arguments):
    sentence = cloud.refused(code, None, call, **arguments)
    FIGURES["refused"] += 1
    return sentence


mine, theirs = client("ec2", KEYS[0]), client("ec2", KEYS[1])
iam, their_iam = client("iam", KEYS[0]), client("iam", KEYS[1])
sts, their_sts = client("sts", KEYS[0]), client("sts", KEYS[1])
operator, tenant = sts.get_caller_identity()["Account"], their_sts.get_caller_identity()["Account"]
assert operator != tenant
assert their_sts.get_caller_identity()["Arn"] == f"arn:aws:iam::{tenant}:root"

# The same names in both.
(image,) = [image["ImageId"] for image in mine.describe_images()["Images"]]
vpc = mine.describe_vpcs()["Vpcs"][0]["VpcId"]
owned = {}
for ec2, account in [(mine, operator), (theirs, tenant)]:
    vpcs = ec2.describe_vpcs()["Vpcs"]
    assert [(found["IsDefault"], found["OwnerId"]) for found in vpcs] == [(True, account)], vpcs
    assert len(ec2.describe_subnets()["Subnets"]) == 3
    assert [group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"]] == ["default"]
    key = ec2.create_key_pair(KeyName="key")["KeyPairId"]
    group = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    rules = ec2.authorize_security_group_ingress(
        GroupId=group, IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    )["SecurityGroupRules"]
    placement = ec2.create_placement_group(GroupName="near", Strategy="spread")["PlacementGroup"]["GroupId"]
    owned[account] = {"key": key, "sg": group, "sgr": rules[0]["SecurityGroupRuleId"], "pg": placement}
for manage in [iam, their_iam]:
    manage.create_user(UserName="alice")
    manage.create_role(RoleName="deploy", AssumeRolePolicyDocument=json.dumps(INSTANCES))
    manage.create_instance_profile(InstanceProfileName="web")

# An image is its owner's until it is shared, and nobody else's afterwards.
assert theirs.describe_images()["Images"] == []
launch = {"ImageId": image, "InstanceType": "t2.nano", "MinCount": 1, "MaxCount": 1, "KeyName": "key", "SecurityGroups": ["web"]}
refused("InvalidAMIID.NotFound", theirs.run_instances, **launch)
mine.create_tags(Resources=[image], Tags=[{"Key": "secret", "Value": "1"}])
mine.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": tenant}]})
granted = mine.describe_image_attribute(ImageId=image, Attribute="launchPermission")["LaunchPermissions"]
assert granted == [{"UserId": tenant}], granted
for arguments in [{}, {"Owners": [operator]}, {"ExecutableUsers": ["self"]}, {"ImageIds": [image]}]:
    (seen,) = theirs.describe_images(**arguments)["Images"]
    assert (seen["OwnerId"], seen["Public"], "Tags" in seen) == (operator, False, False), seen
assert theirs.describe_images(Owners=["self"])["Images"] == []
assert theirs.describe_tags(Filters=[{"Name": "resource-type", "Values": ["image"]}])["Tags"] == []
refused("AuthFailure", theirs.deregister_image, ImageId=image)
refused("AuthFailure", theirs.modify_image_attribute, ImageId=image, LaunchPermission={"Add": [{"Group": "all"}]})
refused("AuthFailure", theirs.reset_image_attribute, ImageId=image, Attribute="launchPermission")
refused("AuthFailure", theirs.describe_image_attribute, ImageId=image, Attribute="launchPermission")
refused("InvalidAMIID.NotFound", theirs.create_tags, Resources=[image], Tags=[{"Key": "a", "Value": "b"}])
refused("InvalidAMIAttributeItemValue", mine.modify_image_attribute, ImageId=image, LaunchPermission={"Add": [{"UserId": "1"}]})
refused("InvalidAMIAttributeItemValue", mine.modify_image_attribute, ImageId=image, LaunchPermission={"Add": [{"Group": "some"}]})

for ec2, account in [(mine, operator), (theirs, tenant)]:
    (instance,) = ec2.run_instances(**launch, ClientToken="same")["Instances"]
    ec2.get_waiter("instance_running").wait(InstanceIds=[instance["InstanceId"]], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    reservation = ec2.describe_instances()["Reservations"]
    assert len(reservation) == 1 and reservation[0]["OwnerId"] == account, reservation
    told = reservation[0]["Instances"][0]
    owned[account] |= {
        "i": told["InstanceId"],
        "eni": told["NetworkInterfaces"][0]["NetworkInterfaceId"],
        "vol": told["BlockDeviceMappings"][0]["Ebs"]["VolumeId"],
        "subnet": told["SubnetId"],
        "vpc": told["VpcId"],
        "public": told["PublicIpAddress"],
        "mac": told["NetworkInterfaces"][0]["MacAddress"],
    }
for kind in owned[operator]:
    assert owned[operator][kind] != owned[tenant][kind], kind

# Whatever is listed, nothing of the other is in it.
for ec2, other in [(mine, tenant), (theirs, operator)]:
    for name in sorted(dir(ec2)):
        if not name.startswith("describe_") or name == "describe_instance_types":
            continue
        try:
            answer = json.dumps(getattr(ec2, name)(), default=str)
        except Exception:  # It is not served, or asks for more.
            continue
        FIGURES["listed"] += 1
        for kind, foreign in owned[other].items():
            assert foreign not in answer, (name, kind, foreign)
for manage, other in [(iam, tenant), (their_iam, operator)]:
    for name in ["list_users", "list_roles", "list_groups", "list_instance_profiles", "list_policies", "list_access_keys"]:
        assert other not in json.dumps(getattr(manage, name)(), default=str), name
        FIGURES["listed"] += 1

# What is the operator's is not there for the tenant, by whatever call it is named.
its = owned[operator]
before = mine.describe_instances()["Reservations"]
one = {"InstanceIds": [its["i"]]}
for call in ["describe_instances", "describe_instance_status", "start_instances", "stop_instances", "reboot_instances",
             "terminate_instances", "unmonitor_instances", "describe_instance_credit_specifications"]:
    refused("InvalidInstanceID.NotFound", getattr(theirs, call), **one)
refused("InvalidInstanceID.NotFound", theirs.get_console_output, InstanceId=its["i"])
refused("InvalidInstanceID.NotFound", theirs.describe_instance_attribute, InstanceId=its["i"], Attribute="userData")
refused("InvalidInstanceID.NotFound", theirs.modify_instance_attribute, InstanceId=its["i"], DisableApiStop={"Value": True})
refused("InvalidInstanceID.NotFound", theirs.modify_instance_metadata_options, InstanceId=its["i"], HttpTokens="required")
refused("InvalidInstanceID.NotFound", theirs.associate_iam_instance_profile, InstanceId=its["i"], IamInstanceProfile={"Name": "web"})
refused(
    "InvalidGroup.NotFound", theirs.modify_instance_attribute, InstanceId=owned[tenant]["i"], Groups=[its["sg"]]
)
refused("InvalidGroup.NotFound", theirs.describe_security_groups, GroupIds=[its["sg"]])
refused("InvalidGroup.NotFound", theirs.delete_security_group, GroupId=its["sg"])
opened = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
for call in ["authorize_security_group_ingress", "authorize_security_group_egress", "revoke_security_group_ingress",
             "revoke_security_group_egress"]:
    refused("InvalidGroup.NotFound", getattr(theirs, call), GroupId=its["sg"], IpPermissions=opened)
refused(
    "InvalidGroup.NotFound",
    theirs.authorize_security_group_ingress,
    GroupId=owned[tenant]["sg"],
    IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": its["sg"]}]}],
)
refused("InvalidSecurityGroupRuleId.NotFound", theirs.describe_security_group_rules, SecurityGroupRuleIds=[its["sgr"]])
refused("InvalidKeyPair.NotFound", theirs.describe_key_pairs, KeyPairIds=[its["key"]])
theirs.delete_key_pair(KeyPairId=its["key"])
assert mine.describe_key_pairs(KeyPairIds=[its["key"]])["KeyPairs"]
refused("InvalidVolume.NotFound", theirs.describe_volumes, VolumeIds=[its["vol"]])
refused("InvalidVolume.NotFound", theirs.delete_volume, VolumeId=its["vol"])
refused("InvalidNetworkInterfaceID.NotFound", theirs.describe_network_interfaces, NetworkInterfaceIds=[its["eni"]])
refused("InvalidVpcID.NotFound", theirs.describe_vpcs, VpcIds=[its["vpc"]])
refused("InvalidVpcID.NotFound", theirs.describe_vpc_attribute, VpcId=its["vpc"], Attribute="enableDnsSupport")
refused("InvalidVpcID.NotFound", theirs.create_security_group, GroupName="x", Description="x", VpcId=its["vpc"])
refused("InvalidSubnetID.NotFound", theirs.describe_subnets, SubnetIds=[its["subnet"]])
refused("InvalidSubnetID.NotFound", theirs.run_instances, **(launch | {"SubnetId": its["subnet"], "SecurityGroups": []}))
refused("InvalidGroup.NotFound", theirs.run_instances, **{k: v for k, v in launch.items() if k != "SecurityGroups"}, SecurityGroupIds=[its["sg"]])
refused("InvalidPlacementGroup.Unknown|InvalidPlacementGroupId.*", theirs.describe_placement_groups, GroupIds=[its["pg"]])
for kind, code in [("i", "InvalidInstanceID"), ("vol", "InvalidVolume"), ("vpc", "InvalidVpcID"), ("subnet", "InvalidSubnetID"),
                   ("sg", "InvalidGroup"), ("eni", "InvalidNetworkInterfaceID"), ("key", "InvalidKeyPair")]:
    refused(f"{code}.NotFound", theirs.create_tags, Resources=[its[kind]], Tags=[{"Key": "a", "Value": "b"}])
    refused(f"{code}.NotFound", theirs.delete_tags, Resources=[its[kind]])
foreign = f"arn:aws:iam::{operator}:instance-profile/web"
refused("InvalidParameterValue", theirs.run_instances, **launch, IamInstanceProfile={"Arn": foreign})
assert mine.describe_instances()["Reservations"] == before

# A role of one account, assumed by the other: both must allow it.
trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": operator}, "Action": "sts:AssumeRole"}]}
role = f"arn:aws:iam::{tenant}:role/deploy"
refused("AccessDenied", sts.assume_role, RoleArn=role, RoleSessionName="visit")
their_iam.update_assume_role_policy(RoleName="deploy", PolicyDocument=json.dumps(trust))
refused("AccessDenied", sts.assume_role, RoleArn=role, RoleSessionName="root")
allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}]}
their_iam.put_role_policy(RoleName="deploy", PolicyName="look", PolicyDocument=json.dumps(allow))
alice = iam.create_access_key(UserName="alice")["AccessKey"]
alice = f"{alice['AccessKeyId']}:{alice['SecretAccessKey']}"
by_name = trust | {"Statement": [trust["Statement"][0] | {"Principal": {"AWS": f"arn:aws:iam::{operator}:user/alice"}}]}
for document in [trust, by_name]:
    their_iam.update_assume_role_policy(RoleName="deploy", PolicyDocument=json.dumps(document))
    refused("AccessDenied", client("sts", alice).assume_role, RoleArn=role, RoleSessionName="visit")
may = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": role}]}
iam.put_user_policy(UserName="alice", PolicyName="visit", PolicyDocument=json.dumps(may))
got = client("sts", alice).assume_role(RoleArn=role, RoleSessionName="visit")["Credentials"]
visitor = [f"{got['AccessKeyId']}:{got['SecretAccessKey']}", got["SessionToken"]]
assert client("sts", *visitor).get_caller_identity()["Account"] == tenant
seen = client("ec2", *visitor).describe_instances()["Reservations"]
assert [r["Instances"][0]["InstanceId"] for r in seen] == [owned[tenant]["i"]]
refused("UnauthorizedOperation", client("ec2", *visitor).terminate_instances, InstanceIds=[owned[tenant]["i"]])

message = refused("UnauthorizedOperation", client("ec2", *visitor).terminate_instances, InstanceIds=[owned[tenant]["i"]])
encoded = message.rsplit(" ", 1)[1]
assert their_sts.decode_authorization_message(EncodedMessage=encoded)["DecodedMessage"]
refused("InvalidAuthorizationMessageException", sts.decode_authorization_message, EncodedMessage=encoded)

# What runs from an image that is shared no more runs on, and starts again.
mine.reset_image_attribute(ImageId=image, Attribute="launchPermission")
refused("InvalidAMIID.NotFound", theirs.run_instances, **launch)
own = [owned[tenant]["i"]]
theirs.stop_instances(InstanceIds=own)
theirs.get_waiter("instance_stopped").wait(InstanceIds=own, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
theirs.start_instances(InstanceIds=own)
theirs.get_waiter("instance_running").wait(InstanceIds=own, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
mine.modify_image_attribute(ImageId=image, Attribute="launchPermission", OperationType="add", UserGroups=["all"])
(public,) = theirs.describe_images(ExecutableUsers=["all"])["Images"]
assert public["Public"] and public["ImageId"] == image
assert theirs.describe_images(Filters=[{"Name": "is-public", "Values": ["true"]}])["Images"]

# What an account may have is counted by itself.
for number in range(499):
    mine.create_placement_group(GroupName=f"group-{number}", Strategy="cluster")
refused("ResourceLimitExceeded", mine.create_placement_group, GroupName="one-more", Strategy="cluster")
theirs.create_placement_group(GroupName="own", Strategy="cluster")
theirs.delete_placement_group(GroupName="own")

# Settings go with the account, and so do its users and roles.
theirs.enable_serial_console_access()

# For the end of the account: whatever was made in it is gone.
theirs.terminate_instances(InstanceIds=own)
theirs.delete_key_pair(KeyName="key")
theirs.delete_placement_group(GroupName="near")
print(f"FIGURE accounts: {FIGURES['refused']} calls refused, {FIGURES['listed']} lists compared")
