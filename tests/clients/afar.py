"""aws, boto3's core, hearth and a gRPC client over TLS, with the cloud's authority as their CA bundle.

usage: afar.py ENDPOINT REGION CREDENTIALS BUNDLE HEARTH AMI
"""

import base64
import contextlib
import hashlib
import hmac
import io
import json
import os
import subprocess
import sys
import time
from urllib.parse import urlsplit

from cloud import owner

endpoint, region, credentials, bundle, hearth, image = sys.argv[1:]
port = urlsplit(endpoint).port
endpoint = f"https://localhost:{port}"
home = os.path.dirname(bundle)
key, secret = owner(credentials)
os.environ.update(AWS_EC2_METADATA_DISABLED="true", AWS_MAX_ATTEMPTS="1", AWS_PAGER="", HOME=home)
for name in [name for name in os.environ if name.startswith("AWS_") and "KEY" in name or name == "AWS_PROFILE"]:
    del os.environ[name]

import awscli.clidriver  # noqa: E402
import botocore.session  # noqa: E402
import grpc  # noqa: E402
from botocore.exceptions import SSLError  # noqa: E402
from google.protobuf import descriptor_pool, message_factory  # noqa: E402
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # noqa: E402
    ProtoReflectionDescriptorDatabase,
)

compared = 0


def ours(*arguments, **environment):
    environment = {"HOME": home, "PATH": os.environ["PATH"], **environment}
    done = subprocess.run([hearth, *arguments], capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout, done.stderr.strip()


def aws(*arguments, **environment):
    """In this process: it takes a second to start. A session keeps what it has read of its environment."""
    before = dict(os.environ)
    os.environ.update(environment)
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = awscli.clidriver.create_clidriver().main(list(arguments))
    except SystemExit as exit:
        code = exit.code
    finally:
        os.environ.clear()
        os.environ.update(before)
    return code, out.getvalue(), err.getvalue().strip().removeprefix("aws: [ERROR]: ").strip()


def same(*arguments, before=(), **environment):
    """Both succeed and say the same."""
    global compared
    compared += 1
    (code, theirs, error) = aws(*before, "ec2", *arguments, **environment)
    (own_code, own, own_error) = ours(*before, *arguments, **environment)
    assert code == own_code == 0, f"{arguments} {environment}\naws: {code} {error}\nhearth: {own_code} {own_error}"
    assert json.loads(theirs) == json.loads(own), f"{arguments}\naws: {theirs}\nhearth: {own}"


def fails(exit_code, sentence, *arguments, before=(), **environment):
    """Both end with this sentence, after which either may say more."""
    global compared
    compared += 1
    (code, _, error) = aws(*before, "ec2", *arguments, **environment)
    (own_code, _, own_error) = ours(*before, *arguments, **environment)
    assert code != 0 and own_code == exit_code, f"{arguments}: {code} {error}, {own_code} {own_error}"
    assert error.startswith(sentence) and own_error.startswith(sentence), f"aws: {error}\nhearth: {own_error}"


KEY = dict(AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret, AWS_DEFAULT_REGION=region)
AFAR = dict(AWS_ENDPOINT_URL=endpoint, AWS_CA_BUNDLE=bundle)
VPCS = ("describe-vpcs", "--output", "json")

# Endpoint, key, region and authority, from wherever aws takes them.
same(*VPCS, **KEY, **AFAR)
same(*VPCS, **KEY, AWS_ENDPOINT_URL_EC2=endpoint, AWS_CA_BUNDLE=bundle, AWS_ENDPOINT_URL="https://localhost:1")
same(*VPCS, before=("--endpoint-url", endpoint, "--ca-bundle", bundle, "--region", region), AWS_SHARED_CREDENTIALS_FILE=credentials)
same(*VPCS, before=("--endpoint-url", endpoint, "--no-verify-ssl"), **KEY)
config = os.path.join(home, "afar-config")
with open(config, "w") as file:
    file.write(
        f"[default]\nregion = {region}\n[profile afar]\nendpoint_url = {endpoint}\nca_bundle = {bundle}\nregion = {region}\n"
        f"[profile by-service]\nservices = own\nca_bundle = {bundle}\nregion = {region}\naws_access_key_id = {key}\n"
        f"aws_secret_access_key = {secret}\n[services own]\nec2 =\n  endpoint_url = {endpoint}\n"
    )
own = os.path.join(home, "afar-credentials")
with open(own, "w") as file:
    file.write(f"[afar]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n[wrong]\naws_access_key_id = {key}\n"
               f"aws_secret_access_key = {'x' * 40}\n[half]\naws_access_key_id = {key}\n")
FILES = dict(AWS_CONFIG_FILE=config, AWS_SHARED_CREDENTIALS_FILE=own)
same(*VPCS, **FILES, AWS_PROFILE="afar", AWS_CA_BUNDLE=bundle)
# The command line of version 1 does not look for the bundle in the profile.
for name in ("afar", "by-service"):
    code, _, error = ours(*VPCS, "--profile", name, **FILES)
    assert code == 0, error
    same(*VPCS, before=("--profile", name), **FILES, AWS_CA_BUNDLE=bundle)
# A profile that is named on the command line goes before keys of the environment.
same(*VPCS, before=("--profile", "afar"), **FILES, AWS_CA_BUNDLE=bundle, AWS_ACCESS_KEY_ID="AKIAX", AWS_SECRET_ACCESS_KEY="x")

# What both cannot do, in the same words.
none = dict(AWS_CONFIG_FILE=os.path.join(home, "none"), AWS_SHARED_CREDENTIALS_FILE=os.path.join(home, "none"))
fails(253, "Unable to locate credentials", *VPCS, **AFAR, **none, AWS_DEFAULT_REGION=region)
fails(253, "Partial credentials found in env, missing: AWS_SECRET_ACCESS_KEY", *VPCS, **AFAR, **none,
      AWS_DEFAULT_REGION=region, AWS_ACCESS_KEY_ID=key)
fails(255, "The config profile (nobody) could not be found", *VPCS, before=("--profile", "nobody"), **AFAR, **FILES)
fails(255, 'Could not connect to the endpoint URL: "https://localhost:1/"', *VPCS, **KEY, AWS_ENDPOINT_URL="https://localhost:1/")
fails(255, "SSL validation failed for https://localhost", *VPCS, **KEY, AWS_ENDPOINT_URL=endpoint + "/")
fails(254, "An error occurred (AuthFailure) when calling the DescribeVpcs operation", *VPCS, **AFAR,
      **{**KEY, "AWS_DEFAULT_REGION": "eu-west-1"})
# gRPC says more of what is wrong than EC2's protocol does.
code, _, error = ours(*VPCS, "--profile", "wrong", **AFAR, **FILES)
assert code == 254 and "(SignatureDoesNotMatch)" in error, (code, error)
code, _, error = ours(*VPCS, **KEY, AWS_ENDPOINT_URL=f"http://cloud.example:{port}")
assert code == 255 and "in plain text: begin it with https" in error, (code, error)
code, _, error = ours(*VPCS, "--profile", "afar", HEARTH_ENDPOINT=f"unix:{home}/api.sock")
assert code == 252 and "--profile says nothing at unix:" in error, (code, error)
# On the machine itself nothing is needed; a region that is named is the one that is meant.
assert ours(*VPCS, HEARTH_ENDPOINT=f"unix:{home}/api.sock")[0] == 0
assert ours(*VPCS, "--region", region, HEARTH_ENDPOINT=f"unix:{home}/api.sock")[0] == 0
assert ours(*VPCS, "--region", "eu-west-1", HEARTH_ENDPOINT=f"unix:{home}/api.sock")[0] == 254

# Another region, from wherever aws takes it.
FAR = "eu-north-1"
SOCKET = dict(HEARTH_ENDPOINT=f"unix:{home}/api.sock")
code, said, error = ours("create-region", "--region-name", FAR, "--availability-zones", f"{FAR}a", f"{FAR}b", **SOCKET)
assert code == 0, error
with open(config, "a") as file:
    file.write(f"[profile far]\nregion = {FAR}\n")
with open(own, "a") as file:
    file.write(f"[far]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
same(*VPCS, **AFAR, **{**KEY, "AWS_DEFAULT_REGION": FAR})
same(*VPCS, before=("--region", FAR), **AFAR, **KEY)
same(*VPCS, before=("--profile", "far"), **AFAR, **FILES)
same("describe-regions", "--query", "Regions[].RegionName", "--output", "json", before=("--region", FAR), **AFAR, **KEY)
near = ours(*VPCS, **AFAR, **KEY)[1]
for found in [ours(*VPCS, "--region", FAR, **SOCKET), ours(*VPCS, **AFAR, **KEY, AWS_REGION=FAR)]:
    assert found[0] == 0 and found[1] != near, found
assert ours(*VPCS, **SOCKET)[1] == near
code, said, error = ours("delete-region", "--region-name", FAR, **SOCKET)
assert code == 0, error

# What is Hearth's own, from afar.
code, said, error = ours("list-hosts", "--output", "json", **KEY, **AFAR)
assert code == 0 and len(json.loads(said)["Hosts"]) == 1, (code, said, error)
disk = os.path.join(home, "disk")
with open(disk, "wb") as file:
    file.truncate(8 << 20)
code, said, error = ours("upload-image", "--name", "none", "--disk-image", disk, **KEY, **AFAR)
assert code == 254 and "UploadImage" in error, (code, said, error)

# boto3's core, with the authority and without.
session = botocore.session.Session()
client = dict(region_name=region, endpoint_url=endpoint, aws_access_key_id=key, aws_secret_access_key=secret)
assert session.create_client("sts", verify=bundle, **client).get_caller_identity()["Arn"].endswith(":root")
try:
    session.create_client("sts", **client).get_caller_identity()
except SSLError:
    pass
else:
    raise AssertionError("a certificate of an unknown authority is believed")


# A gRPC client that knows nothing of Hearth's, with a token that it signs itself.
def token():
    part = lambda value: base64.urlsafe_b64encode(value).rstrip(b"=").decode()  # noqa: E731
    now = int(time.time())
    claims = {"aud": "hearth", "iat": now, "exp": now + 300}
    unsigned = ".".join(part(json.dumps(it).encode()) for it in ({"alg": "HS256", "typ": "JWT", "kid": key}, claims))
    return f"{unsigned}.{part(hmac.new(secret.encode(), unsigned.encode(), hashlib.sha256).digest())}"


class Bearer(grpc.AuthMetadataPlugin):
    def __call__(self, context, callback):
        callback((("authorization", f"Bearer {token()}"),), None)


with open(bundle, "rb") as file:
    tls = grpc.ssl_channel_credentials(file.read())
with grpc.secure_channel(f"localhost:{port}", grpc.composite_channel_credentials(tls, grpc.metadata_call_credentials(Bearer()))) as channel:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "hearth.v1.Vpcs" in database.get_services()
    method = descriptor_pool.DescriptorPool(database).FindServiceByName("hearth.v1.Vpcs").FindMethodByName("DescribeVpcs")
    call = channel.unary_unary(
        "/hearth.v1.Vpcs/DescribeVpcs",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    answer = call(message_factory.GetMessageClass(method.input_type)(), timeout=60)
    assert [vpc.cidr_block for vpc in answer.vpcs] == ["172.31.0.0/16"], answer
with grpc.secure_channel(f"localhost:{port}", tls) as channel:
    try:
        ProtoReflectionDescriptorDatabase(channel).get_services()
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error
    else:
        raise AssertionError("reflection answers strangers")

began = time.monotonic()
for _ in range(10):
    assert ours(*VPCS, **KEY, **AFAR)[0] == 0
took = (time.monotonic() - began) * 100
began = time.monotonic()
for _ in range(10):
    assert ours(*VPCS, HEARTH_ENDPOINT=f"unix:{home}/api.sock")[0] == 0
print(f"FIGURE afar: {compared} commands by aws and by hearth over TLS; hearth from start to answer: {took:.0f} ms over TLS, "
      f"{(time.monotonic() - began) * 100:.0f} ms on the socket")
