use super::super::{RelayModeChoice, Role};
use super::*;
use std::io::Write as _;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load_text(
    text: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Loaded, ConfigError> {
    let file = file(text);
    load(&Sources {
        file: Some(file.path().into()),
        environment: environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        flags: flags
            .iter()
            .map(|(key, value)| ("--set".into(), key.to_string(), value.to_string()))
            .collect(),
    })
}

fn complaint(text: &str) -> String {
    let ConfigError(complaints) = load_text(text, &[], &[]).unwrap_err();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    complaints[0].to_string()
}

#[test]
fn empty_file_gives_the_defaults() {
    assert_eq!(load_text("", &[], &[]).unwrap().config, Config::default());
}

#[test]
fn the_serialised_default_loads_as_itself() {
    let text = toml::to_string(&Config::default()).unwrap();
    assert_eq!(load_text(&text, &[], &[]).unwrap().config, Config::default());
}

#[test]
fn later_layers_win() {
    let text = "[peer]\nname = 'file'\nmtu = 1300\nport = 1\n";
    let environment =
        [("LANRAGE_PEER__NAME", "environment"), ("LANRAGE_PEER__MTU", "1400"), ("HOME", "/root")];
    let loaded = load_text(text, &environment, &[("peer.name", "flag")]).unwrap();
    assert_eq!(loaded.config.peer.name.as_deref(), Some("flag"));
    assert_eq!((loaded.config.peer.mtu, loaded.config.peer.port), (1400, 1));
    assert_eq!(loaded.origins["peer.mtu"], "environment variable LANRAGE_PEER__MTU");
    assert!(loaded.origins["peer.port"].ends_with(" line 4"));
}

#[test]
fn text_takes_the_type_of_the_default() {
    let flags = [
        ("relay.interfaces", "eth0, eth1"),
        ("relay.mode", "userspace"),
        ("ui_allow_remote", "true"),
        ("relay.max_flows", "1000"),
        ("role", "all"),
        ("peer.name", "1234"),
    ];
    let config = load_text("", &[], &flags).unwrap().config;
    assert_eq!(config.relay.interfaces, ["eth0", "eth1"]);
    assert_eq!((config.relay.mode, config.role), (RelayModeChoice::Userspace, Role::All));
    assert!(config.ui_allow_remote);
    assert_eq!((config.relay.max_flows, config.peer.name.as_deref()), (1000, Some("1234")));
}

#[test]
fn an_empty_variable_unsets_an_optional_key() {
    let loaded = load_text("[peer]\nname = 'Ana'\n", &[("LANRAGE_PEER__NAME", "")], &[]).unwrap();
    assert_eq!(loaded.config.peer.name, None);
}

#[test]
fn unknown_keys_name_line_and_nearest() {
    let text = complaint("ui = '127.0.0.1:1'\n\n[control]\nlisen = '0.0.0.0:1'\n");
    assert!(text.ends_with("line 4: unknown key `control.lisen`: did you mean `control.listen`?"), "{text}");
    let text = complaint("[contrl]\nlisten = '0.0.0.0:1'\n");
    assert!(text.ends_with("line 2: unknown key `contrl.listen`: did you mean `control.listen`?"), "{text}");
    let text = complaint("control = 3\n");
    assert!(text.ends_with("`control` is a section: write [control] and its keys below it"), "{text}");
    assert!(complaint("zzzzqqqq = 3\n").contains("unknown key `zzzzqqqq`"));
}

#[test]
fn unknown_variables_and_flags_are_refused_too() {
    let ConfigError(complaints) =
        load_text("", &[("LANRAGE_PEER__MUT", "1")], &[("relay.mod", "x")]).unwrap_err();
    assert_eq!(
        complaints[0].to_string(),
        "environment variable LANRAGE_PEER__MUT: unknown key `peer.mut`: did you mean `peer.mtu`?"
    );
    assert_eq!(complaints[1].to_string(), "flag --set: unknown key `relay.mod`: did you mean `relay.mode`?");
    assert!(load_text("", &[("LANRAGE_SOKET", "/x")], &[]).is_err());
    assert!(load_text("", &[("LANRAGE_SERVICE_HOST", "10.0.0.1"), ("LANRAGE_LOG", "debug")], &[]).is_ok());
}

#[test]
fn wrong_values_say_what_is_expected() {
    let text = complaint("[control]\nlisten = 'everywhere'\n");
    assert!(text.contains("line 2: `control.listen` = \"everywhere\""), "{text}");
    assert!(text.ends_with("expected something like \"0.0.0.0:8667\""), "{text}");
    assert!(complaint("[peer]\nmtu = 'big'\n").ends_with("expected something like 1420"));
    assert!(complaint("[relay]\nmode = 'fast'\n").contains("`xdp-native`"));
    assert!(
        complaint("[relay]\npublic_address = 'x'\n")
            .ends_with("expected something like \"203.0.113.7:3478\"")
    );
    assert!(complaint("[peer]\nport = 70000\n").contains("`peer.port` = 70000"));
    assert!(complaint("[[ui]]\na = 1\n").contains("`ui`"));
}

#[test]
fn syntax_errors_name_the_line() {
    let text = complaint("[peer]\nname = \n");
    assert!(text.contains("line 2"), "{text}");
}

#[test]
fn rules_across_values() {
    for (text, wanted) in [
        ("[peer]\nmtu = 9000\n", "9000 is outside 1280 to 1440 bytes"),
        ("[peer]\nname = ' Ana'\n", "is not a name"),
        ("[peer]\ninterface = 'a/b'\n", "is not an interface name"),
        ("[peer]\ncontrol = 'play.example'\n", "write it like https://play.example"),
        ("[peer]\ncontrol = 'https://play.example/x'\n", "write it like"),
        ("[peer]\ncontrol = 'https://play.example:http'\n", "write it like"),
        ("[relay]\npublic_address = '0.0.0.0:3478'\n", "is not an address that members can send to"),
        ("[relay]\ntoken = 'short'\n", "at least 16"),
        ("[control]\nsubnet = '8.8.0.0/16'\n", "is not private"),
        ("[control]\nsubnet = '10.66.0.0/8'\n", "bits set behind its prefix"),
        ("[control]\nsubnet = '10.0.0.0/8'\n", "use /16 to /24"),
        ("ui = '0.0.0.0:8666'\n", "ui_allow_remote"),
        ("state_dir = 'var'\n", "not an absolute path"),
    ] {
        let got = complaint(text);
        assert!(got.contains(wanted) && got.contains(" line "), "{got}");
    }
    assert!(load_text("ui = '0.0.0.0:8666'\nui_allow_remote = true\n", &[], &[]).is_ok());
    for origin in ["https://play.example", "http://192.0.2.1:8667", "http://[::1]:8667", "http://localhost:1"]
    {
        assert_eq!(validate::origin(origin), Ok(()), "{origin}");
    }
}

#[test]
fn all_complaints_are_reported_at_once() {
    let ConfigError(complaints) = load_text("a = 1\n[peer]\nmtu = 1\nport = -1\n", &[], &[]).unwrap_err();
    assert_eq!(complaints.len(), 3, "{complaints:?}");
}

#[test]
fn a_missing_named_file_is_an_error() {
    let sources = Sources { file: Some("/nonexistent/lanrage.toml".into()), ..Sources::default() };
    let error = load(&sources).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/lanrage.toml: cannot read"), "{error}");
    let environment = vec![("LANRAGE_CONFIG".into(), "/nonexistent/lanrage.toml".into())];
    assert!(load(&Sources { environment, ..Sources::default() }).is_err());
}

#[test]
fn the_shipped_example_is_valid() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/lanrage.toml");
    load(&Sources { file: Some(example.into()), ..Sources::default() }).unwrap();
}
