//! Programs that repeat broadcasts between two networks of a machine.

use lanrage_tests::lab::netns::Namespace;
use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A socket for everybody on one interface.
pub fn on(place: &Namespace, interface: &str, port: u16) -> UdpSocket {
    let open = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_broadcast(true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
        std::io::Result::Ok(UdpSocket::from(socket))
    };
    place.run(open).unwrap().unwrap()
}

/// Repeats what comes on one interface on the other, but what this machine has sent itself.
pub fn repeat((hear, say): (&UdpSocket, &UdpSocket), port: u16, own: [Ipv4Addr; 2], stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = hear.recv_from(&mut buffer)
            && !own.iter().any(|own| from.ip() == *own)
        {
            // an interface's queue may be full, as on any network
            let _ = say.send_to(&buffer[..length], (Ipv4Addr::BROADCAST, port));
        }
    }
}

/// Both ways between two interfaces with these addresses, as long as `work` lasts.
pub fn while_repeated<T>(
    place: &Namespace,
    ends: [(&str, Ipv4Addr); 2],
    port: u16,
    work: impl FnOnce() -> T,
) -> T {
    let [a, b] = ends.map(|(interface, _)| on(place, interface, port));
    let (own, stop) = (ends.map(|(_, address)| address), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| repeat((&a, &b), port, own, &stop));
        scope.spawn(|| repeat((&b, &a), port, own, &stop));
        let result = work();
        stop.store(true, Ordering::Relaxed);
        result
    })
}
