//! The invites of one party, known by the hash of their code only.

use super::record::StoredInvite;
use super::refusal;
use crate::protocol::{CreateInvite, DEFAULT_INVITE_LIFE, ErrorBody, ErrorCode, MAX_MEMBERS};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fmt;

/// Invites one party may have, dead ones included.
pub const MAX_INVITES: usize = 64;
/// Shortest life of an invite in seconds.
pub const MIN_INVITE_LIFE: u64 = 60;
/// Longest life of an invite in seconds.
pub const MAX_INVITE_LIFE: u64 = 30 * 24 * 3600;
/// Seconds after its expiry for which an invite is still called expired rather than unknown.
const REMEMBERED: u64 = 7 * 24 * 3600;

/// SHA-256 of an invite code: what the server keeps, so that a stolen database opens no party.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CodeHash(pub [u8; 32]);

impl CodeHash {
    /// Of a code as the link carries it.
    pub fn of(code: &str) -> Self {
        Self(Sha256::digest(code.as_bytes()).into())
    }
}

impl fmt::Debug for CodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodeHash({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

#[derive(Debug, Default)]
pub(super) struct Invites(HashMap<CodeHash, StoredInvite>);

impl Invites {
    pub(super) fn restore(&mut self, invite: StoredInvite) {
        self.0.insert(invite.code, invite);
    }

    /// Adds an invite; the second answer names dead ones that were forgotten for it.
    pub(super) fn create(
        &mut self,
        code: CodeHash,
        wish: &CreateInvite,
        unix: u64,
    ) -> Result<(StoredInvite, Vec<CodeHash>), ErrorBody> {
        let life = wish.expires_in.unwrap_or(DEFAULT_INVITE_LIFE);
        if !(MIN_INVITE_LIFE..=MAX_INVITE_LIFE).contains(&life) {
            return Err(bad("an invite lives from 60 seconds to 30 days"));
        }
        if wish.uses.is_some_and(|uses| !(1..=MAX_MEMBERS as u32).contains(&uses)) {
            return Err(bad("an invite can be used 1 to 254 times"));
        }
        let forgotten = if self.0.len() >= MAX_INVITES { self.drop_dead(unix) } else { Vec::new() };
        if self.0.len() >= MAX_INVITES {
            return Err(bad("the party has 64 open invites: revoke some, or wait until some expire"));
        }
        let invite = StoredInvite { code, expires_at: unix + life, uses_left: wish.uses, revoked: false };
        self.0.insert(code, invite);
        Ok((invite, forgotten))
    }

    /// Whether there is such an invite and nobody took it back.
    pub(super) fn check_known(&self, code: &CodeHash) -> Result<&StoredInvite, ErrorBody> {
        let invite = self.0.get(code).ok_or_else(unknown)?;
        match invite.revoked {
            true => Err(refusal(ErrorCode::InviteRevoked, "this invite was taken back: ask for a new one")),
            false => Ok(invite),
        }
    }

    /// Whether a new member may come in by this invite.
    pub(super) fn check(&self, code: &CodeHash, unix: u64) -> Result<(), ErrorBody> {
        let invite = self.check_known(code)?;
        if invite.expires_at <= unix {
            return Err(refusal(ErrorCode::InviteExpired, "this invite has expired: ask for a new one"));
        }
        if invite.uses_left == Some(0) {
            return Err(refusal(
                ErrorCode::InviteUsedUp,
                "this invite has been used as often as it may: ask for a new one",
            ));
        }
        Ok(())
    }

    /// Counts one use; the answer is what has to be stored.
    pub(super) fn redeem(&mut self, code: &CodeHash) -> Option<StoredInvite> {
        let invite = self.0.get_mut(code)?;
        let left = invite.uses_left.as_mut()?;
        *left = left.saturating_sub(1);
        Some(*invite)
    }

    pub(super) fn revoke(&mut self, code: &CodeHash) -> Result<StoredInvite, ErrorBody> {
        let invite = self.0.get_mut(code).ok_or_else(unknown)?;
        invite.revoked = true;
        Ok(*invite)
    }

    pub(super) fn revoke_all(&mut self) -> Vec<StoredInvite> {
        let mut revoked = Vec::new();
        for invite in self.0.values_mut().filter(|invite| !invite.revoked) {
            invite.revoked = true;
            revoked.push(*invite);
        }
        revoked
    }

    /// Unix seconds at which the first invite can be forgotten.
    pub(super) fn next_forgotten(&self) -> Option<u64> {
        self.0.values().map(|invite| invite.expires_at + REMEMBERED).min()
    }

    pub(super) fn forget(&mut self, unix: u64) -> Vec<CodeHash> {
        self.drop_where(|invite| invite.expires_at + REMEMBERED <= unix)
    }

    fn drop_dead(&mut self, unix: u64) -> Vec<CodeHash> {
        self.drop_where(|invite| invite.revoked || invite.expires_at <= unix || invite.uses_left == Some(0))
    }

    fn drop_where(&mut self, gone: impl Fn(&StoredInvite) -> bool) -> Vec<CodeHash> {
        let codes: Vec<_> = self.0.values().filter(|invite| gone(invite)).map(|invite| invite.code).collect();
        for code in &codes {
            self.0.remove(code);
        }
        codes
    }
}

fn bad(message: &str) -> ErrorBody {
    refusal(ErrorCode::BadRequest, message)
}

fn unknown() -> ErrorBody {
    refusal(
        ErrorCode::NotFound,
        "no such invite at this server: check that the link is complete, or ask for a new one",
    )
}
