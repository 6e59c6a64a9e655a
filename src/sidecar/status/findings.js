"use strict";

// What is wrong, in words: the worst first. Each finding names the part of the page it concerns.
// `stalled` are the workers that did not answer for their connections.
function findProblems(figures, stalled) {
    const found = [
        ...drainProblems(figures),
        ...workerProblems(figures, stalled),
        ...queueProblems(figures),
        ...admissionProblems(figures),
        ...waitProblems(figures),
        ...closeProblems(figures),
        ...hostProblems(figures),
    ];
    const weight = { bad: 0, warn: 1 };
    return found.sort((a, b) => weight[a.level] - weight[b.level]);
}

// A worker that is this long in one turn gets no new connections, and keeps its own waiting.
const LONG_TURN_SECONDS = 0.1;
const STALLED_TURN_SECONDS = 1;
const LONG_WAIT_SECONDS = 0.1;
const NEARLY = 0.9;
// Closes that are the server's or the host's failure, not the client's choice.
const FAILURES = new Set([
    "io_error",
    "responder_error",
    "responder_panic",
    "responder_timeout",
    "send_timeout",
    "shutdown_forced",
    "worker_panic",
]);

// Clients turned away for their own number; any other rejection is for want of something of ours.
const POLICY = new Set(["max_connections_per_ip", "draining"]);

function problem(level, part, text) {
    return { level, part, text };
}

function drainProblems({ draining, socket }) {
    if (!draining) {
        return [];
    }
    const left = `${count(socket.open)} ${socket.open === 1 ? "connection" : "connections"}`;
    return [problem("bad", "socket", `Draining: the server is stopping, ${left} still open.`)];
}

function workerProblems({ workers, workersAlive }, stalled) {
    const found = [];
    for (const { worker, turn } of workers) {
        const silent = stalled.includes(Number(worker));
        if (turn >= STALLED_TURN_SECONDS || (silent && turn >= LONG_TURN_SECONDS)) {
            const since = `it has been in one turn for ${duration(turn)}`;
            found.push(problem("bad", "worker", `Worker ${worker} is stalled: ${since}.`));
        } else if (silent) {
            const text = `Worker ${worker} did not answer for its connections in time.`;
            found.push(problem("warn", "worker", text));
        } else if (turn >= LONG_TURN_SECONDS) {
            const text = `Worker ${worker} has been in one turn for ${duration(turn)}.`;
            found.push(problem("warn", "worker", text));
        }
    }
    if (workersAlive !== null && workersAlive < workers.length) {
        const gone = workers.length - workersAlive;
        found.push(problem("bad", "worker", `${gone} of ${workers.length} workers have ended.`));
    }
    return found;
}

function queueProblems({ listeners }) {
    const found = [];
    for (const { listener, queue } of listeners) {
        const { length, limit, drops } = queue;
        if (drops.growth > 0) {
            // A client that tries again counts again.
            const attempts = drops.growth === 1 ? "attempt" : "attempts";
            const dropped = `The kernel dropped ${count(drops.growth)} ${attempts} to connect`;
            const why = `to listener ${listener} just now: its accept queue was full.`;
            found.push(problem("bad", "queue", `${dropped} ${why}`));
        }
        // The kernel takes one more than the limit.
        const state = length >= limit ? "is full" : "is filling";
        if (limit > 0 && length >= limit / 2) {
            const level = length >= limit ? "bad" : "warn";
            const text = `The accept queue of listener ${listener} ${state}`;
            found.push(problem(level, "queue", `${text}: ${count(length)} of ${count(limit)}.`));
        }
    }
    return found;
}

function admissionProblems({ socket, rejections, acceptErrors }) {
    const found = [];
    const growing = (list) => list.filter(({ growth }) => growth > 0);
    const told = ({ reason, growth }) => `${count(growth)} as ${reason}`;
    const rejected = growing(rejections);
    if (rejected.length > 0) {
        const text = `Turning clients away: ${rejected.map(told).join(", ")} just now.`;
        const level = rejected.every(({ reason }) => POLICY.has(reason)) ? "warn" : "bad";
        found.push(problem(level, "socket", text));
    }
    const errors = growing(acceptErrors);
    if (errors.length > 0) {
        const text = `accept(2) fails: ${errors.map(told).join(", ")} just now.`;
        found.push(problem("bad", "queue", text));
    }
    if (socket.limit > 0 && socket.open >= socket.limit * NEARLY) {
        const full = `${count(socket.open)} of ${count(socket.limit)} connections are open.`;
        found.push(problem("warn", "socket", `Near the limit: ${full}`));
    }
    return found;
}

function waitProblems({ queue, inbox }) {
    const found = [];
    const check = (part, wait, place) => {
        const slowest = wait.at(-1);
        if (slowest > LONG_WAIT_SECONDS) {
            const text = `Connections wait long ${place}: p99 is ${duration(slowest)}.`;
            found.push(problem("warn", part, text));
        }
    };
    check("queue", queue.wait, "in the accept queue");
    check("inbox", inbox.wait, "for their worker");
    return found;
}

function closeProblems({ closes, panics }) {
    const found = [];
    const failed = closes.filter(({ reason, growth }) => FAILURES.has(reason) && growth > 0);
    if (failed.length > 0) {
        const told = failed.map(({ reason, growth }) => `${count(growth)} as ${reason}`);
        found.push(problem("warn", "reply", `Connections failed: ${told.join(", ")} just now.`));
    }
    if (panics.growth > 0) {
        found.push(problem("bad", "worker", `${count(panics.growth)} panics just now.`));
    }
    return found;
}

function hostProblems({ process, linesDropped, scrapesRejected }) {
    const found = [];
    const { descriptors, maxDescriptors } = process;
    if (maxDescriptors > 0 && descriptors >= maxDescriptors * NEARLY) {
        const text = `${count(descriptors)} of ${count(maxDescriptors)} descriptors are open.`;
        found.push(problem("warn", "process", text));
    }
    if (linesDropped.growth > 0) {
        const text = `${count(linesDropped.growth)} log lines were dropped just now.`;
        found.push(problem("warn", "process", text));
    }
    const turnedAway = scrapesRejected.reduce((sum, { growth }) => sum + (growth ?? 0), 0);
    if (turnedAway > 0) {
        const text = `${count(turnedAway)} requests to this port were turned away just now.`;
        found.push(problem("warn", "process", text));
    }
    return found;
}
