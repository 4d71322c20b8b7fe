//! What a NAT does, in the terms of RFC 4787, and how that is written: `eim+apdf+random`.

use anyhow::{Context, Result, bail};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How a behaviour is written; all but the mapping may be left out.
pub const SYNTAX: &str = "eim|adm|apdm + eif|adf|apdf + preserving|sequential|sequential:STEP|random \
                          + hairpin + timeout:SECONDS + no-udp + seed:NUMBER (e.g. eim+apdf+random)";

/// On what of the remote endpoint something depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// On nothing.
    Independent,
    /// On its address.
    Address,
    /// On its address and port.
    AddressAndPort,
}

impl Scope {
    /// All of them, the friendliest first.
    pub const ALL: [Self; 3] = [Self::Independent, Self::Address, Self::AddressAndPort];
}

/// Which port of the public address a mapping gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Allocation {
    /// The inside's own port, or the next one that is free.
    Preserving,
    /// The last one plus this.
    Sequential(u16),
    /// Any.
    Random,
}

/// Everything that tells one NAT from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Behaviour {
    /// When a second destination gets the same mapping (RFC 4787 section 4.1).
    pub mapping: Scope,
    /// Who may send to a mapping (section 5).
    pub filtering: Scope,
    /// Section 4.2.
    pub allocation: Allocation,
    /// Whether the inside reaches mappings at the public address (section 6).
    pub hairpin: bool,
    /// How long UDP and ICMP mappings live without outgoing packets, seconds (section 4.3).
    pub timeout_s: u16,
    /// Whether UDP is dropped.
    pub blocks_udp: bool,
    /// Random ports, and where sequential ones begin, follow from it.
    pub seed: u64,
}

/// RFC 4787 REQ-5 asks for two minutes at least.
const TIMEOUT_S: u16 = 120;

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            mapping: Scope::Independent,
            filtering: Scope::AddressAndPort,
            allocation: Allocation::Preserving,
            hairpin: false,
            timeout_s: TIMEOUT_S,
            blocks_udp: false,
            seed: 0,
        }
    }
}

impl Behaviour {
    /// How long UDP and ICMP mappings live.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_s.into())
    }
}

impl FromStr for Behaviour {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split('+');
        let mapping = match words.next() {
            Some("eim") => Scope::Independent,
            Some("adm") => Scope::Address,
            Some("apdm") => Scope::AddressAndPort,
            _ => bail!("{text:?} does not begin with a mapping: write {SYNTAX}"),
        };
        let mut behaviour = Self { mapping, ..Self::default() };
        words.try_for_each(|word| behaviour.read(word)).map(|()| behaviour)
    }
}

impl Behaviour {
    fn read(&mut self, word: &str) -> Result<()> {
        let (name, value) = word.split_once(':').unwrap_or((word, ""));
        let number = || value.parse::<u64>().ok().with_context(|| format!("{word:?} has no number"));
        match (name, value.is_empty()) {
            ("eif", true) => self.filtering = Scope::Independent,
            ("adf", true) => self.filtering = Scope::Address,
            ("apdf", true) => self.filtering = Scope::AddressAndPort,
            ("preserving", true) => self.allocation = Allocation::Preserving,
            ("sequential", true) => self.allocation = Allocation::Sequential(1),
            ("sequential", false) => self.allocation = Allocation::Sequential(within(number()?, word)?),
            ("random", true) => self.allocation = Allocation::Random,
            ("hairpin", true) => self.hairpin = true,
            ("timeout", false) => self.timeout_s = within(number()?, word)?,
            ("no-udp", true) => self.blocks_udp = true,
            ("seed", false) => self.seed = number()?,
            _ => bail!("a NAT has no behaviour {word:?}: write {SYNTAX}"),
        }
        Ok(())
    }
}

fn within(number: u64, word: &str) -> Result<u16> {
    match u16::try_from(number) {
        Ok(number @ 1..) => Ok(number),
        _ => bail!("{word:?}: the number must be 1 to 65535"),
    }
}

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |scope| Scope::ALL.iter().position(|other| *other == scope).unwrap_or_default();
        let mapping = ["eim", "adm", "apdm"][at(self.mapping)];
        let filtering = ["eif", "adf", "apdf"][at(self.filtering)];
        write!(f, "{mapping}+{filtering}")?;
        match self.allocation {
            Allocation::Preserving => f.write_str("+preserving")?,
            Allocation::Sequential(1) => f.write_str("+sequential")?,
            Allocation::Sequential(step) => write!(f, "+sequential:{step}")?,
            Allocation::Random => f.write_str("+random")?,
        }
        if self.hairpin {
            f.write_str("+hairpin")?;
        }
        if self.timeout_s != TIMEOUT_S {
            write!(f, "+timeout:{}", self.timeout_s)?;
        }
        if self.blocks_udp {
            f.write_str("+no-udp")?;
        }
        if self.seed != 0 {
            write!(f, "+seed:{}", self.seed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_left_out_is_usual() {
        let read: Behaviour = "eim+apdf+random".parse().unwrap();
        assert_eq!(read, Behaviour { allocation: Allocation::Random, ..Behaviour::default() });
        assert_eq!(Behaviour::default().to_string(), "eim+apdf+preserving");
    }

    #[test]
    fn refusals_show_the_syntax() {
        for text in
            ["", "cone+eif", "eim+cone", "eim+timeout", "eim+timeout:0", "eim+seed:x", "eim+hairpin:1"]
        {
            assert!(text.parse::<Behaviour>().is_err(), "{text}");
        }
        assert!("eim+full".parse::<Behaviour>().unwrap_err().to_string().contains(SYNTAX));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}") {
            if let Ok(read) = text.parse::<Behaviour>() {
                prop_assert_eq!(read.to_string().parse::<Behaviour>().unwrap(), read);
            }
        }

        #[test]
        fn any_behaviour_is_read_as_written(
            mapping in 0usize..3, filtering in 0usize..3, step in 0u16..5, hairpin: bool, timeout_s in 1u16.., seed: u64,
        ) {
            let allocation = match step {
                0 => Allocation::Preserving,
                4 => Allocation::Random,
                step => Allocation::Sequential(step),
            };
            let (mapping, filtering) = (Scope::ALL[mapping], Scope::ALL[filtering]);
            let behaviour =
                Behaviour { mapping, filtering, allocation, hairpin, timeout_s, blocks_udp: !hairpin, seed };
            prop_assert_eq!(behaviour.to_string().parse::<Behaviour>().unwrap(), behaviour);
        }
    }
}
