//! Messages for a channel: who has joined and left, what is played, which servers have opened. What happens together is one
//! message, and messages keep a distance, so that a channel is not flooded and Discord's limit (30 a minute) is never met.

use crate::api::{PartyStatus, PathKind};
use crate::identity::{DeviceKey, PartyId};
use crate::servers::clean;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// A party that has just come into view fills up: that is not joining.
const SETTLE: Duration = Duration::from_secs(10);
/// News waits for so long for more.
const GATHER: Duration = Duration::from_secs(2);
/// Between two messages.
const PAUSE: Duration = Duration::from_secs(5);
/// What is played and which servers run is not told twice within this time: programs and paths come and go.
const MEMORY: Duration = Duration::from_secs(600);
/// Lines that wait; more are counted only.
const MAX_LINES: usize = 40;
/// Characters of a message; Discord takes 2000.
const MAX_TEXT: usize = 1800;

/// What of the party is looked at.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    members: BTreeMap<DeviceKey, String>,
    plays: BTreeSet<(String, String)>,
    /// Game, name, host.
    servers: BTreeMap<SocketAddrV4, [String; 3]>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct News {
    party: Option<PartyId>,
    settled: Option<Instant>,
    known: Known,
    told: BTreeMap<String, Instant>,
    lines: VecDeque<String>,
    left_out: usize,
    /// When the lines may be told.
    due: Option<Instant>,
    not_before: Option<Instant>,
    output: Option<String>,
}

impl News {
    /// The party as it is now, and the games that run here.
    pub fn handle_status(&mut self, party: Option<&PartyStatus>, own_games: &[String], now: Instant) {
        let Some(status) = party else {
            self.party = None;
            return;
        };
        let fresh = known(status, own_games);
        let old = std::mem::replace(&mut self.known, fresh);
        if self.party == Some(status.id) {
            self.compare(&old, now);
        } else {
            self.party = Some(status.id);
            self.settled = Some(now + SETTLE);
        }
    }

    fn compare(&mut self, old: &Known, now: Instant) {
        self.told.retain(|_, at| now.saturating_duration_since(*at) < MEMORY);
        let new = &self.known;
        let is_settled = self.settled.is_some_and(|settled| now >= settled);
        let joined = new.members.iter().filter(|(key, _)| is_settled && !old.members.contains_key(key));
        let left = old.members.iter().filter(|(key, _)| !new.members.contains_key(key));
        let mut lines: Vec<String> =
            joined.map(|(_, name)| format!("**{name}** has joined the party.")).collect();
        lines.extend(left.map(|(_, name)| format!("**{name}** has left the party.")));
        let plays = new.plays.difference(&old.plays).map(|(name, game)| format!("**{name}** plays {game}."));
        let opened = new.servers.iter().filter(|(address, _)| !old.servers.contains_key(address));
        let opened = opened.map(|(address, [game, name, host])| {
            format!("**{host}** hosts {game}: {name}, join at `{address}` in the party.")
        });
        for line in plays.chain(opened) {
            if self.told.len() < 8 * MAX_LINES && self.told.insert(line.clone(), now).is_none() {
                lines.push(line);
            }
        }
        for line in lines {
            match self.lines.len() < MAX_LINES {
                true => self.lines.push_back(line),
                false => self.left_out += 1,
            }
            self.due = self.due.or(Some(now + GATHER));
        }
    }

    /// The channel takes nothing for a while; the message is not sent again.
    pub fn handle_refused(&mut self, wait: Duration, now: Instant) {
        self.not_before = Some(now + wait.max(PAUSE));
    }

    /// Makes the message that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return;
        }
        let mut text = String::new();
        while let Some(line) = self.lines.front().filter(|line| text.len() + line.len() < MAX_TEXT) {
            text += &format!("{line}\n");
            self.lines.pop_front();
        }
        if self.lines.is_empty() && self.left_out > 0 {
            text += &format!("… and {} more.\n", std::mem::take(&mut self.left_out));
        }
        self.output = Some(text.trim_end().to_owned());
        self.not_before = Some(now + PAUSE);
        self.due = (!self.lines.is_empty()).then_some(now);
    }

    /// When [`News::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = self.due?;
        Some(self.not_before.map_or(due, |at| at.max(due)))
    }

    /// The message that is to be sent now.
    pub fn poll_output(&mut self) -> Option<String> {
        self.output.take()
    }
}

fn known(status: &PartyStatus, own_games: &[String]) -> Known {
    let members = status.members.iter().filter(|member| !member.is_self);
    let theirs = members.clone().filter(|member| member.path != PathKind::None);
    let me = status.members.iter().find(|member| member.is_self).map(|member| &member.name);
    let plays = theirs.flat_map(|member| member.plays.iter().map(|game| (&member.name, game)));
    let own = me.into_iter().flat_map(|name| own_games.iter().map(move |game| (name, game)));
    Known {
        members: members.map(|member| (member.device, plain(&member.name))).collect(),
        plays: plays.chain(own).map(|(name, game)| (plain(name), plain(game))).collect(),
        servers: status
            .servers
            .iter()
            .map(|server| {
                (server.address, [&server.title, &server.name, &server.host].map(|text| plain(text)))
            })
            .collect(),
    }
}

/// A text without what Discord would make something else of.
fn plain(text: &str) -> String {
    let is_mark =
        |c: char| matches!(c, '\\' | '*' | '_' | '~' | '`' | '|' | '>' | '#' | '[' | ']' | '<' | '@');
    clean(text).chars().flat_map(|c| is_mark(c).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{LaneStatus, MatrixStatus, MemberStatus};
    use crate::identity::{Device, WgKey};
    use rand_core::OsRng;

    fn member(name: &str) -> MemberStatus {
        let device = Device::generate(&mut OsRng);
        let json = serde_json::json!({
            "name": name, "device": device.key(), "wg": WgKey([1; 32]), "address": "10.66.0.2",
            "self": false, "host": false, "online": true, "path": "direct", "why": "", "rx_bytes": 0, "tx_bytes": 0
        });
        serde_json::from_value(json).unwrap()
    }

    fn party(members: &[MemberStatus]) -> PartyStatus {
        PartyStatus {
            id: PartyId([7; 16]),
            name: "Friday".into(),
            subnet: "10.66.0.0/16".parse().unwrap(),
            address: [10, 66, 0, 1].into(),
            interface: None,
            mtu: 1420,
            host: true,
            members: members.to_vec(),
            lane: LaneStatus::default(),
            relays: Vec::new(),
            carriers: Vec::new(),
            path_events: BTreeMap::new(),
            matrix: MatrixStatus::default(),
            servers: Vec::new(),
        }
    }

    fn said(news: &mut News, now: Instant) -> Option<String> {
        news.handle_timeout(now);
        news.poll_output()
    }

    #[test]
    fn who_comes_goes_and_plays_is_told_together_and_once() {
        let (mut news, mut now) = (News::default(), Instant::now());
        let (ana, mut ben) = (member("Ana"), member("B*n"));
        news.handle_status(Some(&party(std::slice::from_ref(&ana))), &[], now);
        now += SETTLE;
        ben.plays = vec!["Chocolate Doom".into()];
        news.handle_status(Some(&party(&[ana.clone(), ben.clone()])), &[], now);
        assert_eq!(said(&mut news, now), None, "more may come");
        now += GATHER;
        let text = "**B\\*n** has joined the party.\n**B\\*n** plays Chocolate Doom.";
        assert_eq!(said(&mut news, now).as_deref(), Some(text));
        for plays in [Vec::new(), vec!["Chocolate Doom".to_owned()]] {
            ben.plays = plays;
            news.handle_status(Some(&party(&[ana.clone(), ben.clone()])), &[], now);
        }
        assert_eq!(news.poll_timeout(), None, "started again, which is no news");
        news.handle_status(Some(&party(std::slice::from_ref(&ana))), &[], now);
        assert_eq!(said(&mut news, now + GATHER), None, "not so soon after the last");
        assert_eq!(said(&mut news, now + PAUSE).as_deref(), Some("**B\\*n** has left the party."));
        news.handle_status(None, &[], now);
        news.handle_status(Some(&party(&[ana, ben])), &[], now);
        assert_eq!(news.poll_timeout(), None, "the party has come back, nobody has joined it");
    }

    #[test]
    fn a_crowd_is_told_in_parts_that_discord_takes() {
        let (mut news, mut now) = (News::default(), Instant::now());
        news.handle_status(Some(&party(&[])), &[], now);
        now += SETTLE;
        let crowd: Vec<_> = (0..100).map(|n| member(&format!("{n} {}", "*".repeat(40)))).collect();
        news.handle_status(Some(&party(&crowd)), &[], now);
        let mut texts = Vec::new();
        while let Some(due) = news.poll_timeout() {
            assert!(texts.is_empty() || due >= now + PAUSE, "they keep a distance");
            now = due;
            texts.extend(said(&mut news, now));
            news.handle_refused(Duration::ZERO, now);
        }
        assert!(texts.iter().all(|text| text.len() < 2000), "{texts:?}");
        assert!(texts.last().unwrap().ends_with("… and 60 more."), "{texts:?}");
        assert_eq!(texts.concat().matches("has joined").count(), MAX_LINES);
    }
}
