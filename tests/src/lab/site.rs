//! Where a peer sits: its router, and what else is between it and the internet.

use super::nat::NatKind;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How sites are written.
pub const SYNTAX: &str =
    "KIND[/cgn:KIND][/mtu:BYTES][/dual|/v6], or with:PEER for a second device at a peer's home";
/// RFC 8200 section 5: every IPv6 link carries this, and no internet access is seen with less.
const LEAST_MTU: u16 = 1280;

/// Which internet a site reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 only.
    V4,
    /// Both.
    Dual,
    /// IPv6 only.
    V6,
}

/// A peer's access to the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Site {
    /// The home's router.
    pub nat: NatKind,
    /// The carrier's NAT in front of it (RFC 6888).
    pub carrier: Option<NatKind>,
    /// MTU of the access link, if it is not Ethernet's.
    pub mtu: Option<u16>,
    /// IPv4, IPv6 or both. IPv6 is routed, behind a firewall that lets in what was asked for.
    pub family: Family,
    /// The peer at whose home this one is; that peer's site holds for both.
    pub home: Option<u8>,
}

impl From<NatKind> for Site {
    fn from(nat: NatKind) -> Self {
        Self { nat, carrier: None, mtu: None, family: Family::V4, home: None }
    }
}

impl Site {
    /// A second device at the home of peer `owner`.
    pub fn with(owner: u8) -> Self {
        Self { home: Some(owner), ..NatKind::None.into() }
    }

    /// Whether IPv6 reaches it.
    pub fn has_ipv6(self) -> bool {
        self.family != Family::V4
    }

    fn read(&mut self, word: &str) -> Result<()> {
        match word.split_once(':').unwrap_or((word, "")) {
            ("cgn", kind) => {
                let kind: NatKind = kind.parse()?;
                ensure!(kind != NatKind::None && self.nat != NatKind::None, "{word:?}: two NATs are needed");
                self.carrier = Some(kind);
            }
            ("mtu", mtu) => {
                let mtu = mtu.parse().ok().filter(|mtu| (LEAST_MTU..=1500).contains(mtu));
                self.mtu = Some(mtu.with_context(|| format!("{word:?}: an MTU is 1280 to 1500"))?);
            }
            ("dual", "") => self.family = Family::Dual,
            ("v6", "") => self.family = Family::V6,
            _ => bail!("a site has no {word:?}: write {SYNTAX}"),
        }
        Ok(())
    }
}

impl FromStr for Site {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(owner) = text.strip_prefix("with:") {
            let owner = owner.parse().with_context(|| format!("{text:?} names no peer's number"))?;
            return Ok(Self::with(owner));
        }
        let mut words = text.split('/');
        let mut site = Self::from(words.next().unwrap_or_default().parse::<NatKind>()?);
        words.try_for_each(|word| site.read(word)).map(|()| site)
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(owner) = self.home {
            return write!(f, "with:{owner}");
        }
        let mut text = self.nat.to_string();
        if let Some(carrier) = self.carrier {
            text += &format!("/cgn:{carrier}");
        }
        if let Some(mtu) = self.mtu {
            text += &format!("/mtu:{mtu}");
        }
        text += match self.family {
            Family::V4 => "",
            Family::Dual => "/dual",
            Family::V6 => "/v6",
        };
        f.pad(&text)
    }
}

impl TryFrom<String> for Site {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Site> for String {
    fn from(site: Site) -> Self {
        site.to_string()
    }
}

/// Whether every second device has a home to be at.
pub fn check(sites: &[Site]) -> Result<()> {
    for (n, site) in (1u8..).zip(sites) {
        let Some(owner) = site.home else { continue };
        let home = usize::from(owner).checked_sub(1).and_then(|at| sites.get(at));
        let home =
            home.with_context(|| format!("peer {n} is at the home of peer {owner}, whom there is not"))?;
        ensure!(
            owner < n && home.home.is_none(),
            "peer {n} must be at the home of an earlier peer that has one"
        );
        ensure!(home.nat != NatKind::None, "peer {owner} has no home network to share: give it a NAT");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_are_written_as_they_are_read() {
        for text in ["eim", "none/dual", "eim/cgn:eim+eif+random", "symmetric/mtu:1280/v6", "with:3"] {
            assert_eq!(text.parse::<Site>().unwrap().to_string(), text);
        }
        for text in
            ["", "eim/", "eim/mtu:1279", "none/cgn:eim", "eim/cgn:none", "with:x", "eim/dual:1", "eim/with:1"]
        {
            assert!(text.parse::<Site>().is_err(), "{text}");
        }
    }

    #[test]
    fn homes_are_there_before_their_guests() {
        let fine = |texts: &[&str]| {
            check(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Site>>()).is_ok()
        };
        assert!(fine(&["eim", "with:1", "with:1"]));
        for refused in
            [&["with:1"][..], &["eim", "with:3", "eim"], &["none", "with:1"], &["eim", "with:1", "with:2"]]
        {
            assert!(!fine(refused), "{refused:?}");
        }
    }
}
