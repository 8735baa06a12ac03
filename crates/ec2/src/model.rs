//! AWS's models of its services: which calls there are, and what their members are called on the wire.

use std::collections::BTreeMap;
use std::io::Read as _;

use indexmap::IndexMap;
use serde::Deserialize;

/// A service whose protocol is spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    Ec2,
    Iam,
    Sts,
    Ssm,
    Kms,
    ServiceQuotas,
    Ec2InstanceConnect,
}

impl Service {
    pub const ALL: [Service; 7] = [
        Service::Ec2,
        Service::Iam,
        Service::Sts,
        Service::Ssm,
        Service::Kms,
        Service::ServiceQuotas,
        Service::Ec2InstanceConnect,
    ];

    /// Its name in a signature's credential scope.
    pub fn name(self) -> &'static str {
        match self {
            Service::Ec2 => "ec2",
            Service::Iam => "iam",
            Service::Sts => "sts",
            Service::Ssm => "ssm",
            Service::Kms => "kms",
            Service::ServiceQuotas => "servicequotas",
            Service::Ec2InstanceConnect => "ec2-instance-connect",
        }
    }

    /// The service that has the calls of a service of a package of Hearth's: of EC2 and IAM there are several, such as
    /// `KeyPairs` and `IamUsers`. What AWS has in none, EC2's model has not either.
    pub fn of(own: &str) -> Self {
        match own {
            "Sts" => Service::Sts,
            "Ssm" => Service::Ssm,
            "Kms" => Service::Kms,
            "ServiceQuotas" => Service::ServiceQuotas,
            "Ec2InstanceConnect" => Service::Ec2InstanceConnect,
            own if own.starts_with("Iam") => Service::Iam,
            _ => Service::Ec2,
        }
    }

    /// Whether its protocol is AWS JSON.
    pub fn speaks_json(self) -> bool {
        matches!(
            self,
            Service::Ssm | Service::Kms | Service::ServiceQuotas | Service::Ec2InstanceConnect
        )
    }

    /// Whether its requests are signed for one region, whichever is called.
    pub fn is_global(self) -> bool {
        matches!(self, Service::Iam | Service::Sts)
    }

    fn packed(self) -> &'static [u8] {
        match self {
            Service::Ec2 => include_bytes!("../model/ec2.json.gz"),
            Service::Iam => include_bytes!("../model/iam.json.gz"),
            Service::Sts => include_bytes!("../model/sts.json.gz"),
            Service::Ssm => include_bytes!("../model/ssm.json.gz"),
            Service::Kms => include_bytes!("../model/kms.json.gz"),
            Service::ServiceQuotas => include_bytes!("../model/servicequotas.json.gz"),
            Service::Ec2InstanceConnect => include_bytes!("../model/ec2-instance-connect.json.gz"),
        }
    }
}

/// How a service's parameters and answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// `Name.1`, names of parameters begin with a capital, `<requestId>` in the answer.
    Ec2,
    /// `Name.member.1`, the answer in `<ActionResult>`.
    Query,
    /// An object in and an object out; a header names the call.
    Json,
}

#[derive(Debug, Deserialize)]
pub struct Model {
    pub metadata: Metadata,
    pub operations: BTreeMap<String, Operation>,
    pub shapes: BTreeMap<String, Shape>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub protocol: Protocol,
    /// Of answers in XML.
    #[serde(default)]
    pub xml_namespace: String,
    /// Of protocols that name the call in a header: `AmazonSSM`.
    #[serde(default)]
    pub target_prefix: String,
}

#[derive(Debug, Deserialize)]
pub struct Operation {
    /// Calls without parameters may have none.
    pub input: Option<Input>,
    /// Calls that only succeed have none.
    pub output: Option<Output>,
}

#[derive(Debug, Deserialize)]
pub struct Input {
    pub shape: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    pub shape: String,
    pub result_wrapper: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Shape {
    Structure {
        /// In the order in which AWS's clients print them.
        members: IndexMap<String, Member>,
        /// What a request must have.
        #[serde(default)]
        required: Vec<String>,
        /// Whether it has one of its members only.
        #[serde(default)]
        union: bool,
    },
    List {
        member: Member,
    },
    Map {
        key: Member,
        value: Member,
    },
    String {},
    Integer {},
    Long {},
    Boolean {},
    Float {},
    Double {},
    Blob {},
    Timestamp {},
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    pub shape: String,
    /// In XML and JSON, if not the member's own name.
    pub location_name: Option<String>,
    /// In a form, if it does not follow from the former.
    pub query_name: Option<String>,
}

/// A model in this program that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("reading the model of {service}")]
pub struct ModelError {
    service: &'static str,
    source: std::io::Error,
}

impl Model {
    /// # Errors
    /// The program was built with a model that cannot be read.
    pub fn of(service: Service) -> Result<Model, ModelError> {
        let failed = |source| ModelError {
            service: service.name(),
            source,
        };
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(service.packed())
            .read_to_end(&mut text)
            .map_err(failed)?;
        serde_json::from_slice(&text).map_err(|error| failed(error.into()))
    }
}

/// What a member is called in a proto: `VCpuInfo` is `v_cpu_info`.
pub fn field_name(member: &str) -> String {
    use heck::ToSnakeCase as _;
    member.to_snake_case()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_those_of_the_models() -> Result<(), ModelError> {
        for service in Service::ALL {
            let is_json = Model::of(service)?.metadata.protocol == Protocol::Json;
            assert_eq!(service.speaks_json(), is_json, "{service:?}");
        }
        Ok(())
    }
}
