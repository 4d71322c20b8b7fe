//! `lanrage gateway`: devices without LANrage, and how they fare.

use super::arguments::Gateway;
use super::client::{Answer, Client};
use super::failure::Failure;
use super::screen::{Screen, Style};
use super::show;
use super::table::{Cell, Table, size};
use super::watch::{Look, look};
use lanrage_common::api::{
    AddDeviceAnswer, AddDeviceRequest, GatewayDevice, GatewayStatus, LanAnswer, LanRequest, LanStatus,
    RemoveDeviceRequest, Status,
};
use lanrage_common::devices::DeviceKind;
use serde_json::json;

/// Said instead of an interface.
const OFF: &str = "off";
/// A client that is there sends something every 25 s.
const PRESENT_S: u64 = 60;

pub(super) async fn run(
    client: &Client,
    screen: &mut Screen<'_>,
    command: Gateway,
    json: bool,
) -> Result<u8, Failure> {
    match command {
        Gateway::Overview(watch) => {
            look_at(client, screen, Look { again: watch.watch, json }, overview).await
        }
        Gateway::Devices(watch) => look_at(client, screen, Look { again: watch.watch, json }, devices).await,
        Gateway::Lan { interfaces, alias_range } => {
            let interfaces = if interfaces == [OFF] { Vec::new() } else { interfaces };
            let request = LanRequest { interfaces, alias_range };
            let answer = client.send::<LanAnswer>("/api/v1/gateway/lan", &request).await?;
            match json {
                true => screen.line(&answer.text),
                false => lan(screen, &request.interfaces, &answer.value),
            }
            Ok(0)
        }
        Gateway::AddDevice { name, endpoint, public_key } => {
            let request = AddDeviceRequest { name, public_key, endpoint };
            let answer = client.send::<AddDeviceAnswer>("/api/v1/gateway/add", &request).await?;
            match json {
                true => screen.line(&answer.text),
                false => added(screen, &answer.value),
            }
            Ok(0)
        }
        Gateway::RemoveDevice { name } => {
            let request = RemoveDeviceRequest { name };
            let answer = client.send::<Status>("/api/v1/gateway/remove", &request).await?;
            match json {
                true => screen.line(&answer.text),
                false => screen.line(format!("{} is turned out.", request.name)),
            }
            Ok(0)
        }
    }
}

async fn look_at(
    client: &Client,
    screen: &mut Screen<'_>,
    wish: Look,
    show: fn(&mut Screen<'_>, &GatewayStatus),
) -> Result<u8, Failure> {
    let part = |answer: &Answer<Status>| json!(answer.value.gateway.clone().unwrap_or_default()).to_string();
    let show = |screen: &mut Screen<'_>, status: &Status| {
        show(screen, &status.gateway.clone().unwrap_or_default());
    };
    look(client, screen, wish, part, show).await
}

fn overview(screen: &mut Screen<'_>, status: &GatewayStatus) {
    if let (Some(listen), Some(key)) = (status.listen, status.public_key) {
        show::fact(screen, "Listen", &format!("UDP {listen}, key {key}"));
    }
    status.lan.iter().for_each(|lan| home(screen, lan));
    devices(screen, status);
    if status.devices.is_empty() {
        return;
    }
    let GatewayStatus { from_devices, to_devices, groups_from_devices, groups_to_devices, .. } = status;
    screen.line("");
    show::fact(screen, "Packets", &format!("{from_devices} from devices, {to_devices} to them"));
    let groups =
        format!("{groups_from_devices} to everybody from devices, {groups_to_devices} copies to them");
    show::fact(screen, "Groups", &groups);
    let dropped: Vec<String> =
        status.dropped.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    if !dropped.is_empty() {
        show::fact(screen, "Dropped", &dropped.join(", "));
    }
}

fn lan(screen: &mut Screen<'_>, interfaces: &[String], answer: &LanAnswer) {
    match interfaces.is_empty() {
        true => screen.line("Devices on home networks take part no more."),
        false => screen.line(format!(
            "Devices on {} take part from now on; `lanrage gateway` shows under which addresses members are found there.",
            interfaces.join(" and ")
        )),
    }
    for note in &answer.notes {
        let mark = screen.paint(Style::Warn, "*");
        screen.line(format!("{mark} {note}"));
    }
}

fn home(screen: &mut Screen<'_>, lan: &LanStatus) {
    show::fact(screen, "Home", &format!("{} on {}", lan.address, lan.interface));
    if let Some(member) = lan.served_by {
        screen.line(format!(
            "The machine of {member} is a gateway on this network too, and serves it: this one keeps still."
        ));
    }
    let mut table = Table::new(["IN THE PARTY", "AT HOME", ""]);
    for alias in &lan.aliases {
        let state =
            if alias.held { Cell::from("") } else { Cell::new("asking whether it is free", Style::Warn) };
        table.row([alias.member.to_string().into(), alias.alias.to_string().into(), state]);
    }
    table.print(screen);
    if lan.without_alias > 0 {
        let text =
            format!("for {} members no address is left: give more with --alias-range", lan.without_alias);
        screen.line(format!("{} {text}", screen.paint(Style::Bad, "!")));
    }
    for conflict in &lan.conflicts {
        let mark = screen.paint(Style::Warn, "*");
        screen.line(format!(
            "{mark} {} is taken by {}; another one was chosen",
            conflict.address, conflict.with
        ));
        screen.line(format!("  if that happens again, {}", conflict.fix));
    }
    screen.line("");
}

fn devices(screen: &mut Screen<'_>, status: &GatewayStatus) {
    if status.devices.is_empty() {
        return screen.line(
            "No device takes part through this machine yet. Take one in with `lanrage gateway add-device NAME`, or those at home with `lanrage gateway lan INTERFACE`.",
        );
    }
    let mut table = Table::new(["DEVICE", "ADDRESS", "BY", "HEARD", "FROM", "RECEIVED", "SENT"]);
    for device in &status.devices {
        let from = device.endpoint.map_or("-".into(), |endpoint| endpoint.to_string());
        table.row([
            device.name.clone().into(),
            device.address.to_string().into(),
            kind(device.kind).into(),
            heard(device),
            from.into(),
            size(device.rx_bytes).into(),
            size(device.tx_bytes).into(),
        ]);
    }
    table.print(screen);
}

fn kind(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Lan => "LAN",
        DeviceKind::Wireguard => "WireGuard",
        DeviceKind::Unknown => "?",
    }
}

fn heard(device: &GatewayDevice) -> Cell {
    match device.heard_s {
        None => Cell::new("not yet", Style::Dim),
        Some(seconds) if seconds < PRESENT_S => Cell::new(format!("{seconds} s ago"), Style::Good),
        Some(seconds) => Cell::new(format!("{} min ago", seconds / 60), Style::Warn),
    }
}

/// In a pipe the file alone, so that it can be passed on.
fn added(screen: &mut Screen<'_>, answer: &AddDeviceAnswer) {
    if !screen.is_terminal() {
        return screen.line(answer.config.trim_end());
    }
    screen.line(format!("{} is taken in as {}. Its file, shown this once:\n", answer.name, answer.address));
    screen.line(&answer.config);
    if answer.qr_svg.is_some()
        && let Some(code) = show::qr(&answer.config)
    {
        screen.line("In the WireGuard app: add a tunnel, scan the QR code.\n");
        screen.line(code);
    }
    for note in &answer.notes {
        let mark = screen.paint(Style::Warn, "*");
        screen.line(format!("{mark} {note}"));
    }
}
