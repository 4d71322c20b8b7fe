//! The relay on the list of a real control server, and a member that binds with its ticket.

use super::super::*;
use crate::config::{ControlConfig, RelayModeChoice, TlsListen};
use crate::control::client::{ControlClient, ControlLink, LinkEvent};
use crate::control::{self, ControlHandle};
use crate::roles::addresses;
use crate::shutdown::{self, ShutdownTrigger};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lanrage_common::binding::{BindingClient, Output};
use lanrage_common::identity::{Device, PartySecret, RosterEntry};
use lanrage_common::protocol::{ClientMessage, Member, Membership, ServerMessage};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

/// A control server; relays started with its directory find its token there.
struct Control {
    handle: ControlHandle,
    state: TempDir,
    _trigger: ShutdownTrigger,
}

async fn control() -> Control {
    let (trigger, shutdown) = shutdown::channel();
    let state = TempDir::new().unwrap();
    let config = ControlConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ControlConfig::default() };
    let handle = control::start(&config, state.path(), shutdown).await.unwrap();
    Control { handle, state, _trigger: trigger }
}

async fn relay(control: &Control, token: Option<&str>) -> (RelayHandle, ShutdownTrigger) {
    let config = RelayConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        name: Some("near".into()),
        control: Some(control.handle.local_origin()),
        token: token.map(str::to_owned),
        mode: RelayModeChoice::Userspace,
        pin_dir: PathBuf::new(),
        tls_listen: TlsListen::Off,
        ..RelayConfig::default()
    };
    let (trigger, shutdown) = shutdown::channel();
    (start(&config, control.state.path(), shutdown).await.unwrap(), trigger)
}

async fn status_when(handle: &mut RelayHandle, is_reached: impl Fn(&RelayStatus) -> bool) -> RelayStatus {
    let status = timeout(PATIENCE, handle.status.wait_for(is_reached)).await;
    status.expect("the status is reached in time").unwrap().clone()
}

async fn message(link: &mut ControlLink) -> ServerMessage {
    loop {
        let event = timeout(PATIENCE, link.events.recv()).await.expect("the control server answers");
        if let LinkEvent::Message(message) = event.unwrap() {
            return *message;
        }
    }
}

fn hello(device: &Device, membership: &Membership) -> ClientMessage {
    let entry = RosterEntry {
        name: "Ana".into(),
        device: device.key(),
        wg: device.wg_key(),
        wg_signature: device.wg_signature(),
        address: membership.address,
        epoch: membership.party.epoch,
    };
    let mac = PartySecret::from([7; 32]).roster_mac(&membership.party.id, &entry);
    ClientMessage::Hello {
        party: membership.party.id,
        member: Member { entry, mac, devices: None },
        have: None,
    }
}

#[tokio::test]
async fn a_member_binds_with_a_ticket_from_the_control_server() {
    let control = control().await;
    let (mut relay, _trigger) = relay(&control, None).await;
    let status = status_when(&mut relay, |status| status.registered).await;
    assert!(status.problems.is_empty());

    let device = Arc::new(Device::generate(&mut OsRng));
    let client = ControlClient::new(&control.handle.local_origin(), device.clone()).unwrap();
    let membership = client.create_party("Friday", None).await.unwrap();
    let mut link = client.connect();
    assert!(matches!(link.events.recv().await, Some(LinkEvent::Connected)));
    link.outgoing.send(hello(&device, &membership)).await.unwrap();
    let address = loop {
        if let ServerMessage::Relays { relays } = message(&mut link).await {
            assert_eq!(relays[0].name, "near");
            break relays[0].addresses[0];
        }
    };
    assert_eq!(address, status.addresses[0]);
    let ask = ClientMessage::Ticket { party: membership.party.id, relay: "near".into() };
    link.outgoing.send(ask).await.unwrap();
    let (ticket, key) = loop {
        if let ServerMessage::Ticket { ticket, session_key, .. } = message(&mut link).await {
            break (STANDARD.decode(ticket).unwrap(), STANDARD.decode(session_key).unwrap());
        }
    };
    let mut binding = BindingClient::new(address, OsRng);
    binding.set_ticket(ticket, key.try_into().unwrap(), crate::clock::now());
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut buffer = [0; 1024];
    while !binding.is_bound() {
        while let Some(Output::Transmit { to, payload }) = binding.poll_output() {
            socket.send_to(&payload, to).await.unwrap();
        }
        let (length, from) = timeout(PATIENCE, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert!(binding.handle_datagram(from, &buffer[..length], crate::clock::now()));
    }
    status_when(&mut relay, |status| status.bindings == 1).await;
}

#[tokio::test]
async fn a_wrong_token_is_a_problem_that_says_where_the_right_one_is() {
    let control = control().await;
    let (mut relay, _trigger) = relay(&control, Some("not-the-token-of-this-server")).await;
    let status = status_when(&mut relay, |status| !status.problems.is_empty()).await;
    assert!(!status.registered);
    let problem = &status.problems[0];
    assert!(problem.message.contains("token is wrong"), "{}", problem.message);
    assert!(problem.fix.contains("/var/lib/lanrage/relay-token"), "{}", problem.fix);
}

#[tokio::test]
async fn only_a_guessed_address_is_a_problem() {
    let state = TempDir::new().unwrap();
    let guessed = RelayConfig {
        listen: "0.0.0.0:0".parse().unwrap(),
        control: Some("http://127.0.0.1:9".into()),
        token: Some("token".into()),
        mode: RelayModeChoice::Userspace,
        pin_dir: PathBuf::new(),
        tls_listen: TlsListen::Off,
        ..RelayConfig::default()
    };
    let bound = RelayConfig { listen: "127.0.0.1:0".parse().unwrap(), ..guessed.clone() };
    let told = RelayConfig { public_address: Some("127.0.0.1:3478".parse().unwrap()), ..guessed.clone() };
    for (config, is_guessed) in [(guessed, true), (bound, false), (told, false)] {
        let (_trigger, shutdown) = shutdown::channel();
        let handle = start(&config, state.path(), shutdown).await.unwrap();
        let status = handle.status.borrow().clone();
        let shown = status.problems.into_iter().find(|problem| problem.code == "relay_address_private");
        let wanted = is_guessed.then(|| addresses::private_relay_address(status.addresses[0])).flatten();
        assert_eq!(shown, wanted);
    }
}
