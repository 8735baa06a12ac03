//! The codec of all generated clients and servers: prost's, and requests of the public API are held against their
//! bounds before they are decoded.

use std::marker::PhantomData;

use prost::bytes::Buf as _;
use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use crate::bounds;

/// A codec for messages `Encode` that go out and `Decode` that come in.
#[derive(Debug, Clone)]
pub struct BoundedCodec<Encode, Decode>(PhantomData<(Encode, Decode)>);

/// The side of [`BoundedCodec`] that reads.
#[derive(Debug, Clone)]
pub struct BoundedDecoder<M>(PhantomData<M>);

impl<Encode, Decode> Default for BoundedCodec<Encode, Decode> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Encode, Decode> Codec for BoundedCodec<Encode, Decode>
where
    Encode: Message + Send + 'static,
    Decode: Message + Name + Default + Send + 'static,
{
    type Encode = Encode;
    type Decode = Decode;
    type Encoder = ProstEncoder<Encode>;
    type Decoder = BoundedDecoder<Decode>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

impl<M: Message + Name + Default> Decoder for BoundedDecoder<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        let encoded = source.copy_to_bytes(source.remaining());
        // By its name first, so that a client, which reads answers, never builds the table.
        if M::PACKAGE == bounds::PACKAGE && M::NAME.ends_with("Request") {
            bounds::check(&M::full_name(), &encoded)?;
        }
        M::decode(encoded)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
