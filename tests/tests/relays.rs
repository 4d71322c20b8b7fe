//! Two relays: the nearer one is used, an emptied one is left without loss, a dead one is replaced. Needs root.
#![allow(clippy::unwrap_used)]

mod support;

use lanrage_common::api::RelayChoiceStatus;
use lanrage_tests::lab::detour::Detour;
use lanrage_tests::lab::nat::NatKind::Symmetric;
use lanrage_tests::lab::process::wait_until;
use lanrage_tests::lab::role::{Role, detour_address, spare_relay_address};
use lanrage_tests::lab::running::Options;
use lanrage_tests::lab::traffic::{Beats, Pulse};
use std::time::Duration;
use support::TestLab;

/// One way to the farther relay.
const FAR: Duration = Duration::from_millis(25);
const BEAT: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(40);

/// A party of two that can only be relayed, with the relays `lab` and, farther away, `away`.
fn party(name: &str) -> (TestLab, Detour) {
    let options = Options { spare_relay: true, ..Options::new(name, &[Symmetric, Symmetric]) };
    let mut lab = TestLab::with(options);
    let away = lab.topology().spare_relay();
    let detour = Detour::start(&away, detour_address(), spare_relay_address(), FAR).unwrap();
    lab.form_party().unwrap();
    lab.wait_for_paths().unwrap();
    lab.wait_for_traffic((1, 2), PATIENCE);
    (lab, detour)
}

fn wait_for_relays(lab: &TestLab, relay: &str, standby: Option<&str>) {
    let uses = |from, to| {
        lab.member(from, to).is_ok_and(|member| {
            member.relay.as_deref() == Some(relay)
                && (standby.is_none() || member.standby.as_deref() == standby)
        })
    };
    let good = wait_until(PATIENCE, || uses(1, 2) && uses(2, 1));
    let shown = lab.lanrage_output(Role::Peer(1), &["relays"]).unwrap();
    assert!(good, "the pair is not relayed by {relay}, standby {standby:?}:\n{}{shown}", lab.explain_paths());
}

/// A pair that moves to a relay may lose what is on its way (docs/limits.md): not more than a fifth of a second's beats.
fn moves_quickly(beats: &Beats) {
    let lost = beats.count.sent - beats.count.received;
    println!("moved: {lost} of {} lost, longest silence {:?}", beats.count.sent, beats.longest_gap);
    assert!(lost <= 10, "{lost} lost, longest silence {:?}", beats.longest_gap);
}

/// A game that goes on while something happens.
fn play(lab: &TestLab, event: impl FnOnce()) -> Beats {
    let pulse = Pulse::start(&lab.station(1), &lab.station(2), 37016, BEAT).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    event();
    std::thread::sleep(Duration::from_secs(2));
    pulse.stop()
}

fn relay_of(lab: &TestLab, n: u8, name: &str) -> RelayChoiceStatus {
    let party = lab.daemon_status(Role::Peer(n)).unwrap().party.unwrap();
    party.relays.into_iter().find(|relay| relay.name == name).unwrap()
}

#[test]
fn the_nearer_relay_is_used_and_an_emptied_one_is_left_in_time() {
    let (mut lab, _detour) = party("choice");
    wait_for_relays(&lab, "lab", Some("away"));
    let (near, far) = (relay_of(&lab, 1, "lab"), relay_of(&lab, 1, "away"));
    assert!(near.held && far.held, "both are bound: {near:?} {far:?}");
    assert!(far.rtt_ms.unwrap() >= near.rtt_ms.unwrap() + 40.0, "{near:?} {far:?}");
    assert_eq!((near.members, far.standby_for, far.region.as_str()), (1, 1, "far"));

    // the standby learns the session soon after it is chosen
    std::thread::sleep(Duration::from_secs(3));
    let beats = play(&lab, || {
        let out = lab.lanrage_output(Role::Relay, &["relay", "drain"]).unwrap();
        assert!(out.contains("The relay is empty"), "{out}");
        wait_for_relays(&lab, "away", None);
    });
    moves_quickly(&beats);

    // emptied, it has ended; it is wanted again as soon as it is back
    lab.restart(Role::Relay).unwrap();
    let beats = play(&lab, || {
        wait_for_relays(&lab, "lab", Some("away"));
    });
    moves_quickly(&beats);
}

#[test]
fn a_dead_relay_is_replaced_while_a_game_goes_on() {
    let (mut lab, _detour) = party("failover");
    wait_for_relays(&lab, "lab", Some("away"));
    std::thread::sleep(Duration::from_secs(3));
    // its machine is gone: no goodbye, and nothing in its kernel forwards any more
    let cut =
        |lab: &TestLab, state: &str| lab.topology().relay().ip(&format!("link set eth0 {state}")).unwrap();
    let beats = play(&lab, || {
        cut(&lab, "down");
        wait_for_relays(&lab, "away", None);
    });
    println!("longest silence when the relay died: {:?}", beats.longest_gap);
    let lost = beats.count.sent - beats.count.received;
    assert!(lost > 0, "the relay was not in use");
    lab.wait_for_traffic((1, 2), PATIENCE);
    lab.wait_for_traffic((2, 1), PATIENCE);
    let why = lab.member(1, 2).unwrap().relay_why.unwrap();
    assert!(why.contains("lab gives no answer"), "{why}");

    cut(&lab, "up");
    lab.topology().relay().ip("route replace default via 192.0.2.5").unwrap();
    lab.restart(Role::Relay).unwrap();
    wait_for_relays(&lab, "lab", Some("away"));
    lab.wait_for_traffic((1, 2), PATIENCE);
}
