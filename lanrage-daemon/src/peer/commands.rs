//! What the local API asks for. Calls to the control server run beside the event loop and come back as [`Event`]:
//! packets never wait for them.

use super::behind::NewDevice;
use super::event_loop::Peer;
use super::ping::Plan;
use super::store::StoredParty;
use super::{PeerCommand, Reply, invite};
use crate::clock::now;
use crate::control::client::{ControlClient, ControlError};
use crate::control::origin;
use crate::platform;
use ipnet::Ipv4Net;
use lanrage_common::api::{
    AddDeviceAnswer, CreatePartyRequest, InviteAnswer, InviteRequest, JoinRequest, NetworkStatus, PingAnswer,
    PingRequest, RevokeRequest, RunAnswer, RunRequest,
};
use lanrage_common::bulletin::Announced;
use lanrage_common::gateway::Mac;
use lanrage_common::identity::{PartyId, PartySecret, RosterEntry};
use lanrage_common::invite::Invite;
use lanrage_common::members;
use lanrage_common::party::PartyClient;
use lanrage_common::protocol::{CreateInvite, ErrorBody, ErrorCode, MAX_NAME, Membership, is_valid_name};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// How long the host's entry may take after the membership was granted.
const JOIN_TIMEOUT: Duration = Duration::from_secs(15);
/// Echoes of one ping command.
const MAX_PINGS: u32 = 100;
/// What the server uses unless told otherwise.
const DEFAULT_SUBNET: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 66, 0, 0), 16);

/// A finished call to the control server.
pub(super) enum Event {
    /// A party was founded, or not.
    Created(ControlClient, Result<Membership, ControlError>, Reply<InviteAnswer>),
    /// An invite was redeemed, or not.
    Joined(ControlClient, Box<Invite>, Result<Membership, ControlError>, Reply<()>),
    /// The addresses of `peer.stun_servers`.
    StunServers(Vec<SocketAddr>),
    /// A device behind this one has an address, or not.
    DeviceLeased(Box<NewDevice>, Result<Ipv4Addr, ControlError>, Reply<AddDeviceAnswer>),
    /// A device on the home network has an address, or not.
    LeasedForHome(Mac, Result<Ipv4Addr, ControlError>),
    /// Game servers that run on this machine.
    Servers(Vec<Announced>),
    /// The control server knows that this device has left, or cannot be told.
    Left(Result<(), ControlError>, Reply<()>),
}

/// A membership whose host is not verified yet.
pub(super) struct Joining {
    /// When to give up.
    pub(super) deadline: Instant,
    reply: Reply<()>,
}

impl Peer {
    /// Does a command, or starts it.
    pub(super) async fn handle_command(&mut self, command: PeerCommand) {
        match command {
            PeerCommand::CreateParty(request, reply) => match self.prepare_create(&request) {
                Ok(control) => self.create(control, request.name, reply),
                Err(error) => refuse(reply, error),
            },
            PeerCommand::Join(request, reply) => match self.prepare_join(&request) {
                Ok((control, invite)) => self.join(control, invite, reply),
                Err(error) => refuse(reply, error),
            },
            PeerCommand::Leave(reply) => self.leave(reply).await,
            PeerCommand::Invite(request, reply) => self.make_invite(request, reply),
            PeerCommand::Revoke(request, reply) => self.revoke(&request, reply),
            PeerCommand::Up(reply) => {
                let result = self.up().await;
                self.answer(reply, result);
            }
            PeerCommand::Down(reply) => {
                let result = self.down().await;
                self.answer(reply, result);
            }
            PeerCommand::AddDevice(request, reply) => self.add_device(request, reply),
            PeerCommand::RemoveDevice(request, reply) => self.remove_device(&request, reply),
            PeerCommand::Firewall(request, reply) => {
                let result = self.say(request);
                self.answer(reply, result);
            }
            PeerCommand::Ping(request, reply) => self.ping(&request, reply),
            PeerCommand::Netcheck(reply) => self.netcheck(reply),
            PeerCommand::Run(request, reply) => {
                let result = self.run_program(&request);
                self.answer(reply, result);
            }
            PeerCommand::CheckLan(config, reply) => {
                let result = self.check_lan(&config).await;
                self.answer(reply, result);
            }
            PeerCommand::Configure(config, reply) => {
                let result = self.configure(*config).await;
                self.answer(reply, result);
            }
        }
    }

    /// Goes on where a call to the control server has returned.
    pub(super) async fn handle_event(&mut self, event: Event) {
        self.busy &= matches!(
            event,
            Event::StunServers(_) | Event::DeviceLeased(..) | Event::LeasedForHome(..) | Event::Servers(_)
        );
        match event {
            Event::StunServers(servers) => {
                self.stun_servers = servers;
                if let Some(session) = &mut self.session {
                    session.nat.set_stun_servers(self.stun_servers.clone(), now());
                }
            }
            Event::Created(control, Ok(membership), reply) => {
                self.begin_own_party(control, membership, reply).await
            }
            Event::Created(_, Err(error), reply) => refuse(reply, error.to_body()),
            Event::Joined(control, invite, Ok(membership), reply) => {
                self.begin_join(control, *invite, membership, reply).await;
            }
            Event::Joined(_, _, Err(error), reply) => refuse(reply, error.to_body()),
            Event::LeasedForHome(mac, result) => self.complete_lease(mac, result),
            Event::Servers(found) => self.tell_servers(found),
            Event::DeviceLeased(device, Ok(address), reply) => self.complete_device(*device, address, reply),
            Event::DeviceLeased(_, Err(error), reply) => refuse(reply, error.to_body()),
            Event::Left(result, reply) => {
                if let Err(error) = result {
                    tracing::warn!(%error, "left the party, but the control server does not know it");
                }
                self.answer(reply, Ok(()));
            }
        }
    }

    /// The host's entry was verified: the membership is real.
    pub(super) async fn complete_join(&mut self) {
        let Some(joining) = self.joining.take() else { return };
        if let Some(session) = &self.session {
            self.stored = Some(StoredParty {
                control: session.control.origin().into(),
                secret: session.secret.clone(),
                state: session.party.state().clone(),
                up: true,
                tickets: session.tickets.clone(),
            });
        }
        let result = self.save();
        self.ensure_interface(Instant::now()).await;
        self.answer(joining.reply, result);
    }

    /// The secret does not fit the party: out again, when it is being joined. A party that was verified before stays:
    /// a control server that lies must not be able to end it.
    pub(super) async fn refuse_party(&mut self, text: String) {
        match self.joining.take() {
            Some(joining) => self.abandon(joining, text).await,
            None => tracing::warn!(text, "the control server contradicts what is known of the party"),
        }
    }

    /// The host's entry did not come in time.
    pub(super) async fn give_up_join(&mut self) {
        if let Some(joining) = self.joining.take() {
            let text = "the control server let this device in, but did not show the party's host within 15 s: try again, or ask for a new link";
            self.abandon(joining, text.into()).await;
        }
    }

    /// Writes the roster as it is now.
    pub(super) fn save_roster(&mut self) {
        if let (Some(stored), Some(session), None) = (&mut self.stored, &self.session, &self.joining) {
            stored.state = session.party.state().clone();
            stored.tickets = session.tickets.clone();
            if let Err(error) = self.store.save_roster(stored) {
                tracing::warn!("{error:#}");
            }
        }
    }

    async fn abandon(&mut self, joining: Joining, text: String) {
        if let Some(session) = &self.session {
            let (control, party) = (session.control.clone(), session.party.party().id);
            tokio::spawn(async move {
                if let Err(error) = control.leave(&party).await {
                    tracing::warn!(%error, "cannot take back the membership");
                }
            });
        }
        self.end_session().await;
        self.answer(joining.reply, Err(error(ErrorCode::Forbidden, text)));
    }

    fn prepare_create(&self, request: &CreatePartyRequest) -> Result<ControlClient, ErrorBody> {
        self.check_free()?;
        if !is_valid_name(&request.name) {
            return Err(bad(format!(
                "the party's name cannot be shown: use 1 to {MAX_NAME} characters without control characters or outer blanks"
            )));
        }
        let origin = request.control.as_ref().or(self.config.control.as_ref()).ok_or_else(|| {
            bad("no control server is configured: name one with --control, or set `peer.control` in lanrage.toml")
        })?;
        self.client(origin)
    }

    fn create(&mut self, control: ControlClient, name: String, reply: Reply<InviteAnswer>) {
        self.busy = true;
        let (events, interface) = (self.events.clone(), self.config.interface.clone());
        tokio::spawn(async move {
            let routes = platform::routes().await.unwrap_or_default();
            let subnet = Ipv4Net::new(DEFAULT_SUBNET.0, DEFAULT_SUBNET.1)
                .ok()
                .and_then(|default| platform::free_subnet(default, &routes, &interface));
            let result = control.create_party(&name, subnet).await;
            let _ = events.send(Event::Created(control, result, reply));
        });
    }

    async fn begin_own_party(
        &mut self,
        control: ControlClient,
        membership: Membership,
        reply: Reply<InviteAnswer>,
    ) {
        let secret = PartySecret::generate(&mut rand_core::OsRng);
        let host = self.device.key().fingerprint();
        let party = PartyClient::new(membership, secret.clone(), host, &self.device, &self.name);
        self.stored = Some(StoredParty {
            control: control.origin().into(),
            secret: secret.clone(),
            state: party.state().clone(),
            up: true,
            tickets: BTreeMap::new(),
        });
        if let Err(error) = self.save() {
            return refuse(reply, error);
        }
        self.begin_session(control, party, secret, BTreeMap::new()).await;
        self.publish();
        self.make_invite(InviteRequest::default(), reply);
    }

    fn prepare_join(&self, request: &JoinRequest) -> Result<(ControlClient, Invite), ErrorBody> {
        let invite = parse_invite(&request.invite)?;
        self.check_free()?;
        Ok((self.client(&invite.control)?, invite))
    }

    fn join(&mut self, control: ControlClient, invite: Invite, reply: Reply<()>) {
        self.busy = true;
        let events = self.events.clone();
        tokio::spawn(async move {
            let result = control.join(&invite.code).await;
            let _ = events.send(Event::Joined(control, Box::new(invite), result, reply));
        });
    }

    async fn begin_join(
        &mut self,
        control: ControlClient,
        invite: Invite,
        membership: Membership,
        reply: Reply<()>,
    ) {
        let party =
            PartyClient::new(membership, invite.secret.clone(), invite.host, &self.device, &self.name);
        self.joining = Some(Joining { deadline: Instant::now() + JOIN_TIMEOUT, reply });
        self.begin_session(control, party, invite.secret, BTreeMap::new()).await;
    }

    async fn leave(&mut self, reply: Reply<()>) {
        let Some(stored) = self.stored.take() else { return refuse(reply, no_party()) };
        self.end_session().await;
        if let Err(error) = self.store.forget_party() {
            tracing::warn!("{error:#}");
        }
        match self.client(&stored.control) {
            Ok(control) => self.tell_leave(control, stored.state.membership.party.id, reply),
            Err(error) => self.answer(reply, Err(error)),
        }
    }

    fn tell_leave(&mut self, control: ControlClient, party: PartyId, reply: Reply<()>) {
        self.busy = true;
        let events = self.events.clone();
        tokio::spawn(async move {
            let result = control.leave(&party).await;
            let _ = events.send(Event::Left(result, reply));
        });
    }

    fn make_invite(&self, request: InviteRequest, reply: Reply<InviteAnswer>) {
        let Some(stored) = &self.stored else { return refuse(reply, no_party()) };
        let control = match self.client(&stored.control) {
            Ok(control) => control,
            Err(error) => return refuse(reply, error),
        };
        let (party, secret) = (&stored.state.membership.party, stored.secret.clone());
        let (id, host) = (party.id, stored.state.host);
        let origin = self.invite_origin(control.origin());
        tokio::spawn(async move {
            let wanted = CreateInvite { expires_in: request.expires_in, uses: request.uses };
            let result = control.create_invite(&id, &wanted).await;
            let answer = result.map_err(|error| error.to_body()).map(|code| {
                let link = Invite { control: origin, code: code.code.clone(), secret, host };
                invite::answer(&link, &code)
            });
            let _ = reply.send(answer);
        });
    }

    fn revoke(&self, request: &RevokeRequest, reply: Reply<()>) {
        match self.prepare_revoke(request) {
            Ok((control, party, code)) => drop(tokio::spawn(async move {
                let result = control.revoke_invite(&party, &code).await;
                let _ = reply.send(result.map_err(|error| error.to_body()));
            })),
            Err(error) => refuse(reply, error),
        }
    }

    fn prepare_revoke(&self, request: &RevokeRequest) -> Result<(ControlClient, PartyId, String), ErrorBody> {
        let stored = self.stored.as_ref().ok_or_else(no_party)?;
        let invite = parse_invite(&request.invite)?;
        if invite.secret != stored.secret {
            return Err(bad(
                "this invite is not of the party that this device is in: nothing was taken back",
            ));
        }
        Ok((self.client(&stored.control)?, stored.state.membership.party.id, invite.code))
    }

    /// Friends may reach the configured control server by another address than this machine does.
    fn invite_origin(&self, control: &str) -> String {
        let same = |origin: &String| origin::normalize(origin).is_ok_and(|origin| origin == control);
        let outside =
            self.config.invite_origin.as_ref().filter(|_| self.config.control.as_ref().is_some_and(same));
        outside.and_then(|outside| origin::normalize(outside).ok()).unwrap_or_else(|| control.into())
    }

    /// Takes the tunnel up.
    pub(super) async fn up(&mut self) -> Result<(), ErrorBody> {
        let stored = self.stored.as_mut().ok_or_else(no_party)?;
        stored.up = true;
        let stored = stored.clone();
        self.save()?;
        if self.session.is_none() {
            let control = self.client(&stored.control)?;
            let party = PartyClient::restore(stored.state, stored.secret.clone(), &self.device, &self.name);
            self.begin_session(control, party, stored.secret, stored.tickets).await;
        }
        self.interface_retry = None;
        self.ensure_interface(Instant::now()).await;
        match &self.interface_problem {
            Some(problem) => Err(error(ErrorCode::Internal, format!("{}: {}", problem.message, problem.fix))),
            None => Ok(()),
        }
    }

    async fn down(&mut self) -> Result<(), ErrorBody> {
        self.stored.as_mut().ok_or_else(no_party)?.up = false;
        self.end_session().await;
        self.save()
    }

    fn netcheck(&mut self, reply: Reply<NetworkStatus>) {
        match &mut self.session {
            Some(session) => session.nat.check(reply, now()),
            None => refuse(reply, tunnel_down()),
        }
    }

    fn run_program(&mut self, request: &RunRequest) -> Result<RunAnswer, ErrorBody> {
        self.stored.as_ref().ok_or_else(no_party)?;
        let (Some(session), Some(interface)) = (&self.session, &self.interface) else {
            return Err(tunnel_down());
        };
        self.runs.start(&request.group, *session.lane.local()).map_err(|error| bad(error.to_string()))?;
        tracing::info!(group = request.group, "a program uses the party");
        Ok(RunAnswer { interface: interface.name().into(), address: session.party.own().address })
    }

    fn ping(&mut self, request: &PingRequest, reply: Reply<PingAnswer>) {
        match self.find_member(request) {
            Ok(member) => {
                if let Some(session) = &mut self.session {
                    let path = session.paths.status(&member.wg);
                    let plan = Plan {
                        outside_rtt_ms: path.as_ref().and_then(|path| path.rtt_ms),
                        path_mtu: path.and_then(|path| path.mtu),
                        member: member.name,
                        address: member.address,
                        count: request.count,
                        mtu: request.mtu.then_some(self.config.mtu),
                    };
                    session.pings.start(plan, reply, now().instant);
                }
            }
            Err(error) => refuse(reply, error),
        }
    }

    fn find_member(&self, request: &PingRequest) -> Result<RosterEntry, ErrorBody> {
        let stored = self.stored.as_ref().ok_or_else(no_party)?;
        if !(1..=MAX_PINGS).contains(&request.count) {
            return Err(bad(format!("a ping has 1 to {MAX_PINGS} echoes")));
        }
        let Some(session) = &self.session else {
            return Err(tunnel_down());
        };
        let wanted = request.member.trim();
        if wanted == self.name || wanted.parse() == Ok(stored.state.membership.address) {
            return Err(bad(format!("{wanted} is this device: name another member")));
        }
        members::resolve(session.party.members(), wanted).cloned()
    }

    fn check_free(&self) -> Result<(), ErrorBody> {
        match &self.stored {
            Some(stored) => Err(bad(format!(
                "this device is already in the party \"{}\": leave it first with `lanrage party leave`",
                stored.state.membership.party.name
            ))),
            None if self.busy || self.joining.is_some() => {
                Err(bad("another create, join or leave is still under way: wait for it to finish"))
            }
            None => Ok(()),
        }
    }

    fn client(&self, origin: &str) -> Result<ControlClient, ErrorBody> {
        match &self.session {
            Some(session) if session.control.origin() == origin => Ok(session.control.clone()),
            _ => ControlClient::new(origin, self.device.clone()).map_err(|error| bad(error.to_string())),
        }
    }

    fn save(&mut self) -> Result<(), ErrorBody> {
        let Some(stored) = &self.stored else { return Ok(()) };
        self.store.save_party(stored).map_err(|found| error(ErrorCode::Internal, format!("{found:#}")))?;
        self.store_problem = None; // a damaged party is replaced by this one
        Ok(())
    }

    /// Answers when the status already shows what was done.
    pub(super) fn answer<T>(&mut self, reply: Reply<T>, result: Result<T, ErrorBody>) {
        self.publish();
        let _ = reply.send(result);
    }
}

fn parse_invite(link: &str) -> Result<Invite, ErrorBody> {
    link.parse().map_err(|error: lanrage_common::invite::InviteError| bad(error.to_string()))
}

pub(super) fn refuse<T>(reply: Reply<T>, error: ErrorBody) {
    let _ = reply.send(Err(error));
}

pub(super) fn error(code: ErrorCode, message: impl Into<String>) -> ErrorBody {
    ErrorBody { code, message: message.into() }
}

/// The request cannot be done as it is.
pub(super) fn bad(message: impl Into<String>) -> ErrorBody {
    error(ErrorCode::BadRequest, message)
}

pub(super) fn tunnel_down() -> ErrorBody {
    error(ErrorCode::BadRequest, "the tunnel is down: bring it up with `lanrage up`")
}

pub(super) fn no_party() -> ErrorBody {
    error(
        ErrorCode::NotFound,
        "this device is in no party: found one with `lanrage party create NAME`, or join one with `lanrage join LINK`",
    )
}
