//! The process that carries the frames of impaired links. It lives in a namespace of its own, in which each such link
//! has two ends: `LINKa` and `LINKb`.

use super::capture::{Capture, MAX_PACKET};
use super::impairment::{Direction, ImpairedLink};
use super::netns::Namespace;
use super::remote::Service;
use anyhow::{Context, Result, bail};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::Write as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

const SERVICE: Service = Service { name: "emulator" };
/// Frames under way in one direction; more are lost, as in any queue.
const QUEUE: usize = 10_000;

/// Starts to carry the frames of these links, whose ends are there already.
pub fn start(namespace: &Namespace, links: &[ImpairedLink]) -> Result<()> {
    let links: Vec<String> = links.iter().map(ToString::to_string).collect();
    SERVICE.start(namespace, &links.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Impairs a link otherwise from now on; its chance begins anew.
pub fn change(namespace: &Namespace, link: &ImpairedLink) -> Result<()> {
    let answer = SERVICE.ask(namespace, &format!("change {link}"))?;
    answer.map(drop).context("no link of this lab is emulated: start it with --link, e.g. --link w1=delay:0")
}

/// Is the process.
pub fn run(links: &[ImpairedLink]) -> Result<()> {
    let mut cables = BTreeMap::new();
    for link in links {
        cables.insert(link.link.clone(), Cable::open(link)?);
    }
    SERVICE.serve(|request| {
        let Some(("change", link)) = request.split_once(' ') else { bail!("unknown request {request:?}") };
        let link: ImpairedLink = link.parse()?;
        let cable = cables.get(&link.link).with_context(|| {
            format!("{} is not emulated, but {:?} are", link.link, cables.keys().collect::<Vec<_>>())
        })?;
        cable.change(&link);
        Ok(String::new())
    })
}

/// Both directions of a link.
struct Cable([Arc<Lane>; 2]);

impl Cable {
    fn open(link: &ImpairedLink) -> Result<Self> {
        let ends = ["a", "b"].map(|end| Capture::frames(&format!("{}{end}", link.link)).map(Arc::new));
        let [a, b] = ends;
        let (a, b) = (a?, b?);
        let lane = |is_back| Arc::new(Lane::new(Direction::new(link.impairment, is_back)));
        let lanes = [lane(false), lane(true)];
        carry(&lanes[0], &a, &b);
        carry(&lanes[1], &b, &a);
        Ok(Self(lanes))
    }

    fn change(&self, link: &ImpairedLink) {
        for (lane, is_back) in self.0.iter().zip([false, true]) {
            lane.lock().direction = Direction::new(link.impairment, is_back);
        }
    }
}

/// One direction of a link with what is under way.
struct Lane {
    state: Mutex<State>,
    arrived: Condvar,
}

struct State {
    direction: Direction,
    /// By arrival, then by order of sending.
    waiting: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    count: u64,
}

impl Lane {
    fn new(direction: Direction) -> Self {
        let state = State { direction, waiting: BinaryHeap::new(), count: 0 };
        Self { state: Mutex::new(state), arrived: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(&self, frame: &[u8]) {
        let mut state = self.lock();
        let arrival = state.direction.arrival(Instant::now());
        if let Some(due) = arrival.filter(|_| state.waiting.len() < QUEUE) {
            state.count += 1;
            let entry = Reverse((due, state.count, frame.to_vec()));
            state.waiting.push(entry);
            self.arrived.notify_one();
        }
    }

    /// Waits for the next frame that is due.
    fn let_out(&self) -> Vec<u8> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let due = state.waiting.peek().map(|Reverse((due, ..))| *due);
            state = match due {
                Some(due) if due <= now => {
                    if let Some(Reverse((_, _, frame))) = state.waiting.pop() {
                        return frame;
                    }
                    state
                }
                Some(due) => {
                    self.arrived.wait_timeout(state, due - now).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// A thread that takes frames in at one end, and one that lets them out at the other.
fn carry(lane: &Arc<Lane>, from: &Arc<Capture>, to: &Arc<Capture>) {
    let (inbound, from) = (lane.clone(), from.clone());
    std::thread::spawn(move || {
        let mut buffer = vec![0; MAX_PACKET];
        loop {
            match from.receive(&mut buffer) {
                Ok(length) => inbound.take_in(&buffer[..length]),
                Err(error) => {
                    let _ = writeln!(std::io::stderr(), "error: {error:#}"); // whoever started it may have gone
                    std::process::exit(1); // half a link would be a riddle
                }
            }
        }
    });
    let (outbound, to) = (lane.clone(), to.clone());
    std::thread::spawn(move || {
        loop {
            let frame = outbound.let_out();
            to.send(&frame); // an end that is down loses it
        }
    });
}
