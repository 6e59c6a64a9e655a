//! What epoll calls that which is no connection of a worker: the bell of its home, and the pipes of
//! processes.

use mio::Token;

/// Tokens from here on are not of connections, which are never so many.
pub(super) const FIRST_TOKEN: usize = 1 << 62;

/// The bell's token; the pipes' are above.
pub(super) const BELL: Token = Token(FIRST_TOKEN);

/// What epoll calls the two pipes of a process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tokens {
    pub(super) input: Token,
    pub(super) output: Token,
}

impl Tokens {
    fn of(kind: usize, place: usize) -> Self {
        let input = FIRST_TOKEN + 1 + 4 * place + 2 * kind;
        Self { input: Token(input), output: Token(input + 1) }
    }

    pub(super) fn of_shared(place: usize) -> Self {
        Self::of(0, place)
    }

    pub(super) fn of_relay(place: usize) -> Self {
        Self::of(1, place)
    }
}
