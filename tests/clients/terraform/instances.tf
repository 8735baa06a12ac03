# Instances with what they need, and what is told of the cloud.
data "aws_ami" "tiny" {
  owners      = ["self"]
  most_recent = true
  filter {
    name   = "name"
    values = ["tiny"]
  }
}

data "aws_availability_zones" "all" {}

data "aws_caller_identity" "me" {}

data "aws_subnet" "default" {
  default_for_az = true
}

data "aws_ec2_instance_type_offerings" "here" {
  filter {
    name   = "instance-type"
    values = ["t2.micro", "t2.nano"]
  }
}

resource "aws_key_pair" "k" {
  key_name   = "terraform"
  public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2Zm7w1Y6yOEVsIDy2q0h7bB4cPVsJQ5y2x1LkJvQ0p me"
  tags       = { made = "by terraform" }
}

resource "aws_security_group" "web" {
  name        = "web"
  description = "from everywhere"
  vpc_id      = data.aws_subnet.default.vpc_id
  ingress {
    from_port   = 443
    to_port     = 443
    protocol    = "tcp"
    cidr_blocks = ["0.0.0.0/0"]
    description = "https"
  }
  egress {
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_security_group_rule" "ssh" {
  security_group_id = aws_security_group.ssh.id
  type              = "ingress"
  protocol          = "tcp"
  from_port         = 22
  to_port           = 22
  source_security_group_id = aws_security_group.web.id
}

resource "aws_security_group" "ssh" {
  name   = "ssh"
  vpc_id = data.aws_subnet.default.vpc_id
}

resource "aws_instance" "web" {
  count                  = 2
  ami                    = data.aws_ami.tiny.id
  instance_type          = "t2.micro"
  key_name               = aws_key_pair.k.key_name
  vpc_security_group_ids = [aws_security_group.web.id, aws_security_group.ssh.id]
  user_data              = "#!/bin/sh\n"
  metadata_options {
    http_tokens   = "required"
    http_endpoint = "enabled"
  }
  tags = { Name = "web-${count.index}" }
}

output "account" {
  value = data.aws_caller_identity.me.account_id
}
