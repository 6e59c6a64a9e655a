//! The places of the door: a fixed number, who holds them, and who has to go when there are too
//! few.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Instant;

use super::Bounds;
use super::client::{Client, Merit};
use super::head::Request;
use super::pages::{ask_the_same, is_slow};

/// Who waits for an answer. A place may have another client by the time that it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) place: usize,
    pub(super) id: u64,
}

pub(super) struct Places {
    clients: Vec<Option<Client>>,
    next_id: u64,
}

impl Places {
    pub(super) fn new(number: usize) -> Places {
        Places { clients: (0..number).map(|_| None).collect(), next_id: 0 }
    }

    pub(super) fn get(&mut self, place: usize) -> Option<&mut Client> {
        self.clients.get_mut(place)?.as_mut()
    }

    /// A place that nobody holds.
    pub(super) fn vacant(&self) -> Option<usize> {
        self.clients.iter().position(Option::is_none)
    }

    /// Gives the place to the client that is made for its id.
    pub(super) fn take(&mut self, place: usize, make: impl FnOnce(u64) -> Client) {
        self.clients[place] = Some(make(self.next_id));
        self.next_id += 1;
    }

    pub(super) fn free(&mut self, place: usize) -> Option<Client> {
        self.clients.get_mut(place)?.take()
    }

    pub(super) fn clear(&mut self) {
        self.clients.clear();
    }

    pub(super) fn any_owed(&self) -> bool {
        self.holders().any(|(_, client)| client.is_owed())
    }

    pub(super) fn any_again(&self) -> bool {
        self.holders().any(|(_, client)| client.again)
    }

    pub(super) fn not_owed(&self) -> Vec<usize> {
        self.select(|client| !client.is_owed())
    }

    /// Those past their deadline or stopped with input left.
    pub(super) fn with_work_left(&self, now: Instant) -> Vec<usize> {
        self.select(|client| client.again || now >= client.deadline)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.holders().map(|(_, client)| client.deadline).min()
    }

    /// The request that has waited longest, and all who wait for the same: one page is enough for
    /// them, or a crowd that asks for it would make the last one wait for as many pages. Behind a
    /// slow page the others have precedence, so that they wait for no more than one.
    pub(super) fn first_waiting(&self, is_after_slow: bool) -> Option<(Vec<Asker>, &Request)> {
        let (_, first) = self
            .waiting()
            .min_by_key(|(asker, request)| (is_after_slow && is_slow(request), asker.id))?;
        let same = self.waiting().filter(|(_, request)| ask_the_same(request, first));
        let askers = same.map(|(asker, _)| asker);
        Some((askers.collect(), first))
    }

    /// Whom to send away for a newcomer: one of the largest crowd from one origin, so that a single
    /// scraper outlives a flood from elsewhere; in it, who deserves least; among equals, the one
    /// that has been here longest. While the whole crowd is being answered, a single scraper that
    /// has only just come has a grace to send its request and to take the answer.
    pub(super) fn least_deserving(&self, now: Instant, bounds: &Bounds) -> Option<usize> {
        let mut crowds: HashMap<_, usize> = HashMap::new();
        for (_, client) in self.holders() {
            *crowds.entry(client.origin).or_default() += 1;
        }
        let largest = crowds.values().copied().max()?;
        self.holders()
            .filter_map(|(place, client)| {
                let crowd = crowds.get(&client.origin).copied().unwrap_or_default();
                let merit = client.merit(now, bounds.stall)?;
                let has_grace = merit != Merit::Lingering && now < client.arrived + bounds.grace;
                (crowd == largest || !has_grace).then_some((
                    Reverse(crowd),
                    merit,
                    client.id,
                    place,
                ))
            })
            .min()
            .map(|(.., place)| place)
    }

    fn waiting(&self) -> impl Iterator<Item = (Asker, &Request)> {
        self.holders()
            .filter_map(|(place, client)| Some((Asker { place, id: client.id }, client.request()?)))
    }

    fn select(&self, which: impl Fn(&Client) -> bool) -> Vec<usize> {
        self.holders().filter(|(_, client)| which(client)).map(|(place, _)| place).collect()
    }

    fn holders(&self) -> impl Iterator<Item = (usize, &Client)> {
        let pairs = self.clients.iter().enumerate();
        pairs.filter_map(|(place, client)| Some((place, client.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::sidecar::Watch;
    use crate::sidecar::client::Turn;
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};

    const WHOLE: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    const HALF: &[u8] = b"GET / HT";

    /// Clients in the order of their arrival, by the last part of their address and what they have
    /// said; who goes when all came just now, and who when the grace is over.
    #[track_caller]
    fn check(clients: &[(u8, &[u8])], at_first: Option<usize>, later: Option<usize>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (now, bounds) = (Instant::now(), Bounds::default());
        let watch = Watch::of(Vec::new);
        let mut places = Places::new(clients.len());
        let mut sockets = Vec::new();
        for (place, (host, said)) in clients.iter().enumerate() {
            let mut theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (ours, _) = listener.accept().unwrap();
            theirs.write_all(said).unwrap();
            let peer = [192, 0, 2, *host].into();
            places.take(place, |id| Client::new(id, ours, peer, now, &bounds));
            let client = places.get(place).unwrap();
            if *said == WHOLE {
                let mut scratch = [0; 64];
                let turn =
                    &mut Turn { now, bounds: &bounds, watch: &watch, scratch: &mut scratch[..] };
                client.advance(turn);
                assert!(client.request().is_some());
            }
            sockets.push(theirs);
        }
        assert_eq!(places.least_deserving(now, &bounds), at_first, "at first");
        assert_eq!(places.least_deserving(now + bounds.grace, &bounds), later, "later");
        for socket in sockets {
            socket.shutdown(Shutdown::Both).unwrap();
        }
    }

    #[test]
    fn the_oldest_of_the_largest_crowd_goes() {
        check(&[(1, HALF), (2, HALF), (2, HALF), (3, HALF)], Some(1), Some(1));
        check(&[(1, HALF), (2, WHOLE), (2, HALF)], Some(2), Some(2));
        check(&[(1, HALF), (2, HALF)], Some(0), Some(0));
    }

    #[test]
    fn who_waits_for_an_answer_stays() {
        check(&[(1, WHOLE), (2, WHOLE), (2, WHOLE)], None, None);
    }

    #[test]
    fn a_single_scraper_has_a_grace_while_a_crowd_is_answered() {
        check(&[(1, HALF), (2, WHOLE), (2, WHOLE)], None, Some(0));
        check(&[(1, WHOLE), (2, HALF)], Some(1), Some(1));
    }
}
