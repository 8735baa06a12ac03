"""Ansible's modules for EC2, by playbooks: the second run changes nothing. usage: playbooks.py ENDPOINT REGION CREDENTIALS DIRECTORY AMI"""

import json
import os
import pathlib
import subprocess
import sys

from cloud import environment

endpoint, region, credentials, directory, image = sys.argv[1:]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIKjMqaGKhlzQFs9PgmqZdYzqnTJKRAEPpwgHTvUT0Yp"
here = pathlib.Path(__file__).parent / "ansible"
tasks = 0


def play(name):
    """How many tasks have changed something."""
    global tasks
    command = [sys.executable, "-m", "ansible", "playbook", here / name, "--inventory", "localhost,", "--connection", "local",
               "--extra-vars", json.dumps({"image": image, "key": KEY})]
    settings = environment(endpoint, region, credentials) | {
        "ANSIBLE_HOME": directory,
        "ANSIBLE_LOCAL_TEMP": directory,
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "HOME": directory,
        "LC_ALL": "C.UTF-8",
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run(command, capture_output=True, text=True, env=settings, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{name}: {done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    told = json.loads(done.stdout[done.stdout.index("{"):])
    stats = told["stats"]["localhost"]
    assert stats["failures"] == stats["unreachable"] == 0, stats
    tasks += stats["ok"]
    changed = [
        task["task"]["name"] for run in told["plays"] for task in run["tasks"] if task["hosts"]["localhost"].get("changed")
    ]
    assert len(changed) == stats["changed"], (changed, stats)
    return changed


assert play("present.yml") == ["key pair", "security group", "instance"]
again = play("present.yml")
assert again == [], again
assert "stopped" in play("stopped.yml")
assert play("absent.yml") == ["no instance", "no security group", "no key pair"]
again = play("absent.yml")
assert again == [], again
print(f"FIGURE ansible: {tasks} tasks of playbooks, none changes anything when it is run again")
