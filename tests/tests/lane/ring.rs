//! Programs that repeat broadcasts between networks, on two members' machines that share one.

use super::*;
use crate::support::repeater::{on, repeat};
use std::sync::atomic::{AtomicBool, Ordering};

const PORT: u16 = 35_000;

/// What both have sent into the party, and how much of it was kept back.
fn sent(lab: &TestLab) -> (u64, u64) {
    let both = [1, 2].map(|n| {
        let status = status(lab, n);
        let own = status.trace.iter().filter(|it| it.own && it.port == PORT);
        (own.map(|it| it.copied).sum::<u64>(), status.dropped.get("looped").copied().unwrap_or_default())
    });
    (both[0].0 + both[1].0, both[0].1 + both[1].1)
}

/// One question goes round and round, unless the lane ends it.
pub fn dies(lab: &TestLab) {
    let (ana, ben) = (peer(lab, 1), peer(lab, 2));
    let second = [1, 2].map(|n| Ipv4Addr::new(192, 168, 60, n));
    ana.ip(&format!("link add eth1 type veth peer name eth1 netns {}", ben.name())).unwrap();
    for (place, address) in [(&ana, second[0]), (&ben, second[1])] {
        place.ip(&format!("link set eth1 up\naddr add {address}/24 brd + dev eth1")).unwrap();
    }
    if status(lab, 1).mode == LaneMode::Kernel {
        let is_watched = || [&ana, &ben].iter().all(|place| attached(place, "eth1") == ["nic_egress"]);
        assert!(wait_until(PATIENCE * 2, is_watched));
    }
    let ends = [(&ana, 1, second[0]), (&ben, 2, second[1])].map(|(place, n, home)| {
        (["lanrage0", "eth1"].map(|interface| on(place, interface, PORT)), [lab.overlay(n).unwrap(), home])
    });
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for ([party, home], own) in &ends {
            scope.spawn(|| repeat((party, home), PORT, *own, &stop));
            scope.spawn(|| repeat((home, party), PORT, *own, &stop));
        }
        game(&ana, 4031).send_to(b"who is there?", (EVERYBODY, PORT)).unwrap();
        // by then it has gone round, and what was counted is told
        std::thread::sleep(Duration::from_secs(2));
        let went_round = wait_until(PATIENCE, || sent(lab).1 > 0);
        let then = sent(lab);
        std::thread::sleep(Duration::from_secs(1));
        let now = sent(lab);
        stop.store(true, Ordering::Relaxed);
        assert!(went_round && (2..=3).contains(&then.0) && then == now, "{then:?} {now:?}");
    });
    ana.ip("link del eth1").unwrap();
}
