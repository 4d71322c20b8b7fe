//! `lanrage discord`: shows in Discord what this device plays, as long as it runs. It belongs to the person who plays, as Discord's
//! socket does; the daemon has no access to either.

use super::client::Client;
use super::failure::Failure;
use super::screen::Screen;
use lanrage_common::api::{PathKind, Settings, Status};
use lanrage_common::discord::{Activity, Presence, Refusal};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, io};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Between two looks at what is played.
const LOOK: Duration = Duration::from_secs(2);
/// Until Discord is looked for again.
const SEARCH: Duration = Duration::from_secs(10);
/// Discord's sockets are numbered.
const SOCKETS: u8 = 10;
/// Inside the directory for sockets: Discord itself, from Flathub, as a snap.
const PLACES: [&str; 3] = ["", "app/com.discordapp.Discord", "snap.discord"];

/// What the settings say.
#[derive(Debug)]
struct Wish {
    client_id: String,
    party_name: bool,
}

/// Runs until it is ended, or until presence is switched off.
pub(super) async fn run(client: &Client, screen: &mut Screen<'_>, json: bool) -> Result<u8, Failure> {
    let mut said = String::new();
    loop {
        let wish = wish(client).await?;
        match connect().await {
            Some(stream) => match converse(client, screen, stream, &wish.client_id, json).await? {
                Some(refusal) => {
                    let fix = "check `lanrage settings discord.client_id`: it is the number of an application of yours at \
                               https://discord.com/developers/applications";
                    return Err(Failure::Local(refusal.to_string(), fix.into()));
                }
                None => say(screen, &mut said, "Discord has gone; waiting for it.", json),
            },
            None => {
                say(screen, &mut said, "Discord does not run here, or not for you; waiting for it.", json)
            }
        }
        tokio::time::sleep(SEARCH).await;
    }
}

/// Says what is not what was said last.
fn say(screen: &mut Screen<'_>, said: &mut String, text: &str, json: bool) {
    if said != text {
        text.clone_into(said);
        screen.line(if json { json!({ "waiting": text }).to_string() } else { text.to_owned() });
    }
}

async fn wish(client: &Client) -> Result<Wish, Failure> {
    let answer = client.get::<Settings>("/api/v1/settings").await?;
    let settings: BTreeMap<String, Value> =
        answer.value.settings.into_iter().map(|setting| (setting.key, setting.value)).collect();
    let is_set = |key| settings.get(key) == Some(&Value::Bool(true));
    if !is_set("discord.presence") {
        return Err(Failure::Local(
            "what you play is not shown in Discord: that is switched off".into(),
            "switch it on: lanrage settings discord.presence true".into(),
        ));
    }
    let Some(client_id) = settings.get("discord.client_id").and_then(Value::as_str) else {
        return Err(Failure::Local(
            "Discord wants to know the application that shows something".into(),
            "make one at https://discord.com/developers/applications (its name is what others see) and set its number: \
             lanrage settings discord.client_id NUMBER"
                .into(),
        ));
    };
    Ok(Wish { client_id: client_id.to_owned(), party_name: is_set("discord.party_name") })
}

/// Discord's socket, if it is of the same user: in /tmp anybody could have made one.
async fn connect() -> Option<UnixStream> {
    let own = UnixStream::pair().ok()?.0.peer_cred().ok()?.uid();
    for path in sockets() {
        if let Ok(stream) = UnixStream::connect(&path).await
            && stream.peer_cred().is_ok_and(|peer| peer.uid() == own)
        {
            return Some(stream);
        }
    }
    None
}

fn sockets() -> impl Iterator<Item = PathBuf> {
    let named = ["XDG_RUNTIME_DIR", "TMPDIR", "TMP", "TEMP"].into_iter().filter_map(env::var_os);
    let directories = named.map(PathBuf::from).chain([PathBuf::from("/tmp")]);
    let places = directories.flat_map(|directory| PLACES.map(|place| directory.join(place)));
    places.flat_map(|place| (0..SOCKETS).map(move |number| place.join(format!("discord-ipc-{number}"))))
}

/// Until Discord goes, or says why it does not want to.
async fn converse(
    client: &Client,
    screen: &mut Screen<'_>,
    mut stream: UnixStream,
    client_id: &str,
    json: bool,
) -> Result<Option<Refusal>, Failure> {
    let mut presence = Presence::new(client_id, std::process::id());
    let (mut buffer, mut shown) = (vec![0; 4096], None);
    loop {
        let wish = wish(client).await?;
        if wish.client_id != client_id {
            return Ok(None);
        }
        let activity = activity(&client.get::<Status>("/api/v1/status").await?.value, wish.party_name);
        if shown.as_ref() != Some(&activity) {
            screen.line(describe(activity.as_ref(), json));
            shown = Some(activity.clone());
        }
        presence.handle_activity(activity);
        let next = Instant::now() + LOOK;
        while Instant::now() < next {
            presence.handle_timeout(Instant::now());
            if write(&mut stream, &mut presence).await.is_err() {
                return Ok(None);
            }
            match tokio::time::timeout_at(next.into(), stream.read(&mut buffer)).await {
                Err(_elapsed) => {}
                Ok(Ok(0) | Err(_)) => return Ok(None),
                Ok(Ok(length)) => {
                    if let Err(refusal) = presence.handle_bytes(&buffer[..length]) {
                        return Ok(Some(refusal));
                    }
                }
            }
        }
    }
}

async fn write(stream: &mut UnixStream, presence: &mut Presence) -> io::Result<()> {
    while let Some(bytes) = presence.poll_output() {
        stream.write_all(&bytes).await?;
    }
    Ok(())
}

/// None without a party.
fn activity(status: &Status, party_name: bool) -> Option<Activity> {
    let party = status.party.as_ref().filter(|_| status.up)?;
    let game = status.games.iter().filter(|games| games.shared).flat_map(|games| &games.running).next();
    let here = party.members.iter().filter(|member| member.is_self || member.path != PathKind::None).count();
    let details = game.map_or("In a LAN party", |game| &game.name);
    Some(Activity::new(details, party_name.then_some(&party.name), here, party.members.len()))
}

fn describe(activity: Option<&Activity>, json: bool) -> String {
    match (json, activity) {
        (true, activity) => json!({ "shown": activity }).to_string(),
        (false, None) => "Discord shows nothing: this device is in no party.".into(),
        (false, Some(activity)) => format!("Discord shows: {}.", activity.details),
    }
}
