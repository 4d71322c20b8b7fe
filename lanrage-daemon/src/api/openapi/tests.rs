//! Nothing is served that is not described, and nothing described that is not served.

use super::super::fixture::TestServer;
use super::DOCUMENT;
use serde_json::Value;
use std::collections::BTreeSet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

const STATUS: &str = "/components/schemas/Status";

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

/// Method and path of every request that the router knows.
fn routes() -> BTreeSet<(String, String)> {
    let source = include_str!("../routes.rs");
    let mut routes = BTreeSet::new();
    for route in source.split(".route(\"").skip(1) {
        let (path, handlers) = route.split_once('"').unwrap();
        let handlers = handlers.split(".route(").next().unwrap().lines().next().unwrap();
        for method in ["get", "post"] {
            if handlers.contains(&format!("{method}(")) {
                routes.insert((method.to_owned(), path.to_owned()));
            }
        }
    }
    routes
}

#[test]
fn every_route_is_described_and_no_other() {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let described = paths.iter().flat_map(|(path, methods)| {
        methods.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone()))
    });
    let routes = routes();
    assert!(routes.len() > 20, "{routes:?}");
    assert_eq!(described.collect::<BTreeSet<_>>(), routes);
}

#[test]
fn every_reference_leads_somewhere_and_every_field_has_a_meaning() {
    let document = document();
    let mut open = vec![&document];
    while let Some(value) = open.pop() {
        if let Some(reference) = value.get("$ref") {
            assert!(resolve(&document, reference).is_object(), "{reference}");
        }
        match value {
            Value::Object(fields) => open.extend(fields.values()),
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let fields = schema["properties"].as_object().into_iter().flatten();
        for (field, about) in fields {
            let text = about["description"].as_str().unwrap_or_default();
            assert!(text.ends_with(['.', ')', '?']) && !text.contains("[`"), "{name}.{field}: {text:?}");
        }
    }
}

fn resolve<'a>(document: &'a Value, reference: &Value) -> &'a Value {
    let pointer = reference.as_str().and_then(|text| text.strip_prefix('#')).unwrap();
    document.pointer(pointer).unwrap_or(&Value::Null)
}

/// What about a value is not as described.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(reference) = schema.get("$ref") {
        return check(document, resolve(document, reference), value, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fits = choices.iter().any(|choice| check(document, choice, value, at).is_empty());
        return if fits { Vec::new() } else { vec![format!("{at}: {value} is none of the choices")] };
    }
    if !has_type(&schema["type"], value) {
        return vec![format!("{at}: {value} is no {}", schema["type"])];
    }
    if schema["enum"].as_array().is_some_and(|known| !known.contains(value)) {
        return vec![format!("{at}: {value} is not in {}", schema["enum"])];
    }
    match value {
        Value::Array(items) => items
            .iter()
            .flat_map(|item| check(document, &schema["items"], item, &format!("{at}[]")))
            .collect(),
        Value::Object(fields) => check_fields(document, schema, fields, at),
        _ => Vec::new(),
    }
}

fn check_fields(
    document: &Value,
    schema: &Value,
    fields: &serde_json::Map<String, Value>,
    at: &str,
) -> Vec<String> {
    if schema.get("type").is_none() {
        return Vec::new(); // anything
    }
    let mut wrong = Vec::new();
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            wrong.push(format!("{at}.{name} is missing"));
        }
    }
    for (name, value) in fields {
        let at = format!("{at}.{name}");
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(about), _) => wrong.extend(check(document, about, value, &at)),
            (None, Some(about)) if about.is_object() => wrong.extend(check(document, about, value, &at)),
            _ => wrong.push(format!("{at} is not described")),
        }
    }
    wrong
}

fn has_type(wanted: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => false,
    };
    match wanted {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        _ => true,
    }
}

async fn ask(server: &TestServer, method: &str, path: &str, body: &str) -> Value {
    let mut stream = UnixStream::connect(&server.socket).await.unwrap();
    let head = format!("{} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", method.to_uppercase());
    let about = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all((head + &about).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {answer}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{method} {path}: {error}: {body}"))
}

#[tokio::test]
async fn real_answers_are_as_described() {
    let server = TestServer::start().await;
    let document = document();
    let mut wrong = Vec::new();
    for (method, path, body) in [
        ("get", "/api/v1/status", ""),
        ("get", "/api/v1/relay", ""),
        ("get", "/api/v1/settings", ""),
        ("get", "/api/v1/games", ""),
        ("get", "/api/v1/mods", ""),
        ("get", "/api/v1/log", ""),
        ("get", "/api/v1/bundle", ""),
        ("get", "/api/v1/openapi.json", ""),
        ("post", "/api/v1/doctor", ""),
        ("post", "/api/v1/netcheck", ""),
        ("post", "/api/v1/settings", r#"{"changes": {}}"#),
        ("post", "/api/v1/ping", r#"{"member": "Bob"}"#),
        ("post", "/api/v1/party/invite", r#"{"uses": 2}"#),
        ("post", "/api/v1/gateway/lan", r#"{"interfaces": ["eth0"]}"#),
        ("post", "/api/v1/gateway/add", r#"{"name": "phone"}"#),
        ("post", "/api/v1/up", ""),
        ("post", "/api/v1/ui", ""),
    ] {
        let answer = ask(&server, method, path, body).await;
        let content = &document["paths"][path][method]["responses"]["200"]["content"];
        let schema = &content["application/json"]["schema"];
        assert!(schema.is_object(), "{method} {path}");
        if path != "/api/v1/openapi.json" {
            wrong.extend(check(&document, schema, &answer, path));
        }
        if !body.is_empty() {
            let request = &document["paths"][path][method]["requestBody"]["content"]["application/json"];
            let body = serde_json::from_str(body).unwrap();
            wrong.extend(check(&document, &request["schema"], &body, &format!("body of {path}")));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test]
async fn the_check_sees_what_is_wrong() {
    let server = TestServer::start().await;
    let document = document();
    let good = ask(&server, "get", "/api/v1/status", "").await;
    let wrong = |change: fn(&mut Value)| {
        let mut bad = good.clone();
        change(&mut bad);
        check(&document, document.pointer(STATUS).unwrap(), &bad, "status")
    };
    assert_eq!(wrong(|_| {}), Vec::<String>::new());
    assert_eq!(
        wrong(|it| it["party"]["members"][1]["news"] = 1.into()),
        ["status.party.members[].news is not described"]
    );
    assert_eq!(wrong(|it| it["party"]["members"][1]["path"] = "pigeon".into()).len(), 1);
    assert_eq!(wrong(|it| it["up"] = "yes".into()).len(), 1);
    assert_eq!(
        wrong(|it| drop(it.as_object_mut().unwrap().remove("version"))),
        ["status.version is missing"]
    );
}
