//! Invite links: `https://CONTROL/j/<code>#<secret and host fingerprint>`.
//!
//! The part before `#` goes to the control server; the fragment (base64url of 32 bytes secret, 16 bytes fingerprint)
//! stays in the client, so the server can neither join nor read the party.

use crate::identity::{Fingerprint, PartySecret};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use std::str::FromStr;

/// Longest link that is looked at.
const MAX_LINK: usize = 512;
/// 16 random bytes as base64url.
const CODE_CHARS: usize = 22;

/// Everything a friend needs to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// Origin of the control server, e.g. `https://play.example:8667`, no trailing slash.
    pub control: String,
    /// What the control server redeems: 22 characters of base64url.
    pub code: String,
    /// The party's secret.
    pub secret: PartySecret,
    /// Whom the joiner must find as host.
    pub host: Fingerprint,
}

/// Why a text is not an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Not a link at all.
    #[error(
        "this is not an invite link: it should look like https://SERVER/j/CODE#SECRET; copy the whole link again"
    )]
    NotALink,
    /// The part after `#` is missing.
    #[error("the invite link has lost its part after '#': ask for the link again and copy all of it")]
    NoSecret,
    /// The part after `#` is damaged.
    #[error("the invite link is damaged after '#': ask for the link again and copy all of it")]
    BadSecret,
    /// The part after `/j/` is damaged.
    #[error("the invite code in the link is damaged: ask for the link again and copy all of it")]
    BadCode,
}

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fragment = [0; 48];
        fragment[..32].copy_from_slice(self.secret.as_bytes());
        fragment[32..].copy_from_slice(&self.host.0);
        write!(f, "{}/j/{}#{}", self.control, self.code, URL_SAFE_NO_PAD.encode(fragment))
    }
}

impl FromStr for Invite {
    type Err = InviteError;

    fn from_str(text: &str) -> Result<Self, InviteError> {
        let text = text.trim();
        let is_http = text.starts_with("http://") || text.starts_with("https://");
        if !is_http || text.len() > MAX_LINK || text.contains(char::is_control) {
            return Err(InviteError::NotALink);
        }
        let (address, fragment) =
            text.split_once('#').map_or((text, None), |(before, after)| (before, Some(after)));
        let (control, code) = address.rsplit_once("/j/").ok_or(InviteError::NotALink)?;
        let fragment = fragment.ok_or(InviteError::NoSecret)?;
        if control.ends_with('/') || control.matches('/').count() != 2 {
            return Err(InviteError::NotALink);
        }
        let code = code.trim_end_matches('/');
        if code.len() != CODE_CHARS || URL_SAFE_NO_PAD.decode(code).is_err() {
            return Err(InviteError::BadCode);
        }
        let bytes: [u8; 48] = URL_SAFE_NO_PAD
            .decode(fragment)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(InviteError::BadSecret)?;
        let (mut secret, mut host) = ([0; 32], [0; 16]);
        secret.copy_from_slice(&bytes[..32]);
        host.copy_from_slice(&bytes[32..]);
        Ok(Self {
            control: control.into(),
            code: code.into(),
            secret: secret.into(),
            host: Fingerprint(host),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn invite() -> Invite {
        Invite {
            control: "http://192.0.2.1:8667".into(),
            code: URL_SAFE_NO_PAD.encode([5; 16]),
            secret: [1; 32].into(),
            host: Fingerprint([2; 16]),
        }
    }

    #[test]
    fn link_round_trips() {
        assert_eq!(invite().to_string().parse(), Ok(invite()));
        assert_eq!(format!(" {}\n", invite()).parse(), Ok(invite()));
    }

    #[test]
    fn damaged_links_say_what_is_wrong() {
        let link = invite().to_string();
        let without_fragment = link.split('#').next().unwrap();
        assert_eq!(without_fragment.parse::<Invite>(), Err(InviteError::NoSecret));
        assert_eq!(link[..link.len() - 1].parse::<Invite>(), Err(InviteError::BadSecret));
        assert_eq!(link.replace("/j/", "/k/").parse::<Invite>(), Err(InviteError::NotALink));
        assert_eq!(link.replace("http", "ftp").parse::<Invite>(), Err(InviteError::NotALink));
        assert_eq!(link.replace("/j/", "/j/x").parse::<Invite>(), Err(InviteError::BadCode));
    }

    proptest! {
        #[test]
        fn any_text_parses_or_fails_cleanly(text in "\\PC{0,600}") {
            if let Ok(invite) = text.parse::<Invite>() {
                prop_assert_eq!(invite.to_string().parse::<Invite>(), Ok(invite));
            }
        }
    }
}
