//! Address leases of a party.
