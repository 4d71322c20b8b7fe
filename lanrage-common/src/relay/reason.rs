//! What happened to each datagram that the relay server saw.

use std::collections::BTreeMap;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal),* $(,)?) => {
        /// What the relay server did with a datagram, and why. Every datagram is counted under exactly one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[doc = $doc])+ $variant),* }

        impl Reason {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Stable name, as in metrics.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The same in a sentence.
            pub fn explanation(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii()),* }
            }
        }
    };
}

reasons! {
    /// Type 4 sent on.
    Forwarded = "forwarded",
    /// Type 1, 2 or 3 sent on.
    HandshakeForwarded = "handshake_forwarded",
    /// Path probe sent on.
    ProbeForwarded = "probe_forwarded",
    /// Bind answered with success.
    BindAccepted = "bind_accepted",
    /// Binding given back.
    BindReleased = "bind_released",
    /// Bind without nonce, answered with one.
    BindChallenged = "bind_challenged",
    /// Bind with a nonce of another address or time, answered with a new one.
    BindStaleNonce = "bind_stale_nonce",
    /// Bind older than the one that moved the member elsewhere, answered with a new nonce.
    BindReplayed = "bind_replayed",
    /// Ticket past its time.
    BindTicketExpired = "bind_ticket_expired",
    /// Ticket not sealed for this relay, or damaged.
    BindWrongRelay = "bind_wrong_relay",
    /// MESSAGE-INTEGRITY-SHA256 missing or wrong.
    BindBadIntegrity = "bind_bad_integrity",
    /// Ticket of an epoch that the party has left.
    BindOldEpoch = "bind_old_epoch",
    /// No room for another member.
    BindRelayFull = "bind_relay_full",
    /// No room for another member of this party.
    BindPartyFull = "bind_party_full",
    /// A new member, while the relay is being emptied.
    BindDraining = "bind_draining",
    /// STUN request shorter than its answer: not answered.
    StunShort = "stun_short",
    /// STUN request for an answer from an address that this relay does not have.
    StunUnable = "stun_unable",
    /// STUN Binding request shorter than its answer, from a network that had its share.
    StunBudget = "stun_budget",
    /// STUN Binding answered.
    StunAnswered = "stun_answered",
    /// STUN, but not a request that a relay answers.
    StunUnexpected = "stun_unexpected",
    /// Member traffic from an address that is not bound.
    Unbound = "unbound",
    /// From the relay's own address, or from one that cannot be a sender.
    BadSource = "bad_source",
    /// WireGuard type with a length or reserved bytes that WireGuard never sends.
    Malformed = "malformed",
    /// Neither STUN, WireGuard nor probe.
    UnknownProtocol = "unknown_protocol",
    /// Type 1 whose mac1 names no bound member of the sender's party.
    HandshakeNoReceiver = "handshake_no_receiver",
    /// Type 2 whose mac1 is not for the owner of its receiver index.
    HandshakeWrongMac = "handshake_wrong_mac",
    /// The index belongs to another member.
    IndexTaken = "index_taken",
    /// No member owns the receiver index.
    IndexUnknown = "index_unknown",
    /// Type 4 for an index whose handshake is not complete.
    IndexTentative = "index_tentative",
    /// Type 1 with an index that was offered a moment ago: WireGuard takes a new one for each try.
    HandshakeRepeated = "handshake_repeated",
    /// Type 2 with another index for an offer that was answered: WireGuard answers each once.
    HandshakeAnswered = "handshake_answered",
    /// The sender has too many handshakes open with this receiver.
    TentativeFull = "tentative_full",
    /// The relay has no room for another flow.
    TableFull = "table_full",
    /// The party has as many flows as one party may have.
    PartyFull = "party_full",
    /// The sender starts and answers handshakes too fast.
    BudgetSource = "budget_source",
    /// The receiver is offered handshakes too fast.
    BudgetDestination = "budget_destination",
    /// Probes of, or to, this member come too fast.
    BudgetProbe = "budget_probe",
    /// More than the sender's ticket allows.
    RateMember = "rate_member",
    /// Probe for somebody who is not a bound member of the sender's party.
    ProbeNoReceiver = "probe_no_receiver",
}

/// Datagrams by reason.
#[derive(Debug, Clone)]
pub(super) struct Counters([u64; Reason::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; Reason::ALL.len()])
    }
}

impl Counters {
    pub(super) fn count(&mut self, reason: Reason) {
        self.0[reason as usize] += 1;
    }

    pub(super) fn of(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }

    /// All that are not zero, by name.
    pub(super) fn by_name(&self) -> BTreeMap<&'static str, u64> {
        let all = Reason::ALL.iter().map(|reason| (reason.as_str(), self.of(*reason)));
        all.filter(|(_, count)| *count > 0).collect()
    }
}
