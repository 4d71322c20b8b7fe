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
    DoctorAnswer, Finding, LogAnswer, ModsAnswer, Settings, SettingsRequest, SupportBundle,
};
use lanrage_common::protocol::ErrorCode;
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
    let desk = shared.desk()?;
    let config = desk.change(&request)?;
    shared.put_to_work(desk, config).await?;
    Ok(Json(desk.settings()))
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

    async fn put_to_work(&self, desk: &Desk, config: Config) -> Result<(), Refusal> {
        if self.daemon.peer.is_some() {
            let peer = Box::new(config.peer);
            self.ask(COMMAND, |reply| PeerCommand::Configure(peer, reply)).await?;
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
