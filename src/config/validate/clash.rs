//! Addresses of one configuration that cannot be listened on at once, whatever the host: a start
//! would blame another program. What depends on the host, as with net.ipv6.bindv6only, is not told.

use std::net::{IpAddr, SocketAddr};

use crate::config::{Address, Listener};

/// An address with a port of its own, as its socket will hold it.
#[derive(Clone, Copy)]
pub(super) struct Claim {
    address: SocketAddr,
    /// An IPv6 socket that is sure to take IPv4 clients as well.
    is_dual: bool,
}

impl Claim {
    /// `None` where nothing else can be in the way: port 0 is another one each time.
    pub(super) fn of(listener: &Listener) -> Option<Self> {
        match listener.address {
            Address::Ip(address) if address.port() != 0 => {
                Some(Self { address, is_dual: address.is_ipv6() && !listener.v6only })
            }
            _ => None,
        }
    }

    /// Whether the sidecar's takes IPv4 as well is the host's to say.
    pub(super) fn of_the_sidecar(address: SocketAddr) -> Option<Self> {
        (address.port() != 0).then_some(Self { address, is_dual: false })
    }

    /// Where its clients come in; an IPv4 address may be written as an IPv6 one.
    fn ip(&self) -> IpAddr {
        let ip = self.address.ip();
        if self.is_dual { ip.to_canonical() } else { ip }
    }

    /// Why no other socket can have that address, if it stands for that one too.
    fn covers(&self, other: &Self) -> Option<String> {
        let (own, others) = (self.ip(), other.ip());
        let shown = self.address.ip();
        // IPv6 addresses that differ all the same are of different links.
        if own == others && own.is_ipv4() {
            return Some(format!("{shown} is the same as {}", other.address.ip()));
        }
        match (own.is_unspecified(), own.is_ipv4(), others.is_ipv4()) {
            (true, true, true) => Some(format!("{shown} stands for every IPv4 address")),
            (true, false, false) => Some(format!("{shown} stands for every IPv6 address")),
            (true, false, true) if self.is_dual => {
                Some(format!("{shown} with v6only = false stands for every IPv4 address as well"))
            }
            _ => None,
        }
    }

    /// Why nobody can listen on both, if that is so.
    pub(super) fn clash(&self, other: &Self) -> Option<String> {
        if self.address == other.address || self.address.port() != other.address.port() {
            return None;
        }
        let why = self.covers(other).or_else(|| other.covers(self))?;
        Some(format!("cannot be listened on at once: {why}; allowed: another port"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::validate::tests::check;
    use crate::config::{Config, Metrics};

    fn listener(name: &str, written: &str) -> Listener {
        // `v6only = false` is written as a `+` in front.
        let (v6only, written) = match written.strip_prefix('+') {
            Some(rest) => (false, rest),
            None => (true, written),
        };
        let address = written.parse().unwrap();
        Listener { name: name.to_owned(), address, v6only, ..Listener::default() }
    }

    fn config(written: &[&str], metrics: &str) -> Config {
        let listeners = ["a", "b"].into_iter().zip(written);
        Config {
            listeners: listeners.map(|(name, written)| listener(name, written)).collect(),
            metrics: Metrics { address: metrics.parse().ok(), ..Metrics::default() },
            ..Config::default()
        }
    }

    /// The marks are what Linux itself said of two such sockets.
    #[test]
    fn two_listeners_clash_where_one_stands_for_the_addresses_of_the_other() {
        let table = [
            ("0.0.0.0:1", "xxx.x.x"),
            ("127.0.0.1:1", "xx..x.x"),
            ("127.0.0.2:1", "x.x.x.."),
            ("[::]:1", "...xxx."),
            ("+[::]:1", "xxxxxxx"),
            ("[::1]:1", "...xxx."),
            ("+[::ffff:127.0.0.1]:1", "xx..x.x"),
        ];
        for (one, row) in table {
            for ((other, _), mark) in table.into_iter().zip(row.chars()) {
                let is_refused = config(&[one, other], "").validate().is_err();
                assert_eq!(is_refused, mark == 'x', "{one} and {other}");
            }
        }
    }

    #[test]
    fn the_later_of_two_that_clash_names_the_other_and_why() {
        let both = "cannot be listened on at once";
        check(
            &config(&["127.0.0.1:7000", "0.0.0.0:7000"], ""),
            &[&format!(
                "listener[1].address: \"0.0.0.0:7000\" and listener[0].address, \
                 \"127.0.0.1:7000\", {both}: 0.0.0.0 stands for every IPv4 address; allowed: \
                 another port"
            )],
        );
        check(
            &config(&["+[::]:7000", "0.0.0.0:7000"], ""),
            &[&format!(
                "listener[1].address: \"0.0.0.0:7000\" and listener[0].address, \"[::]:7000\", \
                 {both}: :: with v6only = false stands for every IPv4 address as well; allowed: "
            )],
        );
        check(&config(&["0.0.0.0:7000", "127.0.0.1:7001"], ""), &[]);
        check(&config(&["[fe80::1%2]:7000", "[fe80::1%3]:7000"], ""), &[]);
        check(&config(&["0.0.0.0:0", "127.0.0.1:0"], "127.0.0.1:0"), &[]);
    }

    #[test]
    fn a_listener_may_not_stand_for_the_sidecars_address_nor_the_sidecar_for_its() {
        let start = "listener[0].address: \"0.0.0.0:9889\" and metrics.address, \"127.0.0.1:9889\"";
        check(&config(&["0.0.0.0:9889"], "127.0.0.1:9889"), &[start]);
        check(&config(&["127.0.0.1:9889"], "0.0.0.0:9889"), &["listener[0].address: "]);
        check(&config(&["+[::]:9889"], "127.0.0.1:9889"), &["listener[0].address: "]);
        check(&config(&["[::1]:9889"], "[::]:9889"), &["listener[0].address: "]);
        // The host's net.ipv6.bindv6only decides.
        check(&config(&["0.0.0.0:9889"], "[::]:9889"), &[]);
        check(&config(&["[::]:9889"], "127.0.0.1:9889"), &[]);
    }
}
