"""The same commands by aws and by hearth, on one cloud. usage: tour.py ENDPOINT REGION CREDENTIALS SOCKET HEARTH AMI

What is read is compared word by word (JSON, YAML, text), with what is refused. aws runs in this process: it takes a second to start.
"""

import contextlib
import io
import json
import os
import re
import subprocess
import sys

endpoint, region, credentials, socket, hearth, image = sys.argv[1:]
home = os.path.dirname(socket)
config = os.path.join(home, "aws-config")
with open(config, "w") as file:
    # As version 2 of aws prints times.
    file.write("[default]\ncli_timestamp_format = iso8601\nmax_attempts = 1\n")
os.environ.update(
    AWS_ENDPOINT_URL=endpoint,
    AWS_DEFAULT_REGION=region,
    AWS_SHARED_CREDENTIALS_FILE=credentials,
    AWS_CONFIG_FILE=config,
    AWS_PAGER="",
)

import awscli.clidriver  # noqa: E402
from botocore import xform_name  # noqa: E402
import yaml  # noqa: E402

# It keeps what it has read of the model.
driver = awscli.clidriver.create_clidriver()
compared = 0
model = driver.session.get_service_model
services = ("iam", "sts", "ssm", "service-quotas", "ec2-instance-connect")
commands = {service: {xform_name(name, "-") for name in model(service).operation_names} for service in ("ec2", *services)}


def service_of(command):
    return next((service for service in commands if command in commands[service]), "ec2")


def aws(arguments):
    service = service_of(arguments[0])
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = driver.main([service, *arguments])
        except SystemExit as exit:
            code = exit.code
    return code, out.getvalue(), err.getvalue().strip()


def ours(arguments):
    environment = {"HEARTH_ENDPOINT": f"unix:{socket}", "HEARTH_HOME": home, "PATH": os.environ["PATH"]}
    done = subprocess.run([hearth, *arguments], capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout, re.sub(r" \(request id \S+\)$", "", done.stderr.strip())


def said(output, arguments):
    if "text" in arguments:
        return output
    return json.loads(output) if output.strip() else None


def same(*arguments):
    """Both say the same, JSON with its members in the same order; what they say."""
    global compared
    compared += 1
    (code, theirs, error), (own_code, own, own_error) = aws(list(arguments)), ours(list(arguments))
    assert code == own_code == 0, f"{arguments}\naws: {code} {error}\nhearth: {own_code} {own_error}"
    theirs, own = said(theirs, arguments), said(own, arguments)
    # The order of members counts.
    assert json.dumps(theirs) == json.dumps(own), f"{arguments}\naws:    {theirs}\nhearth: {own}"
    return own


def refused(code, *arguments):
    """Both are refused with the same sentence."""
    global compared
    compared += 1
    (theirs, _, error), (own, _, own_error) = aws(list(arguments)), ours(list(arguments))
    # Version 1 of aws ends with 255 where version 2 ends with 254.
    assert theirs in (254, 255) and own == 254, f"{arguments}: {theirs} {error}, {own} {own_error}"
    error = error.removeprefix("aws: [ERROR]: ").strip()
    assert error == own_error and f"({code})" in error, f"{arguments}\naws:    {error}\nhearth: {own_error}"


def identical(*arguments):
    """Both print the same bytes."""
    global compared
    compared += 1
    (code, theirs, error), (own_code, own, own_error) = aws(list(arguments)), ours(list(arguments))
    assert code == own_code == 0, f"{arguments}\naws: {code} {error}\nhearth: {own_code} {own_error}"
    assert theirs == own, f"{arguments}\naws:    {theirs}\nhearth: {own}"
    return own


def fails(*arguments):
    """Both end with 255 and the same sentence, after which hearth may say more."""
    global compared
    compared += 1
    (own, _, own_error), (theirs, _, error) = ours(list(arguments)), aws(list(arguments))
    error = error.removeprefix("aws: [ERROR]: ").strip()
    assert own == theirs == 255 and own_error.startswith(error), f"{arguments}: {theirs} {error}, {own} {own_error}"
    return error


def misused(*arguments):
    """Both ask nothing and end with the same sentence."""
    global compared
    compared += 1
    (own, _, own_error), (theirs, _, error) = ours(list(arguments)), aws(list(arguments))
    # Version 1 of aws ends with 2 where version 2 ends with 252.
    assert theirs == 2 and own == 252, f"{arguments}: {theirs} {error}, {own} {own_error}"
    error, own_error = (said.rsplit("error: ", 1)[-1].split("maybe you meant", 1)[-1] for said in (error, own_error))
    assert error.splitlines() == own_error.splitlines()[: len(error.splitlines())], f"{arguments}\naws: {error}\nhearth: {own_error}"


def done(*arguments):
    """By one of them: what is made by turns is made once."""
    global turn
    turn = not turn
    code, output, error = (aws if turn else ours)(list(arguments))
    assert code == 0, f"{'aws' if turn else 'hearth'} {arguments}: {error}"
    return said(output, arguments)


turn = False

# What a cloud begins with.
for call in (
    "describe-availability-zones",
    "describe-vpcs",
    "describe-subnets",
    "describe-images",
    "describe-account-attributes",
    "describe-security-groups",
    "describe-security-group-rules",
    "describe-key-pairs",
    "describe-instances",
    "describe-instance-status",
    "describe-volumes",
    "describe-volume-status",
    "describe-volumes-modifications",
    "describe-tags",
    "describe-placement-groups",
    "describe-instance-credit-specifications",
):
    same(call)
    same(call, "--output", "text")
# Each is told the endpoint that it has called.
same("describe-regions", "--query", "Regions[].[RegionName,OptInStatus]", "--output", "text")
same("describe-instance-types", "--instance-types", "t2.micro", "m5.large")
same("describe-instance-types", "--filters", "Name=vcpu-info.default-vcpus,Values=2", "--output", "text")
same("describe-instance-type-offerings", "--location-type", "availability-zone", "--filters", "Name=instance-type,Values=t*")
same("describe-images", "--image-ids", image, "--query", "Images[0].[Name,BootMode]", "--output", "text")
same("describe-images", "--query", "sort_by(Images, &CreationDate)[-1].ImageId")

# Queries: the order of keys, and words in backticks.
identical("describe-images", "--query", "Images[].{Size: BlockDeviceMappings[0].Ebs.VolumeSize, Name: Name, Id: ImageId}")
identical("describe-images", "--query", "Images[?State==`available`] | [0].{b: ImageId, a: `word`}")
identical("describe-images", "--query", "Images[?CreationDate>='2020-01-01'].ImageId")

# YAML, as version 2 of aws prints it; version 1 has none.
for call in ("describe-images", "describe-security-groups", "describe-vpcs", "describe-subnets"):
    code, own, error = ours([call, "--output", "yaml"])
    answer = same(call)
    assert code == 0 and own == yaml.dump(answer, Dumper=yaml.CSafeDumper, allow_unicode=True), f"{error}{own}{answer}"

# A list of pages, each as the service answers it.
code, own, error = ours(["describe-instance-types", "--page-size", "5", "--max-items", "12", "--output", "yaml-stream"])
pages = [same("describe-instance-types", "--max-results", "5")]
while len(pages) < 3:
    pages.append(same("describe-instance-types", "--max-results", "5", "--next-token", pages[-1]["NextToken"]))
pages[-1]["InstanceTypes"] = pages[-1]["InstanceTypes"][:2]
assert code == 0 and own == yaml.dump(pages, Dumper=yaml.CSafeDumper, allow_unicode=True), f"{error}{own}"
code, own, error = ours(["describe-regions", "--query", "Regions[0].RegionName", "--output", "yaml-stream"])
assert code == 0 and own == f"- {region}\n", f"{error}{own}"

# Pages, and tokens that one has made for the other.
types = ("describe-instance-types", "--query", "[InstanceTypes[].InstanceType, NextToken]")
all_types, token = same(*types)
assert token is None and len(all_types) > 12, all_types
assert sorted(same(*types, "--page-size", "5")[0]) == sorted(all_types)
for size in ((), ("--page-size", "5")):
    found, token = same(*types, "--max-items", "3", *size)
    while token:
        assert len(found) % 3 == 0, found
        more, token = same(*types, "--max-items", "3", *size, "--starting-token", token)
        found += more
    assert found == all_types, (found, all_types)
text = ("describe-instance-types", "--query", "InstanceTypes[].InstanceType", "--output", "text")
identical(*text, "--page-size", "5")
identical(*text, "--page-size", "5", "--max-items", "12")
fails("describe-vpcs", "--no-paginate", "--max-items", "1")
fails("describe-vpcs", "--max-results", "5", "--max-items", "1", "--starting-token", "x")

# What no call is made for.
misused("stop-instances")
misused("describe-instance-attribute", "--attribute", "userData")
misused("create-tags", "--resources", "i-00000000000000000")
misused("describe-vpcz")
misused("wait", "vpc-existz")

# Waiters.
for call in (("vpc-exists",), ("vpc-available",), ("subnet-available",), ("image-exists", "--image-ids", image), ("image-available",)):
    assert identical("wait", *call) == ""
assert "Max attempts exceeded. Previously" in fails("wait", "vpc-exists", "--vpc-ids", "vpc-00000000000000000")
fails("wait", "instance-stopped", "--instance-ids", "i-00000000000000000")
fails("wait", "network-interface-available", "--network-interface-ids", "eni-00000000000000000")

# Keys and groups, made by turns.
key = done("create-key-pair", "--key-name", "tour", "--key-type", "ed25519")
same("describe-key-pairs", "--key-names", "tour", "--include-public-key")
public = os.path.join(home, "tour.pub")
with open(public, "w") as file:
    file.write(same("describe-key-pairs", "--key-names", "tour", "--include-public-key")["KeyPairs"][0]["PublicKey"])
done("import-key-pair", "--key-name", "by-aws", "--public-key-material", f"fileb://{public}")
done("import-key-pair", "--key-name", "by-hearth", "--public-key-material", f"fileb://{public}")
pairs = same("describe-key-pairs")["KeyPairs"]
assert len({pair["KeyFingerprint"] for pair in pairs}) == 1 and len(pairs) == 3, pairs
done("delete-key-pair", "--key-name", "by-aws")
done("delete-key-pair", "--key-name", "by-hearth")
for name in ("web", "db"):
    done("create-security-group", "--group-name", name, "--description", f"for {name}")
rule = ("--protocol", "tcp", "--port", "22", "--cidr", "10.0.0.0/8")
done("authorize-security-group-ingress", "--group-name", "web", *rule)
done("authorize-security-group-ingress", "--group-name", "db", *rule)
# A type alone is that type with all its codes for hearth, as EC2's manual means it, and that code for aws.
ping = ("--protocol", "icmp", "--port", "-1", "--cidr", "0.0.0.0/0")
done("authorize-security-group-ingress", "--group-name", "web", *ping)
done("authorize-security-group-ingress", "--group-name", "db", *ping)
more = "IpProtocol=tcp,FromPort=443,ToPort=444,IpRanges=[{CidrIp=0.0.0.0/0,Description=all}]"
done("authorize-security-group-ingress", "--group-name", "web", "--ip-permissions", more)
done("authorize-security-group-ingress", "--group-name", "db", "--ip-permissions", more)
groups = same("describe-security-groups", "--group-names", "web", "db")["SecurityGroups"]
assert groups[0]["IpPermissions"] == groups[1]["IpPermissions"], groups
refused("InvalidPermission.Duplicate", "authorize-security-group-ingress", "--group-name", "web", *rule)
for name in ("web", "db"):
    done("revoke-security-group-ingress", "--group-name", name, *ping)
groups = same("describe-security-groups", "--group-names", "web", "db", "--output", "json")["SecurityGroups"]
assert [len(group["IpPermissions"]) for group in groups] == [2, 2], groups
groups = {group["GroupName"]: group["GroupId"] for group in groups}

# Instances.
script = os.path.join(home, "script")
with open(script, "w") as file:
    file.write("#!/bin/sh\n")
run = ["run-instances", "--image-id", image, "--count", "1", "--instance-type", "t2.nano", "--key-name", "tour",
       "--security-group-ids", groups["web"], "--user-data", f"file://{script}", "--no-associate-public-ip-address",
       "--tag-specifications", "ResourceType=instance,Tags=[{Key=Name,Value=tour}]",
       "--block-device-mappings", "DeviceName=/dev/xvda,Ebs={VolumeSize=2}", "--metadata-options", "HttpTokens=required"]
ids = [done(*run)["Instances"][0]["InstanceId"] for _ in range(2)]
# Hearth looks every second; aws every 15 seconds, first at once.
assert ours(["start-instances", "--instance-ids", *ids, "--wait"])[0] == 0
for call in ("instance-exists", "instance-running", "instance-status-ok", "system-status-ok"):
    assert identical("wait", call, "--instance-ids", *ids) == ""
fails("wait", "instance-stopped", "--instance-ids", "x")
for more in (
    [],
    ["--output", "text"],
    ["--instance-ids", *ids],
    ["--filters", "Name=tag:Name,Values=to?r", "Name=instance-state-name,Values=running"],
    ["--query", "Reservations[].Instances[].[InstanceId,State.Name,Tags[?Key=='Name'].Value | [0]]", "--output", "text"],
    ["--query", "Reservations[].Instances[].NetworkInterfaces[].PrivateIpAddresses[]"],
):
    same("describe-instances", *more)
one, other = (same("describe-instances", "--instance-ids", id)["Reservations"][0]["Instances"][0] for id in ids)
for instance in (one, other):
    assert "PublicIpAddress" not in instance and instance["MetadataOptions"]["HttpTokens"] == "required", instance
for name in ("userData", "instanceType", "disableApiTermination", "groupSet", "sourceDestCheck"):
    told = [same("describe-instance-attribute", "--instance-id", id, "--attribute", name) for id in ids]
    assert [one | {"InstanceId": ""} for one in told][0] == told[1] | {"InstanceId": ""}, told
same("describe-instance-status", "--include-all-instances")
same("describe-volumes", "--filters", f"Name=attachment.instance-id,Values={ids[0]}")
same("describe-instance-credit-specifications", "--instance-ids", ids[0])
for id in ids:
    done("modify-instance-attribute", "--instance-id", id, "--groups", groups["db"])
    done("create-tags", "--resources", id, "--tags", "Key=role,Value=test")
# A structure of one truth value is a switch, too. (aws leaves its parser changed behind such a switch: ours alone.)
for switch, value in [
    (["--disable-api-termination"], True),
    (["--no-disable-api-termination"], False),
    (["--disable-api-termination", "Value=true"], True),
    (["--disable-api-termination", "Value=false"], False),
]:
    assert ours(["modify-instance-attribute", "--instance-id", ids[0], *switch])[0] == 0, switch
    told = same("describe-instance-attribute", "--instance-id", ids[0], "--attribute", "disableApiTermination")
    assert told["DisableApiTermination"]["Value"] is value, (switch, told)
told = same("describe-tags", "--filters", "Name=key,Values=role")["Tags"]
assert len(told) == 2, told
for id in ids:
    done("delete-tags", "--resources", id, "--tags", "Key=role")
    done("stop-instances", "--instance-ids", id)
assert ours(["stop-instances", "--instance-ids", *ids, "--wait"])[0] == 0
assert identical("wait", "instance-stopped", "--instance-ids", *ids) == ""

# Volumes.
zone = one["Placement"]["AvailabilityZone"]
make = ["create-volume", "--availability-zone", zone, "--size", "1", "--volume-type", "gp3", "--iops", "3000",
        "--tag-specifications", "ResourceType=volume,Tags=[{Key=Name,Value=tour}]"]
volumes = [done(*make)["VolumeId"] for _ in range(2)]
assert identical("wait", "volume-available", "--volume-ids", *volumes) == ""
refused("IncorrectState", "detach-volume", "--volume-id", volumes[0])
for volume, id in zip(volumes, ids):
    told = done("attach-volume", "--volume-id", volume, "--instance-id", id, "--device", "/dev/sdf")
    assert (told["State"], told["Device"]) == ("attached", "/dev/sdf"), told
assert identical("wait", "volume-in-use", "--volume-ids", *volumes) == ""
for more in ([], ["--output", "text"], ["--query", "Volumes[].Attachments[].[Device,State]"]):
    same("describe-volumes", "--volume-ids", *volumes, *more)
same("describe-instances", "--query", "Reservations[].Instances[].BlockDeviceMappings[].[DeviceName,Ebs.VolumeId]")
same("describe-volume-status", "--volume-ids", *volumes)
same("describe-volume-status", "--output", "text")
same("describe-volume-attribute", "--volume-id", volumes[0], "--attribute", "autoEnableIO")
refused("VolumeInUse", "delete-volume", "--volume-id", volumes[0])
refused("InvalidParameterValue", "attach-volume", "--volume-id", volumes[0], "--instance-id", ids[0], "--device", "/dev/x")
mapping = json.dumps([{"DeviceName": "/dev/sdf", "Ebs": {"DeleteOnTermination": True}}])
for volume, id in zip(volumes, ids):
    done("modify-instance-attribute", "--instance-id", id, "--block-device-mappings", mapping)
    told = done("modify-volume", "--volume-id", volume, "--size", "2", "--volume-type", "gp2")["VolumeModification"]
    assert (told["ModificationState"], told["TargetSize"]) == ("completed", 2), told
for more in ([], ["--output", "text"], ["--filters", "Name=target-volume-type,Values=gp2"]):
    same("describe-volumes-modifications", "--volume-ids", *volumes, *more)
for volume in volumes:
    done("modify-volume-attribute", "--volume-id", volume, "--auto-enable-io", "Value=true")
    done("detach-volume", "--volume-id", volume, "--device", "xvdf")
assert identical("wait", "volume-available", "--volume-ids", *volumes) == ""
for id in ids:
    done("start-instances", "--instance-ids", id)

# What is refused.
refused("InvalidInstanceID.NotFound", "describe-instances", "--instance-ids", "i-00000000000000000")
refused("InvalidInstanceID.Malformed", "terminate-instances", "--instance-ids", "x")
refused("InvalidParameterValue", "describe-instances", "--filters", "Name=nonsense,Values=x")
refused("InvalidGroup.NotFound", "describe-security-groups", "--group-names", "nobody")
refused("InvalidKeyPair.Duplicate", "create-key-pair", "--key-name", "tour")
refused("InvalidAMIID.NotFound", "run-instances", "--image-id", "ami-00000000000000000", "--count", "1")
refused("DryRunOperation", "terminate-instances", "--instance-ids", ids[0], "--dry-run")
refused("DependencyViolation", "delete-security-group", "--group-name", "db")

for volume in volumes:
    done("delete-volume", "--volume-id", volume)
assert identical("wait", "volume-deleted", "--volume-ids", *volumes) == ""
refused("InvalidVolume.NotFound", "describe-volumes", "--volume-ids", *volumes)
for id in ids:
    done("terminate-instances", "--instance-ids", id)
assert ours(["wait", "instance-terminated", "--instance-ids", *ids])[0] == 0
fails("wait", "instance-running", "--instance-ids", *ids)

# Who may do what.
same("get-caller-identity")
document = os.path.join(home, "policy.json")
with open(document, "w") as file:
    json.dump({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}]}, file)
trust = os.path.join(home, "trust.json")
with open(trust, "w") as file:
    statement = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    json.dump({"Version": "2012-10-17", "Statement": [statement]}, file)
for name in ("anna", "bert"):
    done("create-user", "--user-name", name, "--path", "/dev/", "--tags", "Key=team,Value=red")
    done("put-user-policy", "--user-name", name, "--policy-name", "look", "--policy-document", f"file://{document}")
    done("create-group", "--group-name", f"of-{name}")
    done("add-user-to-group", "--group-name", f"of-{name}", "--user-name", name)
    done("attach-group-policy", "--group-name", f"of-{name}", "--policy-arn", "arn:aws:iam::aws:policy/IAMReadOnlyAccess")
    done("create-role", "--role-name", f"by-{name}", "--assume-role-policy-document", f"file://{trust}")
    done("create-access-key", "--user-name", name)
    own = done("create-policy", "--policy-name", f"own-{name}", "--policy-document", f"file://{document}")["Policy"]
    done("attach-user-policy", "--user-name", name, "--policy-arn", own["Arn"])
for output in ("json", "text"):
    more = ("--output", output)
    same("list-users", *more)
    same("list-users", "--max-items", "1", *more)
    same("get-user", "--user-name", "anna", *more)
    same("get-user-policy", "--user-name", "anna", "--policy-name", "look", *more)
    same("list-user-policies", "--user-name", "anna", *more)
    same("list-attached-user-policies", "--user-name", "anna", *more)
    same("list-groups-for-user", "--user-name", "bert", *more)
    same("get-group", "--group-name", "of-anna", *more)
    same("list-roles", *more)
    same("get-role", "--role-name", "by-bert", *more)
    same("list-access-keys", "--user-name", "anna", *more)
    same("list-policies", "--scope", "Local", *more)
    same("get-policy-version", "--policy-arn", own["Arn"], "--version-id", "v1", *more)
refused("NoSuchEntity", "get-user", "--user-name", "nobody")
refused("EntityAlreadyExists", "create-user", "--user-name", "anna")
refused("DeleteConflict", "delete-user", "--user-name", "anna")
misused("get-role")

# What limits who may do what.
readonly = "arn:aws:iam::aws:policy/AmazonEC2ReadOnlyAccess"
done("put-user-permissions-boundary", "--user-name", "anna", "--permissions-boundary", readonly)
done("put-role-permissions-boundary", "--role-name", "by-anna", "--permissions-boundary", readonly)
for output in ("json", "text"):
    same("get-user", "--user-name", "anna", "--output", output)
    same("get-role", "--role-name", "by-anna", "--output", output)
    same("get-policy", "--policy-arn", own["Arn"], "--output", output)
done("delete-user-permissions-boundary", "--user-name", "anna")
done("delete-role-permissions-boundary", "--role-name", "by-anna")
refused("NoSuchEntity", "delete-user-permissions-boundary", "--user-name", "anna")

# Services that speak JSON, and what holds for an account.
done("create-tags", "--resources", image, "--tags", "Key=hearth:ssm-parameter,Value=/aws/service/a/latest /aws/service/b")
needs = ("--architecture-types", "x86_64", "--virtualization-types", "hvm")
requirements = "VCpuCount={Min=2,Max=8},MemoryMiB={Min=4096},BurstablePerformance=required"
for output in ("json", "text"):
    more = ("--output", output)
    same("get-parameter", "--name", "/aws/service/a/latest", *more)
    same("get-parameters", "--names", "/aws/service/b", "/aws/service/c", *more)
    same("get-parameters-by-path", "--path", "/aws/service", "--recursive", *more)
    same("get-parameters-by-path", "--path", "/aws", "--recursive", "--max-items", "1", *more)
    same("list-services", *more)
    same("list-service-quotas", "--service-code", "ec2", *more)
    same("get-service-quota", "--service-code", "vpc", "--quota-code", "L-0EA8095F", *more)
    same("list-aws-default-service-quotas", "--service-code", "iam", *more)
    same("get-aws-default-service-quota", "--service-code", "ec2", "--quota-code", "L-B665C33B", *more)
    same("get-serial-console-access-status", *more)
    same("get-instance-metadata-defaults", *more)
    same("describe-id-format", *more)
    same("describe-aggregate-id-format", *more)
    same("get-instance-types-from-instance-requirements", *needs, "--instance-requirements", requirements, *more)
same("enable-serial-console-access")
same("get-serial-console-access-status")
same("disable-serial-console-access")
same("modify-instance-metadata-defaults", "--http-tokens", "required", "--http-put-response-hop-limit", "2")
same("get-instance-metadata-defaults")
refused("ParameterNotFound", "get-parameter", "--name", "/aws/service/c")
refused("ParameterVersionNotFound", "get-parameter", "--name", "/aws/service/b:2")
refused("NoSuchResourceException", "get-service-quota", "--service-code", "vpc", "--quota-code", "L-0")
refused("NoSuchResourceException", "list-service-quotas", "--service-code", "s3")
login = ("--instance-os-user", "root", "--ssh-public-key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIKjMqaGKhlzQFs9PgmqZdYzqnTJKRAEPpwgHTvUT0Yp")
refused("EC2InstanceNotFoundException", "send-ssh-public-key", "--instance-id", "i-00000000000000000", *login)
refused("ValidationException", "get-parameters-by-path", "--path", "/aws", "--max-results", "1000")
misused("send-ssh-public-key", "--instance-id", "i-x")
misused("get-parameter")
print(f"FIGURE tour: {compared} commands, by aws and by hearth, say the same")
