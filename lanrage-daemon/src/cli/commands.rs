//! Each command: what it asks, and what it prints.

use super::arguments::{Arguments, Command, ConfigCommand, Firewall, Gateway, Invite, Party, Relay};
use super::client::{Answer, Client};
use super::failure::Failure;
use super::screen::Screen;
use super::watch::{Look, look};
use super::{
    doctor, firewall, gateway, local, matrix, netcheck, relay, run as program, servers, settings, show,
    support, trace,
};
use lanrage_common::api::{
    CreatePartyRequest, DrainRequest, InviteAnswer, InviteRequest, JoinRequest, PartyStatus, PingAnswer,
    PingReply, PingRequest, RevokeRequest, Status, UiAnswer,
};
use serde_json::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Between the pings that a person watches.
const PING_GAP: Duration = Duration::from_secs(1);

/// How long a relay may take to end when its time is over.
const DRAIN_SLACK: Duration = Duration::from_secs(5);

/// One command's surroundings.
struct Session<'a, 'b> {
    client: Client,
    screen: &'a mut Screen<'b>,
    json: bool,
}

pub(super) async fn run(arguments: Arguments, screen: &mut Screen<'_>) -> Result<u8, Failure> {
    let Arguments { json, socket, command } = arguments;
    let is_relays = matches!(command, Command::Relay(_));
    let client = if is_relays { Client::of_relay(&socket) } else { Client::new(&socket) };
    let mut session = Session { client, screen, json };
    match command {
        Command::Status(watch) => session.look(watch.watch, show::status).await,
        Command::Peers(watch) => session.look(watch.watch, show::peers).await,
        Command::Relays(watch) => session.look(watch.watch, show::party_relays).await,
        Command::Up => session.change("up", "The tunnel is up.").await,
        Command::Down => session.change("down", show::DOWN).await,
        Command::Party(Party::Create { name, control }) => session.create_party(name, control).await,
        Command::Leave | Command::Party(Party::Leave) => {
            session.change("party/leave", "You have left the party.").await
        }
        Command::Join(join) | Command::Party(Party::Join(join)) => session.join(join.link).await,
        Command::Invite(invite) | Command::Party(Party::Invite(invite)) => session.invite(invite).await,
        Command::Ping { name, count } => session.ping(name, count).await,
        Command::Relay(Relay::Drain { undo, no_wait, within, now }) => {
            let request = DrainRequest { drain: !undo, within_s: if now { 0 } else { within } };
            session.drain(request, !no_wait).await
        }
        Command::Trace { what, once } => {
            trace::run(&session.client, session.screen, &trace::Wish { what, once, json }).await
        }
        Command::Run { program: wanted } => {
            program::run(&session.client, session.screen, &wanted, json).await
        }
        Command::Servers(watch) => session.look_at(watch.watch, servers::part, servers::show).await,
        Command::Matrix(watch) => session.look_at(watch.watch, matrix::part, matrix::show).await,
        Command::Firewall { change } => session.firewall(change).await,
        Command::Doctor => doctor::run(&session.client, session.screen, json).await,
        Command::Netcheck { servers } => netcheck::run(&session.client, session.screen, &servers, json).await,
        Command::Gateway { watch, command } => {
            let command = command.unwrap_or(Gateway::Overview(watch));
            gateway::run(&session.client, session.screen, command, json).await
        }
        Command::Games(games) if games.running => session.look(games.watch, super::games::running).await,
        Command::Games(games) if !games.check.is_empty() => {
            Ok(super::games::check(session.screen, &games.check, json))
        }
        Command::Games(games) => super::games::show(session.screen, &games, json),
        Command::Mods(command) => super::mods::run(&session.client, session.screen, command, json).await,
        Command::Discord => super::discord::run(&session.client, session.screen, json).await,
        Command::Ui => session.ui().await,
        Command::Settings { key, value } => {
            settings::run(&session.client, session.screen, key.zip(value), json).await
        }
        Command::Bundle { file } => support::bundle(&session.client, session.screen, file, json).await,
        Command::Log => support::log(&session.client, session.screen, json).await,
        Command::Config(ConfigCommand::Check { config }) => local::check_config(session.screen, config, json),
        Command::Relay(Relay::Check(check)) => relay::check(session.screen, &check, json).await,
        Command::Relay(Relay::Top { once, members }) => {
            let top = relay::Top { once, members, json };
            relay::top(&session.client, session.screen, top).await
        }
        Command::Relay(Relay::Status) => relay::status(&session.client, session.screen, json).await,
        Command::Man { dir } => local::manual(session.screen, &dir, json),
        Command::Completions { shell } => {
            local::completions(session.screen, shell);
            Ok(0)
        }
    }
}

impl Session<'_, '_> {
    /// Prints the answer as it came, or lets `show` do it.
    fn finish<T>(
        &mut self,
        answer: &Answer<T>,
        show: impl FnOnce(&mut Screen<'_>, &T),
    ) -> Result<u8, Failure> {
        if self.json {
            self.screen.line(&answer.text);
        } else {
            show(self.screen, &answer.value);
        }
        Ok(0)
    }

    /// Shows the status, or a part of it.
    async fn look(&mut self, again: bool, show: fn(&mut Screen<'_>, &Status)) -> Result<u8, Failure> {
        let wish = Look { again, json: self.json };
        look(&self.client, self.screen, wish, |answer| answer.text.clone(), show).await
    }

    /// Shows a part of the party, which alone is the JSON.
    async fn look_at(
        &mut self,
        again: bool,
        part: fn(Option<&PartyStatus>) -> Value,
        show: fn(&mut Screen<'_>, &PartyStatus),
    ) -> Result<u8, Failure> {
        let wish = Look { again, json: self.json };
        let part = |answer: &Answer<Status>| part(answer.value.party.as_ref()).to_string();
        look(&self.client, self.screen, wish, part, |screen, status| match &status.party {
            Some(_) if !status.up => screen.line(show::DOWN),
            Some(party) => show(screen, party),
            None => show::no_party(screen, status),
        })
        .await
    }

    async fn change(&mut self, what: &str, done: &str) -> Result<u8, Failure> {
        let answer = self.client.post::<Status>(&format!("/api/v1/{what}")).await?;
        self.finish(&answer, |screen, _| screen.line(done))
    }

    async fn create_party(&mut self, name: String, control: Option<String>) -> Result<u8, Failure> {
        let request = CreatePartyRequest { name, control };
        let answer = self.client.send::<InviteAnswer>("/api/v1/party", &request).await?;
        self.finish(&answer, |screen, invite| {
            if screen.is_terminal() {
                screen.line(format!("The party {:?} is founded.", request.name));
            }
            show::invite(screen, invite, unix_now());
        })
    }

    async fn join(&mut self, link: String) -> Result<u8, Failure> {
        let invite = if link == "-" { read_link()? } else { link };
        let request = JoinRequest { invite: invite.trim().into() };
        let answer = self.client.send::<Status>("/api/v1/party/join", &request).await?;
        self.finish(&answer, |screen, status| {
            let party = status.party.as_ref();
            let named = party.map(|party| format!("You are in {:?} as {}.", party.name, party.address));
            screen.line(named.as_deref().unwrap_or("Joined; `lanrage status` shows the party in a moment."));
            if let Some(party) = party {
                show::members(screen, party);
            }
        })
    }

    async fn firewall(&mut self, change: Option<Firewall>) -> Result<u8, Failure> {
        let answer = match change {
            Some(change) => self.client.send::<Status>("/api/v1/firewall", &change.request()).await?,
            None => self.client.get::<Status>("/api/v1/status").await?,
        };
        self.finish(&answer, firewall::show)
    }

    async fn invite(&mut self, invite: Invite) -> Result<u8, Failure> {
        if let Some(link) = invite.revoke {
            return self.revoke(link).await;
        }
        let request = InviteRequest { expires_in: invite.expires, uses: invite.uses };
        let answer = self.client.send::<InviteAnswer>("/api/v1/party/invite", &request).await?;
        self.finish(&answer, |screen, invite| show::invite(screen, invite, unix_now()))
    }

    async fn revoke(&mut self, link: String) -> Result<u8, Failure> {
        let request = RevokeRequest { invite: link.trim().into() };
        let answer = self.client.send::<Status>("/api/v1/party/revoke", &request).await?;
        self.finish(&answer, |screen, _| screen.line("The invite is taken back: nobody else can join by it."))
    }

    /// Starts or ends draining; waits until the relay has ended. Fails when members were left.
    async fn drain(&mut self, request: DrainRequest, wait: bool) -> Result<u8, Failure> {
        let mut answer = self.client.send::<Status>("/api/v1/relay/drain", &request).await?;
        let bound = |answer: &Answer<Status>| answer.value.relay.as_ref().map_or(0, |relay| relay.bindings);
        let due = tokio::time::Instant::now() + Duration::from_secs(request.within_s.into());
        let deadline = due + DRAIN_SLACK;
        let mut is_empty = false;
        while request.drain && wait && bound(&answer) > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(PING_GAP).await;
            match self.client.get::<Status>("/api/v1/status").await {
                Ok(news) => answer = news,
                // It was the daemon's only role, and before its time it ends only when empty.
                Err(Failure::NotRunning(_) | Failure::Broken(_)) => {
                    is_empty = tokio::time::Instant::now() < due;
                    break;
                }
                Err(failure) => return Err(failure),
            }
        }
        let left = if is_empty { 0 } else { bound(&answer) };
        self.finish(&answer, |screen, _| match (request.drain, wait, left) {
            (false, ..) => screen.line("The relay takes members again."),
            (true, _, 0) => screen.line("The relay is empty and ends."),
            (true, false, left) => screen.line(format!(
                "{left} members are asked to move to other relays; when they are gone, the relay ends. --undo takes them again."
            )),
            (true, true, left) => screen.line(format!("The relay has ended; {left} members had no other relay to go to.")),
        })?;
        Ok(u8::from(wait && left > 0))
    }

    async fn ui(&mut self) -> Result<u8, Failure> {
        let answer = self.client.post::<UiAnswer>("/api/v1/ui").await?;
        self.finish(&answer, |screen, answer| screen.line(&answer.url))
    }

    async fn ping(&mut self, member: String, count: u32) -> Result<u8, Failure> {
        let replies = if self.json {
            let request = PingRequest { member, count, mtu: true };
            let answer = self.client.send::<PingAnswer>("/api/v1/ping", &request).await?;
            self.screen.line(&answer.text);
            answer.value.replies
        } else {
            self.ping_one_by_one(&member, count).await?
        };
        Ok(u8::from(replies.iter().all(|reply| reply.rtt_ms.is_none())))
    }

    /// A person wants to see each answer when it comes.
    async fn ping_one_by_one(&mut self, member: &str, count: u32) -> Result<Vec<PingReply>, Failure> {
        let mut replies = Vec::new();
        for number in 1..=count {
            let request = PingRequest { member: member.into(), count: 1, mtu: number == count };
            let started = tokio::time::Instant::now();
            let answer = self.client.send::<PingAnswer>("/api/v1/ping", &request).await?.value;
            if number == 1 {
                self.screen.line(format!("{} ({})", answer.member, answer.address));
            }
            for reply in &answer.replies {
                show::reply(self.screen, number, reply);
            }
            replies.extend(answer.replies.iter().cloned());
            if number == count {
                show::ping_summary(self.screen, &replies);
                show::ping_tunnel(self.screen, &replies, &answer);
            } else {
                tokio::time::sleep_until(started + PING_GAP).await;
            }
        }
        Ok(replies)
    }
}

fn read_link() -> Result<String, Failure> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|error| {
        Failure::Local(format!("cannot read the link: {error}"), "give it as argument".into())
    })?;
    Ok(line)
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
