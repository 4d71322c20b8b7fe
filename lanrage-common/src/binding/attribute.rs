//! The STUN attributes of Bind that `stun_codec` does not have: both carry opaque bytes.

use bytecodec::bytes::{BytesEncoder, RemainingBytesDecoder};
use bytecodec::{ByteCount, Decode, Encode, Eos, Result, SizedEncode, TryTaggedDecode};
use stun_codec::rfc5389::attributes::{ErrorCode, Nonce, UnknownAttributes, XorMappedAddress};
use stun_codec::rfc5766::attributes::Lifetime;
use stun_codec::rfc5780::attributes::{OtherAddress, ResponseOrigin};
use stun_codec::{AttributeType, define_attribute_enums};

/// An attribute whose value is bytes that only its user understands.
macro_rules! opaque_attribute {
    ($(#[$doc:meta])* $name:ident, $decoder:ident, $encoder:ident, $codepoint:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub struct $name(pub Vec<u8>);

        impl $name {
            /// Type of the attribute.
            pub const CODEPOINT: u16 = $codepoint;
        }

        impl stun_codec::Attribute for $name {
            type Decoder = $decoder;
            type Encoder = $encoder;

            fn get_type(&self) -> AttributeType {
                AttributeType::new(Self::CODEPOINT)
            }
        }

        /// Reads the value.
        #[derive(Debug, Default)]
        pub struct $decoder(RemainingBytesDecoder);

        impl Decode for $decoder {
            type Item = $name;

            fn decode(&mut self, buf: &[u8], eos: Eos) -> Result<usize> {
                self.0.decode(buf, eos)
            }

            fn finish_decoding(&mut self) -> Result<Self::Item> {
                self.0.finish_decoding().map($name)
            }

            fn requiring_bytes(&self) -> ByteCount {
                self.0.requiring_bytes()
            }

            fn is_idle(&self) -> bool {
                self.0.is_idle()
            }
        }

        impl TryTaggedDecode for $decoder {
            type Tag = AttributeType;

            fn try_start_decoding(&mut self, tag: AttributeType) -> Result<bool> {
                Ok(tag.as_u16() == $codepoint)
            }
        }

        /// Writes the value.
        #[derive(Debug, Default)]
        pub struct $encoder(BytesEncoder);

        impl Encode for $encoder {
            type Item = $name;

            fn encode(&mut self, buf: &mut [u8], eos: Eos) -> Result<usize> {
                self.0.encode(buf, eos)
            }

            fn start_encoding(&mut self, item: $name) -> Result<()> {
                self.0.start_encoding(item.0)
            }

            fn requiring_bytes(&self) -> ByteCount {
                self.0.requiring_bytes()
            }

            fn is_idle(&self) -> bool {
                self.0.is_idle()
            }
        }

        impl SizedEncode for $encoder {
            fn exact_requiring_bytes(&self) -> u64 {
                self.0.exact_requiring_bytes()
            }
        }
    };
}

opaque_attribute!(
    /// ACCESS-TOKEN (RFC 7635, section 6.2): the sealed ticket.
    AccessToken, AccessTokenDecoder, AccessTokenEncoder, 0x001B
);
opaque_attribute!(
    /// MESSAGE-INTEGRITY-SHA256 (RFC 8489, section 14.6), always 32 bytes and always last here.
    IntegritySha256, IntegritySha256Decoder, IntegritySha256Encoder, 0x001C
);

opaque_attribute!(
    /// CHANGE-REQUEST (RFC 5780, section 7.2): four bytes, of which `stun_codec` 0.4 reads the wrong bits.
    ChangeRequest, ChangeRequestDecoder, ChangeRequestEncoder, 0x0003
);
opaque_attribute!(
    /// RESPONSE-PORT (RFC 5780, section 7.5): the port, and two bytes that `stun_codec` 0.4 would take for a part of it.
    ResponsePort, ResponsePortDecoder, ResponsePortEncoder, 0x0027
);
opaque_attribute!(
    /// PADDING (RFC 5780, section 7.6).
    Padding, PaddingDecoder, PaddingEncoder, 0x0026
);

define_attribute_enums!(
    Attribute,
    AttributeDecoder,
    AttributeEncoder,
    [
        AccessToken,
        ChangeRequest,
        ErrorCode,
        IntegritySha256,
        Lifetime,
        Nonce,
        OtherAddress,
        Padding,
        ResponseOrigin,
        ResponsePort,
        UnknownAttributes,
        XorMappedAddress
    ]
);
