"""A role's credentials, as an instance's metadata tells them. usage: role.py ENDPOINT REGION ROLE INSTANCE AMI <CREDENTIALS"""

import json
import sys

import botocore.session
from botocore.exceptions import ClientError

endpoint, region, role, instance, image = sys.argv[1:]
told = json.load(sys.stdin)
assert told["Code"] == "Success" and told["Type"] == "AWS-HMAC", told["Code"]
session = botocore.session.Session()


def client(service):
    return session.create_client(
        service,
        region,
        endpoint_url=endpoint,
        aws_access_key_id=told["AccessKeyId"],
        aws_secret_access_key=told["SecretAccessKey"],
        aws_session_token=told["Token"],
    )


who = client("sts").get_caller_identity()
assert who["Arn"] == f"arn:aws:sts::{who['Account']}:assumed-role/{role}/{instance}", who
[reservation] = client("ec2").describe_instances(InstanceIds=[instance])["Reservations"]
[found] = reservation["Instances"]
assert found["IamInstanceProfile"]["Arn"].endswith(":instance-profile/web"), found
for call, parameters in (
    ("terminate_instances", {"InstanceIds": [instance]}),
    ("run_instances", {"ImageId": image, "MinCount": 1, "MaxCount": 1}),
):
    try:
        getattr(client("ec2"), call)(**parameters)
    except ClientError as error:
        assert error.response["Error"]["Code"] == "UnauthorizedOperation", error
    else:
        raise AssertionError(f"{call} is not refused")
print("done")
