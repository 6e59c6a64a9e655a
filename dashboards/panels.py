"""What the dashboard shows: its variables, rows, panels, queries, and what to do about them."""

from dataclasses import dataclass, field

# The matchers of a metric of a server, and of one of a listener.
SERVER = 'job=~"$job", instance=~"$instance"'
LISTENER = SERVER + ', listener=~"$listener"'

# Ends that nobody has to look into. All others are somebody's trouble.
ORDINARY = "exit|peer_closed|unused|idle_timeout|responder_closed|shutdown"

GOOD, DOUBTFUL, BAD = "green", "orange", "red"
# Of a figure that is neither good nor bad by itself.
PLAIN = ("text",)


@dataclass
class Query:
    expression: str
    legend: str
    unit: str = ""
    steps: tuple = ()
    # A line that others must stay below.
    limit: bool = False
    instant: bool = False
    heatmap: bool = False


@dataclass
class Panel:
    number: int
    title: str
    width: int
    unit: str
    description: str
    queries: list
    kind: str = "timeseries"
    height: int = 7
    steps: tuple = (GOOD,)
    nothing: str = "no data"
    top: float | None = None
    decimals: int | None = None
    logarithmic: bool = False
    stacked: bool = False
    table: bool = False
    # Of a stat: no graph; the series' name for its value; words for values.
    plain: bool = False
    named: bool = False
    words: dict = field(default_factory=dict)
    # The alerts that watch the same figure: each is an anchor of docs/runbook.md.
    alerts: tuple = ()


@dataclass
class Row:
    number: int
    title: str
    panels: list


@dataclass
class Annotation:
    title: str
    expression: str
    text: str
    color: str


def total(expression, by=""):
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"


def rate(metric, by="", matchers=LISTENER, function="rate"):
    return total(f"{function}({metric}{{{matchers}}}[$__rate_interval])", by)


def quantile(share, metric, by="", matchers=LISTENER):
    labels = f"le, {by}" if by else "le"
    buckets = rate(f"{metric}_bucket", labels, matchers)
    return f"histogram_quantile({share}, {buckets})"


def quantiles(metric, by="", matchers=LISTENER, shares=(0.5, 0.9, 0.99)):
    """One query a quantile, named by what tells the series apart."""
    name = " ".join(f"{{{{{label}}}}}" for label in by.split(", ") if label)
    return [
        Query(quantile(share, metric, by, matchers), f"p{round(share * 100)} {name}".strip())
        for share in shares
    ]


def share_of_limit(used, limit):
    return f"{used} / {limit}"


CONNECTIONS_SHARE = share_of_limit(
    total(f"talkback_connections{{{SERVER}}}", "instance"),
    total(f"talkback_connections_limit{{{SERVER}}}", "instance"),
)
QUEUE_SHARE = share_of_limit(
    f"talkback_listen_queue_length{{{LISTENER}}}", f"talkback_listen_queue_limit{{{LISTENER}}}"
)
DESCRIPTORS_SHARE = share_of_limit(
    f"process_open_fds{{{SERVER}}}", f"process_max_fds{{{SERVER}}}"
)
BUSY = rate("talkback_worker_busy_seconds_total", "instance, worker", SERVER)
# Newcomers turned away where nobody means it to happen: the reasons of TalkbackRejecting.
UNWANTED = f'{LISTENER}, reason=~"max_connections|inbox_full|fd_reserve"'
REJECTED_SHARE = share_of_limit(
    rate("talkback_connections_rejected_total", "instance, listener", UNWANTED),
    rate("talkback_connections_accepted_total", "instance, listener"),
)
HELD = rate("talkback_accept_held_seconds_total", "instance, listener")

# Where a colour changes to BAD stands the alert of talkback.rules.yml, where there is one.
FULL = (GOOD, (0.8, DOUBTFUL), (0.95, BAD))
REJECTED = (GOOD, (0.001, DOUBTFUL), (0.01, BAD))
DESCRIPTORS = (GOOD, (0.7, DOUBTFUL), (0.85, BAD))
BUSY_SHARE = (GOOD, (0.7, DOUBTFUL), (0.85, BAD))
QUEUED = (GOOD, (0.25, DOUBTFUL), (0.5, BAD))
HELD_SHARE = (GOOD, (0.5, DOUBTFUL))
ACCEPT_WAIT = (GOOD, (0.064, DOUBTFUL), (0.256, BAD))
INBOX_WAIT = (GOOD, (0.02, DOUBTFUL), (0.1, BAD))
RESPOND = (GOOD, (0.2, DOUBTFUL), (1, BAD))
# From 0.1 s on newcomers go to other workers.
TURN = (GOOD, (0.1, DOUBTFUL), (5, BAD))
# Before a message waits for half of the default queue_timeout.
QUEUE_WAIT = (GOOD, (0.2, DOUBTFUL), (1, BAD))
# One event in the longest window that a dashboard is looked at with.
ANY_IS_DOUBTFUL = (GOOD, (0.001, DOUBTFUL))
ANY_IS_BAD = (GOOD, (0.001, BAD))

VARIABLES = {
    "job": "label_values(talkback_build_info, job)",
    "instance": 'label_values(talkback_build_info{job=~"$job"}, instance)',
    "listener": f"label_values(talkback_connections_accepted_total{{{SERVER}}}, listener)",
}

DESCRIPTION = (
    "Where connections of talkback servers wait, and why they end. The first row follows a "
    "connection from the kernel to its reply; each panel's description tells what a bad value "
    "means and where to look next. docs/runbook.md has what to do about each alert."
)

ANNOTATIONS = [
    Annotation(
        "Alerts",
        f'ALERTS{{{SERVER}, alertstate="firing"}}',
        "{{alertname}} {{instance}} {{listener}}",
        "rgba(242, 73, 92, 1)",
    ),
    Annotation(
        "Restarts",
        f"changes(process_start_time_seconds{{{SERVER}}}[$__rate_interval]) > 0",
        "{{instance}} started anew",
        "rgba(87, 148, 242, 1)",
    ),
]

CHAIN = Row(100, "Where connections wait, and why they end", [
    Panel(
        101, "1 · Socket", 4, "cps",
        """New connections, the share of max_connections that is open, the listener that turns
        most newcomers away (not those of one address or of a stop: "Rejections by reason" has
        all), and the way to the clients. No newcomers while clients complain: a firewall, a
        balancer, or the wrong address. Long round trips or retransmissions: drops in the accept
        queue make both rise, so look there first; without drops it is the network.""",
        [
            Query(rate("talkback_connections_accepted_total"), "accepted"),
            Query(f"max({CONNECTIONS_SHARE})", "of the limit", "percentunit", FULL),
            Query(f"max({REJECTED_SHARE})", "rejected", "percentunit", REJECTED),
            Query(quantile(0.99, "talkback_tcp_rtt_seconds"), "round trip p99", "s"),
            Query(rate("talkback_tcp_retransmits_total"), "retransmitted", "pps"),
        ],
        kind="stat", height=7, steps=PLAIN,
        alerts=("Rejecting", "NearConnectionLimit"),
    ),
    Panel(
        102, "2 · Accept queue", 4, "s",
        """Connections that the kernel has set up and the server has not accepted yet: the fullest
        queue as a share of its limit (it holds one more), how long they waited there, how much
        of the time max_accept_rate held one of them, and what the kernel dropped. Held: the queue
        is full on purpose. Not held: the accept thread does not keep up, or was stopped. A dropped
        client tries again after 1 s, 3 s and so on. Next: "Accept queue".""",
        [
            Query(quantile(0.99, "talkback_accept_wait_seconds"), "wait p99", "s",
                  ACCEPT_WAIT),
            Query(f"max({QUEUE_SHARE})", "fullest queue", "percentunit", QUEUED),
            Query(f"max({HELD})", "held", "percentunit", HELD_SHARE),
            Query(rate("talkback_listen_drops_total"), "dropped", "cps", ANY_IS_BAD),
        ],
        kind="stat", height=7, steps=PLAIN,
        alerts=("Drops", "AcceptQueueFilling"),
    ),
    Panel(
        103, "3 · Inbox", 4, "s",
        """From accept to the first touch of a worker. A long wait means that workers are busy or
        stalled: look one station on. Where every inbox is full, newcomers are rejected as
        inbox_full: that is told at the first station, and by "Rejections by reason".""",
        [
            Query(
                quantile(0.99, "talkback_inbox_wait_seconds", matchers=SERVER),
                "wait p99", "s", INBOX_WAIT,
            ),
            Query(f"sum(talkback_worker_inbox_connections{{{SERVER}}})", "in inboxes", "short"),
        ],
        kind="stat", height=7, steps=PLAIN,
        alerts=("SlowInbox",),
    ),
    Panel(
        104, "4 · Worker", 4, "percentunit",
        """The busiest worker's share of the time, and the longest turn that runs now. Near 100 %:
        the pool is saturated, or one client or responder holds that worker ("Busy share by
        worker"). A turn of a second is a responder that blocks: the connections of that worker
        all wait for it, others do not.""",
        [
            Query(f"max({BUSY})", "busiest", "percentunit", BUSY_SHARE),
            Query(f"max(talkback_worker_turn_seconds{{{SERVER}}})", "longest turn", "s", TURN),
            Query(
                rate("talkback_worker_yields_total", matchers=SERVER), "left work over", "ops"
            ),
        ],
        kind="stat", height=7, steps=PLAIN,
        alerts=("WorkerStalled", "PoolSaturated"),
    ),
    Panel(
        105, "5 · Reply", 4, "s",
        """From a message received whole to its reply given to the kernel, replies that the kernel
        does not take, and those thrown away because their connection ended first. Slow here and
        green before: the responder. Not taken: clients do not read ("Replies not taken"); p99
        knows nothing of them, for a reply is timed when it has been taken.""",
        [
            Query(quantile(0.99, "talkback_respond_seconds"), "p99", "s", RESPOND),
            Query(f"sum(talkback_pending_bytes{{{LISTENER}}})", "not taken", "bytes"),
            Query(rate("talkback_discarded_bytes_total"), "thrown away", "Bps",
                  ANY_IS_DOUBTFUL),
        ],
        kind="stat", height=7, steps=PLAIN,
        alerts=("SlowReplies",),
    ),
    Panel(
        106, "6 · Why they ended", 4, "short",
        """Connections that ended in the shown time, by reason: in orange those that nobody wished,
        then the ordinary ones. peer_reset and peer_dead come from clients or the network;
        invalid_utf8 and message_too_long are clients of another protocol; send_timeout are clients
        that do not read; responder_ and worker_ are faults of ours. Next: "Closes by reason" tells when it began.""",
        [
            Query(
                "topk(6, sum by (reason) (increase(talkback_connections_closed_total"
                f'{{{LISTENER}, reason!~"{ORDINARY}"}}[$__range])) > 0)',
                "{{reason}}", steps=(DOUBTFUL,), instant=True,
            ),
            Query(
                "topk(3, sum by (reason) (increase(talkback_connections_closed_total"
                f'{{{LISTENER}, reason=~"{ORDINARY}"}}[$__range])) > 0)',
                "{{reason}}", instant=True,
            ),
        ],
        kind="bargauge", height=7, steps=("blue",), nothing="nobody left", decimals=0,
        alerts=("ErrorCloses", "BadMessages"),
    ),
])

OVERVIEW = Row(200, "Overview", [
    Panel(
        201, "Up", 4, "none",
        """Whether Prometheus reaches the server's metrics. Down: the process has ended or hangs,
        or the way to its metrics is closed; clients may be served all the same. Ask /healthz from
        its host.""",
        [Query(f"up{{{SERVER}}}", "{{instance}}")],
        kind="stat", height=3, steps=(BAD, (1, GOOD)), plain=True,
        words={"0": ("DOWN", BAD), "1": ("up", GOOD)},
        alerts=("Down",),
    ),
    Panel(
        202, "Stopping", 4, "none",
        """Whether a stop is under way: newcomers are refused and connections end as they become
        idle. A stop that lasts longer than drain_timeout hangs: see "Age of the running turn".""",
        [Query(f"talkback_draining{{{SERVER}}}", "{{instance}}")],
        kind="stat", height=3, steps=(GOOD, (1, DOUBTFUL)), plain=True,
        words={"0": ("no", GOOD), "1": ("draining", DOUBTFUL)},
        alerts=("DrainStuck",),
    ),
    Panel(
        203, "Running for", 4, "dtdurations",
        """Time since the process started. Shorter than expected: it was restarted, deployed or
        has died; its last log lines say which. All counters begin again then.""",
        [Query(f"time() - process_start_time_seconds{{{SERVER}}}", "{{instance}}")],
        kind="stat", height=3, steps=PLAIN, plain=True,
        alerts=("Restarting",),
    ),
    Panel(
        204, "Connections of the limit", 4, "percentunit",
        """Open connections as a share of max_connections. At 100 % newcomers are rejected: raise
        the limit, shorten idle_timeout, or find who opens so many ("Open connections").""",
        [Query(CONNECTIONS_SHARE, "{{instance}}")],
        kind="stat", height=3, steps=FULL, top=1,
        alerts=("NearConnectionLimit",),
    ),
    Panel(
        205, "Workers alive", 4, "short",
        """Threads that serve connections: the number that is configured, until a stop lets them
        end. Fewer without a stop: they gave up after repeated panics, and the process ends.""",
        [Query(f"talkback_workers{{{SERVER}}}", "{{instance}}")],
        kind="stat", height=3, steps=(BAD, (1, GOOD)), plain=True,
    ),
    Panel(
        206, "Build", 4, "none",
        """The version that runs, and the compiler that built it. Two at once: a roll-out under
        way, or one that stopped half way.""",
        [Query(f"sum by (version, rustc) (talkback_build_info{{{SERVER}}})",
               "{{version}} · {{rustc}}")],
        kind="stat", height=3, steps=PLAIN, plain=True, named=True,
    ),
    Panel(
        211, "Traffic: connections", 8, "cps",
        """Connections accepted, by listener. A sudden fall with the queue empty: clients do not
        reach the host. A sudden rise: clients that reconnect in a loop; see why they end.""",
        [Query(rate("talkback_connections_accepted_total", "instance, listener"),
               "{{listener}} {{instance}}")],
    ),
    Panel(
        212, "Traffic: messages and replies", 8, "ops",
        """Messages received and replies made, by listener. The echo makes one of each; where
        replies fall behind, a responder answers late or not at all.""",
        [
            Query(rate("talkback_messages_total", "listener"), "messages {{listener}}"),
            Query(rate("talkback_replies_total", "listener"), "replies {{listener}}"),
        ],
    ),
    Panel(
        213, "Traffic: bytes", 8, "Bps",
        """Bytes taken from and given to the kernel, by listener. Received without sent: a
        responder that discards, or clients that do not read.""",
        [
            Query(rate("talkback_received_bytes_total", "listener"), "received {{listener}}"),
            Query(rate("talkback_sent_bytes_total", "listener"), "sent {{listener}}"),
        ],
    ),
    Panel(
        214, "Errors: drops, rejections, ends that are nobody's wish", 8, "cps",
        """What the kernel dropped, errors of accept, connections turned away, and those that
        ended for another reason than the client's or the operator's wish. One that rises is the
        thing to look into: "Dropped by the kernel", "Rejections by reason" and "Closes by
        reason" have more.""",
        [
            Query(rate("talkback_listen_drops_total") + " > 0", "dropped by the kernel"),
            Query(rate("talkback_accept_errors_total", "error") + " > 0", "accept: {{error}}"),
            Query(rate("talkback_connections_rejected_total", "reason") + " > 0",
                  "rejected: {{reason}}"),
            Query(rate("talkback_connections_closed_total", "reason",
                       f'{LISTENER}, reason!~"{ORDINARY}"') + " > 0", "closed: {{reason}}"),
        ],
        stacked=True, nothing="no errors",
        alerts=("Drops", "AcceptErrors", "Rejecting", "ErrorCloses"),
    ),
    Panel(
        215, "Latency: where the time goes (p99)", 8, "s",
        """The three waits of a connection on one scale: in the kernel's accept queue, in a
        worker's inbox, for the reply. The highest line is the station to look at. The kernel's
        clock ticks every 4 ms, so that the accept wait is never shown below that.""",
        [
            Query(quantile(0.99, "talkback_accept_wait_seconds"), "accept queue"),
            Query(quantile(0.99, "talkback_inbox_wait_seconds", matchers=SERVER), "inbox"),
            Query(quantile(0.99, "talkback_respond_seconds"), "reply"),
        ],
        logarithmic=True,
    ),
    Panel(
        216, "Saturation: share of each limit in use", 8, "percentunit",
        """How near each bound is, the worst of the chosen servers: connections of
        max_connections, accept queue of its backlog, descriptors of the process's limit, the
        busiest worker of its time. What comes near 100 % first is what gives way first.""",
        [
            Query(f"max({CONNECTIONS_SHARE})", "connections"),
            Query(f"max({QUEUE_SHARE})", "accept queue"),
            Query(f"max({DESCRIPTORS_SHARE})", "descriptors"),
            Query(f"max({BUSY})", "busiest worker"),
        ],
        steps=(GOOD, (0.9, BAD)),
    ),
])

CLOSES = Row(300, "Connections and closes", [
    Panel(
        301, "Open connections", 6, "short",
        """Open connections by listener, and max_connections, which holds for all listeners of a
        server together. A line that only rises: clients that never close, or idle_timeout off.
        The oldest and busiest stand on the status page and in /connections.""",
        [
            Query(total(f"talkback_connections{{{LISTENER}}}", "instance, listener"),
                  "{{listener}} {{instance}}"),
            Query(f"min(talkback_connections_limit{{{SERVER}}})", "limit", limit=True),
        ],
        alerts=("NearConnectionLimit",),
    ),
    Panel(
        302, "Closes by reason", 12, "cps",
        """Every end of a served connection, by reason; README.md has a sentence on each. A new
        colour is the news: look at that reason's time, and at the listener by the variable
        above. Lines in the log name the peers (log.connections).""",
        [Query(rate("talkback_connections_closed_total", "reason") + " > 0", "{{reason}}")],
        stacked=True, table=True, nothing="nobody left",
        alerts=("ErrorCloses", "BadMessages"),
    ),
    Panel(
        303, "Rejections by reason", 6, "cps",
        """Connections closed before service. max_connections: the limit or idle clients.
        max_connections_per_ip: one client, or a balancer that hides many. inbox_full: workers do
        not keep up. fd_reserve: descriptors ran out, raise LimitNOFILE. draining: a stop.""",
        [Query(rate("talkback_connections_rejected_total", "reason"), "{{reason}}")],
        alerts=("Rejecting", "AddressLimited"),
    ),
    Panel(
        304, "Duration of connections", 6, "s",
        """From accept to close, of the connections that ended. Far shorter than usual: clients
        that fail and come again, or health checks. Very long with many open: raise no limit
        before idle_timeout is known to be right.""",
        quantiles("talkback_connection_duration_seconds", "listener", shares=(0.5, 0.99)),
        logarithmic=True,
    ),
    Panel(
        305, "Size of messages", 6, "bytes",
        """How large messages are, without their ending. Near max_message_bytes: clients will soon
        be closed as message_too_long (line), or see their text cut into more messages (raw).""",
        quantiles("talkback_message_bytes", "listener", shares=(0.5, 0.99)),
        logarithmic=True,
    ),
    Panel(
        306, "Replies not taken", 6, "bytes",
        """Bytes of replies that the kernel has not taken, because clients do not read. Each
        connection is bounded by max_pending_bytes and ends after send_timeout; of several the
        first in /connections?sort=pending is the worst. What the kernel has taken and the client
        has not is not counted here: ss shows it, as Send-Q.""",
        [Query(total(f"talkback_pending_bytes{{{LISTENER}}}", "instance, listener"),
               "{{listener}} {{instance}}")],
    ),
    Panel(
        307, "Replies thrown away", 6, "Bps",
        """Bytes of replies whose connection ended before the kernel took them: lost to the
        client. Beside send_timeout: clients that do not read. Beside peer_reset: clients that
        gave up waiting. Beside shutdown_forced: drain_timeout is too short.""",
        [Query(rate("talkback_discarded_bytes_total", "instance, listener"),
               "{{listener}} {{instance}}")],
    ),
])

WAITS = Row(400, "Waits and the kernel's queue", [
    Panel(
        401, "Accept queue", 8, "short",
        """Connections that wait to be accepted, and the queue's limit: backlog, cut by the
        kernel's net.core.somaxconn. Read at each scrape, so that a short peak may be missed: the
        accept wait has seen it. The queue holds one more than its limit, then the kernel
        drops.""",
        [
            Query(f"talkback_listen_queue_length{{{LISTENER}}}", "{{listener}} {{instance}}"),
            Query(f"min(talkback_listen_queue_limit{{{LISTENER}}})", "smallest limit",
                  limit=True),
        ],
        alerts=("AcceptQueueFilling",),
    ),
    Panel(
        402, "Dropped by the kernel", 8, "cps",
        """Attempts to connect that the kernel dropped at a listener: its queue was full, mostly,
        or memory short. A client that tries again counts again. The overflows of the network
        namespace count all programs in it: if they rise alone, another program drops.""",
        [
            Query(rate("talkback_listen_drops_total", "instance, listener"),
                  "{{listener}} {{instance}}"),
            Query(rate("talkback_netns_listen_overflows_total", "instance", SERVER),
                  "namespace {{instance}}"),
        ],
        alerts=("Drops",),
    ),
    Panel(
        403, "Wait in the accept queue", 8, "s",
        """From the end of the handshake to accept, as the kernel's 4 ms tick tells. Long waits:
        the accept thread got no CPU, the process was stopped, or max_accept_rate holds
        newcomers.""",
        quantiles("talkback_accept_wait_seconds", "listener", shares=(0.5, 0.99)),
        logarithmic=True, steps=(GOOD, (0.256, BAD)),
        alerts=("SlowAccept",),
    ),
    Panel(
        404, "Wait in the inbox", 8, "s",
        """From accept to the first touch of a worker. More than a few milliseconds: the workers
        are busy ("Busy share by worker") or one is stalled ("Age of the running turn").""",
        quantiles("talkback_inbox_wait_seconds", matchers=SERVER),
        logarithmic=True, steps=(GOOD, (0.1, BAD)),
        alerts=("SlowInbox",),
    ),
    Panel(
        405, "Time to the reply", 8, "s",
        """From a message received whole to all its replies given to the kernel, a late answer's
        wait included. Half slow: the responder. Only p99 slow: clients that read slowly, or turns
        that wait for a busy worker. Replies that are never taken are not in it.""",
        quantiles("talkback_respond_seconds", "listener", shares=(0.5, 0.99)),
        logarithmic=True, steps=(GOOD, (1, BAD)),
        alerts=("SlowReplies",),
    ),
    Panel(
        406, "Time to the reply, all of them", 8, "s",
        """The same as a heat map: darker is more. Two bands are two kinds of messages or two
        kinds of clients, which no quantile shows.""",
        [Query(rate("talkback_respond_seconds_bucket", "le", function="increase"), "{{le}}",
               heatmap=True)],
        kind="heatmap",
    ),
    Panel(
        407, "Held by max_accept_rate", 6, "percentunit",
        """The share of the time in which a newcomer waited for max_accept_rate to let it in.
        Near 100 %: more come than the limit allows, and the accept queue fills by intent.""",
        [Query(HELD, "{{listener}} {{instance}}")],
        top=1,
    ),
    Panel(
        408, "Errors of accept", 6, "cps",
        """What accept(2) failed with. emfile: the process is out of descriptors; enfile, enobufs,
        enomem: the host is out of something; econnaborted: clients that were gone before.""",
        [Query(rate("talkback_accept_errors_total", "error"), "{{error}}")],
        alerts=("AcceptErrors",),
    ),
    Panel(
        409, "Round trip", 6, "s",
        """The kernel's smoothed round trip of a connection at its close. Of a connection that is
        quiet most of the time it holds the client's delayed acknowledgements, up to 40 ms each. A
        rise: drops in the accept queue make one too ("Dropped by the kernel"), so look there
        first; without drops it is the network's or the clients' hosts'.""",
        quantiles("talkback_tcp_rtt_seconds", "listener", shares=(0.5, 0.99)),
        logarithmic=True,
    ),
    Panel(
        410, "Retransmissions", 6, "pps",
        """Segments that the kernel had to send again, counted as each connection closes. Beside
        drops: handshakes at a full accept queue, look there first. Beside peer_dead or
        send_timeout: a lossy way, or clients that vanish.""",
        [Query(rate("talkback_tcp_retransmits_total", "listener"), "{{listener}}")],
    ),
])

WORKERS = Row(500, "Workers and process", [
    Panel(
        501, "Busy share by worker", 6, "percentunit",
        """The share of the time that a worker did not wait for work. All near 100 %: more workers
        or more hosts. One alone: one client or responder holds it; /connections sorted by
        messages or bytes names the client.""",
        [Query(BUSY, "worker {{worker}} {{instance}}")],
        steps=(GOOD, (0.85, BAD)), top=1,
        alerts=("PoolSaturated",),
    ),
    Panel(
        502, "Age of the running turn", 6, "s",
        """How long the turn that a worker is in has lasted; 0 while it waits. A line that climbs
        is a stalled worker: its responder blocks, and its connections wait. Newcomers go to the
        others.""",
        [Query(f"talkback_worker_turn_seconds{{{SERVER}}}", "worker {{worker}} {{instance}}")],
        steps=(GOOD, (5, BAD)),
        alerts=("WorkerStalled",),
    ),
    Panel(
        503, "Connections by worker", 6, "short",
        """Connections that each worker owns. Newcomers go to the worker with the fewest; lines
        that stay apart are connections of unequal age, or a worker that is passed over.""",
        [Query(f"talkback_worker_connections{{{SERVER}}}", "worker {{worker}} {{instance}}")],
    ),
    Panel(
        504, "Inbox by worker", 6, "short",
        """Connections handed over and not yet taken. Read at each scrape: what stays above 0 is a
        worker that does not come round. At inbox_connections for all, newcomers are
        rejected.""",
        [Query(f"talkback_worker_inbox_connections{{{SERVER}}}",
               "worker {{worker}} {{instance}}")],
    ),
    Panel(
        505, "Turns that left work over", 6, "ops",
        """Turns ended by the bound of fairness (messages_per_turn or 64 KiB) with work left:
        clients that send faster than they are served. Harmless while others are answered in
        time.""",
        [Query(rate("talkback_worker_yields_total", "instance, worker", SERVER),
               "worker {{worker}} {{instance}}")],
    ),
    Panel(
        506, "Panics", 6, "cps",
        """Panics caught in workers, acceptors and responders. Each costs at least a connection
        and is a defect: the log has the place. Three of the server's own within 10 s end the
        process.""",
        [Query(rate("talkback_worker_panics_total", "instance", SERVER), "{{instance}}")],
        alerts=("Panics",),
    ),
    Panel(
        507, "Late replies refused", 6, "ops",
        """Answers through a ticket that found no taker. stale: the connection or its time was
        over, so the responder is too slow. inbox_full: it answers faster than the worker
        takes.""",
        [Query(rate("talkback_late_replies_refused_total", "reason", SERVER), "{{reason}}")],
    ),
    Panel(
        508, "Log lines dropped", 6, "cps",
        """Lines that standard error did not take in time: a full disk, or a collector that does
        not read. Service goes on, but the log has a hole.""",
        [Query(rate("talkback_log_lines_dropped_total", "instance", SERVER), "{{instance}}")],
        alerts=("LogLost",),
    ),
    Panel(
        509, "CPU", 6, "percentunit",
        """CPU time of the process, 100 % for one CPU. Flat below the number of CPUs while workers
        are busy: a quota of its container or cgroup holds it.""",
        [Query(rate("process_cpu_seconds_total", "instance", SERVER), "{{instance}}")],
    ),
    Panel(
        510, "Memory", 6, "bytes",
        """Resident and virtual memory. Resident grows with replies not taken and unfinished
        messages, and falls when they are gone; an idle connection owns no buffer. A rise with
        neither is a leak: report it.""",
        [
            Query(f"process_resident_memory_bytes{{{SERVER}}}", "resident {{instance}}"),
            Query(f"process_virtual_memory_bytes{{{SERVER}}}", "virtual {{instance}}"),
        ],
    ),
    Panel(
        511, "Descriptors", 6, "short",
        """Open descriptors, and the limit of the process. At the limit newcomers are rejected as
        fd_reserve: raise LimitNOFILE, or lower max_connections. Many more than connections: a
        leak, or a responder that opens its own.""",
        [
            Query(f"process_open_fds{{{SERVER}}}", "open {{instance}}"),
            Query(f"min(process_max_fds{{{SERVER}}})", "smallest limit", limit=True),
        ],
        alerts=("FewDescriptors",),
    ),
    Panel(
        512, "Threads", 6, "short",
        """Threads of the process: the workers, one a listener, and a few more. The number is
        fixed but for the sidecar's; a rise is a responder that starts its own.""",
        [Query(f"process_threads{{{SERVER}}}", "{{instance}}")],
    ),
    Panel(
        513, "Answers of the sidecar", 12, "reqps",
        """What the metrics port answered, by path and code. 503 of /readyz is a stop; 500 is a
        defect of the sidecar. Many more than the scrapers account for: somebody else asks.""",
        [Query(rate("talkback_scrapes_total", "path, code", SERVER) + " > 0",
               "{{path}} {{code}}")],
        table=True, nothing="none",
    ),
    Panel(
        514, "Scrapes turned away", 12, "reqps",
        """Requests that the metrics port turned away: the watch may be blind. over_capacity or
        head_timeout: somebody holds its 32 places; do not expose it to clients.""",
        [Query(rate("talkback_scrapes_rejected_total", "reason", SERVER), "{{reason}}")],
        table=True,
        alerts=("WatchBlinded", "WatchGaps"),
    ),
])

# Its panels are empty where no listener has a program.
NO_PROGRAM = "no program"

PROGRAMS = Row(600, "Programs that answer (responder = command)", [
    Panel(
        601, "Processes by state", 6, "short",
        """Processes of [listener.command], shared by all clients or one for each. All busy and
        messages that wait: raise max_processes, or make the program faster. Starting all the
        time: it dies as soon as it has started, see how processes end. Ending for longer than
        2 s: the host does not let go of them.""",
        [Query(total(f"talkback_command_processes{{{LISTENER}}}", "listener, state"),
               "{{state}} {{listener}}")],
        stacked=True, nothing=NO_PROGRAM,
    ),
    Panel(
        602, "Messages that wait for a process", 6, "short",
        """The queue of a shared program, read at each scrape. Above 0 for long: every process is
        busy. At max_queue messages are refused as queue_full. Next: the wait beside this.""",
        [Query(f"talkback_command_queue_length{{{LISTENER}}}", "{{listener}} {{instance}}")],
        nothing=NO_PROGRAM,
    ),
    Panel(
        603, "Wait for a process", 6, "s",
        """From a message to the process that took it. Near queue_timeout: soon it is refused as
        queue_timeout. Long waits with idle processes are those that had to be started first:
        raise min_processes.""",
        quantiles("talkback_command_queue_wait_seconds", "listener", shares=(0.5, 0.99)),
        logarithmic=True, steps=QUEUE_WAIT, nothing=NO_PROGRAM,
        alerts=("ProgramQueue",),
    ),
    Panel(
        604, "Time of the program's reply", 6, "s",
        """From a message's being written to a process to its reply's being read: what the program
        itself takes, and with pipeline what stands before it there. Near reply_timeout: soon the
        process is killed and its client closed.""",
        quantiles("talkback_command_reply_seconds", "listener", shares=(0.5, 0.99)),
        logarithmic=True, nothing=NO_PROGRAM,
    ),
    Panel(
        605, "Why processes ended", 6, "ops",
        """exited, idle, max_requests, connection_closed and stopped are ordinary; failed and
        signalled are the program's own faults, protocol is a line that nobody had asked for or
        too long a one, timeout a reply that did not come. The program's last words stand in the
        log.""",
        [Query(rate("talkback_command_ends_total", "reason") + " > 0", "{{reason}}")],
        stacked=True, nothing="none",
        alerts=("ProgramDies",),
    ),
    Panel(
        609, "Starts", 5, "ops",
        """Processes started, and those that could not be: the log says why. Many starts, and as
        many ends beside this: the program does not live, or max_requests and
        process_idle_timeout are low for so many clients.""",
        [
            Query(rate("talkback_command_starts_total", "listener"), "started {{listener}}"),
            Query(rate("talkback_command_start_failures_total", "listener"),
                  "failed {{listener}}"),
        ],
        nothing=NO_PROGRAM,
    ),
    Panel(
        606, "Refused, or not in time", 5, "ops",
        """Messages that no process took, by why: queue_full and queue_timeout are too few
        processes, circuit_open and start_failed a program that does not live. And messages that
        a process took and did not answer within reply_timeout.""",
        [
            Query(rate("talkback_command_refused_total", "reason"), "{{reason}}"),
            Query(rate("talkback_command_timeouts_total", "listener"),
                  "not in time {{listener}}"),
        ],
        nothing=NO_PROGRAM,
        alerts=("ProgramRefuses", "ProgramTimeouts"),
    ),
    Panel(
        607, "Circuit", 3, "none",
        """Open: the last processes died before any reply, so none is started until the back-off
        is over, and messages are refused at once. /readyz says so as well. Mend the program; it
        is tried again by itself. The graph behind the word tells when it was open.""",
        [Query(f"talkback_command_circuit_open{{{LISTENER}}}", "{{listener}} {{instance}}")],
        kind="stat", steps=(GOOD, (1, BAD)), nothing=NO_PROGRAM,
        words={"0": ("closed", GOOD), "1": ("OPEN", BAD)},
        alerts=("CircuitOpen",),
    ),
    Panel(
        608, "Lines on standard error", 5, "ops",
        """Lines that the program's processes wrote to their standard error. They stand in the
        log, fewer of them where they are many. A rise is what to read first when processes end
        or time out.""",
        [Query(rate("talkback_command_standard_error_lines_total", "listener"), "{{listener}}")],
        nothing=NO_PROGRAM,
    ),
])

ROWS = [CHAIN, OVERVIEW, CLOSES, WAITS, WORKERS, PROGRAMS]
