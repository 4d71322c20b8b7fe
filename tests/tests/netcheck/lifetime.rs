//! What the lifetime of mappings is measured for.

use crate::support::TestLab;
use crate::{PATIENCE, network};
use lanrage_common::api::PathKind;
use lanrage_tests::lab::process::wait_until;
use lanrage_tests::lab::role::Role;
use lanrage_tests::lab::running::Options;
use lanrage_tests::lab::site::Site;
use std::net::SocketAddr;
use std::time::Instant;

/// Where peer 2 reaches another member, if it does so directly.
fn seen_by_2(lab: &TestLab, n: u8) -> Option<SocketAddr> {
    lab.member(2, n).ok().filter(|member| member.path == PathKind::Direct)?.endpoint
}

/// Without answers to another port (RESPONSE-PORT of RFC 5780) nobody learns how long mappings live.
const NO_RESPONSE_PORT: &str = "table ip unmeasured {
 chain pre {
  type filter hook prerouting priority -450;
  iifname \"w3\" udp dport 3478 @th,224,16 0x0027 drop
 }
}
";

/// Both routers forget in seven seconds what is not used. Where that was found out the path is kept open; where it could
/// not be, probes every ten seconds are too rare, and the router gives the path another port each time.
#[test]
fn an_idle_path_stays_open_because_the_lifetime_of_mappings_is_known() {
    let sites = ["apdm+apdf+random+timeout:7", "none", "apdm+apdf+random+timeout:7+seed:5"];
    let sites = sites.map(|site| site.parse::<Site>().unwrap());
    let mut lab = TestLab::beside(&Options::new("nci", &sites));
    lab.topology().net().nft(NO_RESPONSE_PORT).unwrap();
    for n in [1, 2, 3] {
        // the kernel's own search for routers would be traffic
        lab.namespace(Role::Peer(n)).sysctl("ipv6/conf/default/router_solicitations", "0").unwrap();
    }
    lab.form_party().unwrap();
    for n in [1, 3] {
        lab.wait_for_path((2, n), PathKind::Direct, PATIENCE).unwrap();
    }
    let patience = 3 * PATIENCE;
    let is_measured = || network(&lab, 1).nat.lifetime_s == Some(3);
    assert!(wait_until(patience, is_measured), "{:?}", network(&lab, 1));
    let [kept, lost] = [1, 3].map(|n| seen_by_2(&lab, n).unwrap());
    let start = Instant::now();
    let is_over = || {
        assert_eq!(seen_by_2(&lab, 1), Some(kept), "after {:?}", start.elapsed());
        seen_by_2(&lab, 3) != Some(lost)
    };
    assert!(
        wait_until(patience, is_over),
        "a path that is probed too rarely lives:\n{}",
        lab.explain_paths()
    );
    println!("the path that was not kept died after {:?}", start.elapsed());
    assert_eq!(network(&lab, 3).nat.lifetime_s, None);
}
