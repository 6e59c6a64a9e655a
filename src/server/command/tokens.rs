//! What epoll calls the pipes of processes, which are no connections of a worker.

use mio::Token;

/// Tokens from here on are not of connections, which are never so many.
const FIRST: usize = 1 << 62;

/// What epoll calls the two pipes of a process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tokens {
    pub(super) input: Token,
    pub(super) output: Token,
}

/// Whose pipe it is: of a shared program's process, or of a connection's own.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pipe {
    Shared { place: usize, is_output: bool },
    Relay { place: usize, is_output: bool },
}

impl Tokens {
    fn of(kind: usize, place: usize) -> Self {
        let input = FIRST + 4 * place + 2 * kind;
        Self { input: Token(input), output: Token(input + 1) }
    }

    pub(super) fn of_shared(place: usize) -> Self {
        Self::of(0, place)
    }

    pub(super) fn of_relay(place: usize) -> Self {
        Self::of(1, place)
    }

    /// What is called so; `None`: no pipe.
    pub(super) fn pipe(token: Token) -> Option<Pipe> {
        let number = token.0.checked_sub(FIRST)?;
        let (place, is_output) = (number / 4, number % 2 == 1);
        let is_shared = number % 4 < 2;
        Some(if is_shared {
            Pipe::Shared { place, is_output }
        } else {
            Pipe::Relay { place, is_output }
        })
    }
}
