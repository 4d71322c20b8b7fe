//! Every game that a LAN can carry, over both lanes. Needs root.
#![allow(clippy::unwrap_used)]

use lanrage_tests::games::report::{Kind, Report};
use lanrage_tests::games::{LaneKind, run};

/// Fewer would mean that profiles were lost.
const GAMES: usize = 45;

#[test]
fn every_game_plays_over_both_lanes() {
    let rows =
        LaneKind::ALL.into_iter().flat_map(|lane| run(lane).unwrap_or_else(|error| panic!("{error:#}")));
    let report = Report { rows: rows.collect() };
    println!("{}", report.table(false));
    assert_eq!(report.red().collect::<Vec<_>>(), Vec::<&_>::new());
    assert!(report.green(Kind::LanList) >= GAMES);
}
