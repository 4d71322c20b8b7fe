//! The keys that exist, taken from the serialised default so that the list cannot drift from [`Config`].

use super::Config;
use serde_json::Value;
use std::collections::BTreeMap;

/// Dotted key → default value; `Null` for optional keys.
pub(super) type Keys = BTreeMap<String, Value>;

pub(super) fn known() -> Keys {
    let mut keys = Keys::new();
    collect("", &defaults(), &mut keys);
    keys
}

/// The default configuration as a tree. `Config` has string keys only, so this cannot fail.
pub(super) fn defaults() -> Value {
    serde_json::to_value(Config::default()).unwrap_or_default()
}

fn collect(prefix: &str, value: &Value, keys: &mut Keys) {
    let Value::Object(section) = value else {
        keys.insert(prefix.into(), value.clone());
        return;
    };
    for (name, value) in section {
        collect(&join(prefix, name), value, keys);
    }
}

pub(super) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.into() } else { format!("{prefix}.{name}") }
}

/// Whether `key` names a group of keys.
pub(super) fn is_section(keys: &Keys, key: &str) -> bool {
    keys.keys().any(|known| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

/// The known key that was probably meant: alike as a whole, or alike but in another section.
pub(super) fn nearest<'a>(keys: &'a Keys, wrong: &str) -> Option<(&'a str, f64)> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let alike = |known: &str| {
        let whole = strsim::normalized_damerau_levenshtein(known, wrong);
        let tail = strsim::normalized_damerau_levenshtein(&last(known), &last(wrong));
        whole.max(0.9 * tail + 0.1 * whole - 0.001)
    };
    keys.keys().map(|known| (known.as_str(), alike(known))).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// A well-formed value, for complaints: the default, or a made-up one for optional keys.
pub(super) fn example(keys: &Keys, key: &str) -> String {
    match keys.get(key) {
        None | Some(Value::Null) => optional_example(key).into(),
        Some(Value::Array(_)) if key == "peer.stun_servers" => "[\"stun.example:3478\"]".into(),
        Some(Value::Array(_)) if key == "peer.lane_services" => "[\"mdns\"]".into(),
        Some(Value::Array(_)) if key == "peer.allow" => "[\"tcp/25565\", \"udp/27015-27020\"]".into(),
        Some(Value::Array(_)) => "[\"eth0\"]".into(),
        Some(default) => default.to_string(),
    }
}

fn optional_example(key: &str) -> &'static str {
    match key {
        "control.public_url" | "peer.invite_origin" => "\"https://play.example:8667\"",
        "relay.public_address" => "\"203.0.113.7:3478\"",
        "relay.metrics_listen" => "\"10.0.0.7:9186\"",
        "relay.tls_public_address" => "\"203.0.113.7:443\"",
        "relay.tls_cert" => "\"/etc/lanrage/relay.crt\"",
        "relay.tls_key" => "\"/etc/lanrage/relay.key\"",
        "relay.max_party_flows" => "32768",
        "relay.listen6" => "\"[::]:3478\"",
        "relay.public_address6" => "\"[2001:db8::7]:3478\"",
        "relay.alternate_address" => "\"203.0.113.8\"",
        "relay.control" | "peer.control" => "\"http://192.0.2.1:8667\"",
        "control.relay_token" | "relay.token" => "\"the text in the control server's relay-token file\"",
        "gateway.alias_range" => "\"192.168.1.200-192.168.1.230\"",
        "relay.name" | "peer.name" => "\"Ana\"",
        "discord.client_id" => "\"1234567890123456789\"",
        "discord.webhook" => "\"https://discord.com/api/webhooks/…\"",
        _ => "\"text\"",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_the_default() {
        let keys = known();
        assert_eq!(keys["peer.mtu"], 1420);
        assert_eq!(keys["peer.name"], Value::Null);
        assert!(is_section(&keys, "relay") && !is_section(&keys, "relay.mode") && !is_section(&keys, "rel"));
    }

    #[test]
    fn nearest_finds_typing_errors_and_wrong_sections() {
        let keys = known();
        for (wrong, meant) in [
            ("control.lisen", "control.listen"),
            ("contrl.listen", "control.listen"),
            ("mtu", "peer.mtu"),
            ("relay.mtu", "peer.mtu"),
            ("peer.intreface", "peer.interface"),
            ("statedir", "state_dir"),
            ("relay.public_adress", "relay.public_address"),
        ] {
            assert_eq!(nearest(&keys, wrong).unwrap().0, meant, "for {wrong}");
        }
    }

    #[test]
    fn every_optional_key_has_its_own_example() {
        let keys = known();
        for key in keys.iter().filter(|(_, default)| default.is_null()).map(|(key, _)| key) {
            assert_ne!(example(&keys, key), "\"text\"", "add an example for {key}");
        }
    }

    #[test]
    fn example_file_and_reference_name_every_key() {
        let keys: std::collections::BTreeSet<_> = known().into_keys().collect();
        let example = include_str!("../../../deploy/lanrage.toml");
        let mut section = String::new();
        let mut named = std::collections::BTreeSet::new();
        for line in example.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.into();
            }
            let Some((key, _)) = line.strip_prefix('#').and_then(|rest| rest.split_once(" = ")) else {
                continue;
            };
            if key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
                named.insert(join(&section, key));
            }
        }
        assert_eq!(named, keys, "deploy/lanrage.toml");

        let reference = include_str!("../../../docs/configuration.md");
        let missing: Vec<_> = keys.iter().filter(|key| !reference.contains(&format!("`{key}`"))).collect();
        assert!(missing.is_empty(), "docs/configuration.md lacks {missing:?}");
    }
}
