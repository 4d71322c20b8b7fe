//! Over loopback: what is shared arrives, and what a hostile member offers does not.

use super::*;
use crate::shutdown::{self, ShutdownTrigger};
use axum::Router;
use axum::routing::get;
use lanrage_common::mods::{Digest, Manifest, ModFile};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;
use tokio::net::TcpListener;

fn write(dir: &Path, path: &str, content: &[u8]) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn share(dir: &Path, party: &str) -> (Source, Manifest, ShutdownTrigger) {
    let (listener, address) = listener().await;
    let folder = Folder::open(dir).unwrap();
    let manifest = Manifest::new("maps".into(), folder.survey().unwrap().files).unwrap();
    let (trigger, shutdown) = shutdown::channel();
    let (party, offered) = (party.parse().unwrap(), manifest.clone());
    tokio::spawn(async move { serve(listener, party, (folder, &offered), shutdown).await });
    (Source::new(address).unwrap(), manifest, trigger)
}

/// A member that answers as it likes.
async fn hostile(router: Router) -> Source {
    let (listener, address) = listener().await;
    tokio::spawn(async { axum::serve(listener, router).await });
    Source::new(address).unwrap()
}

fn named(path: &str, manifest: &Manifest) -> ModFile {
    manifest.files.iter().find(|file| file.path == path).unwrap().clone()
}

fn target() -> (TempDir, Folder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    (dir, folder)
}

#[tokio::test]
async fn what_is_shared_arrives_as_it_is() {
    let from = tempfile::tempdir().unwrap();
    let big: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    write(from.path(), "maps/big.pk3", &big);
    write(from.path(), "empty.cfg", b"");
    let (source, manifest, _trigger) = share(from.path(), "127.0.0.0/8").await;
    assert_eq!(source.manifest().await.unwrap(), manifest);
    let (dir, folder) = target();
    for file in &manifest.files {
        assert_eq!(folder.presence(file).unwrap(), Presence::Missing);
        source.fetch(file, &folder, |_| {}).await.unwrap();
        assert_eq!(folder.presence(file).unwrap(), Presence::Same);
    }
    folder.finish().unwrap();
    assert_eq!(fs::read(dir.path().join("maps/big.pk3")).unwrap(), big);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "something was left over");
}

#[tokio::test]
async fn an_interrupted_file_goes_on_where_it_was() {
    let from = tempfile::tempdir().unwrap();
    let big = vec![7; 200_000];
    write(from.path(), "big", &big);
    let (source, manifest, _trigger) = share(from.path(), "127.0.0.0/8").await;
    let (dir, folder) = target();
    let file = named("big", &manifest);
    folder.begin(&file).unwrap().write(&big[..150_000]).unwrap();
    let mut steps = Vec::new();
    source.fetch(&file, &folder, |bytes| steps.push(bytes)).await.unwrap();
    assert_eq!((steps[0], steps.iter().sum::<u64>()), (150_000, 200_000));
    assert_eq!(fs::read(dir.path().join("big")).unwrap(), big);
}

#[tokio::test]
async fn what_has_changed_since_is_refused_with_the_reason() {
    let from = tempfile::tempdir().unwrap();
    write(from.path(), "a", b"one");
    let (source, manifest, _trigger) = share(from.path(), "127.0.0.0/8").await;
    write(from.path(), "a", b"longer");
    let (_dir, folder) = target();
    let error = source.fetch(&named("a", &manifest), &folder, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("share it anew"), "{error}");
}

#[tokio::test]
async fn who_is_not_in_the_party_gets_nothing() {
    let from = tempfile::tempdir().unwrap();
    let (source, ..) = share(from.path(), "10.66.0.0/16").await;
    assert!(matches!(source.manifest().await, Err(FetchError::Unreachable(_))));
}

#[tokio::test]
async fn other_content_than_announced_is_thrown_away() {
    let router = Router::new().route("/files/{sha256}", get(async || "evil"));
    let source = hostile(router).await;
    let (dir, folder) = target();
    let file = ModFile { path: "a".into(), size: 4, sha256: Digest([1; 32]) };
    for size in [4, 2] {
        let error = source.fetch(&ModFile { size, ..file.clone() }, &folder, |_| {}).await.unwrap_err();
        assert!(matches!(error, FetchError::Altered(_)), "{error}");
    }
    assert!(!dir.path().join("a").exists());
}

#[tokio::test]
async fn hostile_manifests_are_refused() {
    let bad = [
        r#"{"name":"x","files":[{"path":"../x","size":1,"sha256":"HASH"}]}"#,
        r#"{"name":"x","files":[{"path":"/etc/cron.d/x","size":1,"sha256":"HASH"}]}"#,
        r#"{"name":"\u001b[2J","files":[]}"#,
        r#"{"name":"x","files":[{"path":"x","size":-1,"sha256":"HASH"}]}"#,
        "<html>",
    ];
    for text in bad {
        let text = text.replace("HASH", &Digest([1; 32]).to_string());
        let source = hostile(Router::new().route("/manifest", get(async || text))).await;
        assert!(matches!(source.manifest().await, Err(FetchError::BadManifest(_))));
    }
    let endless = "x".repeat(17 << 20);
    let source = hostile(Router::new().route("/manifest", get(async || endless))).await;
    assert!(matches!(source.manifest().await, Err(FetchError::BadManifest(_))));
}

#[cfg(unix)]
#[tokio::test]
async fn symbolic_links_lead_nowhere() {
    let (outside, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(outside.path(), "secret", b"secret");
    write(from.path(), "maps/a", b"one");
    std::os::unix::fs::symlink(outside.path().join("secret"), from.path().join("link")).unwrap();
    let survey = Folder::open(from.path()).unwrap().survey().unwrap();
    assert_eq!(survey.files.len(), 1);
    assert_eq!(survey.left_out[0].0, "link");

    let (source, manifest, _trigger) = share(from.path(), "127.0.0.0/8").await;
    let (dir, folder) = target();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("maps")).unwrap();
    let error = source.fetch(&named("maps/a", &manifest), &folder, |_| {}).await.unwrap_err();
    assert!(matches!(error, FetchError::Storing(..)), "{error}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "it has left the folder");
}
