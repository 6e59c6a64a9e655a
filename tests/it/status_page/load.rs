//! A server with four listeners, a program behind one of them, and clients of many kinds, moved on
//! step by step: a test that waits for something does a step between two looks.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};

use socket2::{Domain, Socket, Type};

use crate::harness::{Client, PATIENCE, Server};

const TALKERS: usize = 24;
/// Clients of one address that sit there and say nothing: as many as one address may have.
const CROWD: usize = 6;

/// Says what it is told, and dies of `die`.
const PROGRAM: &str = concat!(
    "import sys\n",
    "for line in sys.stdin:\n",
    "    if line == 'die\\n': sys.exit(1)\n",
    "    print(line, end='')",
);

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Sends a message every so many steps, and takes its echo.
struct Talker {
    stream: Box<dyn Stream>,
    every: usize,
    message: Vec<u8>,
}

impl Talker {
    #[track_caller]
    fn talk(&mut self) {
        self.stream.write_all(&self.message).unwrap();
        let mut echo = vec![0; self.message.len()];
        self.stream.read_exact(&mut echo).unwrap();
        assert!(echo == self.message, "an echo is what was said");
    }
}

pub struct Load {
    pub server: Server,
    talkers: Vec<Talker>,
    _crowd: Vec<Client>,
    peer: SocketAddr,
    step: usize,
}

impl Load {
    #[track_caller]
    pub fn start() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("talkback-page-{}-{number}", std::process::id());
        let server = Server::start(&format!(
            "workers = 2\n\
             [[listener]]\nname = \"main\"\naddress = \"127.0.0.1:0\"\n\
             [[listener]]\nname = \"lines\"\naddress = \"127.0.0.1:0\"\n\
             framing = \"line\"\nmax_message_bytes = 1024\n\
             [[listener]]\nname = \"local\"\naddress = \"unix:@{name}\"\n\
             [[listener]]\nname = \"python\"\naddress = \"127.0.0.1:0\"\n\
             framing = \"line\"\nresponder = \"command\"\n\
             [listener.command]\nprogram = [\"python3\", \"-u\", \"-c\", {PROGRAM:?}]\n\
             [limits]\nmax_connections_per_ip = {CROWD}\nsend_timeout = \"5m\"\n"
        ));
        let mut peer = None;
        let talkers = (0..TALKERS).map(|index| {
            let stream: Box<dyn Stream> = if index % 4 == 3 {
                let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
                let stream = UnixStream::connect_addr(&address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                Box::new(stream)
            } else {
                let listener = if index % 8 == 5 { 3 } else { index % 2 };
                let client = connect(server.address_of(listener), 10 + index);
                peer.get_or_insert(client.stream.local_addr().unwrap());
                Box::new(client.stream)
            };
            let mut message = vec![b'x'; 900 / (index + 1) + 5];
            message.push(b'\n');
            let mut talker = Talker { stream, every: 1 + index / 3, message };
            // Its worker has it now: the order of their ages is the order in which they came.
            talker.talk();
            talker
        });
        let talkers = talkers.collect();
        let crowd = (0..CROWD).map(|_| connect(server.address(), 9)).collect();
        let peer = peer.expect("the first talker");
        Self { server, talkers, _crowd: crowd, peer, step: 0 }
    }

    /// The first client, which talks most: as the server knows it.
    pub fn peer(&self) -> String {
        self.peer.to_string()
    }

    /// Whose turn it is says something, and a passer-by or two come and go.
    #[track_caller]
    pub fn step(&mut self) {
        self.step += 1;
        for talker in &mut self.talkers {
            if self.step.is_multiple_of(talker.every) {
                talker.talk();
            }
        }
        let main = self.server.address_of(0);
        let mut passer_by = connect(main, 200);
        match self.step % 8 {
            0 => passer_by.send(b"\xff"),
            1 => drop(passer_by),
            2 => {
                passer_by.echo("hello");
                passer_by.reset();
            }
            3 => {
                passer_by.echo("hello");
                drop(passer_by);
            }
            _ => {
                passer_by.echo("hello");
                passer_by.send("exit");
                passer_by.expect_end();
            }
        }
        if self.step.is_multiple_of(16) {
            // One too many of its address: the server says nothing and closes.
            let _ = connect(main, 9).stream.read(&mut [0; 16]);
        }
        if self.step.is_multiple_of(40) {
            let mut client = connect(self.server.address_of(1), 201);
            client.send([b'y'; 1025]);
            client.expect_end();
            let mut client = connect(self.server.address_of(3), 202);
            client.send("die\n");
            client.expect_end();
        }
    }
}

/// Connects from 127.0.0.`host`.
#[track_caller]
fn connect(address: SocketAddr, host: usize) -> Client {
    let host = u8::try_from(host).unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
    socket.bind(&from.into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let client = Client { stream: socket.into() };
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    client.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    client.stream.set_nodelay(true).unwrap();
    client
}
