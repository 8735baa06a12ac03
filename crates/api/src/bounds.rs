//! Bounds of requests: how long each string and how numerous each list may be, as `proto/hearth/v1` says with the
//! options of `bounds.proto`. A request is held against them in its encoded form, so that one which has too much costs
//! no memory.
//!
//! Encoding: <https://protobuf.dev/programming-guides/encoding/>.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::encoding::decode_varint;
use prost_reflect::{DescriptorPool, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor};

use crate::DESCRIPTORS;
use crate::error::{ApiError, ErrorCode};

#[cfg(test)]
mod tests;

/// The package whose services' requests have bounds.
pub(crate) const PACKAGE: &str = "hearth.v1";

static BOUNDS: LazyLock<Result<Bounds, prost_reflect::DescriptorError>> = LazyLock::new(Bounds::read);

/// Holds an encoded request against the bounds of its message. `message` is the full name, `hearth.v1.Filter`. Messages
/// that no request contains have no bounds.
///
/// # Errors
/// `InvalidParameterValue` for a field that has more than it may, and for bytes that are no such message.
pub fn check(message: &str, encoded: &[u8]) -> Result<(), ApiError> {
    let bounds = BOUNDS.as_ref().map_err(|error| ApiError::internal(error))?;
    let Some(index) = bounds.by_name.get(message) else {
        return Ok(());
    };
    bounds.check(*index, encoded).map_err(|excess| {
        let message = match excess.what {
            What::Length(most) => format!("The parameter {} is longer than {most}.", excess.path),
            What::Items(most) => format!("The parameter {} has more than {most} elements.", excess.path),
            What::Malformed => format!("The request is no {message}."),
        };
        ApiError::new(ErrorCode::InvalidParameterValue, message)
    })
}

/// How a call's messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallShape {
    /// One request, one answer.
    Unary {
        /// The number of the request's field `dry_run`, if it has one.
        dry_run: Option<u32>,
    },
    /// Many of one or of both.
    Stream,
}

impl CallShape {
    /// Whether a request, encoded, is for a dry run.
    pub fn is_dry_run(self, mut request: &[u8]) -> bool {
        let Self::Unary {
            dry_run: Some(wanted),
        } = self
        else {
            return false;
        };
        // The last of several holds (protobuf's rule).
        let mut is = false;
        while !request.is_empty() {
            let mut value = request;
            let Some((number, _)) = next(&mut request) else {
                return is;
            };
            if number == wanted {
                let varint = decode_varint(&mut value).and_then(|_| decode_varint(&mut value));
                is = varint.is_ok_and(|value| value != 0);
            }
        }
        is
    }
}

/// All calls of the public API by their HTTP/2 path, `/hearth.v1.Vpcs/DescribeVpcs`.
///
/// # Errors
/// The descriptors cannot be read: an internal error.
pub fn call_shapes() -> Result<HashMap<String, CallShape>, ApiError> {
    let pool = DescriptorPool::decode(DESCRIPTORS).map_err(|error| ApiError::internal(&error))?;
    let services = pool
        .services()
        .filter(|service| service.package_name() == PACKAGE);
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    Ok(methods
        .map(|method| {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            let streams = method.is_client_streaming() || method.is_server_streaming();
            let shape = if streams {
                CallShape::Stream
            } else {
                let field = method.input().get_field_by_name("dry_run");
                CallShape::Unary {
                    dry_run: field.map(|field| field.number()),
                }
            };
            (path, shape)
        })
        .collect())
}

#[derive(Debug)]
struct Bounds {
    messages: Vec<Vec<Field>>,
    by_name: HashMap<String, usize>,
}

#[derive(Debug)]
struct Field {
    number: u32,
    name: String,
    /// How often the field may occur; `None`: as often as it likes, for the last one counts.
    items: Option<u32>,
    content: Content,
}

#[derive(Debug, Clone, Copy)]
enum Content {
    Number,
    /// At most so many characters.
    Text(u32),
    /// At most so many bytes.
    Bytes(u32),
    /// Index of the message.
    Message(usize),
}

/// Where there is too much, and how much may be.
struct Excess {
    path: String,
    what: What,
}

enum What {
    Length(u32),
    Items(u32),
    Malformed,
}

const MALFORMED: Excess = Excess {
    path: String::new(),
    what: What::Malformed,
};

/// The options of a field.
struct Options {
    max_length: Option<ExtensionDescriptor>,
    max_items: Option<ExtensionDescriptor>,
}

impl Options {
    fn new(pool: &DescriptorPool) -> Self {
        let extension = |name: &str| pool.get_extension_by_name(&format!("{PACKAGE}.{name}"));
        Self {
            max_length: extension("max_length"),
            max_items: extension("max_items"),
        }
    }

    fn value(field: &FieldDescriptor, option: Option<&ExtensionDescriptor>) -> Option<u32> {
        let options = field.options();
        let option = option.filter(|option| options.has_extension(option))?;
        options.get_extension(option).as_u32()
    }

    fn max_length(&self, field: &FieldDescriptor) -> Option<u32> {
        Self::value(field, self.max_length.as_ref())
    }

    fn max_items(&self, field: &FieldDescriptor) -> Option<u32> {
        Self::value(field, self.max_items.as_ref())
    }
}

impl Bounds {
    /// From the descriptors of all that the services of [`PACKAGE`] can be sent. What has no bound there admits nothing;
    /// a test sees to it that there is none.
    fn read() -> Result<Self, prost_reflect::DescriptorError> {
        let pool = DescriptorPool::decode(DESCRIPTORS)?;
        let options = Options::new(&pool);
        let mut bounds = Self {
            messages: Vec::new(),
            by_name: HashMap::new(),
        };
        let services = pool
            .services()
            .filter(|service| service.package_name() == PACKAGE);
        for method in services.flat_map(|service| service.methods().collect::<Vec<_>>()) {
            bounds.add(&method.input(), &options, None);
        }
        Ok(bounds)
    }

    /// The message's index. `of_map`: how long the texts of a map's entry may be, which is such a message.
    fn add(&mut self, message: &MessageDescriptor, options: &Options, of_map: Option<u32>) -> usize {
        if let Some(index) = self.by_name.get(message.full_name()) {
            return *index;
        }
        let index = self.messages.len();
        self.by_name.insert(message.full_name().to_owned(), index);
        self.messages.push(Vec::new());
        let fields = message.fields().map(|field| {
            let length = options.max_length(&field);
            let content = match field.kind() {
                Kind::String => Content::Text(length.or(of_map).unwrap_or(0)),
                Kind::Bytes => Content::Bytes(length.or(of_map).unwrap_or(0)),
                Kind::Message(inner) => {
                    let of_map = length.filter(|_| field.is_map());
                    Content::Message(self.add(&inner, options, of_map))
                }
                _ => Content::Number,
            };
            let items = if field.is_list() || field.is_map() {
                Some(options.max_items(&field).unwrap_or(0))
            } else {
                // Several messages would be merged, and so would their lists.
                matches!(content, Content::Message(_)).then_some(1)
            };
            Field {
                number: field.number(),
                name: field.name().to_owned(),
                items,
                content,
            }
        });
        let fields = fields.collect();
        if let Some(place) = self.messages.get_mut(index) {
            *place = fields;
        }
        index
    }

    fn check(&self, message: usize, mut encoded: &[u8]) -> Result<(), Excess> {
        let fields = self.messages.get(message).map_or(&[][..], Vec::as_slice);
        let mut occurred = vec![0u32; fields.len()];
        while !encoded.is_empty() {
            let (number, value) = next(&mut encoded).ok_or(MALFORMED)?;
            let Some(at) = fields.iter().position(|field| field.number == number) else {
                continue;
            };
            let (Some(field), Some(occurred)) = (fields.get(at), occurred.get_mut(at)) else {
                continue;
            };
            let excess = |what| Excess {
                path: field.name.clone(),
                what,
            };
            *occurred = occurred.saturating_add(match (field.content, value) {
                // Several numbers packed into one occurrence: a byte each at least.
                (Content::Number, Some(packed)) => u32::try_from(packed.len()).unwrap_or(u32::MAX),
                _ => 1,
            });
            if let Some(most) = field.items.filter(|most| *occurred > *most) {
                return Err(excess(What::Items(most)));
            }
            match (field.content, value) {
                (Content::Text(most), Some(text)) if characters(text) > most as usize => {
                    return Err(excess(What::Length(most)));
                }
                (Content::Bytes(most), Some(bytes)) if bytes.len() > most as usize => {
                    return Err(excess(What::Length(most)));
                }
                (Content::Message(inner), Some(bytes)) => {
                    self.check(inner, bytes).map_err(|inner| Excess {
                        path: match inner.path.as_str() {
                            "" => field.name.clone(),
                            path => format!("{}.{path}", field.name),
                        },
                        ..inner
                    })?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The next field: its number, and its bytes where it is length-delimited. `None`: this is no message, or it has groups,
/// which proto3 has not.
fn next<'b>(encoded: &mut &'b [u8]) -> Option<(u32, Option<&'b [u8]>)> {
    let key = decode_varint(encoded).ok()?;
    let number = u32::try_from(key >> 3).ok()?;
    let length = match key & 7 {
        0 => {
            decode_varint(encoded).ok()?;
            return Some((number, None));
        }
        1 => 8,
        5 => 4,
        2 => {
            let length = usize::try_from(decode_varint(encoded).ok()?).ok()?;
            let (value, rest) = encoded.split_at_checked(length)?;
            *encoded = rest;
            return Some((number, Some(value)));
        }
        _ => return None,
    };
    *encoded = encoded.get(length..)?;
    Some((number, None))
}

/// Characters of a text in UTF-8: all bytes but those that continue one.
fn characters(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}
