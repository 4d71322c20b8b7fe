//! The discovery trace, as the asker and the machine that is asked tell it.

use super::*;
use lanrage_common::api::{LaneConversation, LaneListener, LaneReceiver, LaneRung};

/// Address of peer 2 at home.
const BENS_HOME: Ipv4Addr = Ipv4Addr::new(192, 168, 102, 2);
const TRACE: Duration = Duration::from_secs(15);

/// What a peer tells of its own packets to a port, or of another device's.
fn told(lab: &TestLab, n: u8, port: u16, own: bool) -> Option<LaneConversation> {
    status(lab, n).trace.into_iter().find(|it| it.port == port && it.own == own)
}

/// Waits until Ana tells that of Ben.
fn at_ben(lab: &TestLab, port: u16, is_met: impl Fn(&LaneReceiver) -> bool) -> LaneConversation {
    let ben = lab.overlay(2).unwrap();
    let found = || {
        told(lab, 1, port, true).filter(|it| {
            (it.seen, it.copied) == (3, 6) && it.receivers.iter().any(|at| at.member == ben && is_met(at))
        })
    };
    assert!(wait_until(TRACE, || found().is_some()), "{port}: {:?}", told(lab, 1, port, true));
    found().unwrap()
}

/// Every rung, and what is said where one is missing.
pub fn every_rung(lab: &TestLab) {
    let (ana, ben) = (peer(lab, 1), peer(lab, 2));
    let at_ana = lab.overlay(1).unwrap();
    let asker = game(&ana, 4010);
    let ask = |number: u8, to, port| asker.send_to(&[number; 13], (to, port)).unwrap();
    let (_elsewhere, server) = (game_at(&ben, BENS_HOME, 30_101), game(&ben, 30_102));
    let _outside = game(&ben, 30_103);
    for number in 0..3 {
        ask(number, EVERYBODY, 30_100);
        ask(number, EVERYBODY, 30_101);
        ask(number, EVERYBODY, 30_102);
        ask(number, GROUP, 30_103);
    }
    ask(3, EVERYBODY, 138);
    assert_eq!(receive(&server, 3).len(), 3);
    server.send_to(b"me", (at_ana, 4010)).unwrap();

    for (port, listener, code) in [
        (30_100, LaneListener::Nobody, Some("nobody_listens")),
        (30_101, LaneListener::Elsewhere, Some("bound_elsewhere")),
        (30_102, LaneListener::Listening, None),
        (30_103, LaneListener::NotJoined, Some("not_joined")),
    ] {
        let is_met = |at: &LaneReceiver| {
            let is_joined_right = at.joined == (code == Some("not_joined")).then_some(false);
            at.delivered == Some(3)
                && at.listener == listener
                && (at.answered == 1 || code.is_some())
                && is_joined_right
        };
        let told = at_ben(lab, port, is_met);
        assert_eq!((told.seen, told.copied, told.dropped), (3, 6, 0), "{told:?}");
        let rung = if code.is_some() { LaneRung::Delivered } else { LaneRung::Answered };
        let ben = told.receivers.into_iter().find(|at| at.member == lab.overlay(2).unwrap()).unwrap();
        assert_eq!((ben.rung, ben.missing.as_ref().map(|it| it.code.as_str())), (rung, code));
        assert!(ben.missing.is_none_or(|it| it.message.contains("'s machine got it 3 times, but")));
    }
    let dropped = || told(lab, 1, 138, true).filter(|it| it.reason.as_deref() == Some("netbios"));
    assert!(wait_until(TRACE, || dropped().is_some()));
    assert_eq!((dropped().unwrap().rung, dropped().unwrap().copied), (LaneRung::Seen, 0));
    // the machine that was asked knows it too
    let heard = told(lab, 2, 30_100, false).unwrap();
    assert_eq!((heard.from, heard.seen, heard.listener), (at_ana, 3, LaneListener::Nobody));
    commands(lab);
}

fn commands(lab: &TestLab) {
    let shown = lab.lanrage_output(Role::Peer(1), &["trace", "30100", "--once"]).unwrap();
    assert!(shown.contains("start the game's server") && !shown.contains("30101"), "{shown}");
    let json = lab.lanrage_output(Role::Peer(1), &["trace", "30102", "--once", "--json"]).unwrap();
    let told: Vec<LaneConversation> = serde_json::from_str(&json).unwrap();
    assert_eq!((told.len(), told[0].rung), (1, LaneRung::Answered));
    let nothing = lab.lanrage_output(Role::Peer(1), &["trace", "minecraft", "--once"]).unwrap();
    assert!(nothing.starts_with("Nothing seen of minecraft yet"), "{nothing}");
}
