//! Labs that go away with the test that made them.
#![allow(dead_code, reason = "each test program uses a part")]

pub mod game;
pub mod repeater;

use lanrage_tests::lab::process::{self, wait_until};
use lanrage_tests::lab::role::Role;
use lanrage_tests::lab::running::{Lab, Options, down};
use lanrage_tests::lab::site::Site;
use lanrage_tests::lab::traffic::{Station, ping};
use std::ops::{Deref, DerefMut};
use std::process::Output;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Two labs at once would disturb each other's timing on a small machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A lab for one test.
pub struct TestLab {
    lab: Lab,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl TestLab {
    /// Daemons, but no party yet.
    pub fn up(name: &str, nats: &[impl Into<Site> + Copy]) -> Self {
        Self::with(Options::new(name, nats))
    }

    pub fn with(options: Options) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        down(&options.name).unwrap_or_else(|error| panic!("{error:#}"));
        Self { lab: Lab::up(&options).unwrap_or_else(|error| panic!("{error:#}")), _turn: Some(turn) }
    }

    /// Daemons that have hardly anything to do, and so may run beside another lab.
    pub fn beside(options: &Options) -> Self {
        down(&options.name).unwrap_or_else(|error| panic!("{error:#}"));
        Self { lab: Lab::up(options).unwrap_or_else(|error| panic!("{error:#}")), _turn: None }
    }

    /// Everybody is in a party and has a path to everybody.
    pub fn party(name: &str, nats: &[impl Into<Site> + Copy]) -> Self {
        Self::party_with(Options::new(name, nats))
    }

    pub fn party_with(options: Options) -> Self {
        let count = options.sites.len();
        let mut lab = Self::with(options);
        lab.form_party().unwrap_or_else(|error| panic!("{error:#}"));
        lab.wait_for_paths().unwrap_or_else(|error| panic!("{error:#}"));
        let peers = 1..=u8::try_from(count).unwrap();
        for pair in peers.clone().flat_map(|a| peers.clone().map(move |b| (a, b))).filter(|(a, b)| a < b) {
            lab.wait_for_traffic(pair, Duration::from_secs(20));
        }
        lab
    }

    /// Waits until packets cross the tunnel from one peer to the other and back.
    pub fn wait_for_traffic(&self, (from, to): (u8, u8), patience: Duration) {
        let (from, to) = (self.station(from), self.overlay(to).unwrap());
        let answered = || ping(&from, to, 1).unwrap().received == 1;
        assert!(wait_until(patience, answered), "no packet came back:\n{}", self.explain_paths());
    }

    pub fn station(&self, n: u8) -> Station {
        Station { namespace: self.namespace(Role::Peer(n)), address: self.overlay(n).unwrap() }
    }

    /// Runs `lanrage` for a peer, whatever comes of it.
    pub fn try_lanrage(&self, n: u8, arguments: &[&str]) -> Output {
        self.lanrage(Role::Peer(n), arguments).unwrap().output().unwrap()
    }

    /// Data packets that the relay's kernel program has forwarded so far.
    pub fn kernel_forwarded(&self) -> u64 {
        std::thread::sleep(Duration::from_millis(1500)); // the status is refreshed every second
        self.daemon_status(Role::Relay).unwrap().relay.unwrap().kernel_forwarded
    }
}

impl Deref for TestLab {
    type Target = Lab;
    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl DerefMut for TestLab {
    fn deref_mut(&mut self) -> &mut Lab {
        &mut self.lab
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let peers = self.lab.peers().iter().map(|peer| Role::Peer(peer.n));
            for role in [Role::Control, Role::Relay].into_iter().chain(peers) {
                eprintln!("── log of {role}\n{}", process::tail(&self.lab.log(role), 40));
            }
        }
        if let Err(error) = down(&self.lab.state().name) {
            eprintln!("cannot take the lab down: {error:#}");
        }
    }
}
