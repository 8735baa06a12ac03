//! What a guest may send to port 53.

use hickory_proto::op::{Message, MessageType};

use super::message::{Checked, Question};
use super::zone::Zone;
use crate::plan::Plan;
use crate::spec::{EniSpec, ImdsOptions, VpcSpec};

/// Whatever was asked: no panic, an answer is an answer to it, and a message is passed on as it came or not at all.
pub(crate) fn question(input: &[u8]) {
    let answer = match Question::check(input) {
        Checked::NoQuestion => return,
        Checked::Refused(answer) => answer,
        Checked::Question(question) => {
            assert_eq!(question.bytes(), input);
            let failure = question.failure();
            assert!(question.is_answered_by(&failure));
            assert!(!question.is_answered_by(input), "a question is no answer");
            zone().answer(&question).unwrap_or(failure)
        }
    };
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert_eq!(answer.metadata.id.to_be_bytes(), input[..2]);
}

pub(super) fn zone() -> Zone {
    let eni = |host: u8| EniSpec {
        eni_id: format!("eni-{host:02x}{:015x}", 0),
        mac: [6, 0, 0, 0, 0, host],
        private_ip: [172, 31, 0, host].into(),
        subnet: "172.31.0.0/20".parse().unwrap(),
        public_ip: None,
        security_group_ids: Vec::new(),
        hostname: format!("ip-172-31-0-{host}.ec2.internal"),
        imds: ImdsOptions {
            enabled: true,
            tokens_required: false,
            hop_limit: 1,
        },
    };
    let spec = VpcSpec {
        vpc_id: "vpc-00000000000000001".into(),
        cidr: "172.31.0.0/16".parse().unwrap(),
        public_pool: "198.18.0.0/24".parse().unwrap(),
        enis: vec![eni(10), eni(11)],
        security_groups: Vec::new(),
        subnets: Vec::new(),
        dns: true,
    };
    Zone::of(&Plan::new(&spec).unwrap())
}
