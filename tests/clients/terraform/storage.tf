# Volumes, snapshots and images, and an instance that has all of its volumes by its own block devices.
data "aws_availability_zones" "all" {}

resource "aws_instance" "own" {
  ami           = var.image
  instance_type = "t2.nano"
  volume_tags   = { made-by = "terraform" }
  root_block_device {
    volume_size = 2
    volume_type = "gp3"
    iops        = 3000
    throughput  = 150
  }
  ebs_block_device {
    device_name           = "/dev/sdb"
    volume_size           = 1
    volume_type           = "gp2"
    delete_on_termination = true
  }
}

resource "aws_instance" "user" {
  ami           = var.image
  instance_type = "t2.nano"
}

resource "aws_ebs_volume" "data" {
  availability_zone = data.aws_availability_zones.all.names[0]
  size              = 1
  tags              = { Name = "data" }
}

resource "aws_ebs_volume" "fast" {
  availability_zone = data.aws_availability_zones.all.names[0]
  size              = 8
  type              = "gp3"
  iops              = 4000
  throughput        = 200
}

resource "aws_volume_attachment" "data" {
  device_name = "/dev/sdf"
  volume_id   = aws_ebs_volume.data.id
  instance_id = aws_instance.user.id
}

resource "aws_ebs_snapshot" "data" {
  volume_id   = aws_volume_attachment.data.volume_id
  description = "of the data"
  tags        = { Name = "data" }
}

resource "aws_ebs_snapshot_copy" "data" {
  source_snapshot_id = aws_ebs_snapshot.data.id
  source_region      = data.aws_availability_zones.all.id
  description        = "a copy"
  tags               = { Name = "copy" }
}

resource "aws_ebs_volume" "restored" {
  availability_zone = data.aws_availability_zones.all.names[0]
  snapshot_id       = aws_ebs_snapshot_copy.data.id
}

resource "aws_snapshot_create_volume_permission" "other" {
  snapshot_id = aws_ebs_snapshot.data.id
  account_id  = "123456789012"
}

resource "aws_ami_from_instance" "made" {
  name               = "made"
  description        = "of an instance"
  source_instance_id = aws_instance.own.id
  tags               = { Name = "made" }
}

resource "aws_ami_copy" "copy" {
  name              = "copy"
  description       = "of an image"
  source_ami_id     = aws_ami_from_instance.made.id
  source_ami_region = data.aws_availability_zones.all.id
}

resource "aws_ami_launch_permission" "other" {
  image_id   = aws_ami_copy.copy.id
  account_id = "123456789012"
}

# The root volume of an instance, as it was when it had been shut down for the image.
data "aws_ebs_snapshot" "root" {
  most_recent = true
  owners      = ["self"]
  filter {
    name   = "volume-id"
    values = [aws_instance.own.root_block_device[0].volume_id]
  }
  depends_on = [aws_ami_from_instance.made]
}

resource "aws_ami" "registered" {
  name                = "registered"
  virtualization_type = "hvm"
  root_device_name    = "/dev/xvda"
  ebs_block_device {
    device_name = "/dev/xvda"
    snapshot_id = data.aws_ebs_snapshot.root.id
    volume_size = 3
    volume_type = "gp3"
  }
  ebs_block_device {
    device_name = "/dev/sdc"
    snapshot_id = aws_ebs_snapshot.data.id
    volume_type = "gp2"
  }
}

resource "aws_instance" "again" {
  ami           = aws_ami.registered.id
  instance_type = "t2.nano"
}

data "aws_ebs_volume" "data" {
  most_recent = true
  filter {
    name   = "attachment.instance-id"
    values = [aws_volume_attachment.data.instance_id]
  }
  filter {
    name   = "tag:Name"
    values = [aws_ebs_volume.data.tags.Name]
  }
}

data "aws_ebs_volumes" "own" {
  filter {
    name   = "tag:made-by"
    values = [aws_instance.own.volume_tags.made-by]
  }
}

data "aws_ebs_snapshot_ids" "all" {
  owners = ["self"]
  filter {
    name   = "volume-id"
    values = [aws_ebs_snapshot.data.volume_id]
  }
}

output "counts" {
  value = {
    own_volumes = length(data.aws_ebs_volumes.own.ids)
    snapshots   = length(data.aws_ebs_snapshot_ids.all.ids)
  }
}
