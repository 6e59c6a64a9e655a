//! The places of the door: a fixed number, who holds them, and who has to go when there are too
//! few.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::client::Client;
use super::head::Request;

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

    /// The request that has waited longest, and whose it is.
    pub(super) fn first_waiting(&self) -> Option<((usize, u64), &Request)> {
        self.holders()
            .filter_map(|(place, client)| Some(((place, client.id), client.request()?)))
            .min_by_key(|((_, id), _)| *id)
    }

    /// Whom to send away for a newcomer. Among equals, first one of the largest crowd from one
    /// origin, so that a single scraper outlives a flood from elsewhere; then the one that has been
    /// here longest.
    pub(super) fn least_deserving(&self, now: Instant, stall: Duration) -> Option<usize> {
        let mut crowds: HashMap<_, usize> = HashMap::new();
        for (_, client) in self.holders() {
            *crowds.entry(client.origin).or_default() += 1;
        }
        self.holders()
            .filter_map(|(place, client)| {
                let crowd = crowds.get(&client.origin).copied().unwrap_or_default();
                Some((client.merit(now, stall)?, std::cmp::Reverse(crowd), client.id, place))
            })
            .min()
            .map(|(.., place)| place)
    }

    fn select(&self, which: impl Fn(&Client) -> bool) -> Vec<usize> {
        self.holders().filter(|(_, client)| which(client)).map(|(place, _)| place).collect()
    }

    fn holders(&self) -> impl Iterator<Item = (usize, &Client)> {
        let pairs = self.clients.iter().enumerate();
        pairs.filter_map(|(place, client)| Some((place, client.as_ref()?)))
    }
}
