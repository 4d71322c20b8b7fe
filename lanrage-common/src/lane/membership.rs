//! Who has joined what: on this machine, from the system's tables, and elsewhere, as members say.

use super::Service;
use super::maps::{JoinKey, MAX_GROUPS};
use super::rules;
use crate::wire::{Address, Be32};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What members have joined. Of one that has not said it, as older versions do not, nothing is known, and it gets everything.
#[derive(Debug, Default)]
pub(super) struct Joined(BTreeMap<Ipv4Addr, HashSet<Address>>);

impl Joined {
    /// Replaces what is known. One that has joined more than [`MAX_GROUPS`] gets everything.
    pub fn set<'a>(&mut self, members: impl IntoIterator<Item = (Ipv4Addr, &'a BTreeSet<IpAddr>)>) {
        let few = members.into_iter().filter(|(_, groups)| groups.len() <= MAX_GROUPS);
        let addresses =
            |groups: &BTreeSet<IpAddr>| groups.iter().map(|group| Address::from(*group)).collect();
        self.0 = few.map(|(member, groups)| (member, addresses(groups))).collect();
    }

    /// Whether a member gets packets to a group.
    pub fn wants(&self, member: Ipv4Addr, group: &Address) -> bool {
        self.0.get(&member).is_none_or(|groups| groups.contains(group))
    }

    /// As the kernel programs are told.
    pub fn keys(&self) -> HashSet<JoinKey> {
        let keys = self.0.iter().flat_map(|(member, groups)| {
            let member = Be32::from_octets(member.octets());
            let said = std::iter::once(Address::default());
            said.chain(groups.iter().copied()).map(move |group| JoinKey { group, member, unused: 0 })
        });
        keys.collect()
    }
}

/// The IPv4 groups that Linux's `/proc/net/igmp` shows as joined on other interfaces than `except`. Groups of the local
/// network's own protocols (224.0.0.0/24, RFC 5771 section 4) are left out, and so is SSDP's 239.255.255.250, unless
/// `services` that the party carries use them. Lines that are not understood are passed over.
pub fn joined(table: &str, except: &[&str], services: &[Service]) -> BTreeSet<Ipv4Addr> {
    let (mut groups, mut is_wanted) = (BTreeSet::new(), false);
    for line in table.lines().skip(1) {
        // "2	eth0      :     2      V3" begins an interface, and its groups follow, indented
        if line.starts_with(|first: char| first.is_ascii_digit()) {
            let name = line.split_whitespace().nth(1).map(|name| name.trim_end_matches(':'));
            is_wanted = name.is_some_and(|name| !except.contains(&name));
        } else if is_wanted && let Some(group) = line.split_whitespace().next().and_then(group) {
            groups.insert(group);
        }
    }
    groups.retain(|group| !is_service(*group) || services.iter().any(|service| group_of(*service) == *group));
    groups
}

/// The groups that are joined on this machine and go only to members that have joined them, from Linux's `/proc/net/igmp` and
/// `/proc/net/igmp6`.
pub fn joined_groups(igmp: &str, igmp6: &str) -> BTreeSet<IpAddr> {
    let all = joined(igmp, &["lo"], &[]).into_iter().map(IpAddr::V4).chain(igmp6.lines().filter_map(group6));
    all.filter(|group| is_selective(*group)).collect()
}

/// Whether packets to an address go only to members that have joined it.
pub(super) fn is_selective(address: IpAddr) -> bool {
    let address = Address::from(address);
    rules::is_selective(address.family(), &address)
}

/// `4    lanrage0        ff020000000000000000000000000113     1 00000004 0`
fn group6(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace().skip(1);
    let (interface, group) = (words.next()?, words.next()?);
    let number = u128::from_str_radix(group, 16).ok().filter(|_| group.len() == 32)?;
    (interface != "lo").then(|| IpAddr::V6(Ipv6Addr::from(number)))
}

fn is_service(group: Ipv4Addr) -> bool {
    group.octets()[..3] == [224, 0, 0] || group == group_of(Service::Ssdp)
}

const fn group_of(service: Service) -> Ipv4Addr {
    match service {
        Service::Mdns => Ipv4Addr::new(224, 0, 0, 251),
        Service::Ssdp | Service::Wsd => Ipv4Addr::new(239, 255, 255, 250),
    }
}

/// Eight digits: the address as the kernel's processor reads its bytes.
pub(super) fn group(text: &str) -> Option<Ipv4Addr> {
    let number = u32::from_str_radix(text, 16).ok().filter(|_| text.len() == 8)?;
    let address = Ipv4Addr::from(number.to_ne_bytes());
    address.is_multicast().then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: &str = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
        1\tlo        :     1      V3\n\t\t\t\t3C0200E0     1 0:00000000\t\t0\n\
        2\teth0      :     3      V3\n\t\t\t\t3C0200E0     1 0:00000000\t\t0\n\
        \t\t\t\tFB0000E0     1 0:00000000\t\t0\n\t\t\t\tFAFFFFEF     1 0:00000000\t\t0\n\
        3\tlanrage0  :     1      V3\n\t\t\t\t0C0B0AEF     1 0:00000000\t\t0\n";

    const TABLE6: &str = "1    lo              ff020000000000000000000000000113     1 0000000C 0\n\
        2    eth0            ff0200000000000000000001ff420001     1 00000004 0\n\
        2    eth0            ff020000000000000000000000000001     1 0000000C 0\n\
        2    eth0            ff01000000000000000000000000beef     1 0000000C 0\n\
        3    lanrage0        ff0400000000000069 6f\n\
        3    lanrage0        ff04000000000000696f6471756a6b33     1 00000004 0\n";

    #[test]
    fn what_nobody_else_needs_to_know_is_not_told() {
        let quake: IpAddr = "ff04::696f:6471:756a:6b33".parse().unwrap();
        assert_eq!(joined_groups("", TABLE6), [quake].into());
        for (group, wanted) in [
            ("224.0.0.251", false),
            ("224.0.2.60", true),
            ("239.255.255.250", false),
            ("239.255.255.251", true),
            ("255.255.255.255", false),
            ("10.66.0.1", false),
            ("ff02::fb", false),
            ("ff02::113", true),
            ("ff02::1:3", false),
            ("ff05::2:3", true),
            ("ff01::113", false),
            ("fe80::113", false),
        ] {
            assert_eq!(is_selective(group.parse().unwrap()), wanted, "{group}");
        }
    }

    #[test]
    fn who_says_nothing_or_too_much_gets_everything() {
        let (ana, ben) = (Ipv4Addr::new(10, 66, 0, 1), Ipv4Addr::new(10, 66, 0, 2));
        let group = |n| IpAddr::from([239, 1, 2, n]);
        let mut joined = Joined::default();
        assert!(joined.wants(ana, &group(1).into()) && joined.keys().is_empty());
        let (few, none) = ([group(1), group(2)].into(), BTreeSet::new());
        joined.set([(ana, &few), (ben, &none)]);
        let wants = |joined: &Joined| [ana, ben].map(|it| joined.wants(it, &group(1).into()));
        assert_eq!((wants(&joined), joined.keys().len()), ([true, false], 4));
        assert!(!joined.wants(ana, &group(3).into()));
        let many = (0..=MAX_GROUPS as u8).map(group).collect();
        joined.set([(ana, &none), (ben, &many)]);
        assert_eq!((wants(&joined), joined.keys().len()), ([false, true], 1));
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn groups_of_games_on_other_networks_are_found() {
        let game = Ipv4Addr::new(224, 0, 2, 60);
        assert_eq!(joined(TABLE, &["lo", "lanrage0"], &[]), [game].into());
        assert_eq!(joined(TABLE, &["lo", "eth0"], &[]), [Ipv4Addr::new(239, 10, 11, 12)].into());
        for service in [Service::Mdns, Service::Ssdp, Service::Wsd] {
            let groups = joined(TABLE, &["lo", "lanrage0"], &[service]);
            assert_eq!(groups, [game, group_of(service)].into(), "{service:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(\\PC|[\t\n:0-9A-F]){0,200}") {
            prop_assert!(joined(&text, &["lo"], &[Service::Mdns]).iter().all(Ipv4Addr::is_multicast));
            prop_assert!(joined_groups(&text, &text).iter().all(IpAddr::is_multicast));
        }
    }
}
