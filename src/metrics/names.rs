//! Every metric and every value of its labels: the registry, the README's table and the tests read
//! this one list.

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often a value lay where: `_bucket`, `_sum` and `_count`.
    Histogram,
}

impl Kind {
    /// As Prometheus writes it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The full name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// What it means, with its unit where the name has none.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $id: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )+
        /// All metrics in the order of the README.
        pub const ALL: &[Metric] = &[$($id),+];
    };
}

metrics! {
    CONNECTIONS_ACCEPTED = Counter "talkback_connections_accepted_total" ["listener"]
        "Connections that accept(2) returned.";
    CONNECTIONS_REJECTED = Counter "talkback_connections_rejected_total" ["listener", "reason"]
        "Connections closed before service.";
    CONNECTIONS_CLOSED = Counter "talkback_connections_closed_total" ["listener", "reason"]
        "Connections served and ended.";
    CONNECTIONS = Gauge "talkback_connections" ["listener"]
        "Connections open now, from accept(2) to close(2).";
    RECEIVED_BYTES = Counter "talkback_received_bytes_total" ["listener"]
        "Bytes taken from the kernel.";
    SENT_BYTES = Counter "talkback_sent_bytes_total" ["listener"]
        "Bytes given to the kernel.";
    DISCARDED_BYTES = Counter "talkback_discarded_bytes_total" ["listener"]
        "Bytes of replies thrown away: the kernel would not take them before the connection ended.";
    MESSAGES = Counter "talkback_messages_total" ["listener"]
        "Messages received; the exit word is none.";
    REPLIES = Counter "talkback_replies_total" ["listener"]
        "Replies made.";
    PENDING_BYTES = Gauge "talkback_pending_bytes" ["listener"]
        "Bytes of replies that the kernel has not taken yet.";
    MESSAGE_BYTES = Histogram "talkback_message_bytes" ["listener"]
        "Size of each message without its ending.";
    CONNECTION_DURATION = Histogram "talkback_connection_duration_seconds" ["listener"]
        "From accept(2) to close(2).";
    ACCEPT_WAIT = Histogram "talkback_accept_wait_seconds" ["listener"]
        "Wait in the kernel's accept queue, to its tick of 4 ms; not for Unix sockets.";
    INBOX_WAIT = Histogram "talkback_inbox_wait_seconds" []
        "From accept(2) to the worker's first touch.";
    RESPOND = Histogram "talkback_respond_seconds" ["listener"]
        "From a message to the kernel's having taken its replies, with the wait for a busy worker.";
    LISTEN_QUEUE_LENGTH = Gauge "talkback_listen_queue_length" ["listener"]
        "Connections in the kernel's accept queue now; not for Unix sockets.";
    LISTEN_QUEUE_LIMIT = Gauge "talkback_listen_queue_limit" ["listener"]
        "The backlog as the kernel has clamped it; the queue holds one more. Not for Unix sockets.";
    LISTEN_DROPS = Counter "talkback_listen_drops_total" ["listener"]
        "Segments and handshakes that the kernel dropped on this listener; not for Unix sockets.";
    NETNS_LISTEN_OVERFLOWS = Counter "talkback_netns_listen_overflows_total" []
        "Handshakes that met a full accept queue in this network namespace (ListenOverflows).";
    TCP_RTT = Histogram "talkback_tcp_rtt_seconds" ["listener"]
        "The kernel's smoothed round trip time of a connection at its close; not for Unix sockets.";
    TCP_RETRANSMITS = Counter "talkback_tcp_retransmits_total" ["listener"]
        "Segments that the kernel sent again, added at each close; not for Unix sockets.";
    CONNECTIONS_LIMIT = Gauge "talkback_connections_limit" []
        "Most connections open at once, all listeners together.";
    ACCEPT_ERRORS = Counter "talkback_accept_errors_total" ["listener", "error"]
        "Errors of accept(2).";
    ACCEPT_HELD_SECONDS = Counter "talkback_accept_held_seconds_total" ["listener"]
        "Time for which `max_accept_rate` let a newcomer wait; added when the next one is let in.";
    WORKERS = Gauge "talkback_workers" []
        "Worker threads alive.";
    WORKER_BUSY_SECONDS = Counter "talkback_worker_busy_seconds_total" ["worker"]
        "Time a worker spent outside epoll_wait(2).";
    WORKER_TURN_SECONDS = Gauge "talkback_worker_turn_seconds" ["worker"]
        "Age of the turn a worker is in, 0 while it waits: a stalled responder shows here.";
    WORKER_CONNECTIONS = Gauge "talkback_worker_connections" ["worker"]
        "Connections a worker owns, those in its inbox included.";
    WORKER_INBOX_CONNECTIONS = Gauge "talkback_worker_inbox_connections" ["worker"]
        "Connections handed over that the worker has not taken yet.";
    WORKER_YIELDS = Counter "talkback_worker_yields_total" ["worker"]
        "Turns that ended at a bound with work left, so that others had theirs.";
    WORKER_PANICS = Counter "talkback_worker_panics_total" []
        "Panics caught in workers, acceptors and responders.";
    LATE_REPLIES_REFUSED = Counter "talkback_late_replies_refused_total" ["reason"]
        "Late replies not taken: stale, or offered to a full inbox, whose sender may try again.";
    COMMAND_PROCESSES = Gauge "talkback_command_processes" ["listener", "state"]
        "Processes of `[listener.command]` now; all of these only for such listeners.";
    COMMAND_STARTS = Counter "talkback_command_starts_total" ["listener"]
        "Processes started.";
    COMMAND_START_FAILURES = Counter "talkback_command_start_failures_total" ["listener"]
        "Processes that could not be started.";
    COMMAND_ENDS = Counter "talkback_command_ends_total" ["listener", "reason"]
        "Ends of processes that had started.";
    COMMAND_QUEUE_LENGTH = Gauge "talkback_command_queue_length" ["listener"]
        "Messages that wait for a process now.";
    COMMAND_QUEUE_WAIT = Histogram "talkback_command_queue_wait_seconds" ["listener"]
        "Wait of a message for the process that took it.";
    COMMAND_REPLY = Histogram "talkback_command_reply_seconds" ["listener"]
        "From a message's being written to a process to its reply's being read.";
    COMMAND_TIMEOUTS = Counter "talkback_command_timeouts_total" ["listener"]
        "Messages that a process did not answer within `reply_timeout`.";
    COMMAND_REFUSED = Counter "talkback_command_refused_total" ["listener", "reason"]
        "Messages, or with a process for each connection connections, that got no process.";
    COMMAND_CIRCUIT_OPEN = Gauge "talkback_command_circuit_open" ["listener"]
        "1 while no process is started because the last ones died at once, else 0.";
    COMMAND_STANDARD_ERROR_LINES =
        Counter "talkback_command_standard_error_lines_total" ["listener"]
        "Lines that processes wrote to their standard error, logged or not.";
    DRAINING = Gauge "talkback_draining" []
        "1 from the stop signal on, else 0.";
    SCRAPES = Counter "talkback_scrapes_total" ["path", "code"]
        "Answers of the sidecar.";
    SCRAPES_REJECTED = Counter "talkback_scrapes_rejected_total" ["reason"]
        "Requests the sidecar's door turned away.";
    LOG_LINES_DROPPED = Counter "talkback_log_lines_dropped_total" []
        "Log lines that their sink did not take.";
    BUILD_INFO = Gauge "talkback_build_info" ["version", "rustc"]
        "Always 1; the labels tell the build.";
    PROCESS_CPU_SECONDS = Counter "process_cpu_seconds_total" []
        "CPU time of all threads, in user and system mode.";
    PROCESS_OPEN_FDS = Gauge "process_open_fds" []
        "Descriptors open now.";
    PROCESS_MAX_FDS = Gauge "process_max_fds" []
        "Most descriptors that may be open: the soft limit of RLIMIT_NOFILE.";
    PROCESS_VIRTUAL_MEMORY = Gauge "process_virtual_memory_bytes" []
        "Address space in use.";
    PROCESS_VIRTUAL_MEMORY_MAX = Gauge "process_virtual_memory_max_bytes" []
        "Most address space that may be used: the soft limit of RLIMIT_AS, 2^64 if there is none.";
    PROCESS_RESIDENT_MEMORY = Gauge "process_resident_memory_bytes" []
        "Physical memory in use.";
    PROCESS_START_TIME = Gauge "process_start_time_seconds" []
        "When the process started, in seconds since 1970.";
    PROCESS_THREADS = Gauge "process_threads" []
        "Threads alive.";
}

macro_rules! closed_enum {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)+
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The label's value.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

closed_enum! {
    /// Why a connection that was served ended.
    CloseReason {
        /// The client said the exit word.
        Exit = "exit",
        /// The client closed, after it had sent something.
        PeerClosed = "peer_closed",
        /// The client closed or reset before any byte, as a load balancer's health check does.
        Unused = "unused",
        /// The client reset the connection after it had sent something.
        PeerReset = "peer_reset",
        /// The client's host or the way to it is gone.
        PeerDead = "peer_dead",
        /// Bytes that are not UTF-8.
        InvalidUtf8 = "invalid_utf8",
        /// A line over `max_message_bytes`.
        MessageTooLong = "message_too_long",
        /// `idle_timeout`.
        IdleTimeout = "idle_timeout",
        /// `message_timeout`.
        MessageTimeout = "message_timeout",
        /// `send_timeout`.
        SendTimeout = "send_timeout",
        /// A reply that was to come later did not come in time.
        ResponderTimeout = "responder_timeout",
        /// The responder asked for the close.
        ResponderClosed = "responder_closed",
        /// The responder failed.
        ResponderError = "responder_error",
        /// The responder panicked.
        ResponderPanic = "responder_panic",
        /// The worker's own loop panicked.
        WorkerPanic = "worker_panic",
        /// The server stopped; nothing was left to do.
        Shutdown = "shutdown",
        /// The server stopped; at the deadline something was left.
        ShutdownForced = "shutdown_forced",
        /// Any other error of the system.
        IoError = "io_error",
    }
}

closed_enum! {
    /// Why a connection was closed before service.
    Rejection {
        /// `max_connections` are open.
        MaxConnections = "max_connections",
        /// `max_connections_per_ip` of this address are open.
        MaxConnectionsPerIp = "max_connections_per_ip",
        /// Every worker's inbox is full.
        InboxFull = "inbox_full",
        /// Descriptors have run out; the reserve turned it away.
        FdReserve = "fd_reserve",
        /// Accepted after the workers had stopped taking.
        Draining = "draining",
    }
}

closed_enum! {
    /// An error of accept(2).
    AcceptError {
        /// The process has no descriptor left.
        Emfile = "emfile",
        /// The host has none left.
        Enfile = "enfile",
        /// The host has no socket memory left.
        Enobufs = "enobufs",
        /// The host has no memory left.
        Enomem = "enomem",
        /// The peer was gone before it was accepted.
        Econnaborted = "econnaborted",
        /// Any other.
        Other = "other",
    }
}

closed_enum! {
    /// Why a late reply found no taker.
    LateReplyRefusal {
        /// Its connection or its message's time was over.
        Stale = "stale",
        /// The worker's inbox was full.
        InboxFull = "inbox_full",
        /// It was a text that nobody had asked for, and its client leaves too much unread.
        PendingFull = "pending_full",
    }
}

closed_enum! {
    /// What a process is doing.
    ProcessState {
        /// It is not there yet, or has not passed its test yet.
        Starting = "starting",
        /// It waits for a message.
        Idle = "idle",
        /// It owes a reply, or serves its connection.
        Busy = "busy",
        /// It was told to end, or is to be reaped.
        Ending = "ending",
    }
}

closed_enum! {
    /// Why a process ended.
    ProcessEnd {
        /// By itself, with status 0.
        Exited = "exited",
        /// By itself, with another status.
        Failed = "failed",
        /// By a signal that was not ours.
        Signalled = "signalled",
        /// It did not answer within `reply_timeout`.
        Timeout = "timeout",
        /// It had answered `max_requests`.
        MaxRequests = "max_requests",
        /// It had nothing to do for `process_idle_timeout`.
        Idle = "idle",
        /// It wrote what nobody had asked for, or too long a reply.
        Protocol = "protocol",
        /// The connection that it served is closed.
        ConnectionClosed = "connection_closed",
        /// The server stopped.
        Stopped = "stopped",
    }
}

closed_enum! {
    /// Why a message or a connection got no process.
    CommandRefusal {
        /// `max_queue` messages wait.
        QueueFull = "queue_full",
        /// It waited for `queue_timeout`.
        QueueTimeout = "queue_timeout",
        /// No process is started, because the last ones died at once.
        CircuitOpen = "circuit_open",
        /// The process could not be started.
        StartFailed = "start_failed",
    }
}

/// The README's table of metrics, in Markdown.
#[must_use]
pub fn table() -> String {
    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for metric in ALL {
        let labels = metric.labels.join(", ");
        let kind = metric.kind.label();
        table += &format!("| `{}` | {kind} | {labels} | {} |\n", metric.name, metric.help);
    }
    table
}
