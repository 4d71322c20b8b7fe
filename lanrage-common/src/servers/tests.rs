use super::*;
use proptest::prelude::*;

const ALL: [Query; 5] =
    [Query::Quake2, Query::Quake3, Query::Source, Query::MinecraftBedrock, Query::MinecraftJava];

fn info(name: &str, map: &str, players: u16, max_players: u16) -> Info {
    Info {
        name: name.into(),
        map: map.into(),
        players: Some(players),
        max_players: Some(max_players),
        ..Info::default()
    }
}

#[test]
fn quake_servers_tell_their_players() {
    let answer = b"\xff\xff\xff\xffstatusResponse\n\\sv_hostname\\^1Ben's ^7place\\mapname\\oa_minia\\sv_maxclients\\8\
        \\g_needpass\\1\n12 48 \"Ana\"\n0 0 \"^2Sarge\"\n";
    let wanted = Info { is_locked: true, ..info("Ben's place", "oa_minia", 2, 8) };
    assert_eq!(Query::Quake3.handle(answer), Step::Found(wanted));
    let answer = b"\xff\xff\xff\xffprint\n\\hostname\\noname\\mapname\\q2dm1\\maxclients\\4\n\0";
    assert_eq!(Query::Quake2.handle(answer), Step::Found(info("noname", "q2dm1", 0, 4)));
    assert_eq!(Query::Quake3.handle(b"\xff\xff\xff\xffinfoResponse\n\\hostname\\x"), Step::Nothing);
    assert_eq!(Query::Quake3.request(), b"\xff\xff\xff\xffgetstatus\n");
}

#[test]
fn source_servers_want_their_challenge_back() {
    let Step::Ask(again) = Query::Source.handle(b"\xff\xff\xff\xffA\x01\x02\x03\x04") else { panic!() };
    assert_eq!(again, b"\xff\xff\xff\xffTSource Engine Query\0\x01\x02\x03\x04");
    let mut answer =
        b"\xff\xff\xff\xffI\x11Party\0de_dust2\0cstrike\0Counter-Strike\0\xf0\0\x03\x10\x01dl\x01\x01"
            .to_vec();
    let wanted = Info { is_locked: true, ..info("Party", "de_dust2", 3, 16) };
    assert_eq!(Query::Source.handle(&answer), Step::Found(wanted.clone()));
    answer.extend_from_slice(b"1.0\0\x80\x88\x69");
    let elsewhere = Info { port: Some(27016), ..wanted };
    assert_eq!(Query::Source.handle(&answer), Step::Found(elsewhere));
    let old = b"\xff\xff\xff\xffm10.0.0.1:27015\0Old\0crossfire\0valve\0Half-Life\0\x02\x08\x2fdl\0";
    assert_eq!(Query::Source.handle(old), Step::Found(info("Old", "crossfire", 2, 8)));
}

#[test]
fn minecraft_servers_tell_their_names() {
    let text = b"MCPE;\xc2\xa7aLena's;594;1.20;1;10;123;World;Survival;1;19132;19133";
    let mut pong =
        [&[0x1c][..], &[0; 16], b"\x00\xff\xff\x00\xfe\xfe\xfe\xfe\xfd\xfd\xfd\xfd\x12\x34\x56\x78"].concat();
    pong.extend_from_slice(&[0, text.len() as u8]);
    pong.extend_from_slice(text);
    assert_eq!(Query::MinecraftBedrock.handle(&pong), Step::Found(info("Lena's", "World", 1, 10)));

    let json =
        br#"{"description":{"text":"A ","extra":["b",{"text":"\u00a7lc"}]},"players":{"max":20,"online":2}}"#;
    let mut list = vec![json.len() as u8 + 2, 0, json.len() as u8];
    list.extend_from_slice(json);
    assert_eq!(Query::MinecraftJava.handle(&list), Step::Found(info("A bc", "", 2, 20)));
    assert_eq!(Query::MinecraftJava.handle(&list[..list.len() - 1]), Step::Nothing, "not the whole yet");
    let asked = Query::MinecraftJava.request();
    assert_eq!((usize::from(asked[0]) + 3, &asked[asked.len() - 3..]), (asked.len(), &[1, 1, 0][..]));
}

#[test]
fn texts_are_fit_to_be_shown() {
    assert_eq!(clean("  a\x1b[2Jb\n "), "a[2Jb");
    assert_eq!(clean(&"ä".repeat(40)), "ä".repeat(24));
    assert_eq!(clean("\u{0}"), "");
}

proptest! {
    #[test]
    fn any_answer_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..80) {
        for query in ALL {
            let _ = query.handle(&bytes);
            let answers: [&[u8]; 4] = [
                b"\xff\xff\xff\xffI\x11Party\0de_dust2\0cstrike\0Counter-Strike\0\xf0\0\x03\x10\x01dl\x01\x011\0\x80",
                b"\xff\xff\xff\xffstatusResponse\n\\sv_hostname\\",
                b"\x1c0123456789abcdef\x00\xff\xff\x00\xfe\xfe\xfe\xfe\xfd\xfd\xfd\xfd\x12\x34\x56\x78\0\x10MCPE;",
                b"\x80\x01\0\x7d{\"description\":",
            ];
            for answer in answers {
                let answer = [&answer[..answer.len().saturating_sub(cut)], &bytes].concat();
                if let Step::Found(info) = query.handle(&answer) {
                    prop_assert!(info.name.len() <= MAX_TEXT && info.map.len() <= MAX_TEXT);
                    prop_assert!(!info.name.contains(char::is_control) && !info.map.contains(char::is_control));
                }
            }
        }
    }
}
