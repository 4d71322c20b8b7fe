//! A home router with miniupnpd: PCP, NAT-PMP and UPnP, for IPv4 and IPv6.

use super::TestLab;
use lanrage_tests::lab::topology::wan;
use std::process::{Child, Command, Stdio};

/// The public address of the router that forwards ports. miniupnpd refuses those of documentation networks, so it is
/// another one, which exists only inside the lab.
pub const OUTSIDE: &str = "45.45.45.1";

/// A symmetric router with miniupnpd; ends it when dropped.
pub struct Gateway {
    child: Child,
    _dir: tempfile::TempDir,
}

impl Gateway {
    pub fn start(lab: &TestLab, n: u8, has_pmp: bool) -> Self {
        let (router, dir) = (lab.topology().router(n), tempfile::tempdir().unwrap());
        lab.topology().net().ip(&format!("route add {OUTSIDE}/32 via {}", wan(n, 2))).unwrap();
        router.ip(&format!("addr add {OUTSIDE}/32 dev wan")).unwrap();
        router.nft(&rules()).unwrap();
        if !has_pmp {
            router.nft(NO_PCP6).unwrap(); // its setting is for IPv4 alone
        }
        let (config, yes) = (dir.path().join("miniupnpd.conf"), if has_pmp { "yes" } else { "no" });
        let text = format!(
            "ext_ifname=wan\next_ip={OUTSIDE}\nlistening_ip=lan\nhttp_port=0\nenable_natpmp={yes}\n\
             enable_upnp=yes\nsecure_mode=yes\nsystem_uptime=yes\nuuid=00000000-0000-0000-0000-0000000000{n:02}\n\
             upnp_table_name=forwarded\nupnp_nat_table_name=forwarded\nupnp_forward_chain=miniupnpd\n\
             upnp_nat_chain=prerouting_miniupnpd\nupnp_nat_postrouting_chain=postrouting_miniupnpd\n\
             allow 1024-65535 192.168.{}.0/24 1024-65535\n",
            100 + n
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("/usr/sbin/miniupnpd");
        command.arg("-d").arg("-f").arg(&config).arg("-P").arg(dir.path().join("pid"));
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = router.spawn(&mut command).expect("install the package miniupnpd-nftables");
        Self { child, _dir: dir }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self._dir.path().join("log")).unwrap_or_default();
            eprintln!("── miniupnpd\n{log}");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const NO_PCP6: &str = "table ip6 quiet {
 chain in {
  type filter hook input priority 0;
  udp dport 5351 reject
 }
}
";

fn rules() -> String {
    format!(
        "table ip lab
delete table ip lab
table ip lab {{
 chain forward {{
  type filter hook forward priority 0; policy accept;
  iifname \"wan\" ct status dnat accept
  iifname \"wan\" ct state new drop
 }}
 chain post {{
  type nat hook postrouting priority 110;
  oifname \"wan\" snat to {OUTSIDE} fully-random
 }}
}}
table ip6 lab
delete table ip6 lab
table inet forwarded {{
 chain forward {{
  type filter hook forward priority 0; policy accept;
  jump miniupnpd
  meta nfproto ipv6 meta l4proto != ipv6-icmp iifname \"wan\" ct state new drop
 }}
 chain prerouting {{
  type nat hook prerouting priority -100; policy accept;
  jump prerouting_miniupnpd
 }}
 chain postrouting {{
  type nat hook postrouting priority 100; policy accept;
  jump postrouting_miniupnpd
 }}
 chain miniupnpd {{ }}
 chain prerouting_miniupnpd {{ }}
 chain postrouting_miniupnpd {{ }}
}}
"
    )
}

/// The router's rules that forward ports.
pub fn forwarded_ports(lab: &TestLab, n: u8) -> String {
    chain(lab, n, "prerouting_miniupnpd")
}

/// Its rules that let in what nobody asked for; those for forwarded ports among them.
pub fn pinholes(lab: &TestLab, n: u8) -> String {
    chain(lab, n, "miniupnpd")
}

fn chain(lab: &TestLab, n: u8, name: &str) -> String {
    let mut command = Command::new("nft");
    command.args(["list", "chain", "inet", "forwarded", name]);
    lab.topology().router(n).output(&mut command).unwrap()
}
