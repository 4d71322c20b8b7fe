//! Members as people name them.

use crate::api::MemberStatus;
use crate::identity::RosterEntry;
use crate::protocol::{ErrorBody, ErrorCode};
use std::net::Ipv4Addr;

/// Something with a member's name and address.
pub trait Member {
    /// Shown to people.
    fn name(&self) -> &str;
    /// In the party.
    fn address(&self) -> Ipv4Addr;
}

impl Member for RosterEntry {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> Ipv4Addr {
        self.address
    }
}

impl Member for MemberStatus {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> Ipv4Addr {
        self.address
    }
}

/// A member by name, address, or unique start of the name; case does not matter.
pub fn resolve<'a, M: Member>(
    members: impl IntoIterator<Item = &'a M>,
    wanted: &str,
) -> Result<&'a M, ErrorBody> {
    let members: Vec<&M> = members.into_iter().collect();
    let (lower, address) = (wanted.to_lowercase(), wanted.parse::<Ipv4Addr>().ok());
    let of = |fits: &dyn Fn(&M) -> bool| -> Vec<&'a M> {
        members.iter().copied().filter(|member| fits(member)).collect()
    };
    let mut matches =
        of(&|member| member.name().to_lowercase() == lower || address == Some(member.address()));
    if matches.is_empty() {
        matches = of(&|member| member.name().to_lowercase().starts_with(&lower));
    }
    match matches[..] {
        [member] => Ok(member),
        [] if members.is_empty() => {
            refuse(ErrorCode::NotFound, "there is nobody else in the party yet".into())
        }
        [] => {
            let text = format!("no member is called \"{wanted}\": there are {}", names(&members));
            refuse(ErrorCode::NotFound, text)
        }
        _ => {
            let text = format!("\"{wanted}\" fits several members, use the address: {}", names(&matches));
            refuse(ErrorCode::BadRequest, text)
        }
    }
}

fn names<M: Member>(members: &[&M]) -> String {
    let name = |member: &&M| format!("{} ({})", member.name(), member.address());
    members.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn refuse<T>(code: ErrorCode, message: String) -> Result<T, ErrorBody> {
    Err(ErrorBody { code, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Device;

    fn member(name: &str, last: u8) -> RosterEntry {
        let device = Device::generate(&mut rand_core::OsRng);
        RosterEntry {
            name: name.into(),
            device: device.key(),
            wg: device.wg_key(),
            wg_signature: device.wg_signature(),
            address: Ipv4Addr::new(10, 66, 0, last),
            epoch: 1,
        }
    }

    #[test]
    fn members_are_found_by_name_address_and_unique_start() {
        let members = [member("Ana", 2), member("Anatol", 3), member("Bob", 4), member("Bob", 5)];
        let find = |wanted: &str| resolve(&members, wanted).map(|member| member.address.octets()[3]);
        assert_eq!(find("ana"), Ok(2));
        assert_eq!(find("anat"), Ok(3));
        assert_eq!(find("10.66.0.5"), Ok(5));
        assert!(find("Bob").unwrap_err().message.contains("10.66.0.4"));
        assert!(find("an").unwrap_err().message.contains("several"));
        assert!(find("Zoe").unwrap_err().message.contains("Anatol"));
        assert!(resolve::<RosterEntry>(&[], "Ana").unwrap_err().message.contains("nobody else"));
    }
}
