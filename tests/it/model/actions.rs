//! What a case is made of: a server's limits and what its clients do, in an order that proptest
//! can cut down. What a client cannot do at its time, as to speak before it connects, is skipped.

use std::fmt;

use proptest::prelude::*;
use proptest::sample::select;
use talkback::wire::{Framing, InvalidUtf8};

use super::contract::MAX_MESSAGE_BYTES;

/// One server and its clients' day.
#[derive(Debug, Clone)]
pub struct Case {
    pub setup: Setup,
    pub actions: Vec<Action>,
}

/// What the server is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    pub framing: Framing,
    pub invalid_utf8: InvalidUtf8,
    pub workers: usize,
    pub max_connections: usize,
    /// 0 = no limit.
    pub max_connections_per_ip: usize,
    pub has_full_message: bool,
    pub messages_per_turn: usize,
    pub max_pending_bytes: usize,
}

/// One of three places for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    A,
    B,
    C,
}

impl Who {
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::C];
}

/// The last byte of a client's address in 127.0.0.0/8, all of which is this host. Nobody else here
/// uses these, so that their ports suffice for a long run.
pub type Source = u8;

/// What one client does, or the server's owner.
#[derive(Debug, Clone, Copy)]
pub enum Action {
    Connect(Who, Source),
    Say(Who, Word),
    /// Takes everything it is owed, and the end where that has come.
    Read(Who),
    Leave(Who, Way),
    /// The server may see the second before it has answered the first.
    SayAndLeave(Who, Word, Way),
    /// Sends much and reads nothing, until the server does not read it any more.
    Flood(Who),
    /// Whoever can, without waiting for each other.
    AllConnect(Source),
    AllSay(Word),
    AllLeave(Way),
    Stop,
}

/// How a client ends what it has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    HalfClose,
    /// Where a reply is unread its kernel makes a reset of it.
    Close,
    Reset,
}

/// What a client says in one send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    Hello,
    Three,
    Han,
    EmptyLine,
    /// A line's beginning.
    Begin,
    /// Two bytes of three.
    CutCharacter,
    /// The third, or a bad byte where no character was begun.
    LastByte,
    BadByte,
    Exit,
    /// Without an end of line.
    BareExit,
    ExitBetween,
    AlmostExit,
    /// The longest line there may be.
    Longest,
    TooLong,
    Many,
    Lines,
}

impl Word {
    const ALL: [Self; 16] = [
        Self::Hello,
        Self::Three,
        Self::Han,
        Self::EmptyLine,
        Self::Begin,
        Self::CutCharacter,
        Self::LastByte,
        Self::BadByte,
        Self::Exit,
        Self::BareExit,
        Self::ExitBetween,
        Self::AlmostExit,
        Self::Longest,
        Self::TooLong,
        Self::Many,
        Self::Lines,
    ];

    pub fn bytes(self) -> Vec<u8> {
        match self {
            Self::Hello => b"hello\n".to_vec(),
            Self::Three => b"one\ntwo\nthree\n".to_vec(),
            Self::Han => "你好\n".into(),
            Self::EmptyLine => b"\r\n".to_vec(),
            Self::Begin => b"beg".to_vec(),
            Self::CutCharacter => b"\xE4\xBD".to_vec(),
            Self::LastByte => b"\xA0\n".to_vec(),
            Self::BadByte => b"good\n\xFFbad\n".to_vec(),
            Self::Exit => b"exit\n".to_vec(),
            Self::BareExit => b"exit".to_vec(),
            Self::ExitBetween => b"a\nexit\nb\n".to_vec(),
            Self::AlmostExit => b" exit \n".to_vec(),
            Self::Longest => ("x".repeat(MAX_MESSAGE_BYTES) + "\r\n").into(),
            Self::TooLong => "x".repeat(MAX_MESSAGE_BYTES + 1).into(),
            Self::Many => "m\n".repeat(70).into(),
            Self::Lines => ("y".repeat(499) + "\n").repeat(5).into(),
        }
    }
}

/// Cases over one framing.
pub fn case(framing: Framing) -> impl Strategy<Value = Case> {
    (setup(framing), prop::collection::vec(action(), 1..60))
        .prop_map(|(setup, actions)| Case { setup, actions })
}

/// Workers, connections, connections an address, messages a turn, bytes pending.
const LIMITS: [[usize; 5]; 6] = [
    [1, 3, 0, 64, 65_536],
    [2, 3, 0, 1, 65_536],
    [1, 2, 0, 2, 2000],
    [3, 3, 1, 64, 1],
    [2, 3, 2, 1, 1],
    [3, 1, 0, 64, 2000],
];

fn setup(framing: Framing) -> impl Strategy<Value = Setup> {
    let invalid_utf8 = select(vec![InvalidUtf8::Close, InvalidUtf8::Replace]);
    (invalid_utf8, select(LIMITS.to_vec())).prop_map(move |(invalid_utf8, limits)| Setup {
        framing,
        invalid_utf8,
        workers: limits[0],
        max_connections: limits[1],
        max_connections_per_ip: limits[2],
        has_full_message: limits[0] > 1,
        messages_per_turn: limits[3],
        max_pending_bytes: limits[4],
    })
}

fn action() -> impl Strategy<Value = Action> {
    let who = || select(Who::ALL.to_vec());
    let word = || select(Word::ALL.to_vec());
    let source = || 2..=4_u8;
    let way = || select(vec![Way::HalfClose, Way::Close, Way::Reset]);
    prop_oneof![
        14 => (who(), source()).prop_map(|(who, source)| Action::Connect(who, source)),
        40 => (who(), word()).prop_map(|(who, word)| Action::Say(who, word)),
        10 => who().prop_map(Action::Read),
        14 => (who(), way()).prop_map(|(who, way)| Action::Leave(who, way)),
        14 => (who(), word(), way())
            .prop_map(|(who, word, way)| Action::SayAndLeave(who, word, way)),
        2 => who().prop_map(Action::Flood),
        10 => source().prop_map(Action::AllConnect),
        10 => word().prop_map(Action::AllSay),
        3 => way().prop_map(Action::AllLeave),
        1 => Just(Action::Stop),
    ]
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} framing, invalid UTF-8: {:?}; ", self.framing, self.invalid_utf8)?;
        write!(f, "{} workers, {} connections", self.workers, self.max_connections)?;
        if self.max_connections_per_ip > 0 {
            write!(f, " and {} an address", self.max_connections_per_ip)?;
        }
        write!(f, "; {} messages a turn, ", self.messages_per_turn)?;
        write!(f, "{} bytes pending", self.max_pending_bytes)
    }
}
