//! Messages' bytes: protobuf's encoding, field by field.
//! <https://protobuf.dev/programming-guides/encoding/>

use jiff::Timestamp;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

use smallvec::SmallVec;

use crate::table::Kind;

/// A message that is none of the table's. It is a fault of this program.
#[derive(Debug, thiserror::Error)]
#[error("an answer does not fit its description: {0}")]
pub struct Malformed(pub(crate) &'static str);

impl From<prost::DecodeError> for Malformed {
    fn from(_: prost::DecodeError) -> Malformed {
        Malformed("it is cut off")
    }
}

/// What stands on the wire after a field's number.
#[derive(Clone, Copy)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Four([u8; 4]),
    Eight([u8; 8]),
    Bytes(&'a [u8]),
}

pub(crate) fn is_packable(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Integer | Kind::Long | Kind::Boolean | Kind::Float | Kind::Double
    )
}

pub(crate) fn unpack<'a>(kind: Kind, bytes: &mut &'a [u8]) -> Result<Value<'a>, Malformed> {
    let wire = match kind {
        Kind::Float => WireType::ThirtyTwoBit,
        Kind::Double => WireType::SixtyFourBit,
        _ => WireType::Varint,
    };
    value(wire, bytes)
}

/// Takes a field off the bytes.
pub(crate) fn next<'a>(bytes: &mut &'a [u8]) -> Result<(u32, Value<'a>), Malformed> {
    let (number, wire) = decode_key(bytes)?;
    Ok((number, value(wire, bytes)?))
}

/// Fields that a message has before it needs the heap: those of an instance.
const USUAL: usize = 48;

/// A message's fields. An encoder writes them in the order of their numbers. It is large, and so is filled where it is.
pub(crate) struct Found<'a> {
    fields: SmallVec<[(u32, Value<'a>); USUAL]>,
    /// By its number, the place of a field in the first 255, counted from 1; 0: it is not among them.
    places: [u8; 64],
}

impl<'a> Found<'a> {
    pub(crate) fn new() -> Self {
        Self {
            fields: SmallVec::new(),
            places: [0; 64],
        }
    }

    /// Of a message, once.
    pub(crate) fn read(&mut self, mut bytes: &'a [u8]) -> Result<(), Malformed> {
        let mut last = 0;
        while !bytes.is_empty() {
            let (number, value) = next(&mut bytes)?;
            if number < last {
                return Err(Malformed("its fields are not in order"));
            }
            self.fields.push((number, value));
            let place = self.places.get_mut(number as usize);
            if number > last
                && let (Some(place), Ok(at)) = (place, u8::try_from(self.fields.len()))
            {
                *place = at;
            }
            last = number;
        }
        Ok(())
    }

    /// What stands under a number: of a list, each of its items.
    pub(crate) fn of(&self, number: u32) -> impl ExactSizeIterator<Item = Value<'a>> + DoubleEndedIterator {
        let start = match self.places.get(number as usize) {
            Some(&place @ 1..) => usize::from(place) - 1,
            Some(0) if self.fields.len() <= usize::from(u8::MAX) => self.fields.len(),
            _ => self.fields.partition_point(|(found, _)| *found < number),
        };
        let length = self.fields[start..]
            .iter()
            .take_while(|(found, _)| *found == number)
            .count();
        self.fields[start..start + length].iter().map(|(_, value)| *value)
    }
}

fn value<'a>(wire: WireType, bytes: &mut &'a [u8]) -> Result<Value<'a>, Malformed> {
    const CUT: Malformed = Malformed("it is cut off");
    Ok(match wire {
        WireType::Varint => Value::Varint(decode_varint(bytes)?),
        WireType::ThirtyTwoBit => Value::Four(*bytes.split_off(..4).and_then(<[u8]>::as_array).ok_or(CUT)?),
        WireType::SixtyFourBit => Value::Eight(*bytes.split_off(..8).and_then(<[u8]>::as_array).ok_or(CUT)?),
        WireType::LengthDelimited => {
            let length = usize::try_from(decode_varint(bytes)?).map_err(|_| CUT)?;
            Value::Bytes(bytes.split_off(..length).ok_or(CUT)?)
        }
        WireType::StartGroup | WireType::EndGroup => return Err(Malformed("it has a group")),
    })
}

/// Of `google.protobuf.Timestamp`.
pub(crate) fn timestamp(mut bytes: &[u8]) -> Result<Timestamp, Malformed> {
    let (mut seconds, mut nanos) = (0, 0);
    while !bytes.is_empty() {
        match next(&mut bytes)? {
            (1, Value::Varint(value)) => seconds = value.cast_signed(),
            (2, Value::Varint(value)) => nanos = i32::try_from(value).unwrap_or_default(),
            _ => {}
        }
    }
    Timestamp::new(seconds, nanos).map_err(|_| Malformed("a time is out of range"))
}

const NANOS: i128 = 1_000_000_000;

/// `google.protobuf.Timestamp`, whose nanoseconds count forward.
pub(crate) fn encoded_time(at: Timestamp) -> Vec<u8> {
    let since = at.as_nanosecond();
    let mut bytes = Vec::new();
    for (number, part) in [(1, since.div_euclid(NANOS)), (2, since.rem_euclid(NANOS))] {
        // A time of jiff's fits.
        let part = i64::try_from(part).unwrap_or_default();
        varint(number, part.cast_unsigned(), &mut bytes);
    }
    bytes
}

pub(crate) fn varint(number: u32, value: u64, out: &mut Vec<u8>) {
    encode_key(number, WireType::Varint, out);
    encode_varint(value, out);
}

pub(crate) fn delimited(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
