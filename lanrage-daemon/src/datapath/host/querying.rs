//! Questions to ethtool's netlink family: queues and offloads.

use super::interface::{Offload, QueueCount};
use ethtool::{
    EthtoolAttr, EthtoolChannelAttr as Channel, EthtoolFeatureAttr as Feature, EthtoolFeatureBit,
    EthtoolHandle,
};
use futures_util::{Stream, StreamExt as _};
use rtnetlink::packet_core::NetlinkPayload;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// Offloads that matter to XDP, of the hundred there are.
const OFFLOADS: [&str; 2] = ["rx-lro", "rx-gro-hw"];

/// Queues of an interface: those for both directions if it has such, else the receiving ones. `None` = not told.
pub async fn queues(handle: &mut EthtoolHandle, name: &str) -> Option<QueueCount> {
    let answers = handle.channel().get(Some(name)).execute().await.ok()?;
    let mut counts = BTreeMap::new();
    for attribute in attributes(answers).await {
        let EthtoolAttr::Channel(channel) = attribute else { continue };
        let (key, value) = match channel {
            Channel::CombinedCount(value) => ("now", value),
            Channel::CombinedMax(value) => ("max", value),
            Channel::RxCount(value) => ("rx_now", value),
            Channel::RxMax(value) => ("rx_max", value),
            _ => continue,
        };
        counts.insert(key, value);
    }
    let count = |key| counts.get(key).copied().filter(|value| *value > 0);
    let now = count("now").or_else(|| count("rx_now"))?;
    Some(QueueCount { now, max: count("max").or_else(|| count("rx_max")).unwrap_or(now) })
}

/// State of the offloads that matter.
pub async fn offloads(handle: &mut EthtoolHandle, name: &str) -> Vec<Offload> {
    let Ok(answers) = handle.feature().get(Some(name)).execute().await else { return Vec::new() };
    let (mut active, mut changeable) = (Vec::new(), Vec::new());
    for attribute in attributes(answers).await {
        match attribute {
            EthtoolAttr::Feature(Feature::Active(bits)) => active = bits,
            EthtoolAttr::Feature(Feature::Hw(bits)) => changeable = bits,
            _ => {}
        }
    }
    let has = |bits: &[EthtoolFeatureBit], name: &str| bits.iter().any(|bit| bit.name == name && bit.value);
    OFFLOADS
        .iter()
        .map(|name| Offload { name, on: has(&active, name), changeable: has(&changeable, name) })
        .collect()
}

async fn attributes<E: Debug>(
    answers: impl Stream<Item = Result<netlink_packet_generic::GenlMessage<ethtool::EthtoolMessage>, E>>,
) -> Vec<EthtoolAttr> {
    let answers = std::pin::pin!(answers);
    let messages: Vec<_> = answers.collect().await;
    messages.into_iter().filter_map(Result::ok).flat_map(|message| message.payload.nlas).collect()
}

/// The answers of any generic netlink request that are neither errors nor ends.
pub(super) async fn payloads<T>(
    answers: impl Stream<
        Item = Result<rtnetlink::packet_core::NetlinkMessage<T>, rtnetlink::packet_core::DecodeError>,
    >,
) -> Vec<T> {
    let answers = std::pin::pin!(answers);
    let messages: Vec<_> = answers.collect().await;
    messages
        .into_iter()
        .filter_map(|message| match message.ok()?.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        })
        .collect()
}
