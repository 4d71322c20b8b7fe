//! The conversation with the Discord client on this machine: frames of an operation and a length (both `u32`, little endian) and
//! that many bytes of JSON, over a local socket. First the handshake with the id of an application; then activities.

use serde::Serialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

const HANDSHAKE: u32 = 0;
const FRAME: u32 = 1;
const CLOSE: u32 = 2;
const PING: u32 = 3;
const PONG: u32 = 4;
const HEAD: usize = 8;
/// Longer frames are not Discord's.
const MAX_FRAME: usize = 64 * 1024;
/// Discord takes five changes in twenty seconds.
const PAUSE: Duration = Duration::from_secs(5);

/// What somebody does, as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Activity {
    /// First line, 2 to 128 characters.
    pub details: String,
    /// Second line, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// How many are there, and how many could be.
    #[serde(rename = "party")]
    pub size: PartySize,
}

/// Members of the party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartySize {
    id: &'static str,
    size: [u32; 2],
}

impl Activity {
    /// With `here` of `all` members. There is nothing in it by which somebody could join.
    pub fn new(details: &str, state: Option<&str>, here: usize, all: usize) -> Self {
        let text = |text: &str| format!("{:2}", text.chars().take(128).collect::<String>());
        let size = [here, all].map(|count| count.clamp(1, 1000) as u32);
        Self { details: text(details), state: state.map(text), size: PartySize { id: "lanrage", size } }
    }
}

/// Why Discord does not want to talk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It says so.
    #[error("Discord refuses: {0}")]
    Closed(String),
    /// What came is not Discord's.
    #[error("what answers is not Discord")]
    NotDiscord,
}

/// See the module.
#[derive(Debug)]
pub struct Presence {
    process: u32,
    is_ready: bool,
    received: Vec<u8>,
    wanted: Option<Activity>,
    shown: Option<Activity>,
    not_before: Option<Instant>,
    nonce: u64,
    outputs: VecDeque<Vec<u8>>,
}

impl Presence {
    /// A connection that has just been made, for an application of Discord's developer portal, by the process with this number.
    pub fn new(client_id: &str, process: u32) -> Self {
        Self {
            process,
            is_ready: false,
            received: Vec::new(),
            wanted: None,
            shown: None,
            not_before: None,
            nonce: 0,
            outputs: VecDeque::from([frame(HANDSHAKE, &json!({ "v": 1, "client_id": client_id }))]),
        }
    }

    /// Bytes from Discord.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.received.extend_from_slice(bytes);
        while let Some((operation, length)) = self.head()? {
            let end = HEAD + length;
            if self.received.len() < end {
                break;
            }
            let body: Vec<u8> = self.received.drain(..end).skip(HEAD).collect();
            let body: Value = serde_json::from_slice(&body).map_err(|_| Refusal::NotDiscord)?;
            self.handle_frame(operation, &body)?;
        }
        Ok(())
    }

    fn head(&self) -> Result<Option<(u32, usize)>, Refusal> {
        let Some(&[a, b, c, d, e, f, g, h]) = self.received.first_chunk::<HEAD>() else { return Ok(None) };
        let (operation, length) =
            (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]) as usize);
        (operation <= PONG && length <= MAX_FRAME)
            .then_some(Some((operation, length)))
            .ok_or(Refusal::NotDiscord)
    }

    fn handle_frame(&mut self, operation: u32, body: &Value) -> Result<(), Refusal> {
        match operation {
            PING => self.outputs.push_back(frame(PONG, body)),
            CLOSE => {
                let message = body["message"].as_str().unwrap_or("it closes the connection");
                return Err(Refusal::Closed(message.chars().take(200).collect()));
            }
            FRAME if body["evt"] == "READY" => self.is_ready = true,
            _ => {}
        }
        Ok(())
    }

    /// What is to be shown from now on; none takes it away.
    pub fn handle_activity(&mut self, activity: Option<Activity>) {
        self.wanted = activity;
    }

    /// Shows what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout(now).is_none_or(|due| now < due) {
            return;
        }
        self.nonce += 1;
        let arguments = json!({ "pid": self.process, "activity": self.wanted });
        let body = json!({ "cmd": "SET_ACTIVITY", "args": arguments, "nonce": self.nonce.to_string() });
        self.outputs.push_back(frame(FRAME, &body));
        self.shown.clone_from(&self.wanted);
        self.not_before = Some(now + PAUSE);
    }

    /// When [`Presence::handle_timeout`] has something to do.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        (self.is_ready && self.wanted != self.shown).then(|| self.not_before.unwrap_or(now))
    }

    /// The next bytes for Discord.
    pub fn poll_output(&mut self) -> Option<Vec<u8>> {
        self.outputs.pop_front()
    }
}

fn frame(operation: u32, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    [&operation.to_le_bytes(), &(body.len() as u32).to_le_bytes(), body.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sent(presence: &mut Presence) -> Vec<(u32, Value)> {
        let frames = std::iter::from_fn(|| presence.poll_output());
        frames.map(|it| (it[0].into(), serde_json::from_slice(&it[HEAD..]).unwrap())).collect()
    }

    #[test]
    fn activities_follow_the_handshake_and_keep_a_distance() {
        let (mut presence, now) = (Presence::new("123", 77), Instant::now());
        let first = presence.poll_output().unwrap();
        assert_eq!(first, b"\0\0\0\0\x19\0\0\0{\"client_id\":\"123\",\"v\":1}");
        let doom = Activity::new("Chocolate Doom", Some("Friday"), 2, 3);
        presence.handle_activity(Some(doom));
        presence.handle_timeout(now);
        assert_eq!(sent(&mut presence), [], "not before it is ready");

        let ready = [frame(FRAME, &json!({"evt": "READY"})), frame(PING, &json!({"n": 1}))].concat();
        ready.chunks(5).for_each(|part| presence.handle_bytes(part).unwrap());
        presence.handle_timeout(now);
        let activity = json!({"details": "Chocolate Doom", "state": "Friday", "party": {"id": "lanrage", "size": [2, 3]}});
        let wanted = json!({"cmd": "SET_ACTIVITY", "args": {"pid": 77, "activity": activity}, "nonce": "1"});
        assert_eq!(sent(&mut presence), [(PONG, json!({"n": 1})), (FRAME, wanted)]);
        presence.handle_activity(None);
        presence.handle_timeout(now);
        assert_eq!(sent(&mut presence), [], "too soon");
        presence.handle_timeout(now + PAUSE);
        let gone = json!({"cmd": "SET_ACTIVITY", "args": {"pid": 77, "activity": null}, "nonce": "2"});
        assert_eq!(sent(&mut presence), [(FRAME, gone)]);
        let closed =
            presence.handle_bytes(&frame(CLOSE, &json!({"code": 4000, "message": "Invalid Client ID"})));
        assert_eq!(closed.unwrap_err().to_string(), "Discord refuses: Invalid Client ID");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), operation in 0u32..6, length in 0u32..20) {
            let mut presence = Presence::new("1", 1);
            let _ = presence.handle_bytes(&bytes);
            let head = [operation.to_le_bytes(), length.to_le_bytes()].concat();
            let mut presence = Presence::new("1", 1);
            let _ = presence.handle_bytes(&head).and_then(|()| presence.handle_bytes(&bytes));
            prop_assert!(presence.received.len() <= HEAD + MAX_FRAME);
        }
    }
}
