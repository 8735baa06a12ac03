"""Services that speak JSON, and calls beside them, as botocore has them. usage: calls.py ENDPOINT REGION CREDENTIALS AMI"""

import http.client
import json
import sys
from urllib.parse import urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials
from cloud import Cloud, owner, refused

endpoint, region, path, image = sys.argv[1:]
ROOT = owner(path)
client = Cloud(endpoint, region, ROOT).client


def allows(actions, resources="*", **more):
    statement = {"Effect": "Allow", "Action": actions, "Resource": resources, **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


ec2, iam, ssm = client("ec2"), client("iam"), client("ssm")
quotas, connect = client("service-quotas"), client("ec2-instance-connect")
account = client("sts").get_caller_identity()["Account"]
iam.create_user(UserName="anna")
key = iam.create_access_key(UserName="anna")["AccessKey"]
anna = (key["AccessKeyId"], key["SecretAccessKey"])


def may(actions, resources="*", **more):
    iam.put_user_policy(UserName="anna", PolicyName="may", PolicyDocument=allows(actions, resources, **more))


# The protocol by itself.
def raw(headers, body, service="ssm", key=ROOT, method="POST"):
    request = botocore.awsrequest.AWSRequest(method, endpoint, data=body, headers=headers)
    credentials = botocore.credentials.Credentials(*key)
    botocore.auth.SigV4Auth(credentials, service, region).add_auth(request)
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=30)
    connection.request(method, "/", body, dict(request.headers))
    response = connection.getresponse()
    assert response.getheader("Content-Type") == "application/x-amz-json-1.1", response.getheaders()
    return response.status, json.loads(response.read())


json_11 = {"Content-Type": "application/x-amz-json-1.1"}
target = {**json_11, "X-Amz-Target": "AmazonSSM.GetParameter"}
for headers, body, code in [
    (json_11, "{}", "UnknownOperationException"),
    ({**json_11, "X-Amz-Target": "AmazonSSM.GetParmeter"}, "{}", "UnknownOperationException"),
    ({**json_11, "X-Amz-Target": "AmazonSSM.PutParameter"}, "{}", "UnknownOperationException"),
    ({**json_11, "X-Amz-Target": "GetParameter"}, "{}", "UnknownOperationException"),
    ({**json_11, "X-Amz-Target": "ServiceQuotasV20190624.GetServiceQuota"}, "{}", "UnknownOperationException"),
    ({**json_11, "X-Amz-Target": "AmazonSSM." + "x" * 10000}, "{}", "UnknownOperationException"),
    (target, "{", "SerializationException"),
    (target, "[" * 100000, "SerializationException"),
    (target, '"Name"', "SerializationException"),
    (target, '{"Nmae": "a"}', "ValidationException"),
    (target, '{"Name": 1}', "ValidationException"),
    (target, json.dumps({"Name": "a" * 3000}), "ValidationException"),
    (target, '{"Name": "a"}', "ParameterNotFound"),
    (target, "", "ParameterNotFound"),
]:
    status, answer = raw(headers, body)
    assert (status, answer["__type"]) == (400, code) and answer["message"], (headers, body[:100], status, answer)
assert raw(target, "", method="GET")[1]["__type"] == "UnknownOperationException"
for wrong, code in [
    ((ROOT[0], "wrong"), "InvalidSignatureException"),
    (("AKIA0000000000000000", "wrong"), "UnrecognizedClientException"),
]:
    status, answer = raw(target, "{}", key=wrong)
    assert (status, answer["__type"]) == (400, code), answer

# An image has its names by a tag.
names = ["/aws/service/debian/release/12/latest/amd64", "/aws/service/debian/stable"]
refused("ParameterNotFound", 400, ssm.get_parameter, Name=names[0])
tag = lambda value: dict(Resources=[image], Tags=[{"Key": "hearth:ssm-parameter", "Value": value}])
refused("InvalidParameterValue", 400, ec2.create_tags, **tag("/own/debian"))
ec2.create_tags(**tag(" ".join(names)))
found = ssm.get_parameter(Name=names[0])["Parameter"]
made = ec2.describe_images(ImageIds=[image])["Images"][0]["CreationDate"]
assert found.pop("LastModifiedDate").strftime("%Y-%m-%dT%H:%M:%S") == made[:19], (found, made)
arn = f"arn:aws:ssm:{region}::parameter{names[0]}"
expected = {"Name": names[0], "Type": "String", "Value": image, "Version": 1, "ARN": arn, "DataType": "text"}
assert found == expected, found
assert ssm.get_parameter(Name=arn, WithDecryption=True)["Parameter"]["Value"] == image
assert ssm.get_parameter(Name=f"{names[0]}:1")["Parameter"]["Selector"] == ":1"
refused("ParameterVersionNotFound", 400, ssm.get_parameter, Name=f"{names[0]}:2")
refused("ParameterVersionNotFound", 400, ssm.get_parameter, Name=f"{names[0]}:0")
several = ssm.get_parameters(Names=[*names, "/aws/service/other"])
assert [one["Name"] for one in several["Parameters"]] == names and several["InvalidParameters"] == ["/aws/service/other"], several
refused("ValidationException", 400, ssm.get_parameters, Names=["a"] * 11)
below = lambda **more: [one["Name"] for one in ssm.get_parameters_by_path(**more)["Parameters"]]
assert below(Path="/aws/service/debian") == names[1:]
assert below(Path="/aws/service/debian/", Recursive=True) == names
assert below(Path="/aws/service/deb", Recursive=True) == []
refused("ValidationException", 400, ssm.get_parameters_by_path, Path="aws")
refused("ValidationException", 400, ssm.get_parameters_by_path, Path="/aws", MaxResults=11)
refused("ValidationException", 400, ssm.get_parameters_by_path, Path="/aws", ParameterFilters=[{"Key": "Type"}])
pages = ssm.get_paginator("get_parameters_by_path").paginate(Path="/aws", Recursive=True, PaginationConfig={"PageSize": 1})
assert [one["Name"] for page in pages for one in page["Parameters"]] == names
refused("InvalidNextToken", 400, ssm.get_parameters_by_path, Path="/aws", NextToken="x")

# A launch names the image by it, and is the same when it is repeated.
launch = dict(ImageId=f"resolve:ssm:{names[1]}", MinCount=1, MaxCount=1, ClientToken="by-name")
[instance] = ec2.run_instances(**launch)["Instances"]
assert instance["ImageId"] == image, instance
[again] = ec2.run_instances(**launch)["Instances"]
instance = instance["InstanceId"]
assert again["InstanceId"] == instance
refused("InvalidParameterValue", 400, ec2.run_instances, **{**launch, "ImageId": "resolve:ssm:/aws/service/other", "ClientToken": "x"})
hers = client("ec2", anna)
dry = {**launch, "ClientToken": "y", "DryRun": True}
may("ec2:*")
assert "ssm:GetParameters" in refused("UnauthorizedOperation", 403, hers.run_instances, **dry)
may(["ec2:*", "ssm:GetParameters"])
refused("DryRunOperation", 412, hers.run_instances, **dry)
everything_else = {"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": ["ec2:*", "ssm:GetParameters"], "Resource": "*"},
    {"Effect": "Deny", "Action": "ec2:RunInstances", "Resource": f"arn:aws:ec2:{region}::image/{image}"},
]}
iam.put_user_policy(UserName="anna", PolicyName="may", PolicyDocument=json.dumps(everything_else))
refused("UnauthorizedOperation", 403, hers.run_instances, **dry)
her_ssm = client("ssm", anna)
may("ssm:GetParameter", f"arn:aws:ssm:*::parameter{names[1]}")
her_ssm.get_parameter(Name=names[1])
assert "no identity-based policy allows the ssm:GetParameter action" in refused("AccessDeniedException", 400, her_ssm.get_parameter, Name=names[0])
refused("AccessDeniedException", 400, her_ssm.get_parameters_by_path, Path="/aws/service")
ec2.delete_tags(Resources=[image], Tags=[{"Key": "hearth:ssm-parameter"}])
refused("ParameterNotFound", 400, ssm.get_parameter, Name=names[0])

# Keys for a minute.
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIKjMqaGKhlzQFs9PgmqZdYzqnTJKRAEPpwgHTvUT0Yp me@home"
ec2.get_waiter("instance_running").wait(InstanceIds=[instance], WaiterConfig={"Delay": 1})
zone = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]["Placement"]["AvailabilityZone"]
send = dict(InstanceId=instance, InstanceOSUser="root", SSHPublicKey=PUBLIC)
sent = connect.send_ssh_public_key(**send, AvailabilityZone=zone)
assert sent["Success"] is True and sent["RequestId"] == sent["ResponseMetadata"]["RequestId"], sent
for wrong in [{"InstanceOSUser": "a/b"}, {"InstanceOSUser": "-x"}, {"SSHPublicKey": "ssh-rsa x"}, {"InstanceId": "i-x"}, {"AvailabilityZone": "other"}]:
    refused("InvalidArgsException", 400, connect.send_ssh_public_key, **{**send, **wrong})
refused("EC2InstanceNotFoundException", 400, connect.send_ssh_public_key, **{**send, "InstanceId": "i-00000000000000000"})
as_root = dict(Condition={"StringEquals": {"ec2:osuser": "guest"}})
may("ec2-instance-connect:SendSSHPublicKey", f"arn:aws:ec2:{region}:{account}:instance/{instance}", **as_root)
her_connect = client("ec2-instance-connect", anna)
refused("AccessDeniedException", 400, her_connect.send_ssh_public_key, **send)
her_connect.send_ssh_public_key(**{**send, "InstanceOSUser": "guest"})

# Serial consoles.
console = dict(InstanceId=instance, SSHPublicKey=PUBLIC)
assert ec2.get_serial_console_access_status()["SerialConsoleAccessEnabled"] is False
refused("SerialConsoleAccessDisabledException", 400, connect.send_serial_console_ssh_public_key, **console)
refused("DryRunOperation", 412, ec2.enable_serial_console_access, DryRun=True)
assert ec2.enable_serial_console_access()["SerialConsoleAccessEnabled"] is True
status = ec2.get_serial_console_access_status()
assert status["SerialConsoleAccessEnabled"] is True and status["ManagedBy"] == "account", status
refused("SerialConsoleSessionUnsupportedException", 400, connect.send_serial_console_ssh_public_key, **console)
refused("InvalidArgsException", 400, connect.send_serial_console_ssh_public_key, **console, SerialPort=1)
assert ec2.disable_serial_console_access()["SerialConsoleAccessEnabled"] is False

# Passwords of Windows guests: this one has none.
password = ec2.get_password_data(InstanceId=instance)
assert password["PasswordData"] == "" and password["InstanceId"] == instance, password
refused("InvalidInstanceID.NotFound", 400, ec2.get_password_data, InstanceId="i-00000000000000000")

# Metadata options that launches get.
assert ec2.get_instance_metadata_defaults()["AccountLevel"] == {"ManagedBy": "account"}
ec2.modify_instance_metadata_defaults(HttpTokens="required", HttpPutResponseHopLimit=2)
ec2.modify_instance_metadata_defaults(InstanceMetadataTags="enabled")
defaults = ec2.get_instance_metadata_defaults()["AccountLevel"]
assert defaults == {"ManagedBy": "account", "HttpTokens": "required", "HttpPutResponseHopLimit": 2, "InstanceMetadataTags": "enabled"}, defaults
launch = dict(ImageId=image, MinCount=1, MaxCount=1, MetadataOptions={"InstanceMetadataTags": "disabled"})
[other] = ec2.run_instances(**launch)["Instances"]
options = other["MetadataOptions"]
assert (options["HttpTokens"], options["HttpPutResponseHopLimit"], options["HttpEndpoint"], options["InstanceMetadataTags"]) == ("required", 2, "enabled", "disabled"), options
may("ec2:*", Condition={"StringEqualsIfExists": {"ec2:MetadataHttpTokens": "required"}})
refused("DryRunOperation", 412, hers.run_instances, **launch, DryRun=True)
refused("UnauthorizedOperation", 403, hers.run_instances, **{**launch, "MetadataOptions": {"HttpTokens": "optional"}}, DryRun=True)
refused("InvalidParameterValue", 400, ec2.modify_instance_metadata_defaults, HttpTokens="maybe")
refused("InvalidParameterValue", 400, ec2.modify_instance_metadata_defaults, HttpPutResponseHopLimit=65)
refused("UnknownParameter", 400, ec2.modify_instance_metadata_defaults, HttpTokensEnforced="enabled")
ec2.modify_instance_metadata_defaults(HttpTokens="no-preference", HttpPutResponseHopLimit=-1, InstanceMetadataTags="no-preference")
assert ec2.get_instance_metadata_defaults()["AccountLevel"] == {"ManagedBy": "account"}

# Types that have what is asked for.
asked = dict(ArchitectureTypes=["x86_64"], VirtualizationTypes=["hvm"])
needs = {"VCpuCount": {"Min": 2, "Max": 4}, "MemoryMiB": {"Min": 8192, "Max": 16384}}
types = lambda **more: [one["InstanceType"] for one in ec2.get_instance_types_from_instance_requirements(**asked, InstanceRequirements={**needs, **more})["InstanceTypes"]]
found = types()
infos = {one["InstanceType"]: one for one in ec2.describe_instance_types()["InstanceTypes"]}
expected = [
    name
    for name, info in sorted(infos.items())
    if 2 <= info["VCpuInfo"]["DefaultVCpus"] <= 4
    and 8192 <= info["MemoryInfo"]["SizeInMiB"] <= 16384
    and not info["BurstablePerformanceSupported"]
]
assert found == expected and found, found
assert types(AllowedInstanceTypes=["m5.*"], MemoryGiBPerVCpu={"Min": 4}) == [name for name in found if name.startswith("m5.")]
assert types(AcceleratorCount={"Min": 1}) == []
assert "processor that their host has" in refused(
    "InvalidParameterValue", 400, ec2.get_instance_types_from_instance_requirements, **asked, InstanceRequirements={**needs, "CpuManufacturers": ["amd"]}
)
arm = {**asked, "ArchitectureTypes": ["arm64"]}
assert ec2.get_instance_types_from_instance_requirements(**arm, InstanceRequirements=needs)["InstanceTypes"] == []

# Ids.
formats = ec2.describe_id_format()["Statuses"]
assert all(one["UseLongIds"] for one in formats) and "Deadline" not in formats[0], formats
assert ec2.describe_id_format(Resource="volume")["Statuses"] == [{"Resource": "volume", "UseLongIds": True}]
refused("InvalidParameterValue", 400, ec2.describe_id_format, Resource="bundle")
assert ec2.describe_aggregate_id_format()["Statuses"] == formats

# Quotas are what is enforced.
services = quotas.list_services()["Services"]
assert [one["ServiceCode"] for one in services] == ["ebs", "ec2", "iam", "vpc"], services
quota = quotas.get_service_quota(ServiceCode="vpc", QuotaCode="L-0EA8095F")["Quota"]
assert (quota["Value"], quota["Adjustable"], quota["QuotaAppliedAtLevel"]) == (60.0, False, "RESOURCE"), quota
assert quota["QuotaArn"] == f"arn:aws:servicequotas:{region}:{account}:vpc/L-0EA8095F", quota
[instances] = [one for one in quotas.list_service_quotas(ServiceCode="ec2")["Quotas"] if one["QuotaName"] == "Instances"]
attributes = ec2.describe_account_attributes(AttributeNames=["max-instances"])["AccountAttributes"]
assert str(int(instances["Value"])) == attributes[0]["AttributeValues"][0]["AttributeValue"], instances
code = instances["QuotaCode"]
assert quotas.get_aws_default_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"] == 1000.0
pages = quotas.get_paginator("list_aws_default_service_quotas").paginate(ServiceCode="iam", PaginationConfig={"PageSize": 3})
of_iam = [one["QuotaCode"] for page in pages for one in page["Quotas"]]
assert of_iam == [one["QuotaCode"] for one in quotas.list_service_quotas(ServiceCode="iam", QuotaAppliedAtLevel="ALL")["Quotas"]], of_iam
assert len(of_iam) > len(quotas.list_service_quotas(ServiceCode="iam")["Quotas"]) > 3
assert len(quotas.list_service_quotas(ServiceCode="iam", QuotaCode="L-0DA4ABF3")["Quotas"]) == 1
refused("NoSuchResourceException", 400, quotas.get_service_quota, ServiceCode="vpc", QuotaCode="L-0")
refused("NoSuchResourceException", 400, quotas.list_service_quotas, ServiceCode="s3")
refused("InvalidPaginationTokenException", 400, quotas.list_services, NextToken="x")
refused("ValidationException", 400, quotas.list_services, MaxResults=0)
refused("AccessDeniedException", 400, client("service-quotas", anna).list_services)
iam.delete_user_policy(UserName="anna", PolicyName="may")
print("done")
