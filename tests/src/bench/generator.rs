//! A packet source and a counting sink in the kernel, fast enough not to be what is measured.

use crate::frames::udp_frame;
use crate::lab::netns::Namespace;
use crate::veth;
use anyhow::{Context, Result};
use aya::maps::{Array, MapData, PerCpuArray, ProgramArray};
use aya::programs::{TestRun as _, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, TestRunAttrs, TestRunOptions};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// Words of the frame that the generator writes afresh each time: pages come back as the last receiver left them.
const TEMPLATE_WORDS: usize = 13;
/// Frames a system call.
const REPEAT: u32 = 50_000;
/// Frames a batch, as a driver would hand over.
const BATCH: u32 = 64;
/// Where WireGuard begins.
const WIREGUARD_AT: usize = 42;

/// The kernel side of the benchmark.
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
}

/// What flows: WireGuard data from one address to another, spread over `flows` receiver indexes.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// Sender.
    pub source: SocketAddrV4,
    /// To where it sends.
    pub destination: SocketAddrV4,
    /// The first flow's receiver index; the others follow.
    pub index: u32,
    /// Number of flows.
    pub flows: u32,
    /// Bytes of UDP payload.
    pub payload: usize,
    /// Destination port at the sink.
    pub sink_port: u16,
}

impl Traffic {
    fn message(&self) -> Vec<u8> {
        let mut message = vec![0; self.payload];
        message[0] = 4;
        message
    }

    /// The frame for receiver index 0.
    pub fn frame(&self) -> Vec<u8> {
        udp_frame(self.source, self.destination, &self.message())
    }
}

impl Programs {
    /// Loads them from where `cargo xtask build-ebpf` leaves them.
    pub fn load() -> Result<Self> {
        let object = veth::bpf_object("xdp-bench")?;
        let bytes = std::fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
        let mut ebpf =
            EbpfLoader::new().load(&bytes).context("cannot load the benchmark's kernel programs")?;
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

    /// Prepares the source. MAC addresses must be those of the link between `egress` and its other end.
    pub fn set_traffic(&mut self, traffic: &Traffic, macs: [u8; 12], egress: u32) -> Result<()> {
        let mut frame = traffic.frame();
        frame[..12].copy_from_slice(&macs);
        let mut words = [0u32; TEMPLATE_WORDS];
        for (word, bytes) in words.iter_mut().zip(frame.chunks_exact(4)) {
            *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        let mut template: Array<&mut MapData, [u32; TEMPLATE_WORDS]> =
            self.map_mut("TEMPLATE")?.try_into()?;
        template.set(0, words, 0)?;
        let port = u32::from(traffic.sink_port.to_be());
        let mut settings: Array<&mut MapData, [u32; 4]> = self.map_mut("SETTINGS")?.try_into()?;
        settings.set(0, [egress, traffic.flows, port, traffic.index], 0)?;
        Ok(())
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
        let prepare = program(&mut self.ebpf, "prepare")?;
        let result =
            prepare.test_run(TestRunOptions { data_in: Some(frame), repeat, ..Default::default() })?;
        Ok(result.duration.as_nanos() as f64)
    }

    /// Sends for as long as asked, from a core of its own; gives the frames sent and the time it took.
    pub fn generate(
        &mut self,
        namespace: &Namespace,
        frame: &[u8],
        ingress: u32,
        time: Duration,
    ) -> Result<(u64, Duration)> {
        let generate = program(&mut self.ebpf, "generate")?;
        namespace.run(move || {
            pin_to(0);
            let start = Instant::now();
            let mut sent = 0;
            while start.elapsed() < time {
                let context = context(frame.len() as u32, ingress);
                let options = TestRunOptions {
                    data_in: Some(frame),
                    ctx_in: Some(&context),
                    repeat: REPEAT,
                    attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                    ..Default::default()
                };
                generate.test_run(options).context("live frames: needs Linux 5.18 or newer")?;
                sent += u64::from(REPEAT);
            }
            Ok((sent, start.elapsed()))
        })?
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

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program `{name}`"))?;
    Ok(program.try_into()?)
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

const _: () = assert!(WIREGUARD_AT + 8 <= TEMPLATE_WORDS * 4);
