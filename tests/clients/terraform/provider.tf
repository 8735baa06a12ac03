# Each plan's provider: AWS's, at a cloud's endpoint. The variables come from the environment.
terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
    }
  }
}

variable "endpoint" {
  type = string
}

variable "image" {
  type = string
}

provider "aws" {
  skip_region_validation = true
  endpoints {
    ec2 = var.endpoint
    sts = var.endpoint
  }
}
