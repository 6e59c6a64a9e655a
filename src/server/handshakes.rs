//! Handshakes that are under way on a listener when it closes: its kernel would answer their last
//! segment with a reset. No option tells how many there are, but the table of sockets does.

use std::fs::File;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks; on one host a handshake takes far less.
const PAUSE: Duration = Duration::from_millis(5);

/// Covers a handshake whose answer was lost once, for it is sent again after a second. One that
/// takes longer is most likely nobody's.
const LONGEST: Duration = Duration::from_millis(1500);

/// The tables, and how many characters each gives to an address.
const TABLES: [(&str, usize); 2] = [("/proc/net/tcp", 8), ("/proc/net/tcp6", 32)];

/// `TCP_SYN_RECV` (net/tcp_states.h) as the table writes it.
const SYN_RECV: &[u8] = b"03";

/// Waits until the handshakes that have begun on these ports are done. No new ones may begin.
pub(super) fn finish(ports: &[u16]) {
    if ports.is_empty() {
        return;
    }
    let until = Instant::now() + LONGEST;
    loop {
        // Also before the first look: a segment may be on its way through the kernel.
        thread::sleep(PAUSE);
        if !are_under_way(ports, until) || Instant::now() >= until {
            break;
        }
    }
    // What has left the table may not have reached the queue yet.
    thread::sleep(PAUSE);
}

/// A table that cannot be read shows none.
fn are_under_way(ports: &[u16], until: Instant) -> bool {
    // Larger than what the kernel gives at once, which it cuts at the end of a line.
    let mut chunk = vec![0; 64 * 1024];
    TABLES.into_iter().any(|(table, address_length)| {
        let Ok(mut table) = File::open(table) else { return false };
        // A busy host has a hundred thousand lines.
        while let Ok(length) = table.read(&mut chunk)
            && length > 0
            && Instant::now() < until
        {
            let mut lines = chunk[..length].split(|&byte| byte == b'\n');
            if lines.any(|line| is_handshake(line, address_length, ports)) {
                return true;
            }
        }
        false
    })
}

/// Whether the line is a handshake on one of these ports: `  12: LOCAL:PORT REMOTE:PORT STATE …`.
fn is_handshake(line: &[u8], address_length: usize, ports: &[u16]) -> bool {
    let Some(colon) = memchr::memchr(b':', line) else { return false };
    let port = colon + 2 + address_length + 1;
    let state = port + 4 + 1 + address_length + 1 + 4 + 1;
    let field = |at: usize, length: usize| line.get(at..at + length);
    field(state, SYN_RECV.len()) == Some(SYN_RECV)
        && field(port, 4)
            .and_then(|port| std::str::from_utf8(port).ok())
            .and_then(|port| u16::from_str_radix(port, 16).ok())
            .is_some_and(|port| ports.contains(&port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, address_length: usize, expected: bool) {
        assert_eq!(is_handshake(line.as_bytes(), address_length, &[80, 8889]), expected, "{line}");
    }

    #[test]
    fn a_handshake_is_known_by_its_state_and_its_local_port() {
        let line = |local: &str, state: &str| {
            format!("   3: {local} 0200007F:C350 {state} 00000000:00000000 01:00000064 00000000")
        };
        check(&line("0100007F:22B9", "03"), 8, true);
        check(&line("0100007F:22B9", "03").replace("   3", "123456"), 8, true);
        check(&line("0100007F:22B9", "01"), 8, false);
        check(&line("0100007F:22BA", "03"), 8, false);
        check("  sl  local_address rem_address   st tx_queue", 8, false);
        check("", 8, false);
        let (local, remote) = ("1".repeat(32), "2".repeat(32));
        check(&format!("   0: {local}:22B9 {remote}:C350 03 00000000:00000000"), 32, true);
        check(&format!("   0: {local}:C350 {remote}:22B9 03 00000000:00000000"), 32, false);
    }
}
