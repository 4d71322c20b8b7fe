//! The daemon's answers for people.

use super::screen::{Screen, Style};
use super::table::{Cell, Table};
use super::{firewall, matrix};
use lanrage_common::api::{
    InviteAnswer, MemberStatus, PartyStatus, PathKind, PingAnswer, PingReply, Problem, RelayChoiceStatus,
    RelayMode, RelayStatus, Status,
};
use lanrage_common::protocol::RelayState;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

pub(super) const NO_PARTY: &str =
    "In no party. Found one with `lanrage party create NAME` or join one with `lanrage join LINK`.";

pub(super) const DOWN: &str = "The tunnel is down. `lanrage up` takes it up again.";

/// Instead of a party, where there is none.
pub(super) fn no_party(screen: &mut Screen<'_>, status: &Status) {
    match &status.device {
        Some(_) => screen.line(NO_PARTY),
        None => screen
            .line(format!("This daemon runs as {} only: it is in no party.", status.roles.join(" and "))),
    }
}

pub(super) fn status(screen: &mut Screen<'_>, status: &Status) {
    let tunnel = if status.up { "tunnel up" } else { "tunnel down" };
    let state = if status.device.is_some() { format!(", {tunnel}") } else { String::new() };
    fact(screen, "LANrage", &format!("{}, roles {}{state}", status.version, status.roles.join(" ")));
    if let Some(device) = &status.device {
        fact(screen, "Device", &format!("{} ({})", device.name, device.fingerprint));
    }
    if let Some(control) = &status.control {
        let connected = if control.connected { "connected" } else { "not connected" };
        fact(screen, "Control", &format!("{} {connected}", control.url));
    }
    match &status.party {
        Some(party) => fact(screen, "Party", &party_line(party)),
        None if status.device.is_some() => fact(
            screen,
            "Party",
            "none yet: found one with `lanrage party create NAME` or join one with `lanrage join LINK`",
        ),
        None => {}
    }
    if let (Some(firewall), Some(_)) = (&status.firewall, &status.party) {
        fact(screen, "Firewall", &firewall::summary(firewall));
    }
    if let Some(server) = &status.server {
        let (online, relays) = (server.online, server.relays);
        fact(
            screen,
            "Server",
            &format!("{}, {online} devices connected, {relays} relays", server.public_url),
        );
    }
    if let Some(relay) = &status.relay {
        relay_lines(screen, relay);
    }
    if let Some(party) = &status.party {
        screen.line("");
        members(screen, party);
        advice(screen, party);
    }
    problems(screen, &status.problems);
}

/// The members alone.
pub(super) fn peers(screen: &mut Screen<'_>, status: &Status) {
    match &status.party {
        Some(party) => members(screen, party),
        None => no_party(screen, status),
    }
}

/// For members that are not reached directly: the one change that would do it.
fn advice(screen: &mut Screen<'_>, party: &PartyStatus) {
    let advised: Vec<_> = party.members.iter().filter_map(|it| Some((it, it.fix.as_ref()?))).collect();
    if advised.is_empty() {
        return;
    }
    screen.line("");
    for (member, fix) in advised {
        let text: String = format!("{}: {fix}", member.name).chars().filter(|c| !c.is_control()).collect();
        let mark = screen.paint(Style::Warn, "*");
        screen.line(format!("{mark} {text}"));
    }
}

pub(super) fn fact(screen: &mut Screen<'_>, name: &str, text: &str) {
    let name = screen.paint(Style::Bold, &format!("{name:<8}"));
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    screen.line(format!("{name} {text}"));
}

fn party_line(party: &PartyStatus) -> String {
    let host = if party.host { ", you are the host" } else { "" };
    let interface = match &party.interface {
        Some(name) => format!("{name} (MTU {})", party.mtu),
        None => "no interface".into(),
    };
    let prefix = party.subnet.prefix_len();
    format!("{}: {}/{prefix} on {interface}{host}", party.name, party.address)
}

pub(super) fn relay_lines(screen: &mut Screen<'_>, relay: &RelayStatus) {
    let addresses: Vec<_> = relay.addresses.iter().map(ToString::to_string).collect();
    let registered = if relay.registered { "registered" } else { "not registered" };
    let mode = match relay.mode {
        RelayMode::XdpNative => "native XDP",
        RelayMode::XdpGeneric => "generic XDP",
        RelayMode::Userspace => "userspace",
    };
    fact(
        screen,
        "Relay",
        &format!(
            "{} {registered}, {mode}, {} bound, {} flows, forwarded {} in the kernel and {} in the daemon",
            addresses.join(" "),
            relay.bindings,
            relay.flows,
            relay.kernel_forwarded,
            relay.userspace_forwarded
        ),
    );
    if let Some(tls) = &relay.tls {
        let text =
            format!("{} over TLS, {} connected, {} dropped", tls.address, tls.connections, tls.dropped);
        fact(screen, "", &text);
    }
    if let Some(reason) = &relay.mode_reason {
        fact(screen, "", &format!("{mode} because {reason}"));
    }
    if let Some(fix) = &relay.mode_fix {
        fact(screen, "", &format!("to improve: {fix}"));
    }
}

/// One line per member.
pub(super) fn members(screen: &mut Screen<'_>, party: &PartyStatus) {
    let mut table = Table::new(["NAME", "ADDRESS", "PATH", "RTT", "JITTER", "LOSS", "QUALITY", "WHY"]);
    for member in &party.members {
        let milliseconds = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1} ms"));
        let loss = member.loss.map_or("-".into(), |loss| format!("{:.0} %", loss * 100.0));
        let why = if member.is_self { "this device" } else { &member.why };
        let why = match member.plays.join(", ") {
            games if games.is_empty() => why.to_owned(),
            games => format!("plays {games}; {why}"),
        };
        table.row([
            member_name(member).into(),
            member.address.to_string().into(),
            path(member),
            milliseconds(member.rtt_ms).into(),
            milliseconds(member.jitter_ms).into(),
            loss.into(),
            matrix::quality(member.quality),
            Cell::new(why, Style::Dim),
        ]);
    }
    table.print(screen);
}

/// The party's relays alone.
pub(super) fn party_relays(screen: &mut Screen<'_>, status: &Status) {
    match &status.party {
        Some(party) if !party.relays.is_empty() => relays(screen, party),
        Some(_) => screen.line("The control server knows no relay. Start one: `lanrage-daemon relay`."),
        None => screen.line("In no party, so no relay is needed."),
    }
}

/// One line per relay.
fn relays(screen: &mut Screen<'_>, party: &PartyStatus) {
    let mut table =
        Table::new(["RELAY", "REGION", "STATE", "LOAD", "RTT", "JITTER", "MEMBERS", "STANDBY", "WHY"]);
    for relay in &party.relays {
        let milliseconds = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1} ms"));
        let count = |count: u32| if count == 0 { "-".into() } else { count.to_string() };
        let region = if relay.region.is_empty() { "-" } else { &relay.region };
        table.row([
            relay.name.clone().into(),
            region.into(),
            relay_state(relay),
            format!("{} %", relay.load).into(),
            milliseconds(relay.rtt_ms).into(),
            milliseconds(relay.jitter_ms).into(),
            count(relay.members).into(),
            count(relay.standby_for).into(),
            Cell::new(&relay.why, Style::Dim),
        ]);
    }
    table.print(screen);
}

fn relay_state(relay: &RelayChoiceStatus) -> Cell {
    match (relay.state, relay.held) {
        (RelayState::Draining, _) => Cell::new("draining", Style::Warn),
        (RelayState::Full, false) => Cell::new("full", Style::Warn),
        (_, true) => Cell::new("bound", Style::Good),
        (_, false) => Cell::new("ready", Style::Dim),
    }
}

fn member_name(member: &MemberStatus) -> String {
    if member.host { format!("{} (host)", member.name) } else { member.name.clone() }
}

fn path(member: &MemberStatus) -> Cell {
    if member.is_self {
        return "-".into();
    }
    let standby = member.standby.as_ref().map(|standby| format!(" (standby {standby})")).unwrap_or_default();
    let through = member.relay.as_ref().map(|relay| format!(" {relay}{standby}")).unwrap_or_default();
    match member.path {
        PathKind::Direct => Cell::new("direct", Style::Good),
        PathKind::Relay => Cell::new(format!("relay{through}"), Style::Warn),
        PathKind::Tls => Cell::new(format!("tls{through}"), Style::Warn),
        PathKind::None if member.online => Cell::new("none yet", Style::Bad),
        PathKind::None => Cell::new("offline", Style::Dim),
    }
}

pub(super) fn problems(screen: &mut Screen<'_>, problems: &[Problem]) {
    if problems.is_empty() {
        return;
    }
    screen.line("");
    for problem in problems {
        let mark = screen.paint(Style::Bad, "!");
        screen.line(format!("{mark} {}", problem.message));
        screen.line(format!("  {}", problem.fix));
    }
}

/// On a terminal with explanation and QR code; in a pipe the link alone, so that it can be passed on.
pub(super) fn invite(screen: &mut Screen<'_>, answer: &InviteAnswer, now: u64) {
    if !screen.is_terminal() {
        return screen.line(&answer.link);
    }
    let uses = match answer.uses_left {
        Some(1) => ", one device".into(),
        Some(uses) => format!(", {uses} devices"),
        None => String::new(),
    };
    screen.line(format!(
        "Invite link, valid for {}{uses}. Whoever has it can join:",
        life(answer.expires_at, now)
    ));
    screen.line(format!("\n  {}\n", answer.link));
    if let Some(code) = qr(&answer.link) {
        screen.line(code);
    }
}

fn life(expires_at: u64, now: u64) -> String {
    match expires_at.saturating_sub(now) {
        left if left >= 2 * 24 * 3600 => format!("{} days", (left + 12 * 3600) / (24 * 3600)),
        left if left >= 2 * 3600 => format!("{} hours", (left + 1800) / 3600),
        left => format!("{} minutes", left.div_ceil(60)),
    }
}

/// Light modules are drawn, so that it scans on the usual dark terminal.
pub(super) fn qr(text: &str) -> Option<String> {
    let code = QrCode::new(text).ok()?;
    Some(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

pub(super) fn reply(screen: &mut Screen<'_>, number: u32, reply: &PingReply) {
    let time = reply.rtt_ms.map_or("no answer".into(), |rtt| format!("{rtt:.1} ms"));
    screen.line(format!("{number:>3}  {time:<10}  {}", path_name(reply.path)));
}

fn path_name(path: PathKind) -> &'static str {
    match path {
        PathKind::Direct => "direct",
        PathKind::Relay => "through a relay",
        PathKind::Tls => "through a relay over TLS",
        PathKind::None => "no path",
    }
}

/// Whether the tunnel itself works, and what fits it.
pub(super) fn ping_tunnel(screen: &mut Screen<'_>, replies: &[PingReply], answer: &PingAnswer) {
    let PingAnswer { mtu, path_mtu, outside_rtt_ms, .. } = *answer;
    let outside =
        outside_rtt_ms.map(|rtt| format!(", probes outside it take {rtt:.1} ms")).unwrap_or_default();
    match (replies.iter().any(|reply| reply.rtt_ms.is_some()), mtu) {
        (true, Some(mtu)) => {
            screen.line(format!("The tunnel works: packets of up to {mtu} bytes came back{outside}"))
        }
        (true, None) => screen
            .line(format!("The tunnel works for small packets only: none of 576 bytes came back{outside}")),
        (false, _) if outside_rtt_ms.is_some() => {
            screen.line(format!(
                "Nothing came through the tunnel{outside}: the member's firewall may drop pings"
            ));
        }
        (false, _) => {}
    }
    if let Some(length) = path_mtu {
        let hint = if mtu.is_some_and(|mtu| mtu > length) { "; longer ones travel in pieces" } else { "" };
        screen.line(format!("The path carries packets of {length} bytes whole{hint}."));
    }
}

pub(super) fn ping_summary(screen: &mut Screen<'_>, replies: &[PingReply]) {
    let mut times: Vec<_> = replies.iter().filter_map(|reply| reply.rtt_ms).collect();
    let steps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
    times.sort_by(f64::total_cmp);
    let lost = 100 * (replies.len() - times.len()) / replies.len().max(1);
    let spread = match (times.first(), times.get(times.len() / 2), times.last()) {
        (Some(min), Some(median), Some(max)) => {
            let jitter = match steps.len() {
                0 => String::new(),
                count => format!(", jitter {:.1} ms", steps.iter().sum::<f64>() / count as f64),
            };
            format!(", {min:.1} / {median:.1} / {max:.1} ms (min / median / max){jitter}")
        }
        _ => String::new(),
    };
    screen.line(format!("{} sent, {} answered, {lost} % lost{spread}", replies.len(), times.len()));
}
