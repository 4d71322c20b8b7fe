//! Who holds a port, as far as procfs tells this user.

use std::fs;
use std::path::{Path, PathBuf};

/// `st` of a listening TCP socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// A description of the process that holds a UDP port, `Some("another program")` when it cannot be found out.
pub fn of_udp_port(port: u16) -> Option<String> {
    of(&["/proc/net/udp", "/proc/net/udp6"], port, None)
}

/// The same for a TCP port that somebody listens on.
pub fn of_tcp_port(port: u16) -> Option<String> {
    of(&["/proc/net/tcp", "/proc/net/tcp6"], port, Some(LISTENING))
}

fn of(tables: &[&str], port: u16, state: Option<&str>) -> Option<String> {
    let inode = tables.iter().find_map(|table| inode(&fs::read_to_string(table).ok()?, port, state))?;
    let link = format!("socket:[{inode}]");
    let mut processes = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path()).filter(is_process);
    let holder = processes.find(|path| holds(path, &link)).map(|path| describe(&path));
    Some(holder.unwrap_or_else(|| "another program".into()))
}

/// Columns of /proc/net/udp and tcp: slot, local address, remote address, state, …, inode (the tenth).
fn inode(table: &str, port: u16, state: Option<&str>) -> Option<u64> {
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let is_it =
            columns.get(1)?.ends_with(&suffix) && state.is_none_or(|state| columns.get(3) == Some(&state));
        is_it.then(|| columns.get(9)?.parse().ok()).flatten()
    })
}

#[expect(clippy::ptr_arg, reason = "a filter over paths")]
fn is_process(path: &PathBuf) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
}

fn holds(process: &Path, link: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == link))
}

fn describe(process: &Path) -> String {
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    let id = process.file_name().unwrap_or_default().to_string_lossy();
    format!("{} (process {id})", name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_listener_is_found_with_its_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = of_tcp_port(listener.local_addr().unwrap().port()).unwrap();
        assert!(holder.ends_with(&format!("(process {})", std::process::id())), "{holder}");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(of_udp_port(socket.local_addr().unwrap().port()).is_some());
    }

    #[test]
    fn only_listening_sockets_count_for_tcp() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:01BB 0100007F:1234 01 00000000:00000000 00:00000000 00000000 0 0 77 1\n   \
                     1: 00000000:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 78 1\n";
        assert_eq!(inode(table, 443, Some(LISTENING)), Some(78));
        assert_eq!(inode(table, 443, None), Some(77));
        assert_eq!(inode(table, 444, None), None);
    }
}
