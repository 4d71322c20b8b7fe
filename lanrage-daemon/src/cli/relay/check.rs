//! `lanrage relay check`: what this host offers a relay, for people.

use crate::cli::arguments::Check;
use crate::cli::failure::Failure;
use crate::cli::screen::{Screen, Style, wrap};
use crate::config::{self, RelayConfig, Sources};
use crate::datapath::host::interface::Interface;
use crate::datapath::host::kernel::Kernel;
use crate::datapath::host::ports::Port;
use crate::datapath::host::verdict::{Basis, Weight};
use crate::datapath::host::{self, Survey, Surveyed, drivers, trial};
use lanrage_common::api::RelayMode;
use serde_json::json;

/// Column where values begin.
const INDENT: usize = 12;

pub(super) async fn run(screen: &mut Screen<'_>, check: &Check, json: bool) -> Result<u8, Failure> {
    let config = config::load(&Sources::from_process(check.config.clone(), Vec::new()))
        .map_err(|error| Failure::Local(error.to_string(), "correct it and check again".into()))?
        .config
        .relay;
    let failed =
        |error: anyhow::Error| Failure::Local(format!("{error:#}"), "`lanrage relay check --help`".into());
    let survey = host::survey(&config, check.interface.as_deref()).await.map_err(failed)?;
    let trials = if check.try_attach { try_all(&survey).map_err(failed)? } else { Vec::new() };
    let mode = overall(&survey, &trials);
    let blocked = survey.ports.iter().any(|port| port.essential && port.holder.is_some() && !port.ours);
    if json {
        let mut answer = json!(survey);
        answer["trials"] = json!(trials);
        answer["mode"] = json!(mode);
        screen.line(answer);
    } else {
        Page { screen }.print(&survey, &trials, mode, &config);
    }
    Ok(u8::from(mode == RelayMode::Userspace || blocked))
}

/// On the interfaces that the relay would use, or on the one that was named.
fn try_all(survey: &Survey) -> anyhow::Result<Vec<trial::Trial>> {
    let mut chosen: Vec<_> = survey.interfaces.iter().filter(|surveyed| surveyed.used).collect();
    if chosen.is_empty() {
        chosen = survey.interfaces.iter().collect();
    }
    let trials = chosen.into_iter().map(|surveyed| trial::attach(&surveyed.interface));
    Ok(trials.collect::<anyhow::Result<Vec<_>>>()?.concat())
}

/// All interfaces run at the hook that the weakest of them takes.
fn overall(survey: &Survey, trials: &[trial::Trial]) -> RelayMode {
    let modes = survey.interfaces.iter().map(|surveyed| {
        let tried = trials.iter().filter(|trial| trial.interface == surveyed.interface.name);
        let mut tried = tried.peekable();
        let mode = match tried.peek() {
            Some(_) => tried.find(|trial| trial.accepted).map_or(RelayMode::Userspace, |trial| trial.mode),
            None => surveyed.verdict.mode,
        };
        (surveyed.used, mode)
    });
    let modes: Vec<_> = modes.collect();
    let any_used = modes.iter().any(|(used, _)| *used);
    let counted = modes.into_iter().filter(|(used, _)| *used || !any_used).map(|(_, mode)| mode);
    counted.max_by_key(|mode| *mode as u8).unwrap_or(RelayMode::Userspace)
}

struct Page<'a, 'b> {
    screen: &'a mut Screen<'b>,
}

impl Page<'_, '_> {
    fn print(&mut self, survey: &Survey, trials: &[trial::Trial], mode: RelayMode, config: &RelayConfig) {
        self.system(survey);
        for surveyed in &survey.interfaces {
            self.interface(surveyed, survey.cpus);
        }
        for trial in trials {
            self.trial(trial);
        }
        self.screen.line("");
        if let Some(choice) = &survey.no_interface {
            self.remark(Style::Bad, &choice.reason, Some(&choice.fix));
        }
        for port in &survey.ports {
            self.port(port, config);
        }
        self.tuning(survey);
        self.screen.line("");
        self.conclusion(mode);
    }

    fn system(&mut self, survey: &Survey) {
        let Survey { kernel, privileges, cpus, clock, .. } = survey;
        self.fact("Kernel", &format!("{}, {cpus} CPU{}{}", kernel.release, plural(*cpus), features(kernel)));
        for lack in &kernel.lacks {
            let (major, minor) = lack.since;
            self.remark(
                Style::Warn,
                &format!("no {} (since Linux {major}.{minor}): {}", lack.what, lack.so),
                None,
            );
        }
        if kernel.bpffs.is_none() {
            let what = "bpffs is not mounted: a restart of the daemon interrupts forwarding";
            self.remark(Style::Warn, what, Some("mount -t bpf bpf /sys/fs/bpf"));
        }
        let user = if privileges.user == 0 { "root".into() } else { format!("user {}", privileges.user) };
        let has =
            if privileges.has.is_empty() { "none of the needed".into() } else { privileges.has.join(" ") };
        let memlock = match privileges.memlock {
            None => String::new(),
            Some(bytes) => format!(", may lock {} MiB", bytes >> 20),
        };
        self.fact("This process", &format!("{user}: {has}{memlock}"));
        if privileges.memlock.is_some() && kernel.version < (5, 11) {
            let what = "this kernel charges BPF maps to the limit of locked memory";
            self.remark(Style::Warn, what, Some("LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited"));
        }
        match (clock.synchronised, clock.error_ms) {
            (Some(true), Some(error)) => self.fact("Clock", &format!("synchronised, at most {error} ms off")),
            (Some(true), None) => self.fact("Clock", "synchronised"),
            (None, _) => self.fact("Clock", "not allowed to ask whether it is synchronised"),
            (Some(false), _) => {
                self.fact("Clock", "nobody says that it is synchronised");
                let what = "tickets are dated: a clock that is minutes off refuses every member";
                self.remark(Style::Warn, what, Some("timedatectl set-ntp true"));
            }
        }
    }

    fn interface(&mut self, surveyed: &Surveyed, cpus: u32) {
        let Surveyed { interface, used, verdict } = surveyed;
        let used = if *used { "" } else { " (not used by this configuration)" };
        self.screen.line("");
        self.fact(&interface.name, &format!("{}{used}", verdict_line(verdict.mode, verdict.basis)));
        self.detail("driver", &driver_line(interface));
        let addresses: Vec<_> = interface.addresses.iter().map(ToString::to_string).collect();
        self.detail(
            "addresses",
            if addresses.is_empty() { "none".into() } else { addresses.join(" ") }.as_str(),
        );
        let max = interface.driver.as_deref().and_then(drivers::find).and_then(|driver| driver.max_mtu);
        let max = max.map_or_else(String::new, |max| format!(", native XDP takes up to {max}"));
        self.detail("MTU", &format!("{}{max}", interface.mtu));
        match interface.queues {
            Some(queues) => self.detail(
                "queues",
                &format!("{} of {} in use, {cpus} CPU{}", queues.now, queues.max, plural(cpus)),
            ),
            None => self.detail("queues", "the driver does not tell"),
        }
        let on: Vec<_> =
            interface.offloads.iter().filter(|offload| offload.on).map(|offload| offload.name).collect();
        self.detail(
            "offloads",
            if on.is_empty() { "none that matter".into() } else { on.join(" ") }.as_str(),
        );
        let mixed = match verdict.mixed_pairs {
            Some(true) => "in the kernel: there is headroom",
            Some(false) => "in userspace",
            None => "the load-time probe will tell",
        };
        self.detail("IPv4 to v6", mixed);
        for remark in &verdict.remarks {
            let style = match remark.weight {
                Weight::Note => Style::Dim,
                Weight::Slower => Style::Warn,
                Weight::NoNative | Weight::NoKernel => Style::Bad,
            };
            self.remark(style, &remark.what, remark.fix.as_deref());
        }
    }

    fn trial(&mut self, trial: &trial::Trial) {
        let mode = mode_name(trial.mode);
        match &trial.error {
            None => self.remark(
                Style::Good,
                &format!("{} took {mode}; it is detached again", trial.interface),
                None,
            ),
            Some(error) => {
                self.remark(
                    Style::Bad,
                    &format!("{} refused {mode}: {error}", trial.interface),
                    trial.fix.as_deref(),
                );
            }
        }
    }

    fn port(&mut self, port: &Port, config: &RelayConfig) {
        let name = format!("{} {}", port.protocol.to_uppercase(), port.port);
        match &port.holder {
            None => self.fact(&name, &format!("free, for {}", port.purpose)),
            Some(holder) if port.ours => self.fact(&name, &format!("held by {holder}: a relay runs here")),
            Some(holder) => {
                self.fact(&name, &format!("taken by {holder}, wanted for {}", port.purpose));
                let (style, fix) = if port.essential {
                    (Style::Bad, format!("stop it, or set relay.listen = \"{}:3479\"", config.listen.ip()))
                } else {
                    (Style::Warn, "stop it, or set relay.tls_listen to another port; networks that block UDP rarely let others out".to_owned())
                };
                self.remark(style, "the relay cannot have that port", Some(&fix));
            }
        }
    }

    fn tuning(&mut self, survey: &Survey) {
        let improvable: Vec<_> =
            survey.tuning.iter().filter_map(|setting| Some((setting, setting.fix()?))).collect();
        let good = survey.tuning.len() - improvable.len();
        self.fact("Settings", &format!("{good} of {} as advised", survey.tuning.len()));
        for (setting, fix) in improvable {
            let what = format!("{} is {}: {}", setting.key, setting.value, setting.why);
            self.remark(Style::Dim, &what, Some(&fix));
        }
    }

    fn conclusion(&mut self, mode: RelayMode) {
        let (style, text) = match mode {
            RelayMode::XdpNative => {
                (Style::Good, "A relay here forwards in the network driver (native XDP).")
            }
            RelayMode::XdpGeneric => (
                Style::Warn,
                "A relay here forwards in the kernel's generic XDP hook: several times slower than native, several times \
                 faster than userspace.",
            ),
            RelayMode::Userspace => (
                Style::Bad,
                "A relay here forwards in USERSPACE, many times slower than the kernel could: see the lines marked !.",
            ),
        };
        for line in wrap(text, self.screen.width()) {
            let line = self.screen.paint(style, &line);
            self.screen.line(line);
        }
    }

    fn fact(&mut self, name: &str, text: &str) {
        let width = name.chars().count().max(INDENT - 1);
        let name = self.screen.paint(Style::Bold, &format!("{name:<width$}"));
        let lines = wrap(text, self.screen.width() - INDENT);
        for (number, line) in lines.iter().enumerate() {
            let head = if number == 0 { name.clone() } else { " ".repeat(INDENT - 1) };
            self.screen.line(format!("{head} {line}"));
        }
    }

    fn detail(&mut self, name: &str, text: &str) {
        for (number, line) in wrap(text, self.screen.width() - INDENT).iter().enumerate() {
            let name = if number == 0 { name } else { "" };
            self.screen.line(format!("  {name:<9} {line}"));
        }
    }

    /// What is so, marked, and below it what to type.
    fn remark(&mut self, style: Style, what: &str, fix: Option<&str>) {
        let mark = match style {
            Style::Bad | Style::Warn => "!",
            Style::Good => "+",
            _ => "-",
        };
        let width = self.screen.width() - 4;
        for (number, line) in wrap(what, width).iter().enumerate() {
            let mark = if number == 0 { self.screen.paint(style, mark) } else { " ".into() };
            self.screen.line(format!("  {mark} {line}"));
        }
        for line in fix.into_iter().flat_map(|fix| wrap(fix, width - 4)) {
            self.screen.line(format!("      {line}"));
        }
    }
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn features(kernel: &Kernel) -> String {
    let btf = if kernel.btf { ", BTF" } else { ", no BTF" };
    let bpffs = kernel.bpffs.as_ref().map_or_else(String::new, |place| format!(", bpffs at {place}"));
    let jit = match kernel.jit {
        Some(true) => ", JIT",
        Some(false) => ", no JIT",
        None => "",
    };
    let lockdown = kernel.lockdown.as_ref().map_or_else(String::new, |mode| format!(", lockdown {mode}"));
    format!("{btf}{bpffs}{jit}{lockdown}")
}

fn driver_line(interface: &Interface) -> String {
    let Some(name) = &interface.driver else { return "unknown".into() };
    let table = match drivers::find(name) {
        None => "not in the table of known drivers".into(),
        Some(driver) => match driver.native {
            None => "no native XDP".into(),
            Some((major, minor)) => {
                let tested = if driver.tested { "tested" } else { "from its source, not tested by us" };
                format!("native XDP since Linux {major}.{minor} ({tested})")
            }
        },
    };
    match interface.native_xdp {
        Some(true) => format!("{name}: {table}; this kernel says yes"),
        Some(false) => format!("{name}: {table}; this kernel says no"),
        None => format!("{name}: {table}"),
    }
}

fn mode_name(mode: RelayMode) -> &'static str {
    match mode {
        RelayMode::XdpNative => "native XDP",
        RelayMode::XdpGeneric => "generic XDP",
        RelayMode::Userspace => "userspace",
    }
}

fn verdict_line(mode: RelayMode, basis: Basis) -> String {
    let basis = match basis {
        Basis::Tested | Basis::Kernel => "",
        Basis::Table => ", by the table of drivers",
        Basis::Unknown => ", a guess",
    };
    format!("{}{basis}", mode_name(mode))
}
