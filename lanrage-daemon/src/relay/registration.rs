//! How the relay gets, and stays, on the control server's list.

use crate::config::RelayConfig;
use crate::control::client::{self, LinkEvent, RelayLink};
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lanrage_common::api::Problem;
use lanrage_common::protocol::{RelayCommand, RelayInfo, RelayLoad, RelayMessage};
use std::path::Path;
use std::time::Duration;

/// How often the control server hears that the relay lives.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(5);
/// Where a control server keeps the token when it is not configured.
const TOKEN_FILE: &str = "relay-token";
const TOKEN_HINT: &str = "relay.token must be the text in the file relay-token of the control server's state directory \
     (/var/lib/lanrage/relay-token), or its control.relay_token";

/// The link to the control server, and what it said last.
#[derive(Debug)]
pub(super) struct Registration {
    link: RelayLink,
    origin: String,
    register: RelayMessage,
    is_registered: bool,
    problem: Option<Problem>,
}

impl Registration {
    /// Opens the link, which connects by itself.
    pub(super) fn open(
        config: &RelayConfig,
        state_dir: &Path,
        relay: RelayInfo,
        ticket_key: &[u8; 32],
    ) -> anyhow::Result<Self> {
        let origin = config.control.clone().context(
            "relay.control is missing: set it to the control server's origin, e.g. \"https://play.example\"",
        )?;
        let token = token(config, state_dir)?;
        let link = client::connect_relay(&origin, &token).context("relay.control cannot be used")?;
        let register = RelayMessage::Register { relay, ticket_key: STANDARD.encode(ticket_key) };
        Ok(Self { link, origin, register, is_registered: false, problem: None })
    }

    pub(super) fn is_registered(&self) -> bool {
        self.is_registered
    }

    pub(super) fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    /// Waits for the next event. Cancel safe. Never ends once the link has ended.
    pub(super) async fn next(&mut self) -> LinkEvent<RelayCommand> {
        match self.link.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    pub(super) fn handle(&mut self, event: LinkEvent<RelayCommand>) {
        match event {
            LinkEvent::Connected => self.send(self.register.clone()),
            LinkEvent::Disconnected { reason } => self.fail(&reason),
            LinkEvent::Message(command) => match *command {
                RelayCommand::Registered => {
                    tracing::info!(control = self.origin, "relay registered");
                    (self.is_registered, self.problem) = (true, None);
                }
                RelayCommand::Refused { error } => self.fail(&error.message),
            },
        }
    }

    pub(super) fn heartbeat(&self, load: RelayLoad) {
        if self.is_registered {
            self.send(RelayMessage::Heartbeat { load });
        }
    }

    fn send(&self, message: RelayMessage) {
        if self.link.outgoing.try_send(message).is_err() {
            tracing::debug!(control = self.origin, "a message to the control server was dropped");
        }
    }

    /// Warns once per problem: the link retries for ever.
    fn fail(&mut self, reason: &str) {
        self.is_registered = false;
        let problem = Problem {
            code: "relay_not_registered".into(),
            message: format!("this relay is not on the list of {}: {reason}", self.origin),
            fix: format!("check that the control server runs and relay.control is right; {TOKEN_HINT}"),
        };
        if self.problem.as_ref() != Some(&problem) {
            tracing::warn!(fix = problem.fix, "{}", problem.message);
            self.problem = Some(problem);
        }
    }
}

/// The configured token, or that of a control server which shares this state directory.
fn token(config: &RelayConfig, state_dir: &Path) -> anyhow::Result<String> {
    if let Some(token) = &config.token {
        return Ok(token.clone());
    }
    let text = std::fs::read_to_string(state_dir.join(TOKEN_FILE)).unwrap_or_default();
    let token = text.trim();
    anyhow::ensure!(!token.is_empty(), "relay.token is missing: {TOKEN_HINT}");
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_comes_from_the_configuration_or_from_a_control_server_beside() {
        let dir = tempfile::tempdir().unwrap();
        let error = token(&RelayConfig::default(), dir.path()).unwrap_err().to_string();
        assert!(error.contains("relay.token") && error.contains("/var/lib/lanrage/relay-token"), "{error}");
        std::fs::write(dir.path().join(TOKEN_FILE), "beside\n").unwrap();
        assert_eq!(token(&RelayConfig::default(), dir.path()).unwrap(), "beside");
        let config = RelayConfig { token: Some("configured".into()), ..RelayConfig::default() };
        assert_eq!(token(&config, dir.path()).unwrap(), "configured");
    }
}
