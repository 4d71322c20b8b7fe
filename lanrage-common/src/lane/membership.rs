//! Who has joined what on this machine, from the system's table.

use super::Service;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

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
        }
    }
}
