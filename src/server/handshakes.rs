//! Handshakes that are under way on a listener when it closes: its kernel would answer their last
//! segment with a reset. No option tells how many there are, but the table of sockets does.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks; on one host a handshake takes far less.
const PAUSE: Duration = Duration::from_millis(5);

/// Covers a handshake whose answer was lost once, for it is sent again after a second. One that
/// takes longer is most likely nobody's.
const LONGEST: Duration = Duration::from_millis(1500);

/// `TCP_SYN_RECV` (net/tcp_states.h) as the table writes it.
const SYN_RECV: &str = "03";

/// Waits until the handshakes that have begun on these ports are done. No new ones may begin.
pub(super) fn finish(ports: &[u16]) {
    if ports.is_empty() {
        return;
    }
    let until = Instant::now() + LONGEST;
    loop {
        // Also before the first look: a segment may be on its way through the kernel.
        thread::sleep(PAUSE);
        if !are_under_way(ports) || Instant::now() >= until {
            break;
        }
    }
    // What has left the table may not have reached the queue yet.
    thread::sleep(PAUSE);
}

/// A table that cannot be read shows none.
fn are_under_way(ports: &[u16]) -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().any(|table| {
        File::open(table).is_ok_and(|table| {
            let mut lines = BufReader::new(table).lines().map_while(Result::ok);
            lines.any(|line| is_handshake(&line, ports))
        })
    })
}

/// Whether the line of `/proc/net/tcp` is a handshake on one of these ports.
fn is_handshake(line: &str, ports: &[u16]) -> bool {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (Some(local), Some(_), Some(state)) = (fields.next(), fields.next(), fields.next()) else {
        return false;
    };
    let port = local.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
    state == SYN_RECV && port.is_some_and(|port| ports.contains(&port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_known_by_its_state_and_its_local_port() {
        let line = |local: &str, state: &str| {
            format!("   3: {local} 0200007F:C350 {state} 00000000:00000000 01:00000064 00000000")
        };
        let v6 = "00000000000000000000000001000000:22B9";
        let cases = [
            (line("0100007F:22B9", "03"), true),
            (line(v6, "03"), true),
            (line("0100007F:22B9", "01"), false),
            (line("0100007F:22BA", "03"), false),
            ("  sl  local_address rem_address   st tx_queue".to_owned(), false),
            (String::new(), false),
        ];
        for (line, expected) in cases {
            assert_eq!(is_handshake(&line, &[80, 8889]), expected, "{line}");
        }
    }
}
