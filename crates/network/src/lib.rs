//! VPC namespaces, TAPs, security groups, NAT, DHCP and IMDS.

pub mod spec;
