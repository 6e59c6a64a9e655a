"use strict";

// The metrics as the page shows them: one plain object for each answer of /metrics. Null is what
// is not known, as a rate after the first answer.
function measure(change) {
    const { now } = change;
    return {
        build: now.all("talkback_build_info")[0]?.labels ?? new Map(),
        seconds: change.seconds,
        draining: now.sum("talkback_draining") === 1,
        socket: measureSockets(change),
        queue: measureQueue(change),
        inbox: measureInbox(change),
        reply: measureReplies(change),
        workers: measureWorkers(change),
        workersAlive: now.sum("talkback_workers"),
        listeners: measureListeners(change),
        programs: measurePrograms(change),
        closes: byReason(change, "talkback_connections_closed_total", "reason"),
        rejections: byReason(change, "talkback_connections_rejected_total", "reason"),
        acceptErrors: byReason(change, "talkback_accept_errors_total", "error"),
        refusals: byReason(change, "talkback_late_replies_refused_total", "reason"),
        scrapesRejected: byReason(change, "talkback_scrapes_rejected_total", "reason"),
        panics: counted(change, "talkback_worker_panics_total"),
        linesDropped: counted(change, "talkback_log_lines_dropped_total"),
        process: measureProcess(change),
    };
}

function counted(change, name, labels) {
    return {
        total: change.now.sum(name, labels),
        growth: change.growth(name, labels),
        rate: change.rate(name, labels),
    };
}

function byReason(change, name, label, labels = {}) {
    return change.now.labelValues(name, label).map((reason) => {
        return { reason, ...counted(change, name, { ...labels, [label]: reason }) };
    });
}

function measureSockets(change) {
    const [median, high] = change.quantiles("talkback_tcp_rtt_seconds", {}, [0.5, 0.99]);
    return {
        open: change.now.sum("talkback_connections"),
        limit: change.now.sum("talkback_connections_limit"),
        accepted: change.rate("talkback_connections_accepted_total"),
        rejected: change.rate("talkback_connections_rejected_total"),
        closed: change.rate("talkback_connections_closed_total"),
        rtt: [median, high],
        retransmits: change.rate("talkback_tcp_retransmits_total"),
    };
}

// The kernel's queue of one listener, or of all of them; no number where a listener has none.
function measureQueue(change, labels = {}) {
    return {
        length: change.now.sum("talkback_listen_queue_length", labels),
        limit: change.now.sum("talkback_listen_queue_limit", labels),
        drops: counted(change, "talkback_listen_drops_total", labels),
        wait: change.quantiles("talkback_accept_wait_seconds", labels, [0.5, 0.9, 0.99]),
        // Seconds of waiting in a second: the part of the time in which max_accept_rate held.
        held: change.rate("talkback_accept_held_seconds_total", labels),
    };
}

function measureInbox(change) {
    return {
        length: change.now.sum("talkback_worker_inbox_connections"),
        wait: change.quantiles("talkback_inbox_wait_seconds", {}, [0.5, 0.9, 0.99]),
    };
}

function measureReplies(change, labels = {}) {
    return {
        respond: change.quantiles("talkback_respond_seconds", labels, [0.5, 0.9, 0.99]),
        pending: change.now.sum("talkback_pending_bytes", labels),
        leastPending: change.least("talkback_pending_bytes", labels),
        messages: change.rate("talkback_messages_total", labels),
        replies: change.rate("talkback_replies_total", labels),
        received: change.rate("talkback_received_bytes_total", labels),
        sent: change.rate("talkback_sent_bytes_total", labels),
        discarded: counted(change, "talkback_discarded_bytes_total", labels),
    };
}

function measureWorkers(change) {
    const { now } = change;
    return now.labelValues("talkback_worker_connections", "worker").map((worker) => {
        const labels = { worker };
        const busy = change.rate("talkback_worker_busy_seconds_total", labels);
        const turn = now.sum("talkback_worker_turn_seconds", labels);
        // A long turn is counted when it ends, and may be longer than what we look back on.
        const inTurn = turn / change.seconds;
        return {
            worker,
            busy: busy === null ? null : Math.min(Math.max(busy, inTurn), 1),
            turn,
            connections: now.sum("talkback_worker_connections", labels),
            inbox: now.sum("talkback_worker_inbox_connections", labels),
            yields: change.rate("talkback_worker_yields_total", labels),
        };
    });
}

function measureListeners(change) {
    const { now } = change;
    return now.labelValues("talkback_connections_accepted_total", "listener").map((listener) => {
        const labels = { listener };
        return {
            listener,
            open: now.sum("talkback_connections", labels),
            accepted: change.rate("talkback_connections_accepted_total", labels),
            rejected: change.rate("talkback_connections_rejected_total", labels),
            queue: measureQueue(change, labels),
            reply: measureReplies(change, labels),
        };
    });
}

// The processes behind each listener that has a program; none where no listener has.
function measurePrograms(change) {
    const { now } = change;
    return now.labelValues("talkback_command_circuit_open", "listener").map((listener) => {
        const labels = { listener };
        const quantiles = (name) => change.quantiles(name, labels, [0.5, 0.99]);
        const processes = (state) => now.sum("talkback_command_processes", { listener, state });
        return {
            listener,
            isOpen: now.sum("talkback_command_circuit_open", labels) === 1,
            starting: processes("starting"),
            idle: processes("idle"),
            busy: processes("busy"),
            ending: processes("ending"),
            queued: now.sum("talkback_command_queue_length", labels),
            wait: quantiles("talkback_command_queue_wait_seconds"),
            reply: quantiles("talkback_command_reply_seconds"),
            starts: change.rate("talkback_command_starts_total", labels),
            notStarted: counted(change, "talkback_command_start_failures_total", labels),
            ends: byReason(change, "talkback_command_ends_total", "reason", labels),
            refused: byReason(change, "talkback_command_refused_total", "reason", labels),
            timeouts: counted(change, "talkback_command_timeouts_total", labels),
            lines: change.rate("talkback_command_standard_error_lines_total", labels),
        };
    });
}

function measureProcess(change) {
    const { now } = change;
    const start = now.sum("process_start_time_seconds");
    return {
        cpu: change.rate("process_cpu_seconds_total"),
        resident: now.sum("process_resident_memory_bytes"),
        virtual: now.sum("process_virtual_memory_bytes"),
        descriptors: now.sum("process_open_fds"),
        maxDescriptors: now.sum("process_max_fds"),
        threads: now.sum("process_threads"),
        started: start,
        overflows: now.sum("talkback_netns_listen_overflows_total"),
    };
}
