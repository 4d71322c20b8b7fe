//! Linux: `/proc/net` tells ports and accounts to everybody, `/proc/PID/fd` which sockets are of one program to those who
//! may know.

use lanrage_common::firewall::{Listener, Owner, Port, Transport, listeners};
use std::collections::BTreeSet;
use std::fs;

/// Who listens on `port`. `players` are the UDP ports that take part in LAN discovery: other ports of their programs are
/// theirs as well.
pub fn owner(port: Port, players: &BTreeSet<u16>) -> Owner {
    let Some(found) = listening(port.transport, |listener| listener.port == port) else {
        return Owner::Unknown;
    };
    if found.is_empty() {
        return Owner::Nobody;
    }
    if found.iter().any(|listener| listener.account.is_person()) {
        return Owner::Person;
    }
    let plays = |listener: &Listener| players.contains(&listener.port.number);
    let playing = listening(Transport::Udp, plays).unwrap_or_default();
    let same_account = |listener: &Listener| {
        listener.account.0 != 0 && playing.iter().any(|player| player.account == listener.account)
    };
    if found.iter().any(same_account) || share_program(&inodes(&found), &inodes(&playing)) {
        return Owner::Player;
    }
    Owner::System
}

/// None when the system does not tell.
fn listening(transport: Transport, wanted: impl Fn(&Listener) -> bool) -> Option<Vec<Listener>> {
    let tables =
        ["", "6"].map(|family| fs::read_to_string(format!("/proc/net/{}{family}", transport.name())));
    let texts: Vec<&String> = tables.iter().flatten().collect();
    let all = texts.iter().flat_map(|text| listeners(text, transport));
    (!texts.is_empty()).then(|| all.filter(wanted).collect())
}

fn inodes(listeners: &[Listener]) -> BTreeSet<u64> {
    listeners.iter().map(|listener| listener.inode).collect()
}

/// Whether a program has a socket of each.
fn share_program(these: &BTreeSet<u64>, those: &BTreeSet<u64>) -> bool {
    if these.is_empty() || those.is_empty() {
        return false;
    }
    let Ok(entries) = fs::read_dir("/proc") else { return false };
    let programs = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        fs::read_dir(entry.path().join("fd")).ok()
    });
    programs.into_iter().any(|files| {
        let sockets: BTreeSet<u64> = files.filter_map(|file| socket(&file.ok()?)).collect();
        !sockets.is_disjoint(these) && !sockets.is_disjoint(those)
    })
}

/// `socket:[12345]`
fn socket(file: &fs::DirEntry) -> Option<u64> {
    let target = fs::read_link(file.path()).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn own_sockets_are_found() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = |number| Port { transport: Transport::Tcp, number };
        let number = listener.local_addr().unwrap().port();
        let player = UdpSocket::bind("0.0.0.0:0").unwrap();
        let players = BTreeSet::from([player.local_addr().unwrap().port()]);
        let own = nix::unistd::geteuid().as_raw();
        let alone =
            if lanrage_common::firewall::Account(own).is_person() { Owner::Person } else { Owner::System };
        assert_eq!(owner(port(number), &BTreeSet::new()), alone);
        let together = if alone == Owner::Person { Owner::Person } else { Owner::Player };
        assert_eq!(owner(port(number), &players), together);
        let here = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(owner(port(here.local_addr().unwrap().port()), &players), Owner::Nobody);
    }
}
