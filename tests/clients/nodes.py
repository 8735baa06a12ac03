"""libcloud, which signs by Signature Version 2 in this region. usage: nodes.py ENDPOINT REGION CREDENTIALS AMI"""

import sys
from urllib.parse import urlsplit

import libcloud.compute.drivers.ec2 as ec2
from cloud import owner
from libcloud.compute.base import NodeImage
from libcloud.compute.types import NodeState

endpoint, region, credentials, image = sys.argv[1:]
KEY, SECRET = owner(credentials)
address = urlsplit(endpoint)
done = 0


class Driver(ec2.EC2NodeDriver):
    def ex_describe_addresses(self, nodes):
        # There are no elastic IP addresses, and no call that describes them.
        return {node.id: [] for node in nodes}


def driver(key=KEY, secret=SECRET, **more):
    made = Driver(key, secret, secure=False, host=address.hostname, port=address.port, region=region, **more)
    # A refusal is looked at, not repeated.
    made.connection.retry_failed = False
    return made


def step(value):
    global done
    done += 1
    return value


def refused(code, call, *arguments, **parameters):
    try:
        call(*arguments, **parameters)
    # Of what class it is, depends on the code.
    except Exception as error:
        assert code in str(error), f"{code}: {type(error)} {error}"
        return step(None)
    raise AssertionError(f"{code}: not refused")


# The same by both versions.
for version in ("2", "4"):
    cloud = driver(signature_version=version) if version == "4" else driver()
    assert cloud.signature_version == version, cloud.signature_version
    assert step(cloud.list_nodes(ex_filters={"instance-state-name": "running"})) == []
    [tiny] = step(cloud.list_images(ex_image_ids=[image]))
    assert (tiny.id, tiny.name, tiny.extra["state"]) == (image, "tiny", "available"), tiny.extra
    assert [found.id for found in step(cloud.list_images(ex_owner="self"))] == [image]
    sizes = {size.id: size for size in step(cloud.list_sizes())}
    [location] = step(cloud.list_locations())
    assert location.availability_zone.region_name == region, location
    [network] = step(cloud.ex_list_networks())
    assert network.cidr_block == "172.31.0.0/16", network

    # Key pairs.
    made = step(cloud.create_key_pair(f"k{version}"))
    assert made.private_key.startswith("-----BEGIN"), made
    [told] = step(cloud.list_key_pairs())
    assert told.fingerprint == made.fingerprint and told.name == made.name, told
    refused("InvalidKeyPair.Duplicate", cloud.create_key_pair, made.name)

    # A group with a rule.
    group = step(cloud.ex_create_security_group(f"g{version}", "a & b; {c}", vpc_id=network.id))["group_id"]
    assert step(cloud.ex_authorize_security_group_ingress(group, 22, 22, cidr_ips=["10.0.0.0/8"]))
    [told] = step(cloud.ex_get_security_groups(group_ids=[group]))
    assert told.ingress_rules[0]["cidr_ips"] == ["10.0.0.0/8"], told.ingress_rules

    # A node.
    node = step(
        cloud.create_node(
            name="a name & more",
            size=sizes["t2.nano"],
            image=NodeImage(image, "tiny", cloud),
            ex_keyname=made.name,
            ex_userdata="#!/bin/sh\n",
            ex_metadata={"role": "~*'()ä +%"},
            location=location,
        )
    )
    [(node, addresses)] = step(cloud.wait_until_running([node], wait_period=0.2, timeout=60, ssh_interface="private_ips"))
    assert addresses == node.private_ips and len(addresses) == 1, node
    [told] = step(cloud.list_nodes(ex_filters={"tag:role": "~*'()ä +%", "instance-state-name": "running"}))
    assert told.id == node.id and told.state == NodeState.RUNNING and told.name == "a name & more", told
    assert told.extra["key_name"] == made.name and told.extra["image_id"] == image, told.extra
    # More than nine of them: the order of the names is not that of the numbers.
    many = [node.id] + [f"i-{number:017x}" for number in range(11)]
    refused("InvalidInstanceID.NotFound", cloud.list_nodes, ex_node_ids=many)
    assert step(cloud.destroy_node(node))
    [told] = step(cloud.list_nodes(ex_node_ids=[node.id]))
    assert told.state in (NodeState.TERMINATED, NodeState.PENDING, NodeState.UNKNOWN), told
    while told.state != NodeState.TERMINATED:
        [told] = cloud.list_nodes(ex_node_ids=[node.id])
    assert step(cloud.ex_delete_security_group_by_id(group))
    assert step(cloud.delete_key_pair(made))
    assert step(cloud.list_nodes(ex_filters={"instance-state-name": "running"})) == []

    # Whoever is not the owner.
    for other in (driver(secret="x" * 40), driver(key="AKIAIOSFODNN7EXAMPLE")):
        other.signature_version = version
        refused("AuthFailure", other.create_key_pair, "not made")
    assert step(cloud.list_key_pairs()) == []

print(f"FIGURE libcloud: {done} steps, signed by versions 2 and 4")
