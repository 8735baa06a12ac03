"""Packer builds an AMI of an instance, and whatever it made for that is taken away.
usage: packer.py ENDPOINT REGION CREDENTIALS PACKER DIRECTORY USER AMI

`packer validate` calls nothing; a build does. Where hosts are simulated, nothing logs in: USER is `-`. Otherwise Packer logs in as
USER, and writes a file into the AMI.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

from cloud import Cloud, environment, owner

endpoint, region, credentials, packer, directory, user, image = sys.argv[1:]
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
    "source_ami_filter": {"filters": {"name": "tiny", "root-device-type": "ebs"}, "owners": ["self"], "most_recent": True},
    "run_tags": {"made-by": "packer"},
    "tags": {"made-by": "packer"},
    "snapshot_tags": {"made-by": "packer"},
    "ami_description": "by Packer",
    "ami_users": ["123456789012"],
    "snapshot_users": ["210987654321"],
    # The root device, by another name than the AMI's own.
    "launch_block_device_mappings": [{"device_name": "/dev/xvda", "volume_size": 1, "delete_on_termination": True}],
}
if user == "-":
    BUILDER["communicator"] = "none"
else:
    key = pathlib.Path(directory) / "key"
    key.write_text(ec2.create_key_pair(KeyName="builder", KeyType="ed25519")["KeyMaterial"])
    key.chmod(0o600)
    BUILDER |= {
        "ssh_username": user,
        "ssh_keypair_name": "builder",
        "ssh_private_key_file": str(key),
        "ssh_timeout": "5m",
        "user_data_file": str(pathlib.Path(__file__).with_name("packer.sh")),
    }
PROVISIONERS = [] if user == "-" else [{"type": "shell", "inline": ["echo by Packer >/etc/built"]}]


def run(command, **other):
    template.write_text(json.dumps({"builders": [BUILDER | other], "provisioners": PROVISIONERS}))
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


def keys():
    return [key["KeyName"] for key in ec2.describe_key_pairs()["KeyPairs"]]


def groups():
    return [group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"]]


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

keys_before, groups_before = keys(), groups()
began = time.monotonic()
code, said = run(build)
took = time.monotonic() - began
steps = [
    "Found Image ID: " + image,
    "Creating temporary security group for this instance: packer_",
    "Launching a source AWS instance...",
    "Adding tag: \"made-by\": \"packer\"",
    "Stopping the source instance...",
    "Creating AMI packer ",
    "Waiting for AMI to become ready...",
    "Modifying attributes on AMI",
    "Modifying attributes on snapshot",
    "Adding tags to AMI",
    "Tagging snapshot:",
    "Terminating the source AWS instance...",
    "Deleting temporary security group...",
]
steps += {
    True: ["Creating temporary keypair: packer_", "Deleting temporary keypair..."],
    False: ["Connected to SSH!", "Provisioning with shell script"],
}[user == "-"]
missing = [step for step in steps if step not in said]
assert code == 0 and not missing, f"{missing}\n{said}"
# Nothing is left but the image.
[reservation] = ec2.describe_instances(Filters=made)["Reservations"]
[instance] = reservation["Instances"]
assert instance["State"]["Name"] == "terminated", instance
assert keys() == keys_before
assert groups() == groups_before
[built] = ec2.describe_images(Filters=made, Owners=["self"])["Images"]
assert built["State"] == "available" and built["SourceInstanceId"] == instance["InstanceId"], built
assert built["Description"] == "by Packer" and built["Name"].startswith("packer "), built
[device] = built["BlockDeviceMappings"]
[snapshot] = ec2.describe_snapshots(Filters=made, OwnerIds=["self"])["Snapshots"]
assert device["Ebs"]["SnapshotId"] == snapshot["SnapshotId"] and snapshot["State"] == "completed", (device, snapshot)
shared = ec2.describe_image_attribute(ImageId=built["ImageId"], Attribute="launchPermission")["LaunchPermissions"]
assert shared == [{"UserId": "123456789012"}], shared
shared = ec2.describe_snapshot_attribute(SnapshotId=snapshot["SnapshotId"], Attribute="createVolumePermission")
assert shared["CreateVolumePermissions"] == [{"UserId": "210987654321"}], shared

if user == "-":
    # A build with the name replaces the AMI; then it goes, and its snapshot with it.
    code, said = run(build, ami_name=built["Name"], force_deregister=True, force_delete_snapshot=True)
    assert code == 0 and "Deregistered AMI" in said and "Deleted snapshot" in said, said
    [again] = ec2.describe_images(Filters=made, Owners=["self"])["Images"]
    assert again["ImageId"] != built["ImageId"], again
    [other] = ec2.describe_snapshots(Filters=made, OwnerIds=["self"])["Snapshots"]
    ec2.deregister_image(ImageId=again["ImageId"])
    ec2.delete_snapshot(SnapshotId=other["SnapshotId"])
    assert not ec2.describe_images(Filters=made)["Images"]
    assert not ec2.describe_snapshots(Filters=made)["Snapshots"]
    assert not ec2.describe_volumes(Filters=[{"Name": "status", "Values": ["in-use", "available"]}])["Volumes"]
else:
    print(f"IMAGE {built['ImageId']}")
print(f"FIGURE packer: {len(steps)} steps of a build in {took:.1f} s")
