"""Lets moto's tests of EC2 meet a real hearthd: a plugin of pytest, which runs in moto's source distribution.

Each test has a cloud of its own, which HEARTH_CLOUDS (a Unix socket) gives. Nothing of moto is at work but the tests:
`mock_aws` does nothing here, and boto3 calls the cloud, as its environment says. Tests that are verified against AWS find
moto as they do there. Tests that fail with a known reason are listed in moto_differences.txt; one that is listed and
passes is a failure, too.
"""

import json
import os
import pathlib
import re
import socket
import sys
import time
import types

import boto3
import botocore.client
import botocore.session
import botocore.waiter
import freezegun
import pytest
from cloud import environment

REGION = "us-east-1"
# Files and tests that launch nothing in other regions. All others are in the one above, whichever they name: moto's AMIs are in
# every region, with one id.
OF_REGIONS = {
    "test_availability_zones_and_regions",
    "test_instance_type_offerings",
    "test_retrieved_snapshots_must_contain_their_tags",
    "test_search_for_many_snapshots",
    "test_settings",
}

FILES = [
    "account_attributes",
    "amis",
    "availability_zones_and_regions",
    "ec2_integration",
    "elastic_block_store",
    "general",
    "instance_type_offerings",
    "instance_types",
    "instances",
    "key_pairs",
    "regions",
    "security_groups",
    "settings",
    "tags",
]
LIST = pathlib.Path(__file__).with_name("moto_differences.txt")
# A line of the list: the test, and the reason why it fails, as the list's head says.
LINE = re.compile(r"(?P<test>.+?) (?P<kind>noun|moto|chance|differs): (?P<reason>.+)")


class Clouds:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.answers = self.socket.makefile()

    def fresh(self):
        """Starts a cloud, and lets boto3 call it."""
        self.socket.sendall(b"\n")
        told = json.loads(self.answers.readline())
        os.environ.update(environment(told["endpoint"], REGION, told["credentials"]))
        boto3.DEFAULT_SESSION = None


class Nothing:
    """In the place of `mock_aws`: a decorator of functions and classes, with and without arguments, and a context."""

    def __call__(self, decorated):
        return decorated

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def start(self, reset=True):
        pass

    def stop(self, remove_data=True):
        pass


def mock_aws(decorated=None, config=None):
    return Nothing() if decorated is None else decorated


def known_differences():
    lines = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    found = [LINE.fullmatch(line) for line in lines]
    wrong = [line for line, match in zip(lines, found) if match is None]
    assert not wrong, f"{LIST.name}: no line of the list: {wrong}"
    tests = [match["test"] for match in found]
    assert len(set(tests)) == len(tests), f"{LIST.name}: a test is listed twice"
    return {match["test"]: match for match in found}


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config):
    """Before anything of moto's is imported: its tests import constants and decorators by name."""
    clouds = early_config.clouds = Clouds(os.environ["HEARTH_CLOUDS"])
    clouds.fresh()
    os.environ["MOTO_TEST_ALLOW_AWS_REQUEST"] = "true"
    account = boto3.client("sts", REGION).get_caller_identity()["Account"]
    images = os.environ["HEARTH_IMAGES"].split(",")
    sys.path.insert(0, str(pathlib.Path.cwd()))
    import moto
    import moto.core
    import moto.core.models

    moto.mock_aws = mock_aws
    moto.core.DEFAULT_ACCOUNT_ID = moto.core.models.DEFAULT_ACCOUNT_ID = account
    import tests

    tests.DEFAULT_ACCOUNT_ID = account
    tests.EXAMPLE_AMI_ID, tests.EXAMPLE_AMI_ID2, tests.EXAMPLE_AMI_PARAVIRTUAL, tests.EXAMPLE_AMI_WINDOWS = images
    # A request that is signed at another time than now is refused, as by AWS.
    freezegun.freeze_time = lambda *_, **__: mock_aws()
    # Whoever waits looks more often than with AWS.
    sleep = botocore.waiter.time.sleep
    botocore.waiter.time = types.SimpleNamespace(sleep=lambda seconds: sleep(min(seconds, 0.2)))
    early_config.regions = Regions()
    settle()


def settle():
    """moto's instances, images, snapshots and attachments are at once what they shall be, and its volumes are deleted at once.
    Those here are when their host has said so, which is awaited."""
    call = botocore.client.BaseClient._make_api_call
    results = {
        "RunInstances": "Instances",
        "StartInstances": "StartingInstances",
        "StopInstances": "StoppingInstances",
        "TerminateInstances": "TerminatingInstances",
    }
    made = {"CreateImage": ("DescribeImages", "ImageId"), "CreateSnapshot": ("DescribeSnapshots", "SnapshotId")}

    def make_api_call(self, operation, parameters):
        answer = call(self, operation, parameters)
        ids = [instance["InstanceId"] for instance in answer.get(results.get(operation), [])]
        deadline = time.monotonic() + 10
        describe, id = made.get(operation, ("", ""))
        while describe and time.monotonic() < deadline:
            [found] = call(self, describe, {f"{id}s": [answer[id]]})[f"{id.removesuffix('Id')}s"]
            if found["State"] != "pending":
                break
            time.sleep(0.02)
        while operation in ("AttachVolume", "DetachVolume", "DeleteVolume") and time.monotonic() < deadline:
            volumes = [v for v in call(self, "DescribeVolumes", {})["Volumes"] if v["VolumeId"] == parameters["VolumeId"]]
            states = {v["State"] for v in volumes} | {told["State"] for v in volumes for told in v["Attachments"]}
            if not states & {"attaching", "detaching", "deleting"}:
                break
            time.sleep(0.02)
        if operation == "CreateImage":
            # It has been started again by then.
            ids = [parameters["InstanceId"]]
        while ids and time.monotonic() < deadline:
            found = call(self, "DescribeInstances", {"InstanceIds": ids})
            states = {i["State"]["Name"] for r in found["Reservations"] for i in r["Instances"]}
            if not states & {"pending", "stopping", "shutting-down"}:
                break
            time.sleep(0.02)
        return answer

    botocore.client.BaseClient._make_api_call = make_api_call


class Regions:
    """Which region clients are made for."""

    def __init__(self):
        self.are_named = False
        create = botocore.session.Session.create_client

        def create_client(session, service_name, region_name=None, *args, **kwargs):
            region = region_name if self.are_named else REGION
            return create(session, service_name, region, *args, **kwargs)

        botocore.session.Session.create_client = create_client


def pytest_configure(config):
    config.known = known_differences()
    config.addinivalue_line("markers", "aws_verified: passes against AWS")
    if not config.option.file_or_dir:
        config.args[:] = ["tests/test_ec2"]


def name(item):
    return item.nodeid.removeprefix("tests/test_ec2/")


def pytest_ignore_collect(collection_path):
    """moto's own server is tested there."""
    return True if collection_path.name == "test_server.py" else None


def pytest_collection_modifyitems(config, items):
    """Those of the files of the nouns that exist, and whatever is verified against AWS."""
    wanted = [item for item in items if item.path.stem.removeprefix("test_") in FILES or is_verified(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
    items[:] = wanted
    for item in items:
        difference = config.known.get(name(item))
        if difference:
            reason = f"{difference['kind']}: {difference['reason']}"
            item.add_marker(pytest.mark.xfail(strict=difference["kind"] != "chance", reason=reason))


def is_verified(item):
    return item.get_closest_marker("aws_verified") is not None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    from moto import settings

    settings.TEST_SERVER_MODE = not is_verified(item)
    item.config.clouds.fresh()
    item.config.regions.are_named = bool(OF_REGIONS & {item.path.stem, item.name})


def pytest_terminal_summary(terminalreporter):
    reports = terminalreporter.stats
    passed = len(reports.get("passed", [])) + len(reports.get("xpassed", []))
    listed = [report.wasxfail.split(":")[0] for report in reports.get("xfailed", [])]
    unlisted = len(reports.get("failed", [])) + len(reports.get("error", []))
    of_ec2 = passed + listed.count("differs") + unlisted
    terminalreporter.write_line(
        f"FIGURE: moto's tests whose nouns exist and which EC2 itself passes: {passed} of {of_ec2} pass,"
        f" {100 * passed / max(of_ec2, 1):.1f} %; {listed.count('moto') + listed.count('chance')} expect what EC2 does not do,"
        f" {listed.count('noun')} need what Hearth does not have"
    )
