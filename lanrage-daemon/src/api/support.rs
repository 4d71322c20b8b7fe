//! Settings, what is known of games, and what helps to find out what is wrong.

use super::Shared;
use super::answer::{Body, Refusal};
use super::routes::{Answer, App, COMMAND};
use crate::config::Config;
use crate::games::{DIRECTORY, Games};
use crate::peer::PeerCommand;
use crate::settings::{Desk, Refused};
use crate::support::Redaction;
use crate::{doctor as checks, log as logged, support};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use lanrage_common::api::{
    DoctorAnswer, Finding, LanAnswer, LanRequest, LogAnswer, ModsAnswer, Settings, SettingsRequest,
    SupportBundle,
};
use lanrage_common::protocol::ErrorCode;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

pub(super) async fn doctor(State(shared): App) -> Json<DoctorAnswer> {
    Json(DoctorAnswer { findings: shared.findings().await })
}

pub(super) async fn settings(State(shared): App) -> Answer<Settings> {
    Ok(Json(shared.desk()?.settings()))
}

/// Answers when what needs no restart is at work.
pub(super) async fn change_settings(
    State(shared): App,
    Body(request): Body<SettingsRequest>,
) -> Answer<Settings> {
    shared.change(&request).await?;
    Ok(Json(shared.desk()?.settings()))
}

/// The settings of the gateway for home networks, with what is to be known about them.
pub(super) async fn set_lan(State(shared): App, Body(request): Body<LanRequest>) -> Answer<LanAnswer> {
    let LanRequest { interfaces, alias_range } = request;
    let mut changes = BTreeMap::new();
    match alias_range {
        Some(range) => drop(changes.insert("gateway.alias_range".to_owned(), Value::from(range))),
        // those of a network that ends are of no use for the next
        None if interfaces.is_empty() => drop(changes.insert("gateway.alias_range".to_owned(), Value::Null)),
        None => {}
    }
    changes.insert("gateway.lan".to_owned(), Value::from(interfaces));
    let notes = shared.change(&SettingsRequest { changes }).await?;
    let networks = shared.daemon.status().gateway.map(|gateway| gateway.lan).unwrap_or_default();
    Ok(Json(LanAnswer { networks, notes }))
}

/// Read anew each time, so that a profile can be written while the page is open.
pub(super) async fn games() -> Answer<Games> {
    let read = tokio::task::spawn_blocking(|| Games::with_directory(Path::new(DIRECTORY))).await;
    read.map(Json)
        .map_err(|_| Refusal::internal("the profiles of games cannot be read; look at the daemon's log"))
}

/// Asks members over the tunnel; only who is in the party's roster is asked.
pub(super) async fn mods(State(shared): App) -> Answer<ModsAnswer> {
    let status = shared.daemon.status();
    let party = status.party.ok_or_else(|| {
        Refusal::bad_request("this device is in no party; join one by its invite link: lanrage join LINK")
    })?;
    Ok(Json(crate::mods::shares(&party).await))
}

pub(super) async fn log(State(shared): App) -> Json<LogAnswer> {
    let secrets = [shared.token.as_str()];
    let mut redaction = Redaction::new(&secrets);
    Json(LogAnswer { lines: logged::last().iter().map(|line| redaction.text(line)).collect() })
}

pub(super) async fn bundle(State(shared): App) -> Answer<SupportBundle> {
    let (status, doctor) = (shared.daemon.status(), shared.findings().await);
    let desk = shared.desk()?;
    let webhook = desk.webhook().unwrap_or_default();
    Ok(Json(support::bundle(&status, doctor, desk.settings(), &[shared.token.as_str(), &webhook])))
}

impl Shared {
    async fn findings(&self) -> Vec<Finding> {
        let may_ask = self.daemon.settings.as_ref().is_none_or(|desk| desk.running().peer.port_mapping);
        checks::look(&self.daemon.status(), may_ask).await
    }

    fn desk(&self) -> Result<&Desk, Refusal> {
        let desk = self.daemon.settings.as_deref();
        desk.ok_or_else(|| Refusal::internal("the daemon is still starting; try again in a moment"))
    }

    /// Checks, keeps and puts to work; what a person should know about it.
    async fn change(&self, request: &SettingsRequest) -> Result<Vec<String>, Refusal> {
        let desk = self.desk()?;
        let is_of_lan = |key: &String| ["gateway.lan", "gateway.alias_range"].contains(&key.as_str());
        let mut notes = Vec::new();
        if request.changes.keys().any(is_of_lan) {
            let wanted = Box::new(desk.preview(request)?.gateway);
            notes = self.ask(COMMAND, |reply| PeerCommand::CheckLan(wanted, reply)).await?;
        }
        let config = desk.change(request)?;
        self.put_to_work(desk, config).await?;
        Ok(notes)
    }

    async fn put_to_work(&self, desk: &Desk, config: Config) -> Result<(), Refusal> {
        if self.daemon.peer.is_some() {
            let config = Box::new(config);
            self.ask(COMMAND, |reply| PeerCommand::Configure(config, reply)).await?;
        }
        desk.note_at_work();
        Ok(())
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotKept(message) => Self::internal(message),
            Refused::Locked { .. } => {
                Self::new(StatusCode::CONFLICT, ErrorCode::BadRequest, refused.to_string())
            }
            Refused::Unknown(_) | Refused::Invalid(_) => Self::bad_request(refused.to_string()),
        }
    }
}
