//! Checks of profiles that a value's type cannot express, each with the line to blame.

use super::profile::{Class, Discovery, ProcessNames, Profile, Reply, Sender, Support};
use super::value::Ports;
use super::{INTERPRETERS, MAX_PAYLOAD, MAX_PORTS, MAX_QUERIES};

/// Where the fault is, as `section.key`, and what it is.
type Fault = (&'static str, String);

/// Reads and checks one profile; a complaint begins with the line that it is about.
pub fn parse(id: &str, text: &str) -> Result<Profile, String> {
    let is_id = |id: &str| id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if id.is_empty() || id.len() > 40 || !is_id(id) {
        return Err(format!("{id:?} is not an id: name the file with lower case letters, digits and -"));
    }
    let profile: Profile = toml::from_str(text).map_err(|error| located(text, &error))?;
    check(&profile).map_err(|(key, why)| match line(text, key) {
        Some(line) => format!("line {line}: {why}"),
        None => why,
    })?;
    Ok(profile)
}

/// The first line of what TOML has to say, with the place.
fn located(text: &str, error: &toml::de::Error) -> String {
    let why = error.message().trim_end();
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return why.to_owned() };
    let (line, column) =
        (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1);
    format!("line {line}, column {column}: {why}")
}

/// The line of a key, or of the section that lacks it.
fn line(text: &str, key: &str) -> Option<usize> {
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let (mut at, mut found) = ("", None);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        match line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((title, _)) => {
                at = title.trim();
                if at == section || section.is_empty() && at == name {
                    found = found.or(Some(number));
                }
            }
            None => {
                let is_key = line.split_once('=').is_some_and(|(key, _)| key.trim() == name);
                if at == section && is_key {
                    return Some(number);
                }
            }
        }
    }
    found
}

fn check(profile: &Profile) -> Result<(), Fault> {
    for (key, text) in [("name", &profile.name), ("source", &profile.source)] {
        if text.trim().is_empty() || text.len() > 300 || text.chars().any(char::is_control) {
            return Err((key, format!("`{key}` must be 1 to 300 characters in one line")));
        }
    }
    check_support(profile)?;
    let is_short =
        |ports: &[Ports]| (1..=MAX_QUERIES).contains(&ports.iter().map(|ports| ports.0.len()).sum());
    if profile.query.as_ref().is_some_and(|query| !is_short(&query.ports)) {
        return Err(("query.ports", "`ports` of [query] are not 1 to 64".into()));
    }
    if let Some(beacon) = &profile.beacon {
        if !is_short(&beacon.ports) {
            return Err(("beacon.ports", "`ports` of [beacon] are not 1 to 64".into()));
        }
        if profile.ports.is_empty() || profile.discovery.is_none() {
            return Err(("beacon", "[beacon] needs `ports` of the game and a [discovery]".into()));
        }
    }
    profile.discovery.as_ref().map_or(Ok(()), check_discovery)?;
    profile.processes.as_ref().map_or(Ok(()), check_processes)
}

fn check_support(profile: &Profile) -> Result<(), Fault> {
    let wrong = match (profile.support, &profile.discovery) {
        (Support::LanList, None) => "support = \"lan-list\" needs a [discovery]",
        (support, Some(_)) if support != Support::LanList => "only support = \"lan-list\" has a [discovery]",
        (Support::DirectIp, None) if profile.ports.is_empty() => "support = \"direct-ip\" needs `ports`",
        (Support::Unchecked | Support::NotCarried | Support::OnlineOnly, None) if profile.note.is_none() => {
            "what is not known to work needs a `note` that says why"
        }
        _ => return Ok(()),
    };
    Err(("support", wrong.into()))
}

fn check_processes(processes: &ProcessNames) -> Result<(), Fault> {
    let ProcessNames { linux, windows, macos, arguments, source } = processes;
    let names: Vec<&String> = [linux, windows, macos].into_iter().flatten().collect();
    let is_plain = |text: &str| (1..=100).contains(&text.len()) && !text.chars().any(char::is_control);
    if let Some(name) = names.iter().find(|name| !is_plain(name) || name.contains(['/', '\\'])) {
        let why = format!("{name:?} in `processes` is not the name of a program's file without directories");
        return Err(("processes", why));
    }
    if let Some(name) = names.iter().find(|name| INTERPRETERS.contains(&name.to_lowercase().as_str())) {
        let why = format!("{name:?} runs many programs: name its argument in `processes.arguments`");
        return Err(("processes", why));
    }
    let is_program = |name: &&String| [".exe", ".dat"].iter().any(|end| name.to_lowercase().ends_with(end));
    if let Some(name) = windows.iter().find(|name| !is_program(name)) {
        return Err((
            "processes.windows",
            format!("{name:?} in `processes.windows` does not end with .exe (or .dat)"),
        ));
    }
    match (names.len() + arguments.len(), is_plain(source) && arguments.iter().all(|text| is_plain(text))) {
        (0, _) => Err(("processes", "`processes` names no program".into())),
        (33.., _) => Err(("processes", "`processes` names more than 32 programs".into())),
        (_, false) => Err((
            "processes.source",
            "`processes` needs a `source`, and `arguments` of 1 to 100 characters".into(),
        )),
        _ => Ok(()),
    }
}

fn check_discovery(discovery: &Discovery) -> Result<(), Fault> {
    let groups = discovery.to.iter().filter(|target| target.group().is_some()).count();
    let has = |class| discovery.classes.contains(&class);
    let known = discovery.payload.as_ref().map_or(0, |payload| payload.0.len());
    let length = discovery.length.map_or(known, usize::from);
    let rules = [
        ("discovery.classes", discovery.classes.is_empty(), "`classes` is empty"),
        ("discovery.to", discovery.to.is_empty(), "`to` is empty"),
        ("discovery.ports", discovery.port_list().is_empty(), "`ports` is empty"),
        ("discovery.ports", discovery.port_list().len() > MAX_PORTS, "`ports` are more than 256"),
        ("discovery.repeat", !(1..=8).contains(&discovery.repeat), "`repeat` is not 1 to 8"),
        ("discovery.ttl", discovery.ttl == Some(0), "`ttl` is 0"),
        ("discovery.source_port", discovery.source_port == Some(0), "`source_port` is 0"),
        ("discovery.length", length < known, "`length` is less than `payload` has"),
        ("discovery.length", length > MAX_PAYLOAD, "`length` is more than UDP carries"),
        (
            "discovery.classes",
            has(Class::C) != discovery.is_same_port(),
            "class C is for `source_port` = `ports`, and only for that",
        ),
        (
            "discovery.classes",
            has(Class::D) != (groups > 0),
            "class D is for groups in `to`, and only for them",
        ),
        (
            "discovery.sender",
            has(Class::A) && discovery.sender != Sender::Client,
            "class A has sender = \"client\"",
        ),
        (
            "discovery.sender",
            !has(Class::A) && has(Class::B) && discovery.sender != Sender::Host,
            "class B has sender = \"host\"",
        ),
        (
            "discovery.reply",
            discovery.reply == Reply::Tcp && discovery.reply_port.is_none(),
            "reply = \"tcp\" needs a `reply_port`",
        ),
    ];
    match rules.into_iter().find(|(_, is_broken, _)| *is_broken) {
        Some((key, _, what)) => Err((key, what.into())),
        None => Ok(()),
    }
}
