//! Address leases of one party: sequential, sticky per device, never two devices on one address.
//!
//! Addresses are handed out in order through the /24 blocks of the party's subnet; `.0` and `.255` of every block stay
//! free, because some games take them for network and broadcast addresses whatever the mask says. A device that leaves
//! keeps its lease until addresses run out; then the lease given up longest ago is handed on.

use crate::identity::{DeviceId, DeviceKey};
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

/// Leases one party remembers, held and given up together.
pub const MAX_LEASES: usize = 1024;

/// Leases one member's devices have, held and given up together.
pub const MAX_LEASES_BEHIND: usize = 2 * crate::devices::MAX_DEVICES;

/// Who can have an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// A device behind the member with that key ([`crate::devices`]).
    Behind(DeviceKey, DeviceId),
    /// A member.
    Member(DeviceKey),
}

impl From<DeviceKey> for Holder {
    fn from(device: DeviceKey) -> Self {
        Self::Member(device)
    }
}

impl From<&DeviceKey> for Holder {
    fn from(device: &DeviceKey) -> Self {
        Self::Member(*device)
    }
}

/// Why a subnet cannot be a party's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} cannot be a party's subnet: choose a private one (inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16) of size /16 to /24"
)]
pub struct SubnetError(pub Ipv4Net);

/// No address is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no free address in {0}")]
pub struct NoAddress(pub Ipv4Net);

/// A lease that cannot be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The address is outside of the subnet, or a block's `.0` or `.255`.
    #[error("address {0} does not belong to the party's subnet")]
    Foreign(Ipv4Addr),
    /// Two devices on one address, or two addresses for one device.
    #[error("address {0} or its device is leased twice")]
    Doubled(Ipv4Addr),
}

/// One device's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Unix seconds at which the device gave it up; absent while it is held.
    pub released: Option<u64>,
}

/// Answer to [`Ipam::lease`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leased {
    /// The address, now held by the device.
    pub address: Ipv4Addr,
    /// Who had given it up and loses it.
    pub taken_from: Option<Holder>,
}

/// All leases of one party.
#[derive(Debug, Clone)]
pub struct Ipam {
    subnet: Ipv4Net,
    leases: HashMap<Holder, Lease>,
    owners: BTreeMap<Ipv4Addr, Holder>,
}

impl Ipam {
    /// An empty table for `subnet`, which must be private (RFC 1918) and of size /16 to /24.
    pub fn new(subnet: Ipv4Net) -> Result<Self, SubnetError> {
        if !is_party_subnet(subnet) {
            return Err(SubnetError(subnet));
        }
        Ok(Self { subnet, leases: HashMap::new(), owners: BTreeMap::new() })
    }

    /// Puts back a stored lease.
    pub fn restore(&mut self, holder: impl Into<Holder>, lease: Lease) -> Result<(), RestoreError> {
        let device = holder.into();
        let last = lease.address.octets()[3];
        if !self.subnet.contains(&lease.address) || last == 0 || last == 255 {
            return Err(RestoreError::Foreign(lease.address));
        }
        if self.owners.contains_key(&lease.address) || self.leases.contains_key(&device) {
            return Err(RestoreError::Doubled(lease.address));
        }
        self.insert(device, lease);
        Ok(())
    }

    /// Gives `device` its address: the one it had, else the lowest never used, else the one given up longest ago.
    pub fn lease(&mut self, holder: impl Into<Holder>) -> Result<Leased, NoAddress> {
        let device = holder.into();
        if let Some(lease) = self.leases.get_mut(&device) {
            lease.released = None;
            return Ok(Leased { address: lease.address, taken_from: None });
        }
        let fresh = if self.leases.len() < MAX_LEASES { self.fresh() } else { None };
        let (address, taken_from) = match fresh {
            Some(address) => (address, None),
            None => self
                .oldest_released()
                .map(|(device, address)| (address, Some(device)))
                .ok_or(NoAddress(self.subnet))?,
        };
        if let Some(previous) = taken_from {
            self.leases.remove(&previous);
        }
        self.insert(device, Lease { address, released: None });
        Ok(Leased { address, taken_from })
    }

    /// Notes that `device` has gone; its address stays reserved for it while others are free.
    pub fn release(&mut self, holder: impl Into<Holder>, unix: u64) {
        if let Some(lease) = self.leases.get_mut(&holder.into()) {
            lease.released.get_or_insert(unix);
        }
    }

    /// The address that `device` holds now.
    pub fn address(&self, holder: impl Into<Holder>) -> Option<Ipv4Addr> {
        self.leases.get(&holder.into()).filter(|lease| lease.released.is_none()).map(|lease| lease.address)
    }

    /// Who holds that address now.
    pub fn holder(&self, address: Ipv4Addr) -> Option<Holder> {
        self.owners.get(&address).copied().filter(|holder| self.address(*holder).is_some())
    }

    /// Devices behind `owner`, or behind anybody, that hold an address now.
    pub fn behind(&self, owner: Option<&DeviceKey>) -> impl Iterator<Item = (DeviceId, Ipv4Addr)> {
        self.leases.iter().filter_map(move |(holder, lease)| match holder {
            Holder::Behind(of, id) if lease.released.is_none() && owner.is_none_or(|owner| owner == of) => {
                Some((*id, lease.address))
            }
            _ => None,
        })
    }

    /// Forgets the lease that a device behind `owner` gave up longest ago, when there are too many: who changes devices
    /// all the time takes nobody else's.
    pub fn forget_behind(&mut self, owner: &DeviceKey) -> Option<Holder> {
        let own =
            self.leases.iter().filter(|(holder, _)| matches!(holder, Holder::Behind(of, _) if of == owner));
        if own.clone().count() < MAX_LEASES_BEHIND {
            return None;
        }
        let oldest = own.filter_map(|(holder, lease)| Some((lease.released?, *holder, lease.address))).min();
        let (_, holder, address) = oldest?;
        self.leases.remove(&holder);
        self.owners.remove(&address);
        Some(holder)
    }

    fn insert(&mut self, device: Holder, lease: Lease) {
        self.owners.insert(lease.address, device);
        self.leases.insert(device, lease);
    }

    /// The lowest address that has no owner, found by walking the owned ones in order.
    fn fresh(&self) -> Option<Ipv4Addr> {
        let mut owned = self.owners.keys().copied().peekable();
        usable(self.subnet).find(|candidate| owned.next_if_eq(candidate).is_none())
    }

    /// Devices behind members come back less often than members, so theirs goes first.
    fn oldest_released(&self) -> Option<(Holder, Ipv4Addr)> {
        let released = self.leases.iter().filter_map(|(holder, lease)| {
            Some((matches!(holder, Holder::Member(_)), lease.released?, *holder, lease.address))
        });
        released.min().map(|(.., holder, address)| (holder, address))
    }
}

/// Whether `subnet` may be a party's: private (RFC 1918), /16 to /24, written without host bits.
pub fn is_party_subnet(subnet: Ipv4Net) -> bool {
    (16..=24).contains(&subnet.prefix_len())
        && subnet.addr() == subnet.network()
        && subnet.addr().is_private()
}

/// All addresses that a party may lease, in order.
fn usable(subnet: Ipv4Net) -> impl Iterator<Item = Ipv4Addr> {
    let (first, last) = (u32::from(subnet.network()), u32::from(subnet.broadcast()));
    (first..=last).map(Ipv4Addr::from).filter(|address| !matches!(address.octets()[3], 0 | 255))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn device(number: u16) -> Holder {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        Holder::Member(DeviceKey(key))
    }

    #[test]
    fn devices_behind_members_have_their_own_leases_and_give_way_to_members() {
        let mut ipam = ipam("192.168.7.0/24");
        let owner = DeviceKey([9; 32]);
        let behind = |n: u8| Holder::Behind(owner, DeviceId([n; 16]));
        let first = ipam.lease(behind(1)).unwrap().address;
        assert_eq!(ipam.lease(behind(1)).unwrap().address, first, "sticky");
        assert_eq!((ipam.holder(first), ipam.behind(Some(&owner)).count()), (Some(behind(1)), 1));
        assert_ne!(ipam.lease(owner).unwrap().address, first, "the owner is another holder");
        ipam.release(behind(1), 50);
        assert_eq!((ipam.holder(first), ipam.behind(None).count()), (None, 0));
        for n in 0..252 {
            ipam.lease(device(n)).unwrap();
        }
        ipam.release(device(3), 10);
        assert_eq!(ipam.lease(device(900)).unwrap().taken_from, Some(behind(1)), "before a member's");
    }

    #[test]
    fn a_member_that_changes_devices_all_the_time_takes_only_its_own_leases() {
        let mut ipam = ipam("10.66.0.0/16");
        let owner = DeviceKey([9; 32]);
        for n in 0..1000u16 {
            let [a, b] = n.to_be_bytes();
            let holder = Holder::Behind(owner, DeviceId([a, b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
            ipam.forget_behind(&owner);
            ipam.lease(holder).unwrap();
            ipam.release(holder, n.into());
        }
        assert_eq!(ipam.leases.len(), MAX_LEASES_BEHIND);
    }

    fn ipam(subnet: &str) -> Ipam {
        Ipam::new(subnet.parse().unwrap()).unwrap()
    }

    #[test]
    fn leases_run_through_the_blocks_and_skip_their_ends() {
        let mut ipam = ipam("10.66.0.0/16");
        let addresses: Vec<_> = (0..300).map(|n| ipam.lease(device(n)).unwrap().address).collect();
        assert_eq!(addresses[0], Ipv4Addr::new(10, 66, 0, 1));
        assert_eq!(addresses[253], Ipv4Addr::new(10, 66, 0, 254));
        assert_eq!(addresses[254], Ipv4Addr::new(10, 66, 1, 1));
    }

    #[test]
    fn a_device_gets_its_address_back() {
        let mut ipam = ipam("10.66.0.0/16");
        ipam.lease(device(1)).unwrap();
        let address = ipam.lease(device(2)).unwrap().address;
        ipam.release(device(2), 10);
        assert_eq!(ipam.address(device(2)), None);
        assert_ne!(ipam.lease(device(3)).unwrap().address, address);
        assert_eq!(ipam.lease(device(2)), Ok(Leased { address, taken_from: None }));
    }

    #[test]
    fn a_full_subnet_hands_on_the_lease_given_up_longest_ago() {
        let mut ipam = ipam("192.168.7.0/24");
        for n in 0..254 {
            ipam.lease(device(n)).unwrap();
        }
        assert_eq!(ipam.lease(device(900)), Err(NoAddress("192.168.7.0/24".parse().unwrap())));
        ipam.release(device(9), 20);
        ipam.release(device(8), 30);
        let leased = ipam.lease(device(900)).unwrap();
        assert_eq!(leased, Leased { address: Ipv4Addr::new(192, 168, 7, 10), taken_from: Some(device(9)) });
        assert_eq!(ipam.address(device(9)), None);
    }

    #[test]
    fn only_private_subnets_of_fitting_size() {
        for good in ["10.66.0.0/16", "192.168.0.0/24", "172.20.16.0/20"] {
            assert!(is_party_subnet(good.parse().unwrap()), "{good}");
        }
        for bad in
            ["10.0.0.0/8", "192.168.0.0/25", "100.64.0.0/16", "8.8.0.0/16", "10.66.0.1/16", "172.32.0.0/16"]
        {
            assert!(Ipam::new(bad.parse().unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn damaged_storage_is_noticed() {
        let mut ipam = ipam("10.66.0.0/16");
        let at = |address: [u8; 4]| Lease { address: address.into(), released: None };
        ipam.restore(device(1), at([10, 66, 0, 1])).unwrap();
        assert!(matches!(ipam.restore(device(2), at([10, 66, 0, 1])), Err(RestoreError::Doubled(_))));
        assert!(matches!(ipam.restore(device(1), at([10, 66, 0, 2])), Err(RestoreError::Doubled(_))));
        assert!(matches!(ipam.restore(device(2), at([10, 67, 0, 1])), Err(RestoreError::Foreign(_))));
        assert!(matches!(ipam.restore(device(2), at([10, 66, 3, 255])), Err(RestoreError::Foreign(_))));
    }

    proptest! {
        #[test]
        fn never_two_holders_of_one_address(
            steps in proptest::collection::vec((0u16..400, any::<bool>()), 1..1200),
            prefix in 22u8..=24,
        ) {
            let subnet = Ipv4Net::new_assert(Ipv4Addr::new(10, 8, 0, 0), prefix);
            let mut ipam = Ipam::new(subnet).unwrap();
            let mut held: HashMap<Holder, Ipv4Addr> = HashMap::new();
            for (time, (number, join)) in steps.into_iter().enumerate() {
                let device = device(number);
                if !join {
                    ipam.release(device, time as u64);
                    held.remove(&device);
                } else if let Ok(leased) = ipam.lease(device) {
                    prop_assert!(subnet.contains(&leased.address));
                    prop_assert!(!matches!(leased.address.octets()[3], 0 | 255));
                    prop_assert!(leased.taken_from.is_none_or(|previous| !held.contains_key(&previous)));
                    held.insert(device, leased.address);
                }
                let distinct: std::collections::HashSet<_> = held.values().collect();
                prop_assert_eq!(distinct.len(), held.len());
                prop_assert!(held.iter().all(|(device, address)| ipam.address(*device) == Some(*address)));
            }
        }
    }
}
