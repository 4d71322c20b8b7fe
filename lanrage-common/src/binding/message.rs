//! Bind and Binding messages as bytes.

use super::attribute::{AccessToken, Attribute, ChangeRequest, IntegritySha256, Padding, ResponsePort};
use bytecodec::{DecodeExt as _, EncodeExt as _};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use std::net::SocketAddr;
use std::time::Duration;
use stun_codec::rfc5389::attributes::{ErrorCode, Nonce, UnknownAttributes, XorMappedAddress};
use stun_codec::rfc5389::methods::BINDING;
use stun_codec::rfc5766::attributes::Lifetime;
use stun_codec::rfc5780::attributes::{OtherAddress, ResponseOrigin};
use stun_codec::{
    AttributeType, Message, MessageClass, MessageDecoder, MessageEncoder, Method, TransactionId,
};

/// The STUN method of Bind.
///
/// RFC 8489 (section 18.2) keeps methods 0x100 to 0xFFF out of the registry, so no standard will ever take it. Of
/// those, methods from 0x180 have a first byte of 6 or more in every class: a datagram that starts with 1 to 4 is
/// WireGuard's, and Bind never does. (A STUN Binding success starts with 1; members tell it by cookie and source.)
pub const BIND_METHOD: u16 = 0xB1D;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const HEADER: usize = 20;
const INTEGRITY: usize = 4 + 32;
const BEHAVIOUR_REQUEST: usize = 96;

/// Why a relay refuses to bind; the text form travels as the reason phrase of ERROR-CODE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The ticket is past its time.
    TicketExpired,
    /// The ticket is not sealed for this relay, or damaged.
    WrongRelay,
    /// The party has moved on: the holder was kicked, or needs a ticket of the new epoch.
    OldEpoch,
    /// No room for another member.
    RelayFull,
    /// MESSAGE-INTEGRITY-SHA256 is missing or wrong.
    BadIntegrity,
    /// No room for another member of this party.
    PartyFull,
    /// The relay is being emptied: it takes no more members.
    Draining,
    /// A reason that this version does not know.
    Unknown,
}

impl Refusal {
    const ALL: [Self; 7] = [
        Self::TicketExpired,
        Self::WrongRelay,
        Self::OldEpoch,
        Self::RelayFull,
        Self::PartyFull,
        Self::BadIntegrity,
        Self::Draining,
    ];

    /// Stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TicketExpired => "ticket_expired",
            Self::WrongRelay => "wrong_relay",
            Self::OldEpoch => "old_epoch",
            Self::RelayFull => "relay_full",
            Self::BadIntegrity => "bad_integrity",
            Self::PartyFull => "party_full",
            Self::Draining => "draining",
            Self::Unknown => "unknown",
        }
    }

    /// Whether another ticket may help.
    pub fn needs_ticket(self) -> bool {
        matches!(self, Self::TicketExpired | Self::WrongRelay | Self::OldEpoch | Self::BadIntegrity)
    }

    /// STUN error code (RFC 8489 section 14.8, RFC 8656 section 19).
    fn code(self) -> u16 {
        match self {
            Self::TicketExpired | Self::BadIntegrity => 401,
            Self::WrongRelay | Self::OldEpoch => 403,
            Self::PartyFull => 486,
            Self::RelayFull | Self::Draining => 508,
            Self::Unknown => 500,
        }
    }

    fn from_phrase(phrase: &str) -> Self {
        Self::ALL.into_iter().find(|refusal| refusal.as_str() == phrase).unwrap_or(Self::Unknown)
    }
}

/// What a relay may be asked over STUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Binding of RFC 8489: "what is my address?"
    Binding(BindingRequest),
    /// Our Bind.
    Bind(BindRequest),
}

/// A Binding request, with what RFC 5780 adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindingRequest {
    /// Echoed in the answer.
    pub transaction: [u8; 12],
    /// Answer from the other address.
    pub change_ip: bool,
    /// Answer from the other port.
    pub change_port: bool,
    /// Answer to this port of the sender's address.
    pub response_port: Option<u16>,
    /// Whether the answer should be padded.
    pub has_padding: bool,
}

/// What a full answer to a Binding request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FullAnswer {
    /// The request's transaction.
    pub transaction: [u8; 12],
    /// Where the request came from.
    pub mapped: SocketAddr,
    /// Where the answer comes from.
    pub origin: Option<SocketAddr>,
    /// Where else it could have come from: other address, other port.
    pub other: Option<SocketAddr>,
}

/// A Bind request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindRequest {
    /// Echoed in the answer.
    pub transaction: [u8; 12],
    /// The sealed ticket.
    pub ticket: Vec<u8>,
    /// From the relay's last answer; the first request has none.
    pub nonce: Option<String>,
    /// Whether to give the binding back (LIFETIME 0) instead of refreshing it.
    pub release: bool,
}

impl BindRequest {
    /// The request's bytes; MESSAGE-INTEGRITY-SHA256 is added when there is a nonce.
    pub fn encode(&self, session_key: &[u8; 32]) -> Vec<u8> {
        let mut message = bind(MessageClass::Request, self.transaction);
        message.add_attribute(AccessToken(self.ticket.clone()));
        if self.release {
            message.add_attribute(Lifetime::from_u32(0));
        }
        let Some(nonce) = &self.nonce else { return to_bytes(message) };
        add_nonce(&mut message, nonce);
        to_bytes_with_integrity(message, session_key)
    }
}

/// A relay's answer to Bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindAnswer {
    /// The member is bound.
    Bound {
        /// The member's address as the relay sees it.
        mapped: SocketAddr,
        /// How long the binding lasts.
        lifetime: Duration,
        /// For the next request.
        nonce: Option<String>,
    },
    /// Ask again with this nonce (401 or 438).
    Challenge {
        /// For the next request.
        nonce: String,
    },
    /// No.
    Refused(Refusal),
}

/// Whether a datagram claims to be STUN: two zero bits, the magic cookie and the right length (RFC 8489, section 5).
pub fn is_stun(datagram: &[u8]) -> bool {
    let Some((header, rest)) = datagram.split_at_checked(HEADER) else { return false };
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    header[0] < 0x40 && header[4..8] == COOKIE && length == rest.len() && length.is_multiple_of(4)
}

/// Reads a request; `None` for anything else, malformed messages included.
pub fn parse_request(datagram: &[u8]) -> Option<Request> {
    let message = from_bytes(datagram)?;
    if message.class() != MessageClass::Request {
        return None;
    }
    let transaction = *message.transaction_id().as_bytes();
    match message.method() {
        BINDING => parse_binding_request(&message).map(Request::Binding),
        method if method.as_u16() == BIND_METHOD => Some(Request::Bind(BindRequest {
            transaction,
            ticket: message.get_attribute::<AccessToken>()?.0.clone(),
            nonce: message.get_attribute::<Nonce>().map(|nonce| nonce.value().to_owned()),
            release: message.get_attribute::<Lifetime>().is_some_and(|l| l.lifetime().is_zero()),
        })),
        _ => None,
    }
}

fn parse_binding_request(message: &Message<Attribute>) -> Option<BindingRequest> {
    let flags = match message.get_attribute::<ChangeRequest>() {
        Some(ChangeRequest(value)) => u32::from_be_bytes(value[..].try_into().ok()?),
        None => 0,
    };
    let response_port = match message.get_attribute::<ResponsePort>() {
        Some(ResponsePort(value)) if value.len() >= 2 => Some(u16::from_be_bytes([value[0], value[1]])),
        Some(_) => return None,
        None => None,
    };
    Some(BindingRequest {
        transaction: *message.transaction_id().as_bytes(),
        change_ip: flags & 4 != 0,
        change_port: flags & 2 != 0,
        response_port,
        has_padding: message.get_attribute::<Padding>().is_some(),
    })
}

/// Reads an answer to Bind: its transaction, and what it says. `None` for anything else.
pub fn parse_answer(datagram: &[u8]) -> Option<([u8; 12], BindAnswer)> {
    let message = from_bytes(datagram).filter(|message| message.method().as_u16() == BIND_METHOD)?;
    let nonce = message.get_attribute::<Nonce>().map(|nonce| nonce.value().to_owned());
    let answer = match message.class() {
        MessageClass::SuccessResponse => BindAnswer::Bound {
            mapped: message.get_attribute::<XorMappedAddress>()?.address(),
            lifetime: message.get_attribute::<Lifetime>()?.lifetime(),
            nonce,
        },
        MessageClass::ErrorResponse => {
            let error = message.get_attribute::<ErrorCode>()?;
            match (error.code(), nonce) {
                (401 | 438, Some(nonce)) => BindAnswer::Challenge { nonce },
                _ => BindAnswer::Refused(Refusal::from_phrase(error.reason_phrase())),
            }
        }
        MessageClass::Request | MessageClass::Indication => return None,
    };
    Some((*message.transaction_id().as_bytes(), answer))
}

/// Whether the datagram ends in a right MESSAGE-INTEGRITY-SHA256 under `session_key`. It must be the last attribute,
/// so the header's length is already the one that RFC 8489 (section 14.6) wants under the MAC.
pub fn verify_integrity(datagram: &[u8], session_key: &[u8; 32]) -> bool {
    let Some(at) = datagram.len().checked_sub(INTEGRITY).filter(|at| *at >= HEADER) else { return false };
    let (covered, attribute) = datagram.split_at(at);
    attribute[..4] == [0x00, 0x1C, 0x00, 0x20]
        && integrity(covered, session_key).verify_slice(&attribute[4..]).is_ok()
}

/// Success: the member is bound at `mapped`.
pub fn bound_answer(
    transaction: [u8; 12],
    mapped: SocketAddr,
    lifetime: Duration,
    nonce: &str,
    session_key: &[u8; 32],
) -> Vec<u8> {
    let mut message = bind(MessageClass::SuccessResponse, transaction);
    message.add_attribute(XorMappedAddress::new(mapped));
    message.add_attribute(Lifetime::from_u32(u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)));
    add_nonce(&mut message, nonce);
    to_bytes_with_integrity(message, session_key)
}

/// "Ask again with this nonce": 438 when the request had one, 401 when not.
pub fn challenge_answer(transaction: [u8; 12], stale: bool, nonce: &str) -> Vec<u8> {
    let mut message = bind(MessageClass::ErrorResponse, transaction);
    let (code, phrase) = if stale { (438, "stale_nonce") } else { (401, "nonce") };
    add_error(&mut message, code, phrase);
    add_nonce(&mut message, nonce);
    to_bytes(message)
}

/// "No"; MESSAGE-INTEGRITY-SHA256 is added when the ticket could be opened.
pub fn refusal_answer(transaction: [u8; 12], refusal: Refusal, session_key: Option<&[u8; 32]>) -> Vec<u8> {
    let mut message = bind(MessageClass::ErrorResponse, transaction);
    add_error(&mut message, refusal.code(), refusal.as_str());
    match session_key {
        Some(key) => to_bytes_with_integrity(message, key),
        None => to_bytes(message),
    }
}

/// A Binding request of RFC 8489 as long as its answer, for relays and servers that answer no shorter ones.
pub fn binding_request(transaction: [u8; 12]) -> Vec<u8> {
    // SOFTWARE, comprehension-optional, with 20 blanks: the answer to a request from an IPv6 address has 44 bytes
    let mut bytes = to_bytes(Message::new(MessageClass::Request, BINDING, TransactionId::new(transaction)));
    bytes.extend([0x80, 0x22, 0, 20]);
    bytes.extend([b' '; 20]);
    bytes[3] = 24;
    bytes
}

/// A Binding request with the attributes of RFC 5780 that are asked for, 96 bytes long: longer than any answer to it.
/// With `is_for_tester` it has CHANGE-REQUEST also when nothing is to change: only servers that know RFC 5780 answer
/// that with success, and a relay's kernel program, which tells less, leaves it to the daemon.
pub fn behaviour_request(request: &BindingRequest, is_for_tester: bool) -> Vec<u8> {
    let mut message = Message::new(MessageClass::Request, BINDING, TransactionId::new(request.transaction));
    let flags = u32::from(request.change_ip) << 2 | u32::from(request.change_port) << 1;
    if flags != 0 || is_for_tester {
        message.add_attribute(ChangeRequest(flags.to_be_bytes().to_vec()));
    }
    if let Some(port) = request.response_port {
        let [high, low] = port.to_be_bytes();
        message.add_attribute(ResponsePort(vec![high, low, 0, 0]));
    }
    let mut bytes = to_bytes(message);
    // SOFTWARE, which every server passes over, as in `binding_request`
    let blanks = BEHAVIOUR_REQUEST - bytes.len() - 4;
    bytes.extend([0x80, 0x22, 0, blanks as u8]);
    bytes.resize(BEHAVIOUR_REQUEST, b' ');
    bytes[2..4].copy_from_slice(&((BEHAVIOUR_REQUEST - HEADER) as u16).to_be_bytes());
    bytes
}

/// What a server says to [`behaviour_request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BehaviourAnswer {
    /// The sender is seen at an address.
    Mapped {
        /// This one.
        mapped: SocketAddr,
        /// The server answers from here, and so knows RFC 5780.
        origin: Option<SocketAddr>,
        /// Its other address and port.
        other: Option<SocketAddr>,
    },
    /// It has no address to answer from as it was asked to, or refuses for another reason.
    Unable,
}

/// Reads an answer to a Binding request with what RFC 5780 adds: its transaction, and what it says.
pub fn parse_behaviour_answer(datagram: &[u8]) -> Option<([u8; 12], BehaviourAnswer)> {
    let message = from_bytes(datagram).filter(|message| message.method() == BINDING)?;
    let answer = match message.class() {
        MessageClass::SuccessResponse => BehaviourAnswer::Mapped {
            mapped: message.get_attribute::<XorMappedAddress>()?.address(),
            origin: message.get_attribute::<ResponseOrigin>().map(ResponseOrigin::address),
            other: message.get_attribute::<OtherAddress>().map(OtherAddress::address),
        },
        MessageClass::ErrorResponse => BehaviourAnswer::Unable,
        MessageClass::Request | MessageClass::Indication => return None,
    };
    Some((*message.transaction_id().as_bytes(), answer))
}

/// Answer to a Binding request.
pub fn binding_answer(transaction: [u8; 12], mapped: SocketAddr) -> Vec<u8> {
    let mut message = Message::new(MessageClass::SuccessResponse, BINDING, TransactionId::new(transaction));
    message.add_attribute(XorMappedAddress::new(mapped));
    to_bytes(message)
}

/// Answer to a Binding request with all that there is to say; padded up to `length` bytes, if there is one and it leaves
/// room for padding. (RFC 5780, section 6.1, wants as much as the path's MTU: that would be more than was asked with.)
pub fn full_answer(answer: &FullAnswer, length: Option<usize>) -> Vec<u8> {
    let mut message =
        Message::new(MessageClass::SuccessResponse, BINDING, TransactionId::new(answer.transaction));
    message.add_attribute(XorMappedAddress::new(answer.mapped));
    answer.origin.into_iter().for_each(|origin| message.add_attribute(ResponseOrigin::new(origin)));
    answer.other.into_iter().for_each(|other| message.add_attribute(OtherAddress::new(other)));
    let bare = to_bytes(message.clone());
    match length.and_then(|length| length.checked_sub(bare.len() + 4)) {
        None => bare,
        Some(room) => {
            message.add_attribute(Padding(vec![0; room - room % 4]));
            to_bytes(message)
        }
    }
}

/// "I have no other address to answer from" (420, RFC 5780, section 6.1).
pub fn unable_answer(transaction: [u8; 12]) -> Vec<u8> {
    let mut message = Message::new(MessageClass::ErrorResponse, BINDING, TransactionId::new(transaction));
    add_error(&mut message, 420, "");
    message.add_attribute(UnknownAttributes::new(vec![AttributeType::new(ChangeRequest::CODEPOINT)]));
    to_bytes(message)
}

/// Reads an answer to a Binding request: its transaction and the mapped address.
pub fn parse_binding_answer(datagram: &[u8]) -> Option<([u8; 12], SocketAddr)> {
    let message = from_bytes(datagram)
        .filter(|message| message.method() == BINDING && message.class() == MessageClass::SuccessResponse)?;
    let mapped = message.get_attribute::<XorMappedAddress>()?.address();
    Some((*message.transaction_id().as_bytes(), mapped))
}

fn bind(class: MessageClass, transaction: [u8; 12]) -> Message<Attribute> {
    let method = Method::new(BIND_METHOD).expect("12 bits");
    Message::new(class, method, TransactionId::new(transaction))
}

fn add_nonce(message: &mut Message<Attribute>, nonce: &str) {
    if let Ok(nonce) = Nonce::new(nonce.to_owned()) {
        message.add_attribute(nonce);
    }
}

fn add_error(message: &mut Message<Attribute>, code: u16, phrase: &str) {
    message.add_attribute(ErrorCode::new(code, phrase.to_owned()).expect("300 to 599"));
}

fn to_bytes(message: Message<Attribute>) -> Vec<u8> {
    let kind = message_type(message.method(), message.class());
    let mut bytes = MessageEncoder::new().encode_into_bytes(message).expect("attributes of bounded size");
    bytes[..2].copy_from_slice(&kind.to_be_bytes());
    bytes
}

/// STUN message type (RFC 8489, section 5). `stun_codec` 0.4 reads methods above 0x7F rightly but writes them wrongly.
fn message_type(method: Method, class: MessageClass) -> u16 {
    let (method, class) = (method.as_u16(), class as u16);
    (method & 0xF80) << 2 | (method & 0x70) << 1 | method & 0xF | (class & 2) << 7 | (class & 1) << 4
}

fn to_bytes_with_integrity(mut message: Message<Attribute>, session_key: &[u8; 32]) -> Vec<u8> {
    message.add_attribute(IntegritySha256(vec![0; 32]));
    let mut bytes = to_bytes(message);
    let end = bytes.len();
    let mac = integrity(&bytes[..end - INTEGRITY], session_key).finalize().into_bytes();
    bytes[end - 32..].copy_from_slice(&mac);
    bytes
}

fn from_bytes(datagram: &[u8]) -> Option<Message<Attribute>> {
    if !is_stun(datagram) {
        return None;
    }
    let message = MessageDecoder::<Attribute>::new().decode_from_bytes(datagram).ok()?.ok()?;
    let is_understood = !message.unknown_attributes().any(|a| {
        use stun_codec::Attribute as _;
        a.get_type().is_comprehension_required()
    });
    is_understood.then_some(message)
}

fn integrity(covered: &[u8], session_key: &[u8; 32]) -> Hmac<Sha256> {
    let mut hmac = <Hmac<Sha256> as hmac::Mac>::new_from_slice(session_key).expect("HMAC takes any key");
    hmac.update(covered);
    hmac
}
