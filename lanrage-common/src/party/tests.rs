use super::*;
use crate::devices::DeviceKind;
use crate::identity::Signature;
use crate::protocol::RelayState;
use proptest::prelude::*;
use rand_core::OsRng;
use std::net::Ipv4Addr;

const PARTY: PartyId = PartyId([7; 16]);

fn now() -> Now {
    Now { instant: Instant::now(), unix: 1_800_000_000 }
}

/// An honest party: a host, a joiner (the client under test) and a friend.
struct World {
    secret: PartySecret,
    host: Device,
    me: Device,
    friend: Device,
}

impl World {
    fn new() -> Self {
        let device = || Device::generate(&mut OsRng);
        Self { secret: PartySecret::generate(&mut OsRng), host: device(), me: device(), friend: device() }
    }

    fn party(&self) -> Party {
        Party {
            id: PARTY,
            name: "Friday".into(),
            subnet: "10.66.0.0/16".parse().unwrap(),
            host: self.host.key(),
            epoch: 1,
        }
    }

    fn member(&self, device: &Device, last: u8, epoch: u32) -> Member {
        let address = Ipv4Addr::new(10, 66, 0, last);
        let membership = Membership { party: Party { epoch, ..self.party() }, address };
        sign_entry(&membership, &self.secret, device, "name")
    }

    fn client_with(&self, secret: PartySecret) -> PartyClient {
        let membership = Membership { party: self.party(), address: Ipv4Addr::new(10, 66, 0, 2) };
        PartyClient::new(membership, secret, self.host.key().fingerprint(), &self.me, "me")
    }

    fn client(&self) -> PartyClient {
        self.client_with(self.secret.clone())
    }

    fn snapshot(&self, seq: u64, members: Vec<Member>) -> ServerMessage {
        ServerMessage::Snapshot { party: self.party(), seq, members, online: vec![] }
    }

    fn honest_snapshot(&self) -> ServerMessage {
        self.snapshot(3, vec![self.member(&self.host, 1, 1), self.member(&self.friend, 3, 1)])
    }

    /// A client that knows host and friend at sequence 3.
    fn joined(&self) -> PartyClient {
        let mut client = self.client();
        client.handle_connected(now());
        client.handle_server_message(self.honest_snapshot(), now());
        drain(&mut client);
        client
    }
}

fn drain(client: &mut PartyClient) -> Vec<Output> {
    std::iter::from_fn(|| client.poll_output()).collect()
}

fn delta(seq: u64, change: Change) -> ServerMessage {
    ServerMessage::Delta { party: PARTY, epoch: 1, seq, change }
}

fn refused(client: &PartyClient, reason: &str) -> u64 {
    client.refused().get(reason).copied().unwrap_or_default()
}

fn is_hello(output: &Output, expected: Option<u64>) -> bool {
    matches!(output, Output::Send(ClientMessage::Hello { have, .. }) if *have == expected)
}

#[test]
fn a_snapshot_brings_verified_members_up() {
    let world = World::new();
    let mut client = world.client();
    client.handle_connected(now());
    assert!(is_hello(&drain(&mut client)[0], None));
    assert!(client.poll_timeout().is_some());

    client.handle_server_message(world.honest_snapshot(), now());
    let outputs = drain(&mut client);
    assert!(outputs.contains(&Output::HostVerified));
    assert!(outputs.contains(&Output::Save));
    let up = outputs.iter().filter(|output| matches!(output, Output::MemberUp(_))).count();
    assert_eq!((up, client.members().count(), client.poll_timeout()), (2, 2, None));
}

#[test]
fn own_hello_verifies_at_other_members() {
    let world = World::new();
    let mut client = world.client();
    client.handle_connected(now());
    let Some(Output::Send(ClientMessage::Hello { member, .. })) = client.poll_output() else {
        panic!("hello")
    };
    assert_eq!(verify::check(&member, &world.party(), &world.secret), Ok(()));
}

#[test]
fn a_member_added_by_the_server_is_refused() {
    let world = World::new();
    let mut client = world.joined();
    let spy = Device::generate(&mut OsRng);
    let forged = Member { mac: crate::identity::RosterMac([0; 32]), ..world.member(&spy, 9, 1) };
    client.handle_server_message(delta(4, Change::Member { member: forged }), now());
    assert_eq!((client.members().count(), refused(&client, "bad_mac")), (2, 1));
    let outputs = drain(&mut client);
    assert!(outputs.iter().any(|o| matches!(o, Output::Problem(p) if p.code == "roster_refused")));
    assert!(!outputs.iter().any(|o| matches!(o, Output::MemberUp(_))));
}

#[test]
fn swapped_fields_are_refused_and_the_old_entry_stays() {
    let world = World::new();
    let mut client = world.joined();
    let honest = world.member(&world.friend, 3, 1);
    let with = |entry| Member { entry, ..honest.clone() };
    let moved = with(RosterEntry { address: Ipv4Addr::new(10, 66, 0, 1), ..honest.entry.clone() });
    let rekeyed = with(RosterEntry { wg: world.host.wg_key(), ..honest.entry.clone() });
    for (n, bent) in [moved, rekeyed].into_iter().enumerate() {
        client.handle_server_message(delta(4 + n as u64, Change::Member { member: bent }), now());
    }
    assert_eq!(refused(&client, "bad_mac"), 2);
    assert!(client.members().any(|entry| *entry == honest.entry));
    assert!(
        !drain(&mut client).iter().any(|o| matches!(o, Output::MemberChanged { .. } | Output::MemberGone(_)))
    );
}

#[test]
fn a_snapshot_with_a_bent_entry_keeps_the_known_one() {
    let world = World::new();
    let mut client = world.joined();
    let honest = world.member(&world.friend, 3, 1);
    let bent = Member { entry: RosterEntry { wg: WgKey([1; 32]), ..honest.entry.clone() }, ..honest.clone() };
    client.handle_server_message(world.snapshot(9, vec![world.member(&world.host, 1, 1), bent]), now());
    assert!(client.members().any(|entry| *entry == honest.entry));
}

#[test]
fn even_a_member_may_not_take_what_others_have() {
    let world = World::new();
    let mut client = world.joined();
    let thief = Device::generate(&mut OsRng);
    for (seq, address, reason) in [(4, 3, "address_taken"), (5, 2, "address_taken"), (6, 0, "bad_address")] {
        let member = world.member(&thief, address, 1);
        client.handle_server_message(delta(seq, Change::Member { member }), now());
        assert!(refused(&client, reason) > 0, "{reason}");
    }
    let mut unsigned = world.member(&thief, 9, 1).entry;
    unsigned.wg = world.friend.wg_key();
    let mac = world.secret.roster_mac(&PARTY, &unsigned);
    let member = Member { entry: unsigned, mac, devices: None };
    client.handle_server_message(delta(7, Change::Member { member }), now());
    assert_eq!((refused(&client, "unsigned_key"), client.members().count()), (1, 2));
}

#[test]
fn who_held_an_address_keeps_it_whatever_the_order() {
    let world = World::new();
    let mut client = world.joined();
    let thief = Device::generate(&mut OsRng);
    let members =
        vec![world.member(&thief, 3, 1), world.member(&world.host, 1, 1), world.member(&world.friend, 3, 1)];
    client.handle_server_message(world.snapshot(9, members), now());
    assert!(client.members().any(|entry| entry.device == world.friend.key()));
    assert!(!client.members().any(|entry| entry.device == thief.key()));
}

#[test]
fn an_entry_of_an_old_epoch_is_refused_after_a_kick() {
    let world = World::new();
    let mut client = world.joined();
    let kicked = world.member(&world.friend, 3, 1);
    let left = Change::Left { device: world.friend.key() };
    client
        .handle_server_message(ServerMessage::Delta { party: PARTY, epoch: 2, seq: 4, change: left }, now());
    let outputs = drain(&mut client);
    assert!(outputs.contains(&Output::MemberGone(kicked.entry.clone())));
    assert!(outputs.iter().any(|o| is_hello(o, Some(4))), "the own entry is signed again");
    assert_eq!(client.own().epoch, 2);

    let again = Change::Member { member: kicked };
    client
        .handle_server_message(ServerMessage::Delta { party: PARTY, epoch: 2, seq: 5, change: again }, now());
    assert_eq!((refused(&client, "old_epoch"), client.members().count()), (1, 1));
    client.handle_server_message(world.honest_snapshot(), now());
    assert_eq!((refused(&client, "epoch_rollback"), client.members().count()), (1, 1));
}

#[test]
fn a_wrong_secret_says_so_once_the_host_is_offered() {
    let world = World::new();
    let mut client = world.client_with(PartySecret::generate(&mut OsRng));
    client.handle_server_message(world.snapshot(1, vec![]), now());
    assert!(!drain(&mut client).iter().any(|o| matches!(o, Output::WrongSecret(_))));
    client.handle_server_message(world.honest_snapshot(), now());
    let told = drain(&mut client).into_iter().find_map(|o| match o {
        Output::WrongSecret(text) => Some(text),
        _ => None,
    });
    assert!(told.unwrap().contains("ask the host for a new invite link"));
    assert_eq!(client.members().count(), 0);
}

#[test]
fn a_substituted_host_is_noticed() {
    let world = World::new();
    let membership = Membership { party: world.party(), address: Ipv4Addr::new(10, 66, 0, 2) };
    let other = world.friend.key().fingerprint();
    let mut client = PartyClient::new(membership, world.secret.clone(), other, &world.me, "me");
    assert!(matches!(client.poll_output(), Some(Output::WrongSecret(text)) if text.contains("another host")));

    let mut joined = world.joined();
    let party = Party { host: world.friend.key(), ..world.party() };
    let message = ServerMessage::Snapshot { party, seq: 9, members: vec![], online: vec![] };
    joined.handle_server_message(message, now());
    assert_eq!((joined.members().count(), refused(&joined, "wrong_host")), (2, 1));
}

#[test]
fn a_lease_that_would_hijack_routes_is_refused() {
    let world = World::new();
    for (subnet, address) in
        [("0.0.0.0/0", [8, 8, 8, 8]), ("10.66.0.0/16", [10, 67, 0, 1]), ("10.0.0.0/8", [10, 0, 0, 1])]
    {
        let party = Party { subnet: subnet.parse().unwrap(), ..world.party() };
        let membership = Membership { party, address: address.into() };
        let host = world.host.key().fingerprint();
        let mut client = PartyClient::new(membership, world.secret.clone(), host, &world.me, "me");
        assert!(matches!(client.poll_output(), Some(Output::WrongSecret(_))), "{subnet}");
    }
}

#[test]
fn a_gap_asks_for_a_snapshot_and_a_repeat_does_nothing() {
    let world = World::new();
    let mut client = world.joined();
    let left = || Change::Left { device: world.friend.key() };
    client.handle_server_message(delta(3, left()), now());
    assert_eq!((client.members().count(), refused(&client, "delta_repeated")), (2, 1));
    client.handle_server_message(delta(5, left()), now());
    assert!(is_hello(&drain(&mut client)[0], None));
    client.handle_server_message(delta(6, left()), now());
    assert_eq!(client.members().count(), 2, "nothing is believed before the snapshot");

    let later = now().after(SNAPSHOT_PATIENCE);
    client.handle_timeout(later);
    assert!(is_hello(&drain(&mut client)[0], None), "asked again");
    client.handle_server_message(world.snapshot(6, vec![world.member(&world.host, 1, 1)]), later);
    assert_eq!((client.members().count(), client.poll_timeout()), (1, None));
}

#[test]
fn members_survive_a_restart_without_the_control_server() {
    let world = World::new();
    let json = serde_json::to_string(world.joined().state()).unwrap();
    let mut state: PartyState = serde_json::from_str(&json).unwrap();
    let mut client = PartyClient::restore(state.clone(), world.secret.clone(), &world.me, "me");
    let outputs = drain(&mut client);
    assert_eq!(outputs.iter().filter(|o| matches!(o, Output::MemberUp(_))).count(), 2);
    assert!(outputs.contains(&Output::HostVerified));
    client.handle_connected(now());
    assert!(is_hello(&drain(&mut client)[0], Some(3)), "it resumes");

    state.members[1].entry.address = Ipv4Addr::new(10, 66, 0, 77);
    let client = PartyClient::restore(state, world.secret.clone(), &world.me, "me");
    assert_eq!((client.members().count(), refused(&client, "bad_mac")), (1, 1), "a bent file is noticed");
}

#[test]
fn a_changed_entry_tells_old_and_new() {
    let world = World::new();
    let mut client = world.joined();
    let (old, new) = (world.member(&world.friend, 3, 1), world.member(&world.friend, 4, 1));
    client.handle_server_message(delta(4, Change::Member { member: new.clone() }), now());
    assert!(drain(&mut client).contains(&Output::MemberChanged { old: old.entry, new: new.entry }));
}

#[test]
fn presence_is_told_for_members_only_and_on_change_only() {
    let world = World::new();
    let mut client = world.joined();
    let device = world.friend.key();
    let presence = |device, online| ServerMessage::Presence { party: PARTY, device, online };
    client.handle_server_message(presence(device, true), now());
    client.handle_server_message(presence(device, true), now());
    client.handle_server_message(presence(DeviceKey([1; 32]), true), now());
    assert_eq!(drain(&mut client), [Output::Presence { device, online: true }]);
    assert!(client.is_online(&device));
    let mut snapshot = world.honest_snapshot();
    if let ServerMessage::Snapshot { online, .. } = &mut snapshot {
        online.push(world.host.key());
    }
    client.handle_server_message(snapshot, now());
    let outputs = drain(&mut client);
    assert!(outputs.contains(&Output::Presence { device, online: false }));
    assert!(outputs.contains(&Output::Presence { device: world.host.key(), online: true }));
}

#[test]
fn signals_and_tickets_pass_only_when_well_formed() {
    let world = World::new();
    let mut client = world.joined();
    let signal = |from, body: String| ServerMessage::Signal { party: PARTY, from, body };
    client.handle_server_message(signal(WgKey([1; 32]), "AA==".into()), now());
    client.handle_server_message(signal(world.friend.wg_key(), "A".repeat(MAX_SIGNAL + 1)), now());
    let largest = "A".repeat(MAX_SIGNAL);
    client.handle_server_message(signal(world.friend.wg_key(), largest.clone()), now());
    let expected = Output::Signal { from: world.friend.wg_key(), body: largest };
    assert_eq!((drain(&mut client), refused(&client, "signal_refused")), (vec![expected], 2));

    let ticket = |ticket: &[u8], key: &[u8]| ServerMessage::Ticket {
        party: PARTY,
        relay: "home".into(),
        ticket: STANDARD.encode(ticket),
        session_key: STANDARD.encode(key),
        expires_in: 600,
    };
    client.handle_server_message(ticket(&[0; TICKET_LEN], &[0; 32]), now());
    assert_eq!((drain(&mut client), refused(&client, "ticket_unknown_relay")), (vec![], 1));
    let addresses = vec!["192.0.2.1:3478".parse().unwrap()];
    let home = RelayInfo { name: "home".into(), addresses, ..RelayInfo::default() };
    client.handle_server_message(ServerMessage::Relays { relays: vec![home] }, now());
    drain(&mut client);
    client.handle_server_message(ticket(&[0; TICKET_LEN], &[0; 31]), now());
    client.handle_server_message(ticket(&[0; TICKET_LEN - 1], &[0; 32]), now());
    client.handle_server_message(ticket(&[0; TICKET_LEN], &[0; 32]), now());
    let outputs = drain(&mut client);
    assert!(matches!(
        &outputs[..],
        [Output::Solved("control_refused"), Output::Ticket { expires_in: 600, .. }]
    ));
    assert_eq!(refused(&client, "ticket_malformed"), 2);
}

#[test]
fn unusable_relays_are_left_out() {
    let world = World::new();
    let mut client = world.joined();
    let relay = |name: &str, addresses: Vec<std::net::SocketAddr>| RelayInfo {
        name: name.into(),
        addresses,
        ..RelayInfo::default()
    };
    let good = relay("home", vec!["192.0.2.1:3478".parse().unwrap()]);
    let relays = vec![relay("empty", vec![]), relay("bad\nname", good.addresses.clone()), good.clone()];
    client.handle_server_message(ServerMessage::Relays { relays }, now());
    assert_eq!(drain(&mut client), [Output::Relays(vec![good]), Output::Save]);
}

#[test]
fn the_own_entry_is_never_a_member_and_refusals_are_told() {
    let world = World::new();
    let mut client = world.joined();
    client.handle_server_message(delta(4, Change::Member { member: world.member(&world.me, 2, 1) }), now());
    assert_eq!(client.members().count(), 2);
    client.handle_server_message(delta(5, Change::Left { device: world.me.key() }), now());
    let error = ErrorBody { code: ErrorCode::Forbidden, message: "not a member".into() };
    client.handle_server_message(ServerMessage::Error { party: Some(PARTY), error }, now());
    let codes: Vec<_> = drain(&mut client)
        .into_iter()
        .filter_map(|o| if let Output::Problem(p) = o { Some(p.code) } else { None })
        .collect();
    assert_eq!(codes, ["removed_from_party", "control_refused"]);
    assert_eq!(client.members().count(), 2, "the party goes on");
    let error = ErrorBody { code: ErrorCode::RateLimited, message: "slowly".into() };
    client.handle_server_message(ServerMessage::Error { party: Some(PARTY), error }, now());
    assert_eq!((drain(&mut client), refused(&client, "rate_limited")), (vec![], 1));
    client.handle_server_message(world.honest_snapshot(), now());
    let outputs = drain(&mut client);
    assert!(
        codes
            .iter()
            .all(|code| outputs.iter().any(|o| matches!(o, Output::Solved(solved) if solved == code)))
    );
}

#[test]
fn what_is_not_found_is_a_problem_only_as_the_answer_to_a_hello() {
    let world = World::new();
    let mut client = world.joined();
    let missing = || {
        let error = ErrorBody { code: ErrorCode::NotFound, message: "not found".into() };
        ServerMessage::Error { party: Some(PARTY), error }
    };
    client.handle_server_message(missing(), now());
    assert_eq!((drain(&mut client), refused(&client, "not_found")), (vec![], 1));

    client.handle_disconnected();
    client.handle_connected(now());
    drain(&mut client);
    client.handle_server_message(missing(), now());
    let outputs = drain(&mut client);
    assert!(matches!(&outputs[..], [Output::Problem(p)] if p.code == "control_refused"), "{outputs:?}");

    let device = world.me.key();
    client.handle_server_message(ServerMessage::Presence { party: PARTY, device, online: true }, now());
    client.handle_server_message(missing(), now());
    assert_eq!(
        (drain(&mut client), refused(&client, "not_found")),
        (vec![], 2),
        "a hello without a snapshot"
    );
}

#[test]
fn news_of_one_relay_change_the_list() {
    let world = World::new();
    let mut client = world.joined();
    let addresses = vec!["192.0.2.1:3478".parse().unwrap()];
    let home = RelayInfo { name: "home".into(), addresses, ..RelayInfo::default() };
    let draining = RelayInfo { state: RelayState::Draining, ..home.clone() };
    let unknown = RelayInfo { name: "away".into(), ..home.clone() };
    client.handle_server_message(ServerMessage::Relays { relays: vec![home.clone()] }, now());
    drain(&mut client);
    let mut hear = |message: ServerMessage| {
        client.handle_server_message(message, now());
        drain(&mut client)
    };
    assert_eq!(hear(ServerMessage::Relay { relay: unknown }), []);
    assert_eq!(hear(ServerMessage::Relay { relay: home }), [], "nothing new");
    let told = hear(ServerMessage::Relay { relay: draining.clone() });
    assert_eq!(told, [Output::Relays(vec![draining]), Output::Save]);
    assert_eq!(hear(ServerMessage::RelayGone { relay: "away".into() }), []);
    let told = hear(ServerMessage::RelayGone { relay: "home".into() });
    assert_eq!(told, [Output::Relays(vec![]), Output::Save]);
}

#[test]
fn a_hello_that_brings_only_the_relay_list_was_taken_too() {
    let world = World::new();
    let mut client = world.joined();
    client.handle_disconnected();
    client.handle_connected(now());
    drain(&mut client);
    client.handle_server_message(ServerMessage::Relays { relays: vec![] }, now());
    let outputs = drain(&mut client);
    for code in ["control_refused", "removed_from_party"] {
        assert!(outputs.contains(&Output::Solved(code)), "{code}: {outputs:?}");
    }
    let error = ErrorBody { code: ErrorCode::NotFound, message: "not found".into() };
    client.handle_server_message(ServerMessage::Error { party: Some(PARTY), error }, now());
    assert_eq!((drain(&mut client), refused(&client, "not_found")), (vec![], 1));
}

/// A member's entry with devices at these addresses.
fn with_devices(world: &World, device: &Device, last: u8, version: u64, addresses: &[u8]) -> Member {
    let devices = addresses.iter().map(|last| PartyDevice {
        name: "console".into(),
        kind: DeviceKind::Lan,
        address: Ipv4Addr::new(10, 66, 0, *last),
    });
    let list = DeviceList::sign(&world.secret, &PARTY, &device.key(), 1, (version, devices.collect()));
    Member { devices: Some(list.into()), ..world.member(device, last, 1) }
}

#[test]
fn devices_behind_a_member_are_believed_only_from_that_member() {
    let world = World::new();
    let mut client = world.joined();
    let friend = world.friend.key();
    let mut seq = 3;
    let mut hear = |client: &mut PartyClient, member: Member| {
        seq += 1;
        client.handle_server_message(delta(seq, Change::Member { member }), now());
        let told = drain(client).contains(&Output::DevicesChanged { device: friend });
        let addresses: Vec<u8> =
            client.devices_of(&friend).iter().map(|device| device.address.octets()[3]).collect();
        (told, addresses)
    };
    let honest = |version, addresses: &[u8]| with_devices(&world, &world.friend, 3, version, addresses);
    assert_eq!(hear(&mut client, honest(5, &[20, 21])), (true, vec![20, 21]));
    let mut forged = honest(6, &[22]);
    forged.devices.as_mut().unwrap().devices[0].address = Ipv4Addr::new(10, 66, 0, 23);
    let of_another =
        Member { devices: with_devices(&world, &world.host, 1, 7, &[24]).devices, ..honest(7, &[]) };
    for (member, why) in [
        (forged, "bad_devices"),
        (of_another, "bad_devices"),
        (honest(4, &[25]), "old_devices"),
        (honest(8, &[1]), "device_address_taken"),
        (honest(8, &[2]), "device_address_taken"),
        (honest(8, &[3]), "device_address_taken"),
        (honest(8, &[0]), "device_address_taken"),
        (honest(8, &[26, 26]), "bad_devices"),
    ] {
        let before = refused(&client, why);
        assert_eq!(hear(&mut client, member), (false, vec![20, 21]), "{why}");
        assert_eq!(refused(&client, why), before + 1);
    }
    // nobody else gets an address that a device has
    let spy = Device::generate(&mut OsRng);
    hear(&mut client, world.member(&spy, 20, 1));
    assert_eq!((client.members().count(), refused(&client, "address_taken")), (2, 1));
    assert_eq!(hear(&mut client, honest(9, &[21])), (true, vec![21]));
    hear(&mut client, world.member(&spy, 20, 1));
    assert_eq!(client.members().count(), 3, "the address is free again");
    assert_eq!(hear(&mut client, world.member(&world.friend, 3, 1)), (true, vec![]), "none any more");
}

#[test]
fn own_devices_are_published_and_signed_anew_in_a_new_epoch() {
    let world = World::new();
    let mut client = world.joined();
    let device = PartyDevice {
        name: "phone".into(),
        kind: DeviceKind::Wireguard,
        address: Ipv4Addr::new(10, 66, 0, 30),
    };
    let published = |client: &mut PartyClient| {
        drain(client).into_iter().find_map(|output| match output {
            Output::Send(ClientMessage::Hello { member, .. }) => member.devices,
            _ => None,
        })
    };
    client.set_devices(vec![device.clone()], now());
    let first = published(&mut client).unwrap();
    assert!(first.is_of(&world.secret, &PARTY, &world.me.key(), 1));
    client.set_devices(vec![device], now());
    assert_eq!(published(&mut client), None, "nothing new");
    let party = Party { epoch: 2, ..world.party() };
    let snapshot = ServerMessage::Snapshot { party, seq: 9, members: vec![], online: vec![] };
    client.handle_server_message(snapshot, now());
    let second = published(&mut client).unwrap();
    assert!(second.is_of(&world.secret, &PARTY, &world.me.key(), 2) && second.version > first.version);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a server makes up without the secret, no unknown member appears and nothing panics.
    #[test]
    fn a_server_without_the_secret_adds_nobody(
        seqs in proptest::collection::vec((0u64..8, 0u32..4, any::<[u8; 4]>(), any::<bool>()), 0..20),
    ) {
        let world = World::new();
        let mut client = world.joined();
        let known: Vec<_> = client.members().cloned().collect();
        for (seq, epoch, address, whole) in seqs {
            let entry = RosterEntry {
                name: "x".into(), device: DeviceKey([address[0]; 32]), wg: WgKey(address.repeat(8).try_into().unwrap()),
                wg_signature: Signature([0; 64]), address: address.into(), epoch,
            };
            let member = Member { entry, mac: crate::identity::RosterMac([address[1]; 32]), devices: None };
            let message = match whole {
                true => ServerMessage::Snapshot {
                    party: Party { epoch, ..world.party() }, seq, members: vec![member], online: vec![],
                },
                false => ServerMessage::Delta { party: PARTY, epoch, seq, change: Change::Member { member } },
            };
            client.handle_server_message(message, now());
        }
        prop_assert!(client.members().all(|entry| known.contains(entry)));
    }
}
