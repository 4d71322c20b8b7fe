//! A packet source and a counting sink in the kernel, fast enough not to be what is measured.

#[path = "../../../lanrage-ebpf/src/bench/job.rs"]
#[rustfmt::skip]
mod job;

use crate::frames::udp_frame;
use crate::lab::netns::Namespace;
use crate::veth;
use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData, PerCpuArray, ProgramArray};
use aya::programs::{TestRun as _, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, TestRunAttrs, TestRunOptions};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Frames a system call when there is no rate to keep.
const CHUNK: u32 = 20_000;
/// At most how much a generator that keeps a rate sends at once; each call has a price.
const PACE: Duration = Duration::from_micros(200);
/// Frames a batch, as a driver would hand over.
const BATCH: u32 = 64;
/// Where the UDP payload begins.
const PAYLOAD_AT: usize = 42;

/// The kernel side of the benchmark.
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
}

/// Datagrams of one kind, spread over flows. Flow `n` has the source address and port of [`Traffic::source_of`] and the
/// receiver index of [`Traffic::index_of`].
#[derive(Debug, Clone)]
pub struct Traffic {
    /// The first flow's sender.
    pub source: SocketAddrV4,
    /// To where all send.
    pub destination: SocketAddrV4,
    /// The first flow's receiver index.
    pub index: u32,
    /// From one flow's receiver index to the next one's.
    pub stride: u32,
    /// Number of flows.
    pub flows: u32,
    /// Generators, each of which sends its own part of the flows.
    pub generators: u32,
    /// The UDP payload of the first flow.
    pub payload: Vec<u8>,
    /// Where in it the receiver index lies.
    pub index_at: usize,
    /// Destination ports at the sink.
    pub sink_ports: std::ops::Range<u16>,
}

impl Traffic {
    /// WireGuard data, `payload` bytes of UDP payload each.
    pub fn wireguard(source: SocketAddrV4, destination: SocketAddrV4, flows: u32, payload: usize) -> Self {
        let mut message = vec![0; payload];
        message[0] = 4;
        let sink_ports = 0..u16::MAX;
        Self {
            source,
            destination,
            index: 0,
            stride: 1,
            flows,
            generators: 1,
            payload: message,
            index_at: 4,
            sink_ports,
        }
    }

    /// STUN Binding requests, padded to the length of their answers: shorter ones are not answered by the kernel program.
    pub fn stun(source: SocketAddrV4, destination: SocketAddrV4, flows: u32) -> Self {
        let header = [0, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        let padding = [0, 0x26, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        let payload = [&header[..], &padding].concat();
        let sink_ports = source.port()..source.port() + job::PORTS as u16;
        Self { payload, index_at: 0, sink_ports, ..Self::wireguard(source, destination, flows, 32) }
    }

    /// Where a flow comes from.
    pub fn source_of(&self, flow: u32) -> SocketAddrV4 {
        let address = Ipv4Addr::from_bits(self.source.ip().to_bits() + flow / job::PORTS);
        SocketAddrV4::new(address, self.source.port() + (flow % job::PORTS) as u16)
    }

    /// A flow's receiver index.
    pub fn index_of(&self, flow: u32) -> u32 {
        self.index.wrapping_add(flow.wrapping_mul(self.stride))
    }

    /// Leaves the first flow out.
    pub fn skip_first(&mut self) {
        self.source = self.source_of(1);
        self.index = self.index_of(1);
        self.flows -= 1;
    }

    /// Addresses that the flows come from.
    pub fn sources(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let first = self.source.ip().to_bits();
        (0..self.flows.div_ceil(job::PORTS)).map(move |at| Ipv4Addr::from_bits(first + at))
    }

    /// The first flow's frame, between those MAC addresses.
    pub fn frame(&self, macs: [u8; 12]) -> Vec<u8> {
        let mut payload = self.payload.clone();
        if self.index_at > 0 {
            payload[self.index_at..][..4].copy_from_slice(&self.index.to_le_bytes());
        }
        let mut frame = udp_frame(self.source, self.destination, &payload);
        frame[..12].copy_from_slice(&macs);
        frame
    }

    /// What the programs are told.
    fn job(&self, frame: &[u8]) -> Result<[u64; job::WORDS]> {
        ensure!(frame.len() >= job::TEMPLATE * 8, "a frame of {} bytes is too short", frame.len());
        let index_at = if self.index_at == 0 { 0 } else { PAYLOAD_AT + self.index_at };
        ensure!(index_at + 4 <= job::TEMPLATE * 8, "the receiver index lies too far in");
        let mut job = [0; job::WORDS];
        for (word, bytes) in job.iter_mut().zip(frame.chunks_exact(8)).take(job::TEMPLATE) {
            *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        job[job::FLOWS] = self.flows.into();
        job[job::SHARE] = (self.flows / self.generators).into();
        job[job::INDEX_AT] = index_at as u64;
        job[job::FIRST_INDEX] = self.index.into();
        job[job::INDEX_STRIDE] = self.stride.into();
        job[job::FIRST_ADDRESS] = self.source.ip().to_bits().into();
        job[job::FIRST_PORT] = self.source.port().into();
        job[job::SINK_PORT] = self.sink_ports.start.into();
        job[job::SINK_PORTS] = self.sink_ports.len() as u64;
        Ok(job)
    }
}

/// How to send.
#[derive(Debug, Clone, Copy)]
pub struct Blast {
    /// For how long.
    pub time: Duration,
    /// Generators, each on a core of its own.
    pub cores: usize,
    /// Packets a second of all of them; as many as they can without.
    pub pps: Option<f64>,
}

/// What was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Frames.
    pub frames: u64,
    /// The longest that one generator took.
    pub took: Duration,
}

/// From which interface to send what.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    /// Where the interface is.
    pub namespace: &'a Namespace,
    /// Its index.
    pub link: u32,
    /// The first flow's frame.
    pub frame: Vec<u8>,
}

impl Programs {
    /// Loads them from where `cargo xtask build-ebpf` leaves them.
    pub fn load() -> Result<Self> {
        let mut ebpf = load_object(&[])?;
        for name in ["generate", "prepare", "empty", "sink"] {
            program(&mut ebpf, name)?.load().with_context(|| format!("the kernel refused `{name}`"))?;
        }
        Ok(Self { ebpf })
    }

    /// Attaches one of them in the driver of an interface. It stays until these programs are dropped.
    pub fn attach(&mut self, name: &str, namespace: &Namespace, link: &str) -> Result<()> {
        let index = veth::ifindex(namespace, link)?;
        let xdp = program(&mut self.ebpf, name)?;
        namespace
            .run(|| xdp.attach_to_if_index(index, XdpMode::Driver).map(drop))?
            .with_context(|| format!("cannot attach `{name}` to {link}"))
    }

    /// Makes a test run start at once. It puts its program among those that the kernel jumps to directly, and takes it out
    /// again, which means waiting for all cores each time; a program that is attached somewhere is there already.
    pub fn hold_generator(&mut self, namespace: &Namespace) -> Result<()> {
        namespace.ip("link add g0 type veth peer name g1")?;
        self.attach("generate", namespace, "g0")
    }

    /// Prepares source and sink.
    pub fn set_traffic(&mut self, traffic: &Traffic, frame: &[u8]) -> Result<()> {
        set_job(&mut self.ebpf, traffic, frame)
    }

    /// Puts a program behind `prepare`.
    pub fn set_next(&mut self, next: &Xdp) -> Result<()> {
        let fd = next.fd()?.try_clone()?;
        let mut programs: ProgramArray<&mut MapData> = self.map_mut("NEXT")?.try_into()?;
        programs.set(0, &fd, 0)?;
        Ok(())
    }

    /// Puts the empty program behind `prepare`.
    pub fn set_next_empty(&mut self) -> Result<()> {
        let fd = program(&mut self.ebpf, "empty")?.fd()?.try_clone()?;
        let mut programs: ProgramArray<&mut MapData> = self.map_mut("NEXT")?.try_into()?;
        programs.set(0, &fd, 0)?;
        Ok(())
    }

    /// Nanoseconds a run of `prepare` with what is behind it takes.
    pub fn time_prepared(&mut self, frame: &[u8], repeat: u32) -> Result<f64> {
        time(program(&mut self.ebpf, "prepare")?, frame, repeat)
    }

    /// Sends; comes back when all generators are done.
    pub fn generate(&mut self, source: &Source<'_>, blast: Blast) -> Result<Sent> {
        let generate: &Xdp = program(&mut self.ebpf, "generate")?;
        std::thread::scope(|scope| {
            let one =
                |core| move || source.namespace.enter().and_then(|()| send(generate, source, blast, core));
            let generators: Vec<_> = (0..blast.cores).map(|core| scope.spawn(one(core))).collect();
            let mut all = Sent { frames: 0, took: Duration::ZERO };
            for generator in generators {
                let sent = generator.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                all = Sent { frames: all.frames + sent.frames, took: all.took.max(sent.took) };
            }
            Ok(all)
        })
    }

    /// Frames that the sink has counted.
    pub fn sunk(&self) -> Result<u64> {
        let map = self.ebpf.map("SUNK").context("no map SUNK")?;
        let sunk: PerCpuArray<&MapData, u64> = map.try_into()?;
        Ok(sunk.get(&0, 0)?.iter().sum())
    }

    fn map_mut(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.ebpf.map_mut(name).with_context(|| format!("no map {name}"))
    }
}

/// Sends from one core.
fn send(generate: &Xdp, source: &Source<'_>, blast: Blast, core: usize) -> Result<Sent> {
    pin_to(core);
    let context = context(source.frame.len() as u32, source.link);
    let share = blast.pps.map(|pps| pps / blast.cores as f64);
    let chunk = share.map_or(CHUNK, |pps| ((pps * PACE.as_secs_f64()) as u32).clamp(1, CHUNK));
    let start = Instant::now();
    let mut frames = 0;
    while start.elapsed() < blast.time {
        let options = TestRunOptions {
            data_in: Some(&source.frame),
            ctx_in: Some(&context),
            repeat: chunk,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..Default::default()
        };
        generate.test_run(options).context("live frames: needs Linux 5.18 or newer")?;
        frames += u64::from(chunk);
        if let Some(pps) = share {
            wait_until(start + Duration::from_secs_f64(frames as f64 / pps));
        }
    }
    Ok(Sent { frames, took: start.elapsed() })
}

/// Sleeps most of the way: a waiting generator must not keep the core from what it shares it with.
fn wait_until(due: Instant) {
    let early = due.saturating_duration_since(Instant::now());
    if early > Duration::from_micros(60) {
        std::thread::sleep(early - Duration::from_micros(55));
    }
}

/// Loads the object with some maps given other sizes; its programs are not yet in the kernel.
pub fn load_object(sizes: &[(&'static str, u32)]) -> Result<Ebpf> {
    let object = veth::bpf_object("xdp-bench")?;
    let bytes = std::fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    let mut loader = EbpfLoader::new();
    for (map, entries) in sizes {
        loader.map_max_entries(map, *entries);
    }
    loader.load(&bytes).context("cannot load the benchmark's kernel programs")
}

/// Tells the object's programs what flows.
pub fn set_job(ebpf: &mut Ebpf, traffic: &Traffic, frame: &[u8]) -> Result<()> {
    let words = traffic.job(frame)?;
    let mut job: Array<&mut MapData, [u64; job::WORDS]> =
        ebpf.map_mut("JOB").context("no map JOB")?.try_into()?;
    job.set(0, words, 0)?;
    Ok(())
}

/// One of the object's programs.
pub fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program `{name}`"))?;
    Ok(program.try_into()?)
}

/// Nanoseconds that a program takes for a frame.
pub fn time(program: &Xdp, frame: &[u8], repeat: u32) -> Result<f64> {
    let result = program.test_run(TestRunOptions { data_in: Some(frame), repeat, ..Default::default() })?;
    Ok(result.duration.as_nanos() as f64)
}

/// A `struct xdp_md` for a frame of that length that came in by that interface.
fn context(length: u32, ingress: u32) -> Vec<u8> {
    [0, length, 0, ingress, 0, 0].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
}

/// Moves the calling thread to one core.
pub fn pin_to(core: usize) {
    let mut cores = CpuSet::new();
    // On a machine with fewer cores the scheduler decides.
    let _ = cores.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores));
}
