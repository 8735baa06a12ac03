"""Users, groups, roles and policies, as botocore has them. usage: iam.py ENDPOINT REGION CREDENTIALS AMI"""

import json
import sys

from cloud import Cloud, owner, refused

endpoint, region, path, image = sys.argv[1:]
ROOT = (*owner(path), None)
client = Cloud(endpoint, region, ROOT).client


def allows(actions, resources="*", **more):
    statement = {"Effect": "Allow", "Action": actions, "Resource": resources, **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def denies(actions, resources="*"):
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": actions, "Resource": resources}]})


def new_key(name):
    key = iam.create_access_key(UserName=name)["AccessKey"]
    assert key["AccessKeyId"].startswith("AKIA") and key["Status"] == "Active", key
    return key["AccessKeyId"], key["SecretAccessKey"], None


iam, sts, ec2 = client("iam"), client("sts"), client("ec2")
account = sts.get_caller_identity()["Account"]
assert sts.get_caller_identity()["Arn"] == f"arn:aws:iam::{account}:root"
assert iam.get_user()["User"]["Arn"] == f"arn:aws:iam::{account}:root"

# Users.
user = iam.create_user(UserName="anna", Path="/dev/", Tags=[{"Key": "team", "Value": "red"}])["User"]
assert user["Arn"] == f"arn:aws:iam::{account}:user/dev/anna", user
assert user["UserId"].startswith("AIDA") and len(user["UserId"]) == 21, user
assert refused("EntityAlreadyExists", 409, iam.create_user, UserName="ANNA") == "User with name ANNA already exists."
refused("NoSuchEntity", 404, iam.get_user, UserName="nobody")
refused("ValidationError", 400, iam.create_user, UserName="a b")
refused("ValidationError", 400, iam.create_user, UserName="x" * 65)
refused("ValidationError", 400, iam.create_user, UserName="ok", Path="dev")
anna = new_key("anna")
mine = client("sts", anna).get_caller_identity()
assert (mine["Arn"], mine["UserId"]) == (user["Arn"], user["UserId"]), mine

# Nothing is allowed that no policy allows.
hers = client("ec2", anna)
said = refused("UnauthorizedOperation", 403, hers.describe_instances)
assert said.startswith(
    f"You are not authorized to perform this operation. User: {user['Arn']} is not authorized to perform: "
    "ec2:DescribeInstances on resource: * because no identity-based policy allows the ec2:DescribeInstances action."
), said
encoded = said.rsplit(" ", 1)[1]
decoded = json.loads(sts.decode_authorization_message(EncodedMessage=encoded)["DecodedMessage"])
assert decoded["action"] == "ec2:DescribeInstances" and decoded["allowed"] is False, decoded
refused("InvalidAuthorizationMessageException", 400, sts.decode_authorization_message, EncodedMessage=encoded[:-8] + "AAAAAAA=")
assert refused("AccessDenied", 403, client("iam", anna).list_users).endswith(
    "iam:ListUsers on resource: * because no identity-based policy allows the iam:ListUsers action"
)

# A policy of her own; an explicit deny beats it.
iam.put_user_policy(UserName="anna", PolicyName="look", PolicyDocument=allows("ec2:Describe*"))
assert hers.describe_instances()["Reservations"] == []
found = iam.get_user_policy(UserName="anna", PolicyName="look")
assert found["PolicyDocument"]["Statement"][0]["Action"] == "ec2:Describe*", found
assert iam.list_user_policies(UserName="anna")["PolicyNames"] == ["look"]
iam.put_user_policy(UserName="anna", PolicyName="blind", PolicyDocument=denies("ec2:DescribeVpcs"))
assert refused("UnauthorizedOperation", 403, hers.describe_vpcs).count("with an explicit deny in an identity-based policy")
hers.describe_subnets()
iam.delete_user_policy(UserName="anna", PolicyName="blind")
hers.describe_vpcs()
refused("NoSuchEntity", 404, iam.delete_user_policy, UserName="anna", PolicyName="blind")
for bad in ["", "{", "[]", '{"Statement": []}', allows("ec2:*").replace("Allow", "Perhaps"), allows("*").replace('"Resource": "*"', '"Sid": "a"')]:
    refused("MalformedPolicyDocument", 400, iam.put_user_policy, UserName="anna", PolicyName="bad", PolicyDocument=bad)

# Groups.
group = iam.create_group(GroupName="developers")["Group"]
assert group["GroupId"].startswith("AGPA"), group
iam.add_user_to_group(GroupName="developers", UserName="anna")
iam.attach_group_policy(GroupName="developers", PolicyArn="arn:aws:iam::aws:policy/IAMReadOnlyAccess")
assert [one["UserName"] for one in client("iam", anna).list_users()["Users"]] == ["anna"]
assert [one["UserName"] for one in iam.get_group(GroupName="developers")["Users"]] == ["anna"]
assert [one["GroupName"] for one in iam.list_groups_for_user(UserName="anna")["Groups"]] == ["developers"]
refused("AccessDenied", 403, client("iam", anna).create_user, UserName="eve")
refused("DeleteConflict", 409, iam.delete_group, GroupName="developers")
refused("DeleteConflict", 409, iam.delete_user, UserName="anna")
iam.remove_user_from_group(GroupName="developers", UserName="anna")
refused("AccessDenied", 403, client("iam", anna).list_users)

# Managed policies and their versions.
policy = iam.create_policy(PolicyName="keys", PolicyDocument=allows("ec2:*KeyPair*", "*"), Description="keys & more")["Policy"]
arn = policy["Arn"]
assert arn == f"arn:aws:iam::{account}:policy/keys" and policy["DefaultVersionId"] == "v1", policy
iam.attach_user_policy(UserName="anna", PolicyArn=arn)
assert iam.list_attached_user_policies(UserName="anna")["AttachedPolicies"] == [{"PolicyArn": arn, "PolicyName": "keys"}]
hers.create_key_pair(KeyName="hers", KeyType="ed25519")
made = iam.create_policy_version(PolicyArn=arn, PolicyDocument=allows("ec2:DeleteKeyPair"), SetAsDefault=True)["PolicyVersion"]
assert made["VersionId"] == "v2" and made["IsDefaultVersion"], made
refused("UnauthorizedOperation", 403, hers.create_key_pair, KeyName="more")
hers.delete_key_pair(KeyName="hers")
document = iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]["Document"]
assert document["Statement"][0]["Action"] == "ec2:*KeyPair*", document
assert [one["VersionId"] for one in iam.list_policy_versions(PolicyArn=arn)["Versions"]] == ["v2", "v1"]
refused("DeleteConflict", 409, iam.delete_policy_version, PolicyArn=arn, VersionId="v2")
refused("DeleteConflict", 409, iam.delete_policy, PolicyArn=arn)
assert iam.get_policy(PolicyArn=arn)["Policy"]["AttachmentCount"] == 1
assert [one["UserName"] for one in iam.list_entities_for_policy(PolicyArn=arn)["PolicyUsers"]] == ["anna"]
assert [one["PolicyName"] for one in iam.list_policies(Scope="Local")["Policies"]] == ["keys"]
assert "AdministratorAccess" in [one["PolicyName"] for one in iam.list_policies(Scope="AWS")["Policies"]]
refused("NoSuchEntity", 404, iam.attach_user_policy, UserName="anna", PolicyArn=arn + "x")
refused("AccessDenied", 403, iam.delete_policy, PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
iam.detach_user_policy(UserName="anna", PolicyArn=arn)
iam.delete_policy_version(PolicyArn=arn, VersionId="v1")
iam.delete_policy(PolicyArn=arn)

# Resources, tags and other conditions.
iam.create_user(UserName="bert", Tags=[{"Key": "team", "Value": "red"}])
bert = new_key("bert")
his = client("ec2", bert)
any_of = lambda kind: f"arn:aws:ec2:*:*:{kind}/*"
# Images belong to no account in ARNs.
launch = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "ec2:RunInstances",
            "Resource": any_of("instance"),
            "Condition": {
                "StringEquals": {"aws:RequestTag/team": "${aws:PrincipalTag/team}", "ec2:InstanceType": "t2.micro"},
                "ForAllValues:StringEquals": {"aws:TagKeys": ["team"]},
            },
        },
        {
            "Effect": "Allow",
            "Action": "ec2:RunInstances",
            "Resource": [f"arn:aws:ec2:{region}::image/{image}"] + [any_of(kind) for kind in ["subnet", "security-group", "network-interface", "volume"]],
        },
        {"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "*", "Condition": {"StringEquals": {"ec2:CreateAction": "RunInstances"}}},
        {
            "Effect": "Allow",
            "Action": ["ec2:StopInstances", "ec2:TerminateInstances"],
            "Resource": any_of("instance"),
            "Condition": {"StringEquals": {"ec2:ResourceTag/team": "red"}},
        },
    ],
}
iam.put_user_policy(UserName="bert", PolicyName="launch", PolicyDocument=json.dumps(launch))
red = [{"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "red"}]}]
blue = [{"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "blue"}]}]
two = [{"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "red"}, {"Key": "x", "Value": "y"}]}]
run = dict(ImageId=image, MinCount=1, MaxCount=1, InstanceType="t2.micro")
refused("UnauthorizedOperation", 403, his.run_instances, **run)
refused("UnauthorizedOperation", 403, his.run_instances, **run, TagSpecifications=blue)
refused("UnauthorizedOperation", 403, his.run_instances, **run, TagSpecifications=two)
refused("UnauthorizedOperation", 403, his.run_instances, **{**run, "InstanceType": "t2.small"}, TagSpecifications=red)
refused("UnauthorizedOperation", 403, his.run_instances, **{**run, "ImageId": "ami-00000000000000000"}, TagSpecifications=red)
# A dry run says so, too.
refused("UnauthorizedOperation", 403, his.run_instances, **run, TagSpecifications=blue, DryRun=True)
refused("DryRunOperation", 412, his.run_instances, **run, TagSpecifications=red, DryRun=True)
[mine] = his.run_instances(**run, TagSpecifications=red)["Instances"]
[other] = ec2.run_instances(**run)["Instances"]
mine, other = mine["InstanceId"], other["InstanceId"]
said = refused("UnauthorizedOperation", 403, his.terminate_instances, InstanceIds=[other])
assert f"arn:aws:ec2:{region}:{account}:instance/{other}" in said, said
# All or nothing.
refused("UnauthorizedOperation", 403, his.terminate_instances, InstanceIds=[mine, other])
refused("UnauthorizedOperation", 403, his.create_tags, Resources=[other], Tags=[{"Key": "team", "Value": "red"}])
his.terminate_instances(InstanceIds=[mine])
ec2.terminate_instances(InstanceIds=[other])
here = {"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}
iam.put_user_policy(UserName="bert", PolicyName="here", PolicyDocument=allows("ec2:DescribeImages", Condition=here))
his.describe_images()
secure = {"Bool": {"aws:SecureTransport": str(endpoint.startswith("https")).lower()}}
iam.put_user_policy(UserName="bert", PolicyName="here", PolicyDocument=allows("ec2:DescribeImages", Condition=secure))
his.describe_images()
elsewhere = {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}
iam.put_user_policy(UserName="bert", PolicyName="here", PolicyDocument=allows("ec2:DescribeImages", Condition=elsewhere))
refused("UnauthorizedOperation", 403, his.describe_images)
own = f"arn:aws:iam::{account}:user/*${{aws:username}}"
iam.put_user_policy(UserName="bert", PolicyName="keys", PolicyDocument=allows("iam:*AccessKey*", own))
assert len(client("iam", bert).list_access_keys()["AccessKeyMetadata"]) == 1
refused("AccessDenied", 403, client("iam", bert).list_access_keys, UserName="anna")

# What is made with tags is tagged, and that is an action of its own.
iam.put_user_policy(UserName="bert", PolicyName="pairs", PolicyDocument=allows("ec2:CreateKeyPair", f"arn:aws:ec2:*:*:key-pair/${{aws:username}}-*"))
pair = dict(KeyName="bert-1", KeyType="ed25519")
tagged = [{"ResourceType": "key-pair", "Tags": [{"Key": "a", "Value": "b"}]}]
assert "ec2:CreateTags" in refused("UnauthorizedOperation", 403, his.create_key_pair, **pair, TagSpecifications=tagged)
refused("UnauthorizedOperation", 403, his.create_key_pair, KeyName="anna-1", KeyType="ed25519")
his.create_key_pair(**pair)
# A pair is told by its name, also where its id is given; and a name that is another's id is a name.
pairs = {pair["KeyName"]: pair["KeyPairId"] for pair in ec2.describe_key_pairs()["KeyPairs"]}
ec2.create_key_pair(KeyName=pairs["bert-1"], KeyType="ed25519")
iam.put_user_policy(UserName="bert", PolicyName="pairs", PolicyDocument=allows("ec2:DeleteKeyPair", "arn:aws:ec2:*:*:key-pair/bert-1"))
refused("UnauthorizedOperation", 403, his.delete_key_pair, KeyName=pairs["bert-1"])
assert his.delete_key_pair(KeyPairId=pairs["bert-1"])["Return"] is True
web = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
iam.put_user_policy(UserName="bert", PolicyName="rules", PolicyDocument=allows("ec2:Authorize*", [f"arn:aws:ec2:*:*:security-group/{web}", "arn:aws:ec2:*:*:security-group-rule/*"]))
rule = dict(IpProtocol="tcp", FromPort=22, ToPort=22)
[default] = ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"]
peer = [{**rule, "UserIdGroupPairs": [{"GroupId": default["GroupId"]}]}]
# The group of the peer is not what is changed.
his.authorize_security_group_ingress(GroupId=web, IpPermissions=peer)
refused("UnauthorizedOperation", 403, his.authorize_security_group_ingress, GroupId=default["GroupId"], IpPermissions=peer)
refused("UnauthorizedOperation", 403, his.revoke_security_group_ingress, GroupId=web, IpPermissions=peer)

# Access keys: two at most; an inactive one signs nothing, and no more does one that is deleted.
second = new_key("bert")
refused("LimitExceeded", 409, iam.create_access_key, UserName="bert")
iam.update_access_key(UserName="bert", AccessKeyId=bert[0], Status="Inactive")
refused("AuthFailure", 401, his.describe_images)
refused("InvalidClientTokenId", 403, client("sts", bert).get_caller_identity)
iam.update_access_key(UserName="bert", AccessKeyId=bert[0], Status="Active")
client("sts", bert).get_caller_identity()
iam.delete_access_key(UserName="bert", AccessKeyId=bert[0])
refused("InvalidClientTokenId", 403, client("sts", bert).get_caller_identity)
refused("NoSuchEntity", 404, iam.delete_access_key, UserName="anna", AccessKeyId=second[0])
assert sts.get_access_key_info(AccessKeyId=second[0])["Account"] == account

# Roles.
trust = lambda principal, **more: json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole", **more}]}
)
bert_arn = f"arn:aws:iam::{account}:user/bert"
role = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=trust({"AWS": bert_arn}), Path="/ops/", Description="reads")["Role"]
assert role["RoleId"].startswith("AROA") and role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"AWS": bert_arn}, role
iam.attach_role_policy(RoleName="reader", PolicyArn="arn:aws:iam::aws:policy/AmazonEC2ReadOnlyAccess")
assume = dict(RoleArn=role["Arn"], RoleSessionName="try@home")
refused("AccessDenied", 403, client("sts", anna).assume_role, **assume)
taken = client("sts", second).assume_role(**assume)
session = taken["Credentials"]
session = (session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"])
assert session[0].startswith("ASIA"), session
assert taken["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{account}:assumed-role/reader/try@home", taken
who = client("sts", session).get_caller_identity()
assert (who["Arn"], who["UserId"]) == (taken["AssumedRoleUser"]["Arn"], f"{role['RoleId']}:try@home"), who
assert len(client("ec2", session).describe_images()["Images"]) == 1
refused("UnauthorizedOperation", 403, client("ec2", session).run_instances, **run)
refused("AccessDenied", 403, client("sts", session).get_session_token)
# Credentials that end are whole or nothing.
refused("AuthFailure", 401, client("ec2", (session[0], session[1], None)).describe_images)
refused("AuthFailure", 401, client("ec2", (session[0], session[1], session[2][:-4] + "AAA=")).describe_images)
refused("AuthFailure", 401, client("ec2", (session[0], session[1][::-1], session[2])).describe_images)
refused("AuthFailure", 401, client("ec2", (second[0], second[1], session[2])).describe_images)
# What the role may is looked up at each call.
iam.detach_role_policy(RoleName="reader", PolicyArn="arn:aws:iam::aws:policy/AmazonEC2ReadOnlyAccess")
refused("UnauthorizedOperation", 403, client("ec2", session).describe_images)
# The account trusts whom its policies allow.
iam.update_assume_role_policy(RoleName="reader", PolicyDocument=trust({"AWS": f"arn:aws:iam::{account}:root"}))
refused("AccessDenied", 403, client("sts", second).assume_role, **assume)
iam.put_user_policy(UserName="bert", PolicyName="assume", PolicyDocument=allows("sts:AssumeRole", role["Arn"]))
client("sts", second).assume_role(**assume)
iam.put_user_policy(UserName="bert", PolicyName="never", PolicyDocument=denies("sts:AssumeRole"))
iam.update_assume_role_policy(RoleName="reader", PolicyDocument=trust({"AWS": bert_arn}))
refused("AccessDenied", 403, client("sts", second).assume_role, **assume)
iam.delete_user_policy(UserName="bert", PolicyName="never")
needs = {"StringEquals": {"sts:ExternalId": "42"}}
iam.update_assume_role_policy(RoleName="reader", PolicyDocument=trust({"AWS": bert_arn}, Condition=needs))
refused("AccessDenied", 403, client("sts", second).assume_role, **assume)
client("sts", second).assume_role(**assume, ExternalId="42")
for wrong in [{"DurationSeconds": 899}, {"DurationSeconds": 3601}, {"RoleSessionName": "x"}, {"RoleSessionName": "a b"}]:
    refused("ValidationError", 400, client("sts", second).assume_role, **{**assume, "ExternalId": "42", **wrong})
refused("AccessDenied", 403, client("sts", second).assume_role, RoleArn=role["Arn"] + "x", RoleSessionName="try")
token = client("sts", second).get_session_token()["Credentials"]
token = (token["AccessKeyId"], token["SecretAccessKey"], token["SessionToken"])
assert client("sts", token).get_caller_identity()["Arn"] == bert_arn

# Instance profiles.
profile = iam.create_instance_profile(InstanceProfileName="web")["InstanceProfile"]
assert profile["InstanceProfileId"].startswith("AIPA") and profile["Roles"] == [], profile
iam.add_role_to_instance_profile(InstanceProfileName="web", RoleName="reader")
refused("LimitExceeded", 409, iam.add_role_to_instance_profile, InstanceProfileName="web", RoleName="reader")
[found] = iam.get_instance_profile(InstanceProfileName="web")["InstanceProfile"]["Roles"]
assert found["Arn"] == role["Arn"], found
assert len(iam.list_instance_profiles_for_role(RoleName="reader")["InstanceProfiles"]) == 1
refused("DeleteConflict", 409, iam.delete_instance_profile, InstanceProfileName="web")
refused("DeleteConflict", 409, iam.delete_role, RoleName="reader")

# Instances with a profile; only who may pass its role gives it to one.
his = client("ec2", second)
name = {"Name": "web"}
refused("UnauthorizedOperation", 403, his.run_instances, **run, TagSpecifications=red, IamInstanceProfile=name)
refused("InvalidParameterValue", 400, ec2.run_instances, **run, IamInstanceProfile={"Name": "none"})
refused("InvalidParameterCombination", 400, ec2.run_instances, **run, IamInstanceProfile={**name, "Arn": profile["Arn"]})
[one] = ec2.run_instances(**run, IamInstanceProfile=name)["Instances"]
assert one["IamInstanceProfile"] == {"Arn": profile["Arn"], "Id": profile["InstanceProfileId"]}, one
one = one["InstanceId"]
[association] = ec2.describe_iam_instance_profile_associations(Filters=[{"Name": "instance-id", "Values": [one]}])["IamInstanceProfileAssociations"]
assert association["State"] == "associated" and association["InstanceId"] == one, association
refused("IncorrectState", 400, ec2.associate_iam_instance_profile, InstanceId=one, IamInstanceProfile=name)
iam.put_user_policy(UserName="bert", PolicyName="pass", PolicyDocument=allows(["iam:PassRole"], role["Arn"], Condition={"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}))
refused("DryRunOperation", 412, his.run_instances, **run, TagSpecifications=red, IamInstanceProfile=name, DryRun=True)
iam.delete_user_policy(UserName="bert", PolicyName="pass")
replaced = ec2.replace_iam_instance_profile_association(AssociationId=association["AssociationId"], IamInstanceProfile={"Arn": profile["Arn"]})
replaced = replaced["IamInstanceProfileAssociation"]["AssociationId"]
assert replaced != association["AssociationId"]
refused("NoSuchAssociation", 400, ec2.disassociate_iam_instance_profile, AssociationId=association["AssociationId"])
asked = dict(AssociationIds=[replaced, replaced])
assert len(ec2.describe_iam_instance_profile_associations(**asked)["IamInstanceProfileAssociations"]) == 1
refused("NoSuchAssociation", 400, ec2.describe_iam_instance_profile_associations, AssociationIds=["iip-assoc-0"])
ended = ec2.disassociate_iam_instance_profile(AssociationId=replaced)["IamInstanceProfileAssociation"]
assert ended["State"] == "disassociating", ended
[found] = ec2.describe_instances(InstanceIds=[one])["Reservations"][0]["Instances"]
assert "IamInstanceProfile" not in found, found
ec2.associate_iam_instance_profile(InstanceId=one, IamInstanceProfile=name)
ec2.terminate_instances(InstanceIds=[one])
iam.remove_role_from_instance_profile(InstanceProfileName="web", RoleName="reader")
iam.delete_instance_profile(InstanceProfileName="web")
iam.delete_role(RoleName="reader")
refused("AuthFailure", 401, client("ec2", session).describe_images)

# Pages, names that change, tags.
for number in range(5):
    iam.create_user(UserName=f"user-{number}", Path="/many/")
pages = iam.get_paginator("list_users").paginate(PathPrefix="/many/", PaginationConfig={"PageSize": 2})
assert [len(page["Users"]) for page in pages] == [2, 2, 1]
iam.update_user(UserName="user-0", NewUserName="user-9", NewPath="/few/")
assert iam.get_user(UserName="user-9")["User"]["Path"] == "/few/"
refused("EntityAlreadyExists", 409, iam.update_user, UserName="user-9", NewUserName="user-1")
# Who renames a user needs the right to the new name, too.
iam.put_user_policy(UserName="bert", PolicyName="renames", PolicyDocument=allows("iam:UpdateUser", f"arn:aws:iam::{account}:user/*/user-*"))
client("iam", second).update_user(UserName="user-1", NewUserName="user-8")
refused("AccessDenied", 403, client("iam", second).update_user, UserName="user-8", NewUserName="cleo")
refused("AccessDenied", 403, client("iam", second).update_user, UserName="user-8", NewPath="/")
# White space of policies does not count.
iam.put_user_policy(UserName="user-8", PolicyName="wide", PolicyDocument=allows("ec2:*").replace(" ", " " * 2000))
half = allows([f"ec2:{number:0>90}" for number in range(60)])
iam.put_user_policy(UserName="user-8", PolicyName="half", PolicyDocument=half)
refused("LimitExceeded", 409, iam.put_user_policy, UserName="user-8", PolicyName="more", PolicyDocument=half)
iam.tag_user(UserName="user-9", Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}])
iam.untag_user(UserName="user-9", TagKeys=["a", "c"])
assert iam.list_user_tags(UserName="user-9")["Tags"] == [{"Key": "b", "Value": ""}]

# An administrator is one by policy alone.
iam.attach_user_policy(UserName="user-9", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
admin = new_key("user-9")
client("iam", admin).create_user(UserName="made-by-admin")
client("ec2", admin).describe_instances()
iam.detach_user_policy(UserName="user-9", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
refused("AccessDenied", 403, client("iam", admin).create_user, UserName="another")
iam.delete_access_key(UserName="user-9", AccessKeyId=admin[0])
iam.delete_user(UserName="user-9")
refused("NoSuchEntity", 404, iam.get_user, UserName="user-9")

# What limits: permissions boundaries.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_boundaries.html
readonly = "arn:aws:iam::aws:policy/AmazonEC2ReadOnlyAccess"
refused("InvalidInput", 400, iam.create_user, UserName="dora", PermissionsBoundary="everything")
refused("NoSuchEntity", 404, iam.create_user, UserName="dora", PermissionsBoundary=f"arn:aws:iam::{account}:policy/none")
dora = iam.create_user(UserName="dora", PermissionsBoundary=readonly)["User"]
limit = {"PermissionsBoundaryType": "Policy", "PermissionsBoundaryArn": readonly}
assert dora["PermissionsBoundary"] == limit, dora
assert iam.get_user(UserName="dora")["User"]["PermissionsBoundary"] == limit
key = new_key("dora")
hers, delete = client("ec2", key), dict(KeyName="none")
# A boundary gives nothing by itself, and what is given beyond it is not.
assert "because no identity-based policy allows" in refused("UnauthorizedOperation", 403, hers.describe_images)
iam.attach_user_policy(UserName="dora", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
hers.describe_images()
assert "because no permissions boundary allows the ec2:DeleteKeyPair action" in refused("UnauthorizedOperation", 403, hers.delete_key_pair, **delete)
refused("AccessDenied", 403, client("iam", key).list_users)
own = iam.create_policy(PolicyName="limit", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": "*", "Resource": "*"}, {"Effect": "Deny", "Action": "ec2:DeleteKeyPair", "Resource": "*"}]}))["Policy"]
iam.put_user_permissions_boundary(UserName="dora", PermissionsBoundary=own["Arn"])
assert "with an explicit deny in a permissions boundary" in refused("UnauthorizedOperation", 403, hers.delete_key_pair, **delete)
client("iam", key).list_users()
assert iam.get_policy(PolicyArn=own["Arn"])["Policy"]["PermissionsBoundaryUsageCount"] == 1
refused("DeleteConflict", 409, iam.delete_policy, PolicyArn=own["Arn"])
# Who may change boundaries can be held to one.
iam.create_user(UserName="boss")
iam.put_user_policy(UserName="boss", PolicyName="makes", PolicyDocument=allows(["iam:CreateUser", "iam:PutUserPermissionsBoundary"], Condition={"StringEquals": {"iam:PermissionsBoundary": readonly}}))
boss = client("iam", new_key("boss"))
refused("AccessDenied", 403, boss.create_user, UserName="free")
refused("AccessDenied", 403, boss.create_user, UserName="free", PermissionsBoundary=own["Arn"])
boss.create_user(UserName="bound", PermissionsBoundary=readonly)
refused("AccessDenied", 403, boss.delete_user_permissions_boundary, UserName="bound")
iam.delete_user_permissions_boundary(UserName="dora")
refused("NoSuchEntity", 404, iam.delete_user_permissions_boundary, UserName="dora")
hers.delete_key_pair(**delete)
iam.delete_policy(PolicyArn=own["Arn"])

# What limits: session policies.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies.html#policies_session
dora_arn = f"arn:aws:iam::{account}:user/dora"
role = iam.create_role(RoleName="limited", AssumeRolePolicyDocument=trust({"AWS": dora_arn}))["Role"]
iam.attach_role_policy(RoleName="limited", PolicyArn="arn:aws:iam::aws:policy/AmazonEC2FullAccess")
assume = dict(RoleArn=role["Arn"], RoleSessionName="dora")


def session(made):
    made = made["Credentials"]
    return made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"]


taken = client("sts", key).assume_role(**assume, Policy=allows("ec2:Describe*"))
assert 0 < taken["PackedPolicySize"] <= 100, taken
one = client("ec2", session(taken))
one.describe_images()
assert "because no session policy allows the ec2:DeleteKeyPair action" in refused("UnauthorizedOperation", 403, one.delete_key_pair, **delete)
# The role's own policies still decide; and several session policies are one.
one = session(client("sts", key).assume_role(**assume, Policy=allows("ec2:DeleteKeyPair"), PolicyArns=[{"arn": readonly}, {"arn": "arn:aws:iam::aws:policy/IAMFullAccess"}]))
client("ec2", one).describe_images()
client("ec2", one).delete_key_pair(**delete)
refused("UnauthorizedOperation", 403, client("ec2", one).create_security_group, GroupName="x", Description="x")
assert "identity-based policy" in refused("AccessDenied", 403, client("iam", one).list_users)
one = client("ec2", session(client("sts", key).assume_role(**assume, Policy=denies("ec2:DescribeImages"))))
assert "with an explicit deny in a session policy" in refused("UnauthorizedOperation", 403, one.describe_images)
unlimited = client("sts", key).assume_role(**assume)
assert "PackedPolicySize" not in unlimited, unlimited
refused("PackedPolicyTooLarge", 400, client("sts", key).assume_role, **assume, Policy=allows(["ec2:" + "a" * 100 for _ in range(17)]), PolicyArns=[{"arn": readonly}] * 3)
refused("MalformedPolicyDocument", 400, client("sts", key).assume_role, **assume, Policy="{}")
refused("ValidationError", 400, client("sts", key).assume_role, **assume, PolicyArns=[{"arn": "none"}])
# A role's boundary limits its sessions, also where another role trusts it.
iam.put_role_permissions_boundary(RoleName="limited", PermissionsBoundary=readonly)
assert iam.get_role(RoleName="limited")["Role"]["PermissionsBoundary"] == limit
one = session(unlimited)
client("ec2", one).describe_images()
refused("UnauthorizedOperation", 403, client("ec2", one).delete_key_pair, **delete)
iam.create_role(RoleName="second", AssumeRolePolicyDocument=trust({"AWS": role["Arn"]}))
chained = dict(RoleArn=f"arn:aws:iam::{account}:role/second", RoleSessionName="chained")
assert "permissions boundary" in refused("AccessDenied", 403, client("sts", one).assume_role, **chained)
iam.delete_role_permissions_boundary(RoleName="limited")
client("sts", one).assume_role(**chained)
one = session(client("sts", key).assume_role(**assume, Policy=allows("ec2:*")))
assert "session policy" in refused("AccessDenied", 403, client("sts", one).assume_role, **chained)

# Federated users: what both the user and the call allow.
federate = dict(Name="guest", Policy=allows("ec2:*"))
made = client("sts", key).get_federation_token(**federate)
assert made["FederatedUser"] == {"FederatedUserId": f"{account}:guest", "Arn": f"arn:aws:sts::{account}:federated-user/guest"}, made
guest = session(made)
assert client("sts", guest).get_caller_identity()["Arn"] == made["FederatedUser"]["Arn"]
client("ec2", guest).describe_images()
client("ec2", guest).delete_key_pair(**delete)
refused("AccessDenied", 403, client("iam", guest).list_users)
refused("AccessDenied", 403, client("sts", guest).get_session_token)
refused("AccessDenied", 403, client("sts", guest).get_federation_token, **federate)
iam.put_user_permissions_boundary(UserName="dora", PermissionsBoundary=readonly)
refused("UnauthorizedOperation", 403, client("ec2", guest).delete_key_pair, **delete)
refused("AccessDenied", 403, client("sts", key).get_federation_token, **federate)
iam.delete_user_permissions_boundary(UserName="dora")
nothing = session(client("sts", key).get_federation_token(Name="nobody"))
assert "session policy" in refused("UnauthorizedOperation", 403, client("ec2", nothing).describe_images)
root = session(sts.get_federation_token(Name="admin", Policy=allows("ec2:Describe*")))
client("ec2", root).describe_images()
refused("UnauthorizedOperation", 403, client("ec2", root).delete_key_pair, **delete)
refused("ValidationError", 400, sts.get_federation_token, Name="a b")
refused("ValidationError", 400, sts.get_federation_token, Name="ab", DurationSeconds=3601)
print("done")
