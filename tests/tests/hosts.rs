//! Members tell each other how they reach everybody, and the one to host is named. Needs root.
#![allow(clippy::unwrap_used)]

mod support;

use lanrage_common::api::MatrixStatus;
use lanrage_tests::lab::nat::NatKind::Eim;
use lanrage_tests::lab::process::wait_until;
use lanrage_tests::lab::role::Role;
use lanrage_tests::lab::running::Options;
use std::time::Duration;
use support::TestLab;

const PATIENCE: Duration = Duration::from_secs(40);
/// One way through each member's access link, milliseconds.
const DELAYS: [f64; 3] = [40.0, 5.0, 20.0];

fn matrix(lab: &TestLab, n: u8) -> MatrixStatus {
    serde_json::from_str(&lab.lanrage_output(Role::Peer(n), &["matrix", "--json"]).unwrap()).unwrap()
}

#[test]
fn the_member_in_the_middle_should_host() {
    let links = DELAYS.iter().zip(1..).map(|(delay, n)| format!("w{n}=delay:{delay}").parse().unwrap());
    let options = Options { links: links.collect(), ..Options::new("hosts", &[Eim, Eim, Eim]) };
    let lab = TestLab::party_with(options);
    let [ana, ben, carl] = [1, 2, 3].map(|n| lab.overlay(n).unwrap());
    let name = lab.member(1, 2).unwrap().name;
    // whoever asks: all tell all
    for n in 1..=3 {
        let wanted = format!("{name} is the best host");
        let is_said = || {
            let matrix = matrix(&lab, n);
            matrix.links.len() == 6 && matrix.advice.is_some_and(|advice| advice.starts_with(&wanted))
        };
        assert!(wait_until(PATIENCE, is_said), "at peer {n}: {:#?}", matrix(&lab, n));
    }
    let told = matrix(&lab, 2);
    for (from, to, delay) in [(ana, carl, 60.0), (ana, ben, 45.0), (carl, ben, 25.0)] {
        let link = told.links.iter().find(|link| (link.from, link.to) == (from, to)).unwrap();
        // there and back; a link never delivers early
        assert!(link.rtt_ms.is_some_and(|rtt| rtt >= 2.0 * delay - 0.5), "{link:?}");
    }
    assert_eq!((told.hosts.len(), told.hosts[0].member), (3, ben), "{told:#?}");
    let ways = [told.hosts[0].worst_rtt_ms, told.hosts[1].worst_rtt_ms];
    assert!(ways[0] < ways[1] && told.hosts[0].quality > told.hosts[1].quality, "{told:#?}");
    let table = lab.lanrage_output(Role::Peer(3), &["matrix"]).unwrap();
    assert!(table.contains("QUALITY") && table.contains(&format!("{name} is the best host")), "{table}");
}
