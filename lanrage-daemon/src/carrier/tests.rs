use super::*;
use tokio::io::DuplexStream;

const ALL: Rules = Rules { idle: None, is_welcome: |_| true };

/// Two connected sockets.
async fn sockets() -> (UdpSocket, UdpSocket) {
    let [a, b] =
        [UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap()];
    a.connect(b.local_addr().unwrap()).await.unwrap();
    b.connect(a.local_addr().unwrap()).await.unwrap();
    (a, b)
}

fn carrier(
    rules: Rules,
    room: usize,
    inside: UdpSocket,
) -> (DuplexStream, tokio::task::JoinHandle<(Ended, Figures)>) {
    let (near, far) = tokio::io::duplex(room);
    let task = tokio::spawn(async move {
        let traffic = Traffic::default();
        let ended = carry(near, &inside, &traffic, rules).await;
        (ended, traffic.figures())
    });
    (far, task)
}

#[tokio::test]
async fn datagrams_cross_both_ways() {
    let (inside, outside) = sockets().await;
    let (mut stream, task) = carrier(ALL, 1024, inside);
    stream.write_all(&[0, 3, b'o', b'n', b'e', 0]).await.unwrap();
    stream.write_all(&[3, b't', b'w', b'o']).await.unwrap();
    let mut buffer = [0; 16];
    for expected in [b"one", b"two"] {
        let length = outside.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], expected);
    }
    outside.send(b"three").await.unwrap();
    let mut frame = [0; 7];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame, b"\0\x05three");
    drop(stream);
    let (ended, figures) = task.await.unwrap();
    assert!(matches!(ended, Ended::Closed), "{ended}");
    assert_eq!(figures, Figures { received: 2, sent: 1, dropped: 0 });
}

#[tokio::test]
async fn what_is_no_frame_ends_the_stream() {
    let (inside, _outside) = sockets().await;
    let (mut stream, task) = carrier(ALL, 1024, inside);
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let (ended, figures) = task.await.unwrap();
    assert!(matches!(ended, Ended::NotFrames(FrameError(0x4745))), "{ended}");
    assert_eq!(figures.received, 0);
}

#[tokio::test]
async fn an_unwelcome_first_datagram_ends_the_stream() {
    let (inside, _outside) = sockets().await;
    let rules = Rules { is_welcome: |datagram| datagram.starts_with(b"hi"), ..ALL };
    let (mut stream, task) = carrier(rules, 1024, inside);
    stream.write_all(b"\0\x02ho").await.unwrap();
    assert!(matches!(task.await.unwrap().0, Ended::NotWelcome));
}

#[tokio::test]
async fn silence_ends_the_stream_however_much_it_brings() {
    let (inside, _outside) = sockets().await;
    let rules = Rules { idle: Some(Duration::from_millis(100)), ..ALL };
    let (mut stream, task) = carrier(rules, 1024, inside);
    let talk = async {
        while stream.write_all(b"\0\x01x").await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let (_, ended) = tokio::join!(talk, task);
    assert!(matches!(ended.unwrap().0, Ended::Idle));
}

#[tokio::test]
async fn behind_a_stuck_stream_the_newest_datagrams_win() {
    let (inside, outside) = sockets().await;
    let (mut stream, task) = carrier(ALL, 100, inside);
    for n in 0..400u32 {
        outside.send(&[&n.to_be_bytes()[..], &[0; 996]].concat()).await.unwrap();
        tokio::task::yield_now().await;
        sleep(Duration::from_micros(200)).await; // the socket's own buffer must not overflow
    }
    let mut numbers = Vec::new();
    let mut frame = [0; 1002];
    while numbers.last() != Some(&399) {
        stream.read_exact(&mut frame).await.unwrap();
        numbers.push(u32::from_be_bytes(frame[2..6].try_into().unwrap()));
    }
    assert!(numbers.is_sorted());
    assert!(numbers.len() < 120, "{} datagrams waited", numbers.len());
    drop(stream);
    let (_, figures) = task.await.unwrap();
    assert_eq!(figures.sent, numbers.len() as u64);
    assert_eq!(figures.dropped, 400 - numbers.len() as u64);
}

#[tokio::test]
async fn a_stream_that_floods_waits_instead_of_losing() {
    let (inside, outside) = sockets().await;
    let (mut stream, _task) = carrier(ALL, 64 * 1024, inside);
    let count = BURST as usize + 200;
    let flood = async { stream.write_all(&b"\0\x01x".repeat(count)).await.unwrap() };
    let drain = async {
        let mut buffer = [0; 4];
        for _ in 0..count {
            outside.recv(&mut buffer).await.unwrap();
        }
    };
    tokio::join!(flood, drain);
}
