//! A few pairs of the matrix: each gets the path that its routers allow. Needs root.
#![allow(clippy::unwrap_used)]

use lanrage_tests::lab::matrix::{Pair, expect, run};

/// Routers, verdict and path. Those with one verdict but different NATs stand for the whole row.
const PAIRS: [(&str, &str, &str); 10] = [
    ("eim+apdf+random,eim", "punch", "direct"),
    ("eim+eif+random,apdm+apdf+random", "punch", "direct"),
    ("eim/cgn:eim+eif+random,eim+adf+random", "punch", "direct"),
    ("eim,with:1", "lan", "direct"),
    ("eim+apdf+random,apdm+apdf+sequential", "predicted", "direct"),
    ("apdm+apdf+sequential,apdm+apdf+preserving", "predicted", "direct"),
    // to the lab's relay, which has one address, this router looks as if a punch would do
    ("eim,adm+adf+sequential", "predicted", "direct"),
    ("symmetric,eim", "birthday", "direct"),
    ("apdm+apdf+random,symmetric", "relay", "relay"),
    ("udp-blocked,eim+eif+no-udp", "relay", "tls"),
];

#[test]
fn each_pair_gets_the_path_that_its_routers_allow() {
    let pairs: Vec<Pair> = PAIRS.iter().map(|(pair, ..)| pair.parse().unwrap()).collect();
    let matrix = run("pairs", &pairs, |row| println!("{row}")).unwrap_or_else(|error| panic!("{error:#}"));
    for (row, (pair, verdict, path)) in matrix.pairs.iter().zip(PAIRS) {
        assert_eq!((expect::word(row.verdict), row.path), (verdict, path), "{pair}");
        assert_eq!(row.direct_ms.is_some(), path == "direct", "{pair}");
        assert_eq!(row.passage.duplicates, 0, "{pair}: the tunnel lets nothing through twice");
    }
    assert_eq!((matrix.possible, matrix.reached), (8, 8));
}
