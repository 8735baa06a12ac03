"""Packer, as far as an AMI can be built: a template is right, and its build launches, stops and cleans up.
usage: packer.py ENDPOINT REGION CREDENTIALS PACKER DIRECTORY AMI

`packer validate` calls nothing; a build does. Hosts are simulated, so that nothing logs in (`communicator`). The build ends where
the AMI is made of the instance, which Hearth has no call for yet.
"""

import json
import os
import pathlib
import subprocess
import sys

from cloud import Cloud, environment, owner

endpoint, region, credentials, packer, directory, image = sys.argv[1:]
access, secret = owner(credentials)
ec2 = Cloud(endpoint, region, (access, secret)).client("ec2")
template = pathlib.Path(directory) / "template.json"
BUILDER = {
    "type": "amazon-ebs",
    "region": region,
    "access_key": access,
    "secret_key": secret,
    "custom_endpoint_ec2": endpoint,
    "ami_name": "packer {{timestamp}}",
    "instance_type": "t2.nano",
    "communicator": "none",
    "source_ami_filter": {"filters": {"name": "tiny", "root-device-type": "ebs"}, "owners": ["self"], "most_recent": True},
    "run_tags": {"made-by": "packer"},
    "tags": {"made-by": "packer"},
}


def run(command, **other):
    template.write_text(json.dumps({"builders": [BUILDER | other]}))
    settings = environment(endpoint, region, credentials) | {
        "AWS_POLL_DELAY_SECONDS": "1",
        "CHECKPOINT_DISABLE": "1",
        "HOME": directory,
        "PACKER_CACHE_DIR": directory,
        "PATH": os.environ["PATH"],
        "TMPDIR": directory,
    }
    done = subprocess.run([packer, *command, template], capture_output=True, text=True, env=settings, cwd=directory)
    return done.returncode, done.stdout + done.stderr


validate, build = ["validate"], ["build", "-color=false"]
code, said = run(validate)
assert code == 0, said
code, said = run(validate, instance_type="")
assert code == 1 and "instance_type" in said, said

# What is refused before anything is made.
for wrong, expected in (
    ({"region": "us-middle-7"}, "AuthFailure|us-middle-7"),
    ({"ami_name": "tiny"}, "is used by an existing AMI"),
    ({"source_ami_filter": {"filters": {"name": "nothing"}, "owners": ["self"]}}, "No AMI was found"),
):
    code, said = run(build, **wrong)
    assert code == 1 and any(one in said for one in expected.split("|")), said
made = [{"Name": "tag:made-by", "Values": ["packer"]}]
assert not ec2.describe_instances(Filters=made)["Reservations"]

code, said = run(build)
steps = (
    "Found Image ID: " + image,
    "Creating temporary keypair: packer_",
    "Creating temporary security group for this instance: packer_",
    "Launching a source AWS instance...",
    "Adding tag: \"made-by\": \"packer\"",
    "Stopping the source instance...",
    "Terminating the source AWS instance...",
    "Deleting temporary security group...",
    "Deleting temporary keypair...",
)
missing = [step for step in steps if step not in said]
assert not missing, f"{missing}\n{said}"
assert code == 1 and "InvalidAction" in said, said
# Nothing is left.
[reservation] = ec2.describe_instances(Filters=made)["Reservations"]
[instance] = reservation["Instances"]
assert instance["State"]["Name"] == "terminated", instance
assert not ec2.describe_key_pairs()["KeyPairs"]
assert [group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"]] == ["default"]
print(f"FIGURE packer: {len(steps)} steps of a build")
