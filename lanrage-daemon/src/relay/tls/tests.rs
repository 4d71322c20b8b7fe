use super::*;
use crate::peer::tls::connect::connect;
use crate::peer::tls::{Carriers, Event, Trouble};
use crate::shutdown::{self, ShutdownTrigger};
use lanrage_common::carrier::MAX_DATAGRAM;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio_rustls::client::TlsStream;

const LONG: Patience = Patience { handshake: Duration::from_secs(60), idle: Duration::from_secs(60) };
/// However busy this machine is.
const WAIT: Duration = Duration::from_secs(20);
/// Enough of STUN to be welcome: type, length, magic cookie, transaction.
const HELLO: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/// A listener in front of a socket that stands for the relay.
struct Bench {
    tls: Tls,
    relay: UdpSocket,
    trigger: ShutdownTrigger,
    _state: tempfile::TempDir,
}

fn config(listen: SocketAddr) -> RelayConfig {
    RelayConfig { tls_listen: TlsListen::At(listen), ..RelayConfig::default() }
}

impl Bench {
    async fn new(patience: Patience) -> Self {
        let relay = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = relay.local_addr().unwrap();
        let (trigger, shutdown) = shutdown::channel();
        let state = tempfile::tempdir().unwrap();
        let config = config("127.0.0.1:0".parse().unwrap());
        let tls =
            start_with(patience, &config, state.path(), address, address, shutdown).await.unwrap().unwrap();
        Self { tls, relay, trigger, _state: state }
    }

    /// A request that came by TLS, and where the relay would answer.
    async fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; MAX_DATAGRAM];
        let (length, from) = timeout(WAIT, self.relay.recv_from(&mut buffer)).await.unwrap().unwrap();
        (buffer[..length].to_vec(), from)
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        connect(self.tls.info).await.unwrap()
    }

    /// Waits until a connection has ended for this reason so many times.
    async fn until_ended(&self, why: &str, count: u64) {
        let counted = async {
            while self.tls.status().ended.get(why).copied().unwrap_or(0) < count {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(WAIT, counted).await.unwrap_or_else(|_| panic!("{why}: {:?}", self.tls.status().ended));
    }

    /// A whole round through a member's carrier.
    async fn play(&self) {
        let mut member = Member::new(&self.tls).await;
        member.play(self).await;
    }
}

/// The peer's side, with a socket for the tunnel.
struct Member {
    tunnel: UdpSocket,
    carriers: Carriers,
    relay: SocketAddr,
}

impl Member {
    async fn new(tls: &Tls) -> Self {
        let tunnel = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut carriers = Carriers::new(tunnel.local_addr().unwrap().port());
        carriers.open(1, tls.info);
        match timeout(WAIT, carriers.next()).await.unwrap() {
            Event::Opened { id: 1, local } => Self { tunnel, carriers, relay: local },
            other => panic!("{other:?}"),
        }
    }

    async fn play(&mut self, bench: &Bench) -> SocketAddr {
        self.tunnel.send_to(&HELLO, self.relay).await.unwrap();
        let (datagram, from) = bench.receive().await;
        assert_eq!(datagram, HELLO);
        bench.relay.send_to(b"answer", from).await.unwrap();
        assert_eq!(self.receive().await, b"answer");
        from
    }

    async fn receive(&self) -> Vec<u8> {
        let mut buffer = [0; MAX_DATAGRAM];
        let (length, from) = timeout(WAIT, self.tunnel.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(from, self.relay);
        buffer[..length].to_vec()
    }
}

#[tokio::test]
async fn datagrams_cross_and_nobody_else_is_reached_or_heard() {
    let bench = Bench::new(LONG).await;
    let mut member = Member::new(&bench.tls).await;
    let outside = member.play(&bench).await;
    assert!(outside.ip().is_loopback());
    let status = bench.tls.status();
    assert_eq!((status.connections, status.received, status.sent), (1, 1, 1));

    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for inside in [outside, member.relay] {
        let _ = stranger.send_to(b"stranger", inside).await;
    }
    bench.relay.send_to(b"next", outside).await.unwrap();
    assert_eq!(member.receive().await, b"next");
    member.carriers.close(1);
    bench.until_ended("closed", 1).await;
    assert_eq!(bench.tls.status().connections, 0);
}

#[tokio::test]
async fn a_stopped_relay_ends_its_connections() {
    let bench = Bench::new(LONG).await;
    let mut member = Member::new(&bench.tls).await;
    member.play(&bench).await;
    bench.trigger.request();
    let event = timeout(WAIT, member.carriers.next()).await.unwrap();
    assert!(matches!(event, Event::Ended { id: 1, .. }), "{event:?}");
}

#[tokio::test]
async fn another_certificate_is_refused_and_named() {
    let bench = Bench::new(LONG).await;
    let certificate = CertificateFingerprint([7; 32]);
    let refused = connect(RelayTls { certificate, ..bench.tls.info }).await.unwrap_err();
    let Trouble::Certificate(text) = refused else { panic!("{refused}") };
    let (seen, wanted) = (bench.tls.info.certificate.to_string(), certificate.to_string());
    assert!(text.contains(&seen) && text.contains(&wanted) && text.contains("another certificate"), "{text}");
    bench.until_ended("handshake_failed", 1).await;
}

#[tokio::test]
async fn garbage_gets_no_answer_and_disturbs_nobody() {
    let bench = Bench::new(LONG).await;
    let mut rng = rand::rngs::StdRng::seed_from_u64(3);
    let mut openings: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"SSH-2.0-x\r\n".to_vec(),
        [&[0x16, 3, 1, 0xff, 0xff][..], &[0; 64]].concat(),
        vec![0; 3000],
    ];
    openings.extend((0..100).map(|_| (0..rng.gen_range(1..600)).map(|_| rng.r#gen()).collect()));
    for opening in &openings {
        let mut stream = TcpStream::connect(bench.tls.listen).await.unwrap();
        let _ = stream.write_all(opening).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(WAIT, stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.len() <= 7, "at most a TLS alert: {answer:?}");
    }
    bench.until_ended("handshake_failed", openings.len() as u64).await;
    bench.play().await;
}

#[tokio::test]
async fn garbage_inside_tls_ends_the_connection_without_a_word() {
    let bench = Bench::new(LONG).await;
    let largest = [&[8, 1][..], &[0; MAX_DATAGRAM + 1]].concat();
    let not_stun = [&[0, 32, 4][..], &[0; 31]].concat();
    let openings = [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0; 2], largest, vec![0xff; 5000], not_stun];
    for (count, opening) in openings.iter().enumerate() {
        let mut stream = bench.connect().await;
        let _ = stream.write_all(opening).await;
        let _ = stream.flush().await;
        let mut answer = Vec::new();
        let _ = timeout(WAIT, stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.is_empty(), "opening {count}: {answer:?}");
    }
    bench.until_ended("not_frames", 4).await;
    bench.until_ended("not_welcome", 1).await;
    assert!(bench.relay.try_recv(&mut [0; 16]).is_err(), "nothing reached the relay");
    bench.play().await;
}

#[tokio::test]
async fn the_slow_and_the_silent_are_hung_up_on() {
    let short = Duration::from_millis(300);
    let bench = Bench::new(Patience { handshake: short, idle: short }).await;
    let _slow = TcpStream::connect(bench.tls.listen).await.unwrap();
    bench.until_ended("handshake_slow", 1).await;
    let mut talker = bench.connect().await;
    let talk = async {
        while talker.write_all(&[&[0, 20][..], &HELLO].concat()).await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::join!(talk, bench.until_ended("idle", 1));
    assert_eq!(bench.tls.status().connections, 0);
}

/// From an address of its own, as each has a share only.
async fn idle_connection(bench: &Bench, source: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 1, source], 0).into()).unwrap();
    socket.connect(bench.tls.listen).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_idle_connections_and_a_flood_disturb_nobody() {
    let bench = Bench::new(LONG).await;
    let mut idle = Vec::new();
    let filled = async {
        while bench.tls.status().connections < 500 {
            for n in 0..50u8 {
                idle.push(idle_connection(&bench, 1 + n % 10).await);
            }
            sleep(Duration::from_millis(300)).await; // new connections have a rate
        }
    };
    timeout(WAIT, filled).await.unwrap();

    let mut flooder = bench.connect().await;
    let frame = [&[0, 20][..], &HELLO].concat();
    let flood = tokio::spawn(async move { while flooder.write_all(&frame.repeat(100)).await.is_ok() {} });
    let member = Member::new(&bench.tls).await;
    let mine = [&HELLO[..16], b"mine"].concat();
    // as any socket under a flood the relay's loses datagrams, so the member repeats itself as members do
    let mut repeat = tokio::time::interval(Duration::from_millis(20));
    let found = async {
        loop {
            tokio::select! {
                _ = repeat.tick() => drop(member.tunnel.send_to(&mine, member.relay).await),
                (datagram, from) = bench.receive() => if datagram == mine { return from },
            }
        }
    };
    let from = timeout(WAIT, found).await.unwrap();
    bench.relay.send_to(b"answer", from).await.unwrap();
    assert_eq!(member.receive().await, b"answer");
    flood.abort();
}

#[tokio::test]
async fn a_port_that_cannot_be_had_is_a_problem_with_a_fix() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (relay, state) = ("127.0.0.1:3478".parse().unwrap(), tempfile::tempdir().unwrap());
    let (_trigger, shutdown) = shutdown::channel();
    let problem = async |listen: SocketAddr| {
        start(&config(listen), state.path(), relay, relay, shutdown.clone()).await.unwrap_err()
    };
    let taken = problem(taken.local_addr().unwrap()).await;
    assert_eq!(taken.code, "relay_tls_off");
    assert!(taken.message.contains("is taken by"), "{}", taken.message);
    assert!(taken.fix.contains("relay.tls_listen") && taken.fix.contains("\"off\""), "{}", taken.fix);
    let foreign = problem("192.0.2.1:443".parse().unwrap()).await;
    assert!(foreign.message.contains("no address of this machine"), "{}", foreign.message);
    let broken = RelayConfig {
        tls_cert: Some("/nonexistent.crt".into()),
        tls_key: Some("/nonexistent.key".into()),
        ..config("127.0.0.1:0".parse().unwrap())
    };
    let broken = start(&broken, state.path(), relay, relay, shutdown.clone()).await.unwrap_err();
    assert!(
        broken.message.contains("/nonexistent.crt") && broken.fix.contains("relay.tls_cert"),
        "{broken:?}"
    );
    let off = RelayConfig { tls_listen: TlsListen::Off, ..RelayConfig::default() };
    assert!(start(&off, state.path(), relay, relay, shutdown).await.unwrap().is_none());
}
