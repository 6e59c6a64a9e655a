//! Mixed load and faults, a round at a time: each does everything once that the metrics tell
//! apart and the program can be brought to from outside. What one round leaves open is seen by the
//! scrapes after it, and ended by the next.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use socket2::{Domain, SockFilter, SockRef, Socket, Type};

use super::programs::{self, Places};
use crate::harness::{Client, PATIENCE, Server};

const MAX_CONNECTIONS: usize = 60;
const MAX_CONNECTIONS_PER_IP: usize = 30;
/// Rounds of a second each that last longer than any timeout here.
const LONG: usize = 4;
const IDLE: usize = 3;
/// Far more than the held listener's queue has room for: they are dropped again and again.
const WAITING: usize = 20;
/// As they stand in the configuration; the acceptor of `held` is held back.
const LISTENERS: [&str; 4] = ["raw", "lines", "held", "unix"];

pub struct Load {
    server: Server,
    /// What the last round left open.
    held: Vec<Client>,
    silent: Option<Client>,
    /// Clients that said something once, and are idle until the server ends them.
    idle: VecDeque<Client>,
    unix: Option<UnixStream>,
    /// Clients that read nothing, until the server has given each of them up.
    deaf: VecDeque<Client>,
    /// Connections that wait in the kernel, or for a place there.
    waiting: Vec<Socket>,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Load {
    #[track_caller]
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("load.sock");
        let [raw, lines, held, unix] = LISTENERS;
        let server = Server::start(&format!(
            "workers = 2\n\
             [[listener]]\nname = \"{raw}\"\naddress = \"127.0.0.1:0\"\n\
             [[listener]]\nname = \"{lines}\"\naddress = \"127.0.0.1:0\"\nframing = \"line\"\n\
             max_message_bytes = 1024\n\
             [[listener]]\nname = \"{held}\"\naddress = \"127.0.0.1:0\"\nbacklog = 4\n\
             max_accept_rate = 1\n\
             [[listener]]\nname = \"{unix}\"\naddress = \"unix:{}\"\n\
             {}\
             [limits]\nmax_connections = {MAX_CONNECTIONS}\n\
             max_connections_per_ip = {MAX_CONNECTIONS_PER_IP}\nfull_message = \"full\"\n\
             idle_timeout = \"3s\"\nmessage_timeout = \"500ms\"\nsend_timeout = \"1500ms\"\n\
             messages_per_turn = 8\n",
            path.display(),
            programs::listeners(directory.path())
        ));
        Self {
            server,
            held: Vec::new(),
            silent: None,
            idle: VecDeque::new(),
            unix: None,
            deaf: VecDeque::new(),
            waiting: Vec::new(),
            path,
            _directory: directory,
        }
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Everything once.
    #[track_caller]
    pub fn round(&mut self) {
        self.let_go();
        self.talk();
        self.offend();
        self.fall_silent();
        self.read_nothing();
        self.held.extend(programs::ask(&self.programs()));
        self.fill_the_accept_queue();
        self.ask_badly();
        self.crowd();
    }

    fn raw(&self) -> SocketAddr {
        self.server.address_of(0)
    }

    fn lines(&self) -> SocketAddr {
        self.server.address_of(1)
    }

    fn programs(&self) -> Places {
        let [answers, hangs, dies, unfit] = [4, 5, 6, 7].map(|it| self.server.address_of(it));
        Places { answers, hangs, dies, unfit }
    }

    /// Ends what the last round left, so that this one has room.
    #[track_caller]
    fn let_go(&mut self) {
        self.held.clear();
        self.unix = None;
        if let Some(silent) = self.silent.take() {
            // Its FIN would wait for acknowledgements that it does not hear.
            silent.reset();
        }
        self.server.eventually("there is room again", |metrics| {
            metrics.sum("talkback_connections") <= (2 * LONG * IDLE) as f64
        });
    }

    /// Clients as they should be, on all listeners, pipelining among them.
    #[track_caller]
    fn talk(&mut self) {
        let mut client = Client::connect(self.raw());
        for size in [1, 10, 100, 1_000, 10_000] {
            client.echo(&"x".repeat(size));
        }
        client.send("exit");
        client.expect_end();
        let lines = "hello\n".repeat(500);
        assert_eq!(Client::connect(self.lines()).exchange(lines.as_bytes()), lines.as_bytes());
        let mut unix = UnixStream::connect(&self.path).unwrap();
        unix.set_read_timeout(Some(PATIENCE)).unwrap();
        unix.write_all(b"hello").unwrap();
        unix.read_exact(&mut [0; 5]).unwrap();
        self.unix = Some(unix);
        for _ in 0..IDLE {
            let mut idle = Client::connect(self.raw());
            idle.echo("hello");
            self.idle.push_back(idle);
        }
        self.idle.drain(..self.idle.len().saturating_sub(LONG * IDLE));
    }

    /// Clients that break the rules, each in a way of its own.
    #[track_caller]
    fn offend(&mut self) {
        // Two of each: enough of all conversations for an alert.
        for _ in 0..2 {
            let mut bad = Client::connect(self.raw());
            bad.send(b"\xff\xfe");
            bad.expect_end();
            let mut long = Client::connect(self.lines());
            long.send("x".repeat(2_000));
            long.expect_end();
        }
        let mut reset = Client::connect(self.raw());
        reset.echo("hello");
        reset.reset();
        // It comes and goes without a word, as a load balancer's check does.
        drop(Client::connect(self.raw()));
        let mut unfinished = Client::connect(self.lines());
        unfinished.send("hel");
        self.held.push(unfinished);
    }

    /// One whose kernel drops what comes, so that the server's repeats it.
    fn fall_silent(&mut self) {
        let mut silent = Client::connect(self.raw());
        silent.echo("hello");
        let drop_everything = SockFilter::new(0x06, 0, 0, 0);
        SockRef::from(&silent.stream).attach_filter(&[drop_everything]).unwrap();
        silent.send("and gone");
        self.silent = Some(silent);
    }

    /// One that says more than its replies find room, and takes none of them.
    fn read_nothing(&mut self) {
        let mut deaf = Client::connect(self.lines());
        deaf.stream.set_nonblocking(true).unwrap();
        let lines = "hello\n".repeat(10_000);
        for _ in 0..200 {
            match deaf.stream.write(lines.as_bytes()) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.deaf.push_back(deaf);
        if self.deaf.len() > LONG {
            self.deaf.pop_front();
        }
    }

    /// More clients than the held listener lets in, and than the kernel has room for.
    fn fill_the_accept_queue(&mut self) {
        let address = self.server.address_of(2);
        while self.waiting.len() < WAITING {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            // It is under way.
            let _ = socket.connect(&address.into());
            self.waiting.push(socket);
        }
        // Those that were let in are over: others take their places.
        self.waiting.remove(0);
    }

    /// A scrape that the sidecar's door turns away.
    fn ask_badly(&self) {
        let mut stream = TcpStream::connect(self.server.metrics_address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"nonsense\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }

    /// Too many of one address, then too many of all.
    #[track_caller]
    fn crowd(&mut self) {
        for (source, count) in [(2, MAX_CONNECTIONS_PER_IP + 1), (3, MAX_CONNECTIONS_PER_IP + 1)] {
            for _ in 0..count {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                let source = SocketAddr::from((Ipv4Addr::new(127, 0, 0, source), 0));
                socket.bind(&source.into()).unwrap();
                socket.connect_timeout(&self.raw().into(), PATIENCE).unwrap();
                self.held.push(Client { stream: socket.into() });
            }
        }
        self.server.eventually("some are turned away", |metrics| metrics.rejections().len() == 2);
    }

    /// `promtool` finds nothing to say to the page as this load has made it.
    #[track_caller]
    pub fn check_metrics(&self) {
        let mut command = Command::new("promtool");
        command.args(["check", "metrics"]).stdin(Stdio::piped());
        let mut promtool = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let page = self.server.get("/metrics").1;
        promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && said.is_empty(), "{:?}: {said}", output.status);
    }
}
