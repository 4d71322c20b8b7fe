use super::*;
use crate::devices::{DeviceKind, DeviceList, MAX_DEVICES, PartyDevice};
use crate::identity::DeviceId;
use crate::identity::{Device, PartySecret, RosterEntry};
use crate::protocol::{CreateInvite, MAX_MEMBERS, MAX_SIGNAL};
use rand_core::OsRng;
use std::time::Instant;

const ID: PartyId = PartyId([7; 16]);

struct World {
    party: ControlParty,
    secret: PartySecret,
    host: Device,
    now: Now,
}

fn caller(device: &Device) -> Caller {
    Caller { device: device.key(), wg: device.wg_key() }
}

fn drain(party: &mut ControlParty) -> Vec<Output> {
    std::iter::from_fn(|| party.poll_output()).collect()
}

fn world() -> World {
    let host = Device::generate(&mut OsRng);
    let subnet = "10.66.0.0/16".parse().unwrap();
    let (mut party, membership) = ControlParty::found(ID, "Friday", subnet, caller(&host)).unwrap();
    assert_eq!(membership.address.octets(), [10, 66, 0, 1]);
    assert!(matches!(
        drain(&mut party)[..],
        [Output::Store(Record::Founded(_)), Output::Store(Record::Seat(_))]
    ));
    let now = Now { instant: Instant::now(), unix: 1_000_000 };
    World { party, secret: PartySecret::generate(&mut OsRng), host, now }
}

impl World {
    fn invite(
        &mut self,
        code: &str,
        expires_in: Option<u64>,
        uses: Option<u32>,
    ) -> Result<StoredInvite, ErrorBody> {
        let wish = CreateInvite { expires_in, uses };
        self.party.handle_create_invite(&caller(&self.host), CodeHash::of(code), &wish, self.now)
    }

    fn join(&mut self, device: &Device, code: &str) -> Result<Membership, ErrorBody> {
        self.party.handle_join(caller(device), &CodeHash::of(code), self.now)
    }

    fn entry(&self, device: &Device, name: &str) -> Member {
        let address = self.party.membership(&device.key()).unwrap().address;
        let entry = RosterEntry {
            name: name.into(),
            device: device.key(),
            wg: device.wg_key(),
            wg_signature: device.wg_signature(),
            address,
            epoch: self.party.party().epoch,
        };
        let mac = self.secret.roster_mac(&ID, &entry);
        Member { entry, mac, devices: None }
    }

    fn hello(
        &mut self,
        device: &Device,
        conn: u64,
        name: &str,
        have: Option<u64>,
    ) -> Vec<(u64, ServerMessage)> {
        let member = self.entry(device, name);
        self.party.handle_hello(caller(device), ConnId(conn), member, have).unwrap();
        self.sent()
    }

    fn sent(&mut self) -> Vec<(u64, ServerMessage)> {
        let outputs = drain(&mut self.party).into_iter();
        outputs
            .filter_map(|output| match output {
                Output::Send { to, message } => Some((to.0, (*message).clone())),
                Output::Store(_) => None,
            })
            .collect()
    }
}

fn code_of<T: std::fmt::Debug>(result: Result<T, ErrorBody>) -> ErrorCode {
    result.unwrap_err().code
}

#[test]
fn an_invite_lets_in_as_many_devices_as_it_says() {
    let mut world = world();
    world.invite("a", None, Some(1)).unwrap();
    let (ana, bob) = (Device::generate(&mut OsRng), Device::generate(&mut OsRng));
    let first = world.join(&ana, "a").unwrap();
    assert_eq!(first.address.octets(), [10, 66, 0, 2]);
    assert_eq!(code_of(world.join(&bob, "a")), ErrorCode::InviteUsedUp);
    assert_eq!(world.join(&ana, "a").unwrap(), first, "a lost answer may be asked for again");
}

#[test]
fn unknown_expired_and_revoked_invites_are_told_apart() {
    let mut world = world();
    world.invite("a", Some(60), None).unwrap();
    world.invite("b", None, None).unwrap();
    let bob = Device::generate(&mut OsRng);
    assert_eq!(code_of(world.join(&bob, "zzz")), ErrorCode::NotFound);
    let host = caller(&world.host);
    world.party.handle_revoke_invite(&host, &CodeHash::of("b")).unwrap();
    assert_eq!(code_of(world.join(&bob, "b")), ErrorCode::InviteRevoked);
    world.now.unix += 60;
    assert_eq!(code_of(world.join(&bob, "a")), ErrorCode::InviteExpired);
    let stranger = caller(&bob);
    assert_eq!(code_of(world.party.handle_revoke_invite(&stranger, &CodeHash::of("a"))), ErrorCode::NotFound);
}

#[test]
fn invite_limits_hold_and_dead_ones_make_room() {
    let mut world = world();
    for (life, uses) in
        [(Some(59), None), (Some(MAX_INVITE_LIFE + 1), None), (None, Some(0)), (None, Some(255))]
    {
        assert_eq!(code_of(world.invite("x", life, uses)), ErrorCode::BadRequest);
    }
    for n in 0..MAX_INVITES {
        world.invite(&n.to_string(), Some(60), None).unwrap();
    }
    assert_eq!(code_of(world.invite("more", None, None)), ErrorCode::BadRequest);
    world.now.unix += 61;
    drain(&mut world.party);
    world.invite("more", None, None).unwrap();
    let gone =
        drain(&mut world.party).into_iter().filter(|o| matches!(o, Output::Store(Record::InviteGone(_))));
    assert_eq!(gone.count(), MAX_INVITES);
}

#[test]
fn long_dead_invites_are_forgotten_in_time() {
    let mut world = world();
    let invite = world.invite("a", Some(60), None).unwrap();
    drain(&mut world.party);
    let due = world.party.poll_timeout().unwrap();
    world.party.handle_timeout(Now { unix: due - 1, ..world.now });
    assert_eq!(drain(&mut world.party), []);
    world.party.handle_timeout(Now { unix: due, ..world.now });
    assert_eq!(drain(&mut world.party), [Output::Store(Record::InviteGone(invite.code))]);
    assert_eq!(world.party.poll_timeout(), None);
}

#[test]
fn hello_gives_a_snapshot_and_others_a_delta_and_presence() {
    let mut world = world();
    world.invite("a", None, None).unwrap();
    let (host, ana) = (Device::from_bytes(&world.host.to_bytes()), Device::generate(&mut OsRng));
    world.join(&ana, "a").unwrap();
    let sent = world.hello(&host, 1, "Host", None);
    assert!(
        matches!(&sent[..], [(1, ServerMessage::Snapshot { seq: 1, members, .. })] if members.len() == 1)
    );

    let sent = world.hello(&ana, 2, "Ana", None);
    let [
        (1, ServerMessage::Delta { seq: 2, change: Change::Member { member }, .. }),
        (2, snapshot),
        (1, presence),
    ] = &sent[..]
    else {
        panic!("{sent:?}")
    };
    assert_eq!(member.entry.name, "Ana");
    assert!(matches!(snapshot, ServerMessage::Snapshot { seq: 2, members, online, .. }
        if members.len() == 2 && online.len() == 2));
    assert!(matches!(presence, ServerMessage::Presence { device, online: true, .. } if *device == ana.key()));
}

#[test]
fn who_comes_back_gets_only_what_it_missed() {
    let mut world = world();
    world.invite("a", None, None).unwrap();
    let (host, ana) = (Device::from_bytes(&world.host.to_bytes()), Device::generate(&mut OsRng));
    world.join(&ana, "a").unwrap();
    world.hello(&host, 1, "Host", None);
    world.hello(&ana, 2, "Ana", None);
    world.party.handle_disconnect(&ana.key(), ConnId(2));
    assert!(matches!(world.sent()[..], [(1, ServerMessage::Presence { online: false, .. })]));
    world.hello(&host, 1, "Renamed", Some(2));

    let sent = world.hello(&ana, 3, "Ana", Some(2));
    assert!(matches!(sent[0], (3, ServerMessage::Delta { seq: 3, .. })), "{sent:?}");
    assert!(!sent.iter().any(|(_, message)| matches!(message, ServerMessage::Snapshot { .. })));
    let sent = world.hello(&ana, 3, "Ana", Some(3));
    assert!(sent.iter().all(|(_, message)| matches!(message, ServerMessage::Presence { .. })));
    let from_another_time = world.hello(&ana, 3, "Ana", Some(99));
    assert!(matches!(from_another_time[..], [(3, ServerMessage::Snapshot { .. })]));
}

#[test]
fn a_late_disconnect_does_not_take_the_new_connection_down() {
    let mut world = world();
    let host = Device::from_bytes(&world.host.to_bytes());
    world.hello(&host, 1, "Host", None);
    world.hello(&host, 2, "Host", None);
    world.party.handle_disconnect(&host.key(), ConnId(1));
    assert_eq!(world.party.connections().collect::<Vec<_>>(), [ConnId(2)]);
}

#[test]
fn an_entry_must_match_login_and_lease() {
    let mut world = world();
    let host = Device::from_bytes(&world.host.to_bytes());
    let stranger = Device::generate(&mut OsRng);
    let honest = world.entry(&host, "Host");
    let with = |change: &dyn Fn(&mut RosterEntry)| {
        let mut member = honest.clone();
        change(&mut member.entry);
        member
    };
    let cases = [
        with(&|entry| entry.address = [10, 66, 0, 9].into()),
        with(&|entry| entry.epoch += 1),
        with(&|entry| entry.name = " ".into()),
        with(&|entry| entry.device = stranger.key()),
        with(&|entry| entry.wg = stranger.wg_key()),
        with(&|entry| entry.wg_signature = stranger.wg_signature()),
    ];
    for member in cases {
        let refused = world.party.handle_hello(caller(&host), ConnId(1), member, None);
        assert_eq!(code_of(refused), ErrorCode::BadRequest);
    }
    let refused = world.party.handle_hello(caller(&stranger), ConnId(1), honest, None);
    assert_eq!(code_of(refused), ErrorCode::NotFound);
    assert_eq!(drain(&mut world.party), [], "a refused hello leaves no trace");
}

#[test]
fn nobody_takes_another_members_tunnel_key() {
    let mut world = world();
    world.invite("a", None, None).unwrap();
    let thief = Caller { device: Device::generate(&mut OsRng).key(), wg: world.host.wg_key() };
    let refused = world.party.handle_join(thief, &CodeHash::of("a"), world.now);
    assert_eq!(code_of(refused), ErrorCode::Forbidden);
}

#[test]
fn signals_reach_connected_members_only() {
    let mut world = world();
    world.invite("a", None, None).unwrap();
    let (host, ana) = (Device::from_bytes(&world.host.to_bytes()), Device::generate(&mut OsRng));
    world.join(&ana, "a").unwrap();
    world.hello(&host, 1, "Host", None);
    let from_host = |world: &mut World, body: &str| {
        world.party.handle_signal(&caller(&host), ConnId(1), &ana.wg_key(), body.into())
    };
    world.sent();
    from_host(&mut world, "aGk=").unwrap();
    assert_eq!(world.sent(), [], "being away is no error of the sender");
    let stranger = WgKey([9; 32]);
    let lost = world.party.handle_signal(&caller(&host), ConnId(1), &stranger, "aGk=".into());
    assert_eq!(code_of(lost), ErrorCode::NotFound);
    let early = world.party.handle_signal(&caller(&ana), ConnId(2), &host.wg_key(), "aGk=".into());
    assert_eq!(code_of(early), ErrorCode::Forbidden);

    world.hello(&ana, 2, "Ana", None);
    from_host(&mut world, "aGk=").unwrap();
    let expected = ServerMessage::Signal { party: ID, from: host.wg_key(), body: "aGk=".into() };
    assert_eq!(world.sent(), [(2, expected)]);
    from_host(&mut world, &"a".repeat(MAX_SIGNAL)).unwrap();
    assert_eq!(code_of(from_host(&mut world, &"a".repeat(MAX_SIGNAL + 1))), ErrorCode::BadRequest);
    assert_eq!(code_of(from_host(&mut world, "not base64!")), ErrorCode::BadRequest);
}

#[test]
fn leaving_is_told_and_the_address_waits() {
    let mut world = world();
    world.invite("a", None, None).unwrap();
    let (host, ana) = (Device::from_bytes(&world.host.to_bytes()), Device::generate(&mut OsRng));
    let address = world.join(&ana, "a").unwrap().address;
    world.hello(&host, 1, "Host", None);
    world.hello(&ana, 2, "Ana", None);
    world.party.handle_leave(&caller(&ana), world.now).unwrap();
    let left = Change::Left { device: ana.key() };
    assert_eq!(
        world.sent(),
        [(1, ServerMessage::Delta { party: ID, epoch: FIRST_EPOCH, seq: 3, change: left })]
    );
    assert_eq!(code_of(world.party.handle_leave(&caller(&ana), world.now)), ErrorCode::NotFound);
    assert_eq!(world.join(&ana, "a").unwrap().address, address);
}

#[test]
fn invites_go_with_the_host_and_the_party_with_the_last_member() {
    let mut world = world();
    world.invite("a", None, None).unwrap();
    let ana = Device::generate(&mut OsRng);
    world.join(&ana, "a").unwrap();
    let host = caller(&world.host);
    world.party.handle_leave(&host, world.now).unwrap();
    assert_eq!(code_of(world.join(&Device::generate(&mut OsRng), "a")), ErrorCode::InviteRevoked);
    drain(&mut world.party);
    world.party.handle_leave(&caller(&ana), world.now).unwrap();
    assert_eq!(drain(&mut world.party), [Output::Store(Record::Dissolved)]);
    assert!(world.party.is_empty());
}

#[test]
fn a_party_has_an_upper_size() {
    let mut world = world();
    world.invite("a", None, None).unwrap();
    let join = |world: &mut World, n: u8| {
        let caller = Caller { device: DeviceKey([n; 32]), wg: WgKey([n; 32]) };
        world.party.handle_join(caller, &CodeHash::of("a"), world.now)
    };
    for n in 1..MAX_MEMBERS {
        join(&mut world, n as u8).unwrap();
    }
    assert_eq!(code_of(join(&mut world, 255)), ErrorCode::PartyFull);
    assert_eq!(world.party.len(), MAX_MEMBERS);
}

#[test]
fn a_member_names_devices_only_at_addresses_that_it_has_leased() {
    let mut world = world();
    world.invite("a", None, None).unwrap();
    let (host, ana) = (Device::from_bytes(&world.host.to_bytes()), Device::generate(&mut OsRng));
    world.join(&ana, "a").unwrap();
    let id = DeviceId([1; 16]);
    let address = world.party.handle_lease_device(&caller(&ana), id).unwrap();
    assert_eq!(world.party.handle_lease_device(&caller(&ana), id), Ok(address), "again the same");
    let other = world.party.handle_lease_device(&caller(&host), id).unwrap();
    assert_ne!(other, address, "numbers are each member's own");
    let hello = |world: &mut World, address| {
        let device = PartyDevice { name: "phone".into(), kind: DeviceKind::Wireguard, address };
        let list = DeviceList::sign(&world.secret, &ID, &ana.key(), 1, (1, vec![device]));
        let member = Member { devices: Some(list.into()), ..world.entry(&ana, "Ana") };
        world.party.handle_hello(caller(&ana), ConnId(1), member, None)
    };
    for wrong in [other, [10, 66, 0, 1].into(), [10, 66, 9, 9].into()] {
        assert_eq!(hello(&mut world, wrong).unwrap_err().code, ErrorCode::BadRequest, "{wrong}");
    }
    hello(&mut world, address).unwrap();
    world.party.handle_release_device(&caller(&ana), id, world.now).unwrap();
    assert!(hello(&mut world, address).is_err(), "given back");
    for n in 0..MAX_DEVICES {
        world.party.handle_lease_device(&caller(&ana), DeviceId([n as u8 + 9; 16])).unwrap();
    }
    let full = world.party.handle_lease_device(&caller(&ana), DeviceId([8; 16])).unwrap_err();
    assert_eq!(full.code, ErrorCode::PartyFull);
    world.party.handle_leave(&caller(&ana), world.now).unwrap();
    assert_eq!(world.party.ipam.behind(Some(&ana.key())).count(), 0, "they leave with her");
    let stranger = Device::generate(&mut OsRng);
    assert!(world.party.handle_lease_device(&caller(&stranger), id).is_err());
}

#[test]
fn a_restored_party_goes_on_where_it_was() {
    let mut world = world();
    world.invite("a", None, Some(3)).unwrap();
    let (host, ana) = (Device::from_bytes(&world.host.to_bytes()), Device::generate(&mut OsRng));
    world.join(&ana, "a").unwrap();
    let entry = world.entry(&host, "Host");
    world.party.handle_hello(caller(&host), ConnId(1), entry, None).unwrap();
    let device = world.party.handle_lease_device(&caller(&host), DeviceId([1; 16])).unwrap();
    let stored = |party: &mut ControlParty| {
        let mut stored = StoredParty {
            party: party.party().clone(),
            seq: 0,
            seats: vec![],
            devices: vec![],
            invites: vec![],
            changes: vec![],
        };
        for record in drain(party) {
            match record {
                Output::Store(Record::Seat(seat)) => {
                    stored.seats.retain(|old| old.device != seat.device);
                    stored.seats.push(seat);
                }
                Output::Store(Record::Device(device)) => {
                    stored
                        .devices
                        .retain(|old: &StoredDevice| (old.owner, old.id) != (device.owner, device.id));
                    stored.devices.push(device);
                }
                Output::Store(Record::Invite(invite)) => stored.invites = vec![invite],
                Output::Store(Record::Change { seq, epoch, change }) => {
                    stored.seq = seq;
                    stored.changes.push((seq, epoch, change));
                }
                _ => {}
            }
        }
        stored
    };
    let mut records = stored(&mut world.party);
    let host_seat = StoredSeat {
        device: host.key(),
        wg: host.wg_key(),
        address: [10, 66, 0, 1].into(),
        released: None,
        entry: None,
    };
    if !records.seats.iter().any(|seat| seat.device == host.key()) {
        records.seats.push(host_seat);
    }
    assert_eq!(records.invites[0].uses_left, Some(2));
    world.party = ControlParty::restore(records).unwrap();
    assert_eq!((world.party.len(), world.party.seq()), (2, 1));
    assert_eq!(world.party.handle_lease_device(&caller(&host), DeviceId([1; 16])), Ok(device));
    let sent = world.hello(&ana, 5, "Ana", Some(1));
    assert!(matches!(sent[0], (5, ServerMessage::Delta { seq: 2, .. })), "{sent:?}");
}
