# A VPC whose addresses are the default one's, with a subnet that leads to the internet and one that does not, and an instance in each.
resource "aws_vpc" "lab" {
  cidr_block           = "172.31.0.0/16"
  enable_dns_hostnames = true
  tags                 = { Name = "lab" }
}

resource "aws_internet_gateway" "lab" {
  vpc_id = aws_vpc.lab.id
  tags   = { Name = "lab" }
}

resource "aws_subnet" "public" {
  vpc_id                  = aws_vpc.lab.id
  cidr_block              = "172.31.1.0/24"
  availability_zone       = data.aws_availability_zones.all.names[0]
  map_public_ip_on_launch = true
}

resource "aws_subnet" "inner" {
  vpc_id            = aws_vpc.lab.id
  cidr_block        = "172.31.2.0/24"
  availability_zone = data.aws_availability_zones.all.names[0]
  tags              = { Name = "inner" }
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.lab.id
  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.lab.id
  }
  tags = { Name = "public" }
}

resource "aws_route_table_association" "public" {
  subnet_id      = aws_subnet.public.id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table" "inner" {
  vpc_id = aws_vpc.lab.id
}

resource "aws_route" "one" {
  route_table_id         = aws_route_table.inner.id
  destination_cidr_block = "192.0.2.0/24"
  gateway_id             = aws_internet_gateway.lab.id
}

resource "aws_main_route_table_association" "lab" {
  vpc_id         = aws_vpc.lab.id
  route_table_id = aws_route_table.inner.id
}

resource "aws_security_group" "lab" {
  name   = "lab"
  vpc_id = aws_vpc.lab.id
  ingress {
    from_port   = 22
    to_port     = 22
    protocol    = "tcp"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_default_security_group" "lab" {
  vpc_id = aws_vpc.lab.id
}

resource "aws_default_vpc" "own" {
  tags = { Name = "default" }
}

resource "aws_default_subnet" "own" {
  availability_zone = data.aws_availability_zones.all.names[0]
}

data "aws_availability_zones" "all" {}

resource "aws_instance" "lab" {
  for_each               = { public = aws_subnet.public.id, inner = aws_subnet.inner.id }
  ami                    = var.image
  instance_type          = "t2.nano"
  subnet_id              = each.value
  vpc_security_group_ids = [aws_security_group.lab.id]
}

data "aws_vpc" "lab" {
  id         = aws_vpc.lab.id
  depends_on = [aws_instance.lab]
}
