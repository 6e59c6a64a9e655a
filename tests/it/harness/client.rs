//! A client that says and expects, with a deadline for each.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::PATIENCE;

/// A client; no read of it waits for ever.
pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Reads exactly what is expected.
    #[track_caller]
    pub fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let mut got = vec![0; expected.len()];
        let mut length = 0;
        while length < got.len() {
            match self.stream.read(&mut got[length..]) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) => panic!("{error} after {:?}", lossy(&got[..length])),
            }
        }
        assert_eq!(lossy(&got[..length]), lossy(expected));
    }

    /// Sends, and expects the same back.
    #[track_caller]
    pub fn echo(&mut self, text: &str) {
        self.send(text);
        self.expect(text);
    }

    /// Everything until the server's FIN; a reset is a failure.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// The server ends the connection in an orderly way and says nothing more.
    #[track_caller]
    pub fn expect_end(&mut self) {
        assert_eq!(lossy(&self.read_to_end()), "");
    }

    /// The server resets the connection.
    #[track_caller]
    pub fn expect_reset(&mut self) {
        let error = self.stream.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    /// Half-close: we say no more.
    pub fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Sends everything and half-closes, and reads all the while until the server's FIN.
    #[track_caller]
    pub fn exchange(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = self.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                out.write_all(bytes).unwrap();
                out.shutdown(Shutdown::Write).unwrap();
            });
            self.read_to_end()
        })
    }

    /// Close with RST.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
