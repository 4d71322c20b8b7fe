//! What the kernel itself says of a card's XDP: the generic netlink family `netdev`, since Linux 6.3.

use super::querying;
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use rtnetlink::packet_core::{
    DecodeError, Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NlaBuffer, NlasIterator,
    ParseableParametrized,
};
use std::collections::HashMap;

// include/uapi/linux/netdev.h
const DEV_GET: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;
const BASIC: u64 = 1;
const REDIRECT_TARGET: u64 = 4;

/// What a card's driver does, as it is set up now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpFeatures {
    /// Runs programs itself.
    pub native: bool,
    /// Takes what programs elsewhere redirect to it.
    pub redirect_target: bool,
}

/// By interface index; empty on older kernels.
pub async fn all(handle: &ethtool::EthtoolHandle) -> HashMap<u32, XdpFeatures> {
    let mut request = NetlinkMessage::from(GenlMessage::from_payload(Device::default()));
    // The family does not flag its answers as parts of several; with an acknowledgement all of them are read.
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP | NLM_F_ACK;
    let mut handle = handle.handle.clone();
    let Ok(answers) = handle.request(request).await else { return HashMap::new() };
    let devices =
        querying::payloads(answers).await.into_iter().map(|message: GenlMessage<Device>| message.payload);
    devices.map(|device| (device.ifindex, device.features())).collect()
}

/// The message, in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Device {
    ifindex: u32,
    xdp: u64,
}

impl Device {
    fn features(self) -> XdpFeatures {
        XdpFeatures { native: self.xdp & BASIC != 0, redirect_target: self.xdp & REDIRECT_TARGET != 0 }
    }
}

impl GenlFamily for Device {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        DEV_GET
    }

    fn version(&self) -> u8 {
        1
    }
}

/// The request for all devices has no attributes.
impl Emitable for Device {
    fn buffer_len(&self) -> usize {
        0
    }

    fn emit(&self, _: &mut [u8]) {}
}

impl ParseableParametrized<[u8], GenlHeader> for Device {
    fn parse_with_param(bytes: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        let mut device = Self::default();
        for attribute in NlasIterator::new(bytes) {
            let attribute: NlaBuffer<&[u8]> = attribute?;
            let value = attribute.value();
            match (attribute.kind(), <[u8; 4]>::try_from(value), <[u8; 8]>::try_from(value)) {
                (IFINDEX, Ok(index), _) => device.ifindex = u32::from_ne_bytes(index),
                (XDP_FEATURES, _, Ok(features)) => device.xdp = u64::from_ne_bytes(features),
                _ => {}
            }
        }
        Ok(device)
    }
}
