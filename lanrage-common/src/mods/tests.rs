use super::*;
use proptest::prelude::*;
use std::path::{Component, Path};

fn file(path: &str) -> ModFile {
    ModFile { path: path.into(), size: 3, sha256: Digest([7; 32]) }
}

fn manifest(paths: &[&str]) -> Result<Manifest, BadManifest> {
    Manifest::new("maps".into(), paths.iter().map(|path| file(path)).collect())
}

#[test]
fn a_manifest_survives_the_way() {
    let made = manifest(&["b/two.pk3", "a.cfg", "b/one.pk3", "Überraschung/ß.txt"]).unwrap();
    let read = Manifest::parse(&serde_json::to_vec(&made).unwrap()).unwrap();
    assert_eq!(read, made);
    assert_eq!(read.files[0].path, "a.cfg");
    assert_eq!((read.total(), read.id()), (12, made.id()));
}

#[test]
fn the_id_is_of_the_files_alone() {
    let mut other = manifest(&["a", "b"]).unwrap();
    let id = other.id();
    other.name = "another".into();
    assert_eq!(other.id(), id);
    other.files[0].size = 4;
    assert_ne!(other.id(), id);
}

#[test]
fn paths_that_lead_out_or_that_windows_lacks_are_refused() {
    use BadPath::{Escapes, Reserved, TooLong, Unportable};
    let long = ["x"; 33].join("/");
    let (long_part, long_path) = ("x".repeat(256), ["x".repeat(200).as_str(); 6].join("/"));
    for (path, why) in [
        ("", Escapes),
        ("/etc/passwd", Escapes),
        ("../x", Escapes),
        ("a/../../x", Escapes),
        ("a//b", Escapes),
        ("a/./b", Escapes),
        ("a/", Escapes),
        ("..\\x", Unportable),
        ("C:\\x", Unportable),
        ("c:x", Unportable),
        ("a/NUL", Unportable),
        ("a/nul.txt", Unportable),
        ("com1", Unportable),
        ("LPT9.pak", Unportable),
        ("com¹", Unportable),
        ("con .x", Unportable),
        ("a.", Unportable),
        ("a ", Unportable),
        (" a", Unportable),
        ("a\0b", Unportable),
        ("a\nb", Unportable),
        ("a?b", Unportable),
        (".lanrage-partial/x", Reserved),
        (".LANrage", Reserved),
        (&long, TooLong),
        (&long_part, TooLong),
        (&long_path, TooLong),
    ] {
        assert_eq!(check_path(path), Err(why), "{path:?}");
        assert_eq!(manifest(&[path]), Err(BadManifest::Path(path.into(), why)));
    }
    for path in ["a", "..a", "a..b", "com10", "console", ".hidden/x", "mods/ü/日本.pk3"] {
        assert_eq!(check_path(path), Ok(()), "{path:?}");
    }
}

#[test]
fn one_file_is_named_once() {
    for paths in [["a", "a"], ["A", "a"], ["a", "a/b"], ["X/y", "x"], ["Ü", "ü"]] {
        assert!(matches!(manifest(&paths), Err(BadManifest::Twice(_))), "{paths:?}");
    }
    assert!(manifest(&["a/b", "a/c", "ab"]).is_ok());
}

#[test]
fn too_much_is_refused() {
    let of_size = |size| Manifest::new("maps".into(), vec![ModFile { size, ..file("a") }, file("b")]);
    assert_eq!(of_size(u64::MAX), Err(BadManifest::TooBig));
    assert_eq!(of_size(MAX_TOTAL), Err(BadManifest::TooBig));
    assert!(of_size(MAX_TOTAL - 3).is_ok());
    let many = (0..=MAX_FILES).map(|n| file(&n.to_string())).collect();
    assert_eq!(Manifest::new("maps".into(), many), Err(BadManifest::TooBig));
    assert_eq!(Manifest::parse(&vec![b' '; MAX_MANIFEST + 1]), Err(BadManifest::TooBig));
    assert_eq!(Manifest::new("\u{1b}[2J".into(), vec![]), Err(BadManifest::Name));
}

proptest! {
    #[test]
    fn whatever_arrives_is_refused_or_stays_inside(bytes in any::<Vec<u8>>(), path in ".{0,40}") {
        let _ = Manifest::parse(&bytes);
        if manifest(&[&path]).is_ok() {
            let is_inside = |part: Component<'_>| matches!(part, Component::Normal(_));
            prop_assert!(Path::new(&path).components().all(is_inside), "{path:?}");
        }
    }

    #[test]
    fn digests_are_read_as_written(bytes in any::<[u8; 32]>(), text in "[0-9a-fA-Fg]{60,68}") {
        prop_assert_eq!(Digest(bytes).to_string().parse(), Ok(Digest(bytes)));
        if let Ok(digest) = text.parse::<Digest>() {
            prop_assert_eq!(digest.to_string(), text);
        }
    }
}
