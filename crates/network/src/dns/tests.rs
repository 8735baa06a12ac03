use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

use super::fuzz::zone;
use super::message::{Checked, Question};

fn asked(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn checked(message: &Message) -> Question {
    match Question::check(&message.to_vec().unwrap()) {
        Checked::Question(question) => *question,
        _ => panic!("{message} is refused"),
    }
}

fn told(message: &Message) -> Option<Message> {
    let answer = zone().answer(&checked(message))?;
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.metadata.id, 7);
    assert_eq!(answer.queries, message.queries);
    assert!(answer.metadata.authoritative);
    Some(answer)
}

fn told_of(name: &str, kind: RecordType) -> Option<(ResponseCode, Vec<RData>)> {
    let answer = told(&asked(name, kind))?;
    let negative = answer.answers.is_empty();
    let authority = answer
        .authorities
        .iter()
        .filter(|r| r.record_type() == RecordType::SOA);
    assert_eq!(authority.count(), usize::from(negative), "RFC 2308, 3: {answer}");
    let records = answer.answers.iter().map(|record| record.data.clone());
    Some((answer.metadata.response_code, records.collect()))
}

fn address(host: u8) -> RData {
    RData::A(std::net::Ipv4Addr::new(172, 31, 0, host).into())
}

#[test]
fn the_interfaces_names_are_answered() {
    let one = "ip-172-31-0-10.ec2.internal.";
    let found = |data| Some((ResponseCode::NoError, vec![data]));
    assert_eq!(told_of(one, RecordType::A), found(address(10)));
    assert_eq!(
        told_of("IP-172-31-0-11.EC2.Internal.", RecordType::A),
        found(address(11))
    );
    assert_eq!(told_of(one, RecordType::ANY), found(address(10)));
    let (code, records) = told_of("10.0.31.172.in-addr.arpa.", RecordType::PTR).unwrap();
    let [RData::PTR(name)] = records.as_slice() else {
        panic!("{records:?}");
    };
    assert_eq!((code, name.0.to_ascii().as_str()), (ResponseCode::NoError, one));
}

#[test]
fn what_is_not_there_is_said_so() {
    let nothing = |code| Some((code, Vec::new()));
    let one = "ip-172-31-0-10.ec2.internal.";
    assert_eq!(told_of(one, RecordType::AAAA), nothing(ResponseCode::NoError));
    assert_eq!(
        told_of("ec2.internal.", RecordType::SOA),
        nothing(ResponseCode::NoError)
    );
    for (name, kind) in [
        ("ip-172-31-0-12.ec2.internal.", RecordType::A),
        ("x.ip-172-31-0-10.ec2.internal.", RecordType::A),
        ("12.0.31.172.in-addr.arpa.", RecordType::PTR),
    ] {
        assert_eq!(told_of(name, kind), nothing(ResponseCode::NXDomain), "{name}");
    }
}

#[test]
fn all_else_is_others_to_answer() {
    for name in [
        "example.com.",
        "internal.",
        "notec2.internal.",
        "1.1.168.192.in-addr.arpa.",
        "31.172.in-addr.arpa.",
        "in-addr.arpa.",
        ".",
    ] {
        assert_eq!(told_of(name, RecordType::A), None, "{name}");
    }
    let mut chaos = asked("ip-172-31-0-10.ec2.internal.", RecordType::A);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert!(told(&chaos).is_none());
}

#[test]
fn edns_is_answered_in_kind() {
    let mut message = asked("ip-172-31-0-10.ec2.internal.", RecordType::A);
    assert!(told(&message).unwrap().edns.is_none());
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_dnssec_ok(true);
    message.set_edns(edns);
    let answered = told(&message).unwrap().edns.unwrap();
    assert!(answered.flags().dnssec_ok);
    assert_eq!(answered.max_payload(), 1232);
}

#[test]
fn what_is_no_question_is_refused_or_passed_over() {
    let code = |bytes: &[u8]| match Question::check(bytes) {
        Checked::NoQuestion => None,
        Checked::Refused(answer) => Some(Message::from_vec(&answer).unwrap().metadata.response_code),
        Checked::Question(_) => Some(ResponseCode::NoError),
    };
    let mut message = asked("example.com.", RecordType::A);
    let bytes = message.to_vec().unwrap();
    assert_eq!(code(&bytes), Some(ResponseCode::NoError));
    for length in 0..12 {
        assert_eq!(code(&bytes[..length]), None, "{length} bytes");
    }
    assert_eq!(code(&bytes[..bytes.len() - 1]), Some(ResponseCode::FormErr));
    message.add_query(message.queries[0].clone());
    assert_eq!(code(&message.to_vec().unwrap()), Some(ResponseCode::FormErr));
    message.queries.clear();
    assert_eq!(code(&message.to_vec().unwrap()), Some(ResponseCode::FormErr));
    message.metadata.op_code = OpCode::Update;
    assert_eq!(code(&message.to_vec().unwrap()), Some(ResponseCode::NotImp));
    message.metadata.message_type = MessageType::Response;
    assert_eq!(code(&message.to_vec().unwrap()), None, "an answer");
}

#[test]
fn an_answer_must_be_to_the_question() {
    let question = checked(&asked("Example.com.", RecordType::A));
    let reply = |name: &str, id, code| {
        let mut reply = Message::response(id, OpCode::Query);
        reply.metadata.response_code = code;
        if !name.is_empty() {
            reply.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        }
        reply.to_vec().unwrap()
    };
    assert!(question.is_answered_by(&reply("example.COM.", 7, ResponseCode::NoError)));
    assert!(question.is_answered_by(&reply("", 7, ResponseCode::Refused)));
    for wrong in [
        reply("example.com.", 8, ResponseCode::NoError),
        reply("example.net.", 7, ResponseCode::NoError),
        reply("", 7, ResponseCode::NoError),
        Vec::new(),
    ] {
        assert!(!question.is_answered_by(&wrong));
    }
    assert!(question.is_answered_by(&question.failure()));
}
