//! Messages (RFC 1035, 4) as this resolver reads and writes them.

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::Record;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// RFC 1035, 4.1.1.
const HEADER_BYTES: usize = 12;
/// What own answers offer as their sender's payload size, in bytes; own answers are smaller than the 512 of RFC 1035.
const EDNS_PAYLOAD: u16 = 1232;

/// A message that asks one question (RFC 9619: never more).
pub(super) struct Question {
    message: Message,
    query: Query,
    bytes: Vec<u8>,
}

pub(super) enum Checked {
    /// An answer, or too short for a header. An answer to it could begin a loop.
    NoQuestion,
    /// What cannot be served, and the answer that says so.
    Refused(Vec<u8>),
    Question(Box<Question>),
}

impl Question {
    pub(super) fn check(bytes: &[u8]) -> Checked {
        let Ok(header) = Header::read(&mut BinDecoder::new(bytes)) else {
            return Checked::NoQuestion;
        };
        if bytes.len() < HEADER_BYTES || header.metadata.message_type != MessageType::Query {
            return Checked::NoQuestion;
        }
        let (id, op_code) = (header.metadata.id, header.metadata.op_code);
        let refuse = |code| {
            let answer = Message::error_msg(id, op_code, code).to_vec();
            answer.map_or(Checked::NoQuestion, Checked::Refused)
        };
        if op_code != OpCode::Query {
            return refuse(ResponseCode::NotImp);
        }
        let Ok(message) = Message::from_vec(bytes) else {
            return refuse(ResponseCode::FormErr);
        };
        let [query] = message.queries.as_slice() else {
            return refuse(ResponseCode::FormErr);
        };
        Checked::Question(Box::new(Self {
            query: query.clone(),
            message,
            bytes: bytes.to_vec(),
        }))
    }

    pub(super) fn query(&self) -> &Query {
        &self.query
    }

    /// As it came.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether `reply` answers this question: its id, and the question it repeats (RFC 5452, 9.1). A refusal may leave
    /// the question out.
    pub(super) fn is_answered_by(&self, reply: &[u8]) -> bool {
        let mut decoder = BinDecoder::new(reply);
        let Ok(header) = Header::read(&mut decoder) else {
            return false;
        };
        let metadata = &header.metadata;
        if metadata.id != self.message.metadata.id || metadata.message_type != MessageType::Response {
            return false;
        }
        match header.counts.queries {
            0 => metadata.response_code != ResponseCode::NoError,
            1 => Query::read(&mut decoder).is_ok_and(|query| query == self.query),
            _ => false,
        }
    }

    /// An answer of this resolver's own.
    pub(super) fn answer(
        &self,
        code: ResponseCode,
        answers: Vec<Record>,
        authority: Option<Record>,
    ) -> Vec<u8> {
        let mut answer = self.reply(code);
        answer.metadata.authoritative = true;
        answer.answers = answers;
        answer.authorities.extend(authority);
        answer.to_vec().unwrap_or_default()
    }

    /// SERVFAIL: no resolver has answered.
    pub(super) fn failure(&self) -> Vec<u8> {
        self.reply(ResponseCode::ServFail).to_vec().unwrap_or_default()
    }

    fn reply(&self, code: ResponseCode) -> Message {
        let asked = &self.message.metadata;
        let mut reply = Message::response(asked.id, asked.op_code);
        reply.metadata.recursion_desired = asked.recursion_desired;
        reply.metadata.checking_disabled = asked.checking_disabled;
        reply.metadata.recursion_available = true;
        reply.metadata.response_code = code;
        reply.queries.push(self.query.clone());
        if let Some(asked) = &self.message.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(EDNS_PAYLOAD);
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            reply.edns = Some(edns);
        }
        reply
    }
}
