//! Founding, inviting, joining, leaving, and who hears of it.

use crate::support::{Server, party_id};
use lanrage_common::protocol::{Change, ClientMessage, CreateInvite, ErrorCode, ServerMessage};

#[tokio::test]
async fn a_party_by_invite_reaches_both_members() {
    let server = Server::start().await;
    let (host, membership) = server.party().await;
    assert_eq!(membership.address.octets(), [10, 66, 0, 1]);
    let mut host_line = host.online(&membership).await;
    assert_eq!(host_line.snapshot().await.1.len(), 1);

    let invite = host
        .client
        .create_invite(&party_id(&membership), &CreateInvite { expires_in: None, uses: None })
        .await
        .unwrap();
    assert_eq!(invite.code.len(), 22);
    let ana = server.peer("Ana");
    let joined = ana.client.join(&invite.code).await.unwrap();
    assert_eq!(joined.party, membership.party);
    assert_eq!(joined.address.octets(), [10, 66, 0, 2]);

    let mut ana_line = ana.online(&joined).await;
    let (seq, members) = ana_line.snapshot().await;
    assert_eq!((seq, members.len()), (2, 2));
    let delta = host_line.next(|message| match message {
        ServerMessage::Delta { seq, change: Change::Member { member }, .. } => Some((seq, member)),
        _ => None,
    });
    let (seq, member) = delta.await;
    assert_eq!((seq, member.entry.name.as_str()), (2, "Ana"));
    let online = host_line.next(|message| match message {
        ServerMessage::Presence { device, online, .. } => Some((device, online)),
        _ => None,
    });
    assert_eq!(online.await, (ana.device.key(), true));

    let body = "c2VhbGVk".to_owned();
    ana_line.send(ClientMessage::Signal { party: party_id(&joined), to: host.device.wg_key(), body }).await;
    let signal = host_line.next(|message| match message {
        ServerMessage::Signal { from, body, .. } => Some((from, body)),
        _ => None,
    });
    assert_eq!(signal.await, (ana.device.wg_key(), "c2VhbGVk".into()));

    drop(ana_line);
    let offline = host_line.next(|message| match message {
        ServerMessage::Presence { device, online: false, .. } => Some(device),
        _ => None,
    });
    assert_eq!(offline.await, ana.device.key());
    ana.client.leave(&party_id(&joined)).await.unwrap();
    let left = host_line.next(|message| match message {
        ServerMessage::Delta { seq, change: Change::Left { device }, .. } => Some((seq, device)),
        _ => None,
    });
    assert_eq!(left.await, (3, ana.device.key()));
}

#[tokio::test]
async fn invites_end_by_use_by_time_and_by_hand() {
    let server = Server::start().await;
    let (host, membership) = server.party().await;
    let party = party_id(&membership);
    let invite =
        async |uses, expires_in| host.client.create_invite(&party, &CreateInvite { expires_in, uses }).await;
    let refused = async |code: &str| server.peer("Late").client.join(code).await.unwrap_err().code();

    let once = invite(Some(1), None).await.unwrap();
    assert_eq!(once.uses_left, Some(1));
    let ana = server.peer("Ana");
    let first = ana.client.join(&once.code).await.unwrap();
    assert_eq!(refused(&once.code).await, Some(ErrorCode::InviteUsedUp));
    assert_eq!(ana.client.join(&once.code).await.unwrap(), first, "asking again is no second use");

    let revoked = invite(None, None).await.unwrap();
    host.client.revoke_invite(&party, &revoked.code).await.unwrap();
    assert_eq!(refused(&revoked.code).await, Some(ErrorCode::InviteRevoked));

    assert_eq!(refused("AAAAAAAAAAAAAAAAAAAAAA").await, Some(ErrorCode::NotFound));
    assert_eq!(refused("' OR 1=1 --").await, Some(ErrorCode::NotFound));
    for (uses, life) in [(Some(0), None), (Some(255), None), (None, Some(5)), (None, Some(u64::MAX))] {
        assert_eq!(invite(uses, life).await.unwrap_err().code(), Some(ErrorCode::BadRequest));
    }
    let metrics = server.metrics().await;
    assert!(metrics.contains("lanrage_control_invites_redeemed_total 2"), "{metrics}");
    assert!(
        metrics.contains("lanrage_control_requests_total{route=\"/v1/join\",method=\"POST\",code=\"410\"} 2"),
        "{metrics}"
    );
}

#[tokio::test]
async fn strangers_may_do_nothing_in_a_party() {
    let server = Server::start().await;
    let (_, membership) = server.party().await;
    let stranger = server.peer("Stranger");
    let party = party_id(&membership);
    let invite = CreateInvite { expires_in: None, uses: None };
    assert_eq!(
        stranger.client.create_invite(&party, &invite).await.unwrap_err().code(),
        Some(ErrorCode::NotFound)
    );
    assert_eq!(stranger.client.leave(&party).await.unwrap_err().code(), Some(ErrorCode::NotFound));
    let mut line = stranger.online(&membership).await;
    let error = line.next(|message| match message {
        ServerMessage::Error { party, error } => Some((party, error.code)),
        _ => None,
    });
    assert_eq!(error.await, (Some(party), ErrorCode::NotFound));
}

#[tokio::test]
async fn names_and_subnets_are_checked() {
    let server = Server::start().await;
    let host = server.peer("Host");
    for name in ["", " x", "a\nb", &"x".repeat(33)] {
        assert_eq!(
            host.client.create_party(name, None).await.unwrap_err().code(),
            Some(ErrorCode::BadRequest)
        );
    }
    for subnet in ["8.8.0.0/16", "10.0.0.0/8", "192.168.1.0/25"] {
        let refused = host.client.create_party("x", Some(subnet.parse().unwrap())).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::BadRequest));
        assert!(refused.to_string().contains("/16 to /24"), "{refused}");
    }
    let other = host.client.create_party("x", Some("172.20.0.0/20".parse().unwrap())).await.unwrap();
    assert_eq!(other.address.octets(), [172, 20, 0, 1]);
}

#[tokio::test]
async fn a_newer_connection_of_a_device_replaces_the_older() {
    let server = Server::start().await;
    let (host, membership) = server.party().await;
    let mut first = host.online(&membership).await;
    first.snapshot().await;
    let mut second = host.online(&membership).await;
    second.snapshot().await;
    assert!(first.disconnected().await.contains("replaced"));
    drop(first);
}
