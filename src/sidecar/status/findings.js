"use strict";

// What is wrong, in words: the worst first. Each finding names the part of the page it concerns.
// `stalled` are the workers that did not answer for their connections; `pending` the connections
// that most is pending for, null where they are not told.
function findProblems(figures, stalled, pending) {
    const found = [
        ...drainProblems(figures),
        ...workerProblems(figures, stalled),
        ...queueProblems(figures),
        ...admissionProblems(figures),
        ...waitProblems(figures),
        ...programProblems(figures),
        ...replyProblems(figures, pending),
        ...closeProblems(figures),
        ...hostProblems(figures),
    ];
    return found.sort((a, b) => WEIGHT[a.level] - WEIGHT[b.level]);
}

// A note is no trouble: it says what is going on.
const WEIGHT = { bad: 0, warn: 1, note: 2 };
// A worker that is this long in one turn gets no new connections, and keeps its own waiting.
const LONG_TURN_SECONDS = 0.1;
const STALLED_TURN_SECONDS = 1;
const LONG_WAIT_SECONDS = 0.1;
// A program may take its time; a message should not wait for one that long.
const LONG_QUEUE_SECONDS = 1;
// A client that took nothing for this long does not read, or hardly.
const STUCK_SECONDS = 2;
// Below this a limit of the rate only smooths.
const HELD_SHARE = 0.05;
const NEARLY = 0.9;
// Of the connections, so many are asked for in each order.
const ROWS = 10;
// Closes that are the server's or the host's failure, or the path's; not the client's choice.
const FAILURES = new Set([
    "io_error",
    "peer_dead",
    "responder_error",
    "responder_panic",
    "responder_timeout",
    "send_timeout",
    "shutdown_forced",
    "worker_panic",
]);

// Ends of processes that are their programs' own faults.
const FAULTS = new Set(["failed", "signalled", "protocol"]);

// Clients turned away for their own number; any other rejection is for want of something of ours.
const POLICY = new Set(["max_connections_per_ip", "draining"]);

// `key` tells that it is the same as a second ago, `size` when it was worst.
function problem(level, part, key, text, size = 0) {
    return { level, part, key, text, size };
}

// How long ago things may have happened that were counted since the window began.
function lately({ seconds }) {
    return seconds > 12 ? `in the last ${whole(seconds)}` : "just now";
}

function sumOf(rows) {
    return rows.reduce((sum, { growth }) => sum + (growth ?? 0), 0);
}

function drainProblems({ draining, socket }) {
    if (!draining) {
        return [];
    }
    const left = `${count(socket.open)} ${socket.open === 1 ? "connection" : "connections"}`;
    const text = `Draining: the server is stopping, ${left} still open.`;
    return [problem("note", "socket", "drain", text, socket.open)];
}

function workerProblems({ workers, workersAlive }, stalled) {
    const found = [];
    for (const { worker, turn } of workers) {
        const silent = stalled.includes(Number(worker));
        const add = (level, text) => {
            found.push(problem(level, "worker", `turn ${worker}`, text, turn));
        };
        if (turn >= STALLED_TURN_SECONDS || (silent && turn >= LONG_TURN_SECONDS)) {
            const since = `it has been in one turn for ${duration(turn)}`;
            add("bad", `Worker ${worker} is stalled: ${since}.`);
        } else if (silent) {
            add("warn", `Worker ${worker} did not answer for its connections in time.`);
        } else if (turn >= LONG_TURN_SECONDS) {
            add("warn", `Worker ${worker} has been in one turn for ${duration(turn)}.`);
        }
    }
    if (workersAlive !== null && workersAlive < workers.length) {
        const text = `${workers.length - workersAlive} of ${workers.length} workers have ended.`;
        found.push(problem("bad", "worker", "ended", text));
    }
    return found;
}

function queueProblems(figures) {
    const found = [];
    for (const { listener, queue } of figures.listeners) {
        const { length, limit, drops, held } = queue;
        if (drops.growth > 0) {
            // A client that tries again counts again.
            const attempts = drops.growth === 1 ? "attempt" : "attempts";
            const dropped = `The kernel dropped ${count(drops.growth)} ${attempts} to connect`;
            const why = `to listener ${listener} ${lately(figures)}: its accept queue was full.`;
            const text = `${dropped} ${why}`;
            found.push(problem("bad", "queue", `drops ${listener}`, text, drops.growth));
        }
        if (limit > 0 && length >= limit / 2) {
            // The kernel takes one more than the limit.
            const [level, state] = length > limit ? ["bad", "full"] : ["warn", "filling"];
            const told = `${count(length)}, limit ${count(limit)} + 1`;
            const text = `The accept queue of listener ${listener} is ${state}: ${told}.`;
            found.push(problem(level, "queue", `queue ${listener}`, text, length));
        }
        if (held > HELD_SHARE) {
            const time = share(Math.min(held, 1));
            const text = `max_accept_rate keeps newcomers of listener ${listener} waiting`;
            const whole = `${text}, ${time} of the time.`;
            found.push(problem("warn", "queue", `held ${listener}`, whole, held));
        }
    }
    return found;
}

function admissionProblems(figures) {
    const { socket, rejections, acceptErrors } = figures;
    const found = [];
    const growing = (list) => list.filter(({ growth }) => growth > 0);
    const told = ({ reason, growth }) => `${count(growth)} as ${reason}`;
    const rejected = growing(rejections);
    if (rejected.length > 0) {
        const text = `Turning clients away: ${rejected.map(told).join(", ")} ${lately(figures)}.`;
        const level = rejected.every(({ reason }) => POLICY.has(reason)) ? "warn" : "bad";
        found.push(problem(level, "socket", "rejected", text, sumOf(rejected)));
    }
    const errors = growing(acceptErrors);
    if (errors.length > 0) {
        const text = `accept(2) fails: ${errors.map(told).join(", ")} ${lately(figures)}.`;
        found.push(problem("bad", "queue", "accept", text, sumOf(errors)));
    }
    const { open, limit } = socket;
    if (limit > 0 && open >= limit * NEARLY) {
        const full = `${count(open)} of ${count(limit)} connections are open`;
        const [level, text] = open >= limit
            ? ["bad", `At the limit: ${full}, the next client is turned away.`]
            : ["warn", `Near the limit: ${full}.`];
        found.push(problem(level, "socket", "limit", text, open));
    }
    return found;
}

function waitProblems({ queue, inbox, reply }) {
    const found = [];
    const check = (part, wait, what) => {
        const slowest = wait.at(-1);
        if (slowest?.seconds > LONG_WAIT_SECONDS) {
            const text = `${what}: p99 is ${waited(slowest)}.`;
            found.push(problem("warn", part, `wait ${part}`, text, slowest.seconds));
        }
    };
    check("queue", queue.wait, "Connections wait long in the accept queue");
    check("inbox", inbox.wait, "Connections wait long for their worker");
    check("reply", reply.respond, "Replies take long");
    return found;
}

function programProblems(figures) {
    const found = [];
    const told = ({ reason, growth }) => `${count(growth)} as ${reason}`;
    for (const { listener, isOpen, wait, ends, refused, timeouts } of figures.programs) {
        const add = (level, key, text, size = 0) => {
            found.push(problem(level, "program", `${key} ${listener}`, text, size));
        };
        if (isOpen) {
            const why = "its processes died before they answered, and messages are refused";
            add("bad", "circuit", `The program behind listener ${listener} does not live: ${why}.`);
        }
        // What an open circuit refuses is said by that.
        const others = refused.filter(({ reason, growth }) => {
            return growth > 0 && !(isOpen && reason === "circuit_open");
        });
        if (others.length > 0) {
            const text = `Messages of listener ${listener} got no process`;
            const whole = `${text}: ${others.map(told).join(", ")} ${lately(figures)}.`;
            add("bad", "refused", whole, sumOf(others));
        }
        if (timeouts.growth > 0) {
            const text = `The program behind listener ${listener} did not answer in time`;
            add("warn", "timeouts", `${text}: ${count(timeouts.growth)} ${lately(figures)}.`,
                timeouts.growth);
        }
        const faults = ends.filter(({ reason, growth }) => FAULTS.has(reason) && growth > 0);
        if (faults.length > 0) {
            const text = `Processes behind listener ${listener} ended`;
            const whole = `${text}: ${faults.map(told).join(", ")} ${lately(figures)}.`;
            add("warn", "ends", whole, sumOf(faults));
        }
        const slowest = wait.at(-1);
        if (slowest?.seconds > LONG_QUEUE_SECONDS) {
            const text = `Messages of listener ${listener} wait long for a process`;
            add("warn", "queue", `${text}: p99 is ${waited(slowest)}.`, slowest.seconds);
        }
    }
    return found;
}

function replyProblems(figures, pending) {
    const { reply } = figures;
    const found = [];
    const add = (key, text, size) => found.push(problem("warn", "reply", key, text, size));
    const stuck = (pending ?? []).filter((row) => row.idle_seconds >= STUCK_SECONDS);
    if (stuck.length > 0) {
        const [{ peer, pending_bytes: owed, idle_seconds: idle }] = stuck;
        // More than the page asks for may be stuck.
        const clients = stuck.length === ROWS ? "clients or more" : "clients";
        const who = stuck.length === 1
            ? "A client does not take its"
            : `${stuck.length} ${clients} do not take their`;
        const most = `${bytes(owed)} pending for ${peer}, nothing moved for ${duration(idle)}`;
        add("stuck", `${who} replies: ${most}.`, idle);
    } else if (pending === null && reply.leastPending > 0) {
        const now = `${bytes(reply.pending)} now`;
        add("stuck", `Replies are pending all the time, ${now}: clients take them slowly.`, 0);
    }
    const { growth } = reply.discarded;
    if (growth > 0) {
        const text = `Replies were thrown away: ${bytes(growth)} ${lately(figures)}, not taken`;
        add("discarded", `${text} before their connections ended.`, growth);
    }
    return found;
}

function closeProblems(figures) {
    const { closes, panics } = figures;
    const found = [];
    const failed = closes.filter(({ reason, growth }) => FAILURES.has(reason) && growth > 0);
    if (failed.length > 0) {
        const told = failed.map(({ reason, growth }) => `${count(growth)} as ${reason}`);
        const text = `Connections failed: ${told.join(", ")} ${lately(figures)}.`;
        found.push(problem("warn", "reply", "failed", text, sumOf(failed)));
    }
    if (panics.growth > 0) {
        const word = panics.growth === 1 ? "panic" : "panics";
        const text = `${count(panics.growth)} ${word} ${lately(figures)}.`;
        found.push(problem("bad", "worker", "panics", text, panics.growth));
    }
    return found;
}

function hostProblems(figures) {
    const { process, linesDropped, scrapesRejected } = figures;
    const found = [];
    const add = (key, text, size) => found.push(problem("warn", "process", key, text, size));
    const { descriptors, maxDescriptors } = process;
    if (maxDescriptors > 0 && descriptors >= maxDescriptors * NEARLY) {
        const text = `${count(descriptors)} of ${count(maxDescriptors)} descriptors are open.`;
        add("descriptors", text, descriptors);
    }
    if (linesDropped.growth > 0) {
        const text = `${count(linesDropped.growth)} log lines were dropped ${lately(figures)}.`;
        add("log", text, linesDropped.growth);
    }
    const turnedAway = sumOf(scrapesRejected);
    if (turnedAway > 0) {
        const text = `${count(turnedAway)} requests to this port were turned away`;
        add("scrapes", `${text} ${lately(figures)}.`, turnedAway);
    }
    return found;
}

// What it means that a question failed so: {word, problem}. `heard` is when the last answer came,
// null for never.
function silence(error, heard, wasDraining) {
    const since = `since ${heard === null ? "this page was opened" : clock(heard)}`;
    const told = (word, level, text) => ({ word, problem: problem(level, "", "silence", text) });
    if (typeof error.cause === "number") {
        return told("errors", "bad", `It answers with an error (${error.cause}) ${since}.`);
    }
    if (error.name === "TimeoutError") {
        const why = "the process is stopped or stuck, or packets to it are lost";
        return told("timed out", "bad", `No answer ${since}, and no refusal: ${why}.`);
    }
    if (error.name === "TypeError" && wasDraining) {
        return told("stopped", "note", `Stopped: it was draining, and nobody listens ${since}.`);
    }
    if (error.name === "TypeError") {
        const why = "the server has ended, or the tunnel to it";
        return told("refused", "bad", `Nobody listens ${since}: ${why}.`);
    }
    return told("no answer", "bad", `No answer ${since}.`);
}
