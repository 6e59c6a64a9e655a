"use strict";

// The running page: asks once a second while it is seen, and paints what it was told.
const INTERVAL_MS = 1000;
const PATIENCE_MS = 4000;
const PERCENTILES = ["p50", "p90", "p99"];

const timeline = new Timeline();
const past = new Past();
const openedAt = Date.now();
let lastAnswer = null;
let restartedAt = null;
let wasDraining = false;
// Which server this is: what it says of itself, else the address that the page came from.
let server = { host: location.host, pid: null };
// Why /connections is shown to nobody, where that is so: a question would only be refused, and the
// browser would say so in its console.
const CLOSED = document.body.dataset.closed ?? null;
// Why it is not shown here; asked again only when the server has been away.
let refused = CLOSED;
// A page opened in the background asks once, so that it is not empty.
let timer = setTimeout(poll, 0);

const percentilesOf = (wait) => {
    return PERCENTILES.map((name, at) => ({
        name,
        value: (figures) => wait(figures)[at]?.seconds ?? null,
        text: (figures) => waited(wait(figures)[at]),
    }));
};
const charts = [
    ["chart-messages", "Messages / s", rate, false, [
        { name: "received", value: ({ reply }) => reply.messages },
        { name: "replies", value: ({ reply }) => reply.replies },
    ]],
    ["chart-connections", "Connections / s", rate, false, [
        { name: "accepted", value: ({ socket }) => socket.accepted },
        { name: "closed", value: ({ socket }) => socket.closed },
        { name: "rejected", value: ({ socket }) => socket.rejected },
    ]],
    ["chart-bytes", "Bytes / s", bytes, false, [
        { name: "in", value: ({ reply }) => reply.received },
        { name: "out", value: ({ reply }) => reply.sent },
    ]],
    ["chart-respond", "Respond time", duration, true, percentilesOf(({ reply }) => reply.respond)],
    ["chart-inbox", "Inbox wait", duration, true, percentilesOf(({ inbox }) => inbox.wait)],
    ["chart-accept", "Accept wait", duration, true, percentilesOf(({ queue }) => queue.wait)],
].map(([id, title, format, isLog, series]) => {
    const base = format === bytes ? 1024 : undefined;
    return new Chart(document.getElementById(id), { title, format, isLog, base, series });
});

const number = "number";
const listeners = new Table(document.getElementById("listeners"), [
    { label: "listener", text: ({ listener }) => listener },
    { label: "open", kind: number, text: ({ open }) => count(open) },
    { label: "new / s", kind: number, text: ({ accepted }) => rate(accepted) },
    { label: "rejected / s", kind: number, text: ({ rejected }) => rate(rejected) },
    { label: "messages / s", kind: number, text: ({ reply }) => rate(reply.messages) },
    { label: "in / s", kind: number, text: ({ reply }) => bytes(reply.received) },
    { label: "out / s", kind: number, text: ({ reply }) => bytes(reply.sent) },
    { label: "pending", kind: number, text: ({ reply }) => bytes(reply.pending) },
    { label: "queued", kind: number, text: ({ queue }) => ofQueue(queue) },
    { label: "drops", kind: number, text: ({ queue }) => count(queue.drops.total) },
    { label: "accept p99", kind: number, text: ({ queue }) => waited(queue.wait[2]) },
    { label: "respond p99", kind: number, text: ({ reply }) => waited(reply.respond[2]) },
]);
const programs = new Table(document.getElementById("programs"), [
    { label: "listener", text: ({ listener }) => listener },
    { label: "circuit", text: ({ isOpen }) => (isOpen ? "open" : "closed") },
    { label: "starting", kind: number, text: ({ starting }) => count(starting) },
    { label: "idle", kind: number, text: ({ idle }) => count(idle) },
    { label: "busy", kind: number, text: ({ busy }) => count(busy) },
    { label: "ending", kind: number, text: ({ ending }) => count(ending) },
    { label: "waiting", kind: number, text: ({ queued }) => count(queued) },
    { label: "wait p99", kind: number, text: ({ wait }) => waited(wait[1]) },
    { label: "reply p50", kind: number, text: ({ reply }) => waited(reply[0]) },
    { label: "reply p99", kind: number, text: ({ reply }) => waited(reply[1]) },
    { label: "starts / s", kind: number, text: ({ starts }) => rate(starts) },
    { label: "stderr / s", kind: number, text: ({ lines }) => rate(lines) },
]);
const workers = new Table(document.getElementById("workers"), [
    { label: "worker", text: ({ worker }) => worker },
    { label: "busy", kind: "share", text: ({ busy }) => share(busy), share: ({ busy }) => busy },
    { label: "connections", kind: number, text: ({ connections }) => count(connections) },
    { label: "inbox", kind: number, text: ({ inbox }) => count(inbox) },
    { label: "in this turn", kind: number, text: ({ turn }) => duration(turn) },
    { label: "yields / s", kind: number, text: ({ yields }) => rate(yields) },
]);
const reasonColumns = (label) => [
    { label, text: ({ reason }) => reason },
    { label: "total", kind: number, text: ({ total, unit }) => (unit ?? count)(total) },
    { label: "/ s", kind: number, text: (row) => (row.unit ?? rate)(row.rate) },
];
const closes = new Table(document.getElementById("closes"), [
    ...reasonColumns("closed as"),
    { label: "share", kind: "share", text: (row) => share(row.part), share: ({ part }) => part },
]);
const refusals = new Table(document.getElementById("refusals"), reasonColumns("what"));
const connectionColumns = [
    { label: "id", text: ({ id }) => id },
    { label: "listener", text: ({ listener }) => listener },
    { label: "peer", kind: "peer", text: ({ peer }) => peer },
    { label: "worker", kind: number, text: ({ worker }) => String(worker) },
    { label: "age", kind: number, text: (row) => duration(row.age_seconds) },
    { label: "idle", kind: number, text: (row) => duration(row.idle_seconds) },
    { label: "messages", kind: number, text: ({ messages }) => count(messages) },
    { label: "in", kind: number, text: (row) => bytes(row.received_bytes) },
    { label: "out", kind: number, text: (row) => bytes(row.sent_bytes) },
    { label: "pending", kind: number, text: (row) => bytes(row.pending_bytes) },
    { label: "state", text: ({ state }) => state.replaceAll("_", " ") },
];
const busiest = new Table(document.getElementById("busiest"), connectionColumns);
const oldest = new Table(document.getElementById("oldest"), connectionColumns);
const mostPending = new Table(document.getElementById("pending"), connectionColumns);

function ofLimit(value, limit) {
    return value === null ? NONE : `${count(value)} / ${count(limit)}`;
}

function ofQueue({ length, limit }) {
    return length === null ? NONE : `${count(length)} / ${queueLimit(length, limit)}`;
}

function largest(values) {
    const known = values.filter((value) => value !== null);
    return known.length === 0 ? null : Math.max(...known);
}

// ---- painting ----

function paintHead(figures, at) {
    const label = (name) => figures.build.get(name) ?? NONE;
    put("build", `${label("version")} · rustc ${label("rustc")}`);
    put("time", clock(at));
    const { host, pid } = server;
    put("host", pid === null ? host : `${host}, pid ${pid}`);
    const { seconds } = figures;
    put("window", whole(Math.max(seconds ?? 0, 10)));
    const { started } = figures.process;
    put("uptime", started === null ? NONE : duration(Math.max(at / 1000 - started, 0)));
}

// The listener whose accept queue is fullest: a sum would hide it.
function fullest(rows) {
    const queued = rows.filter(({ queue }) => queue.length !== null);
    const part = ({ queue }) => queue.length / Math.max(queue.limit, 1);
    return queued.reduce((most, row) => (part(row) > part(most) ? row : most), queued[0]);
}

function paintChain({ socket, queue, inbox, workers: all, reply, listeners: rows }) {
    put("socket-open", count(socket.open));
    put("socket-limit", `of ${count(socket.limit)}`);
    put("socket-new", rate(socket.accepted));
    put("socket-rtt", waited(socket.rtt[0]));
    put("socket-retransmits", rate(socket.retransmits));
    paintQueue(queue, rows);
    put("inbox-length", count(inbox.length));
    put("inbox-p50", waited(inbox.wait[0]));
    put("inbox-p90", waited(inbox.wait[1]));
    put("inbox-p99", waited(inbox.wait[2]));
    const busy = all.map((worker) => worker.busy).filter((value) => value !== null);
    const sum = (values) => values.reduce((total, value) => total + value, 0);
    put("worker-busy", busy.length === 0 ? NONE : share(sum(busy) / busy.length));
    put("worker-count", `${count(all.length)} of them`);
    put("worker-busiest", share(largest(busy)));
    put("worker-turn", duration(largest(all.map(({ turn }) => turn))));
    const yields = all.map((worker) => worker.yields).filter((value) => value !== null);
    put("worker-yields", yields.length === 0 ? NONE : rate(sum(yields)));
    put("reply-p50", waited(reply.respond[0]));
    put("reply-p99", waited(reply.respond[2]));
    put("reply-pending", bytes(reply.pending));
    put("reply-rate", rate(reply.replies));
}

function paintQueue(queue, rows) {
    const full = fullest(rows);
    put("queue-length", count(full?.queue.length ?? null));
    const limit = full === undefined ? "" : `limit ${count(full.queue.limit)} + 1`;
    const some = limit === "" ? "" : `${limit}, ${full.listener}`;
    put("queue-limit", full?.queue.length === 0 ? "all empty" : some);
    put("queue-p50", waited(queue.wait[0]));
    put("queue-p99", waited(queue.wait[2]));
    put("queue-drops", count(queue.drops.total));
    const held = largest(rows.map((row) => row.queue.held));
    document.getElementById("queue-held-row").hidden = !(held > 0);
    put("queue-held", `held ${share(held === null ? null : Math.min(held, 1))}`);
}

function paintPrograms({ programs: rows }) {
    document.getElementById("programs-section").hidden = rows.length === 0;
    programs.fill(rows, ({ isOpen }) => (isOpen ? "failure" : ""));
}

// What went wrong behind each listener that has a program.
function programReasons({ programs: rows }) {
    return rows.flatMap(({ listener, refused, ends, timeouts, notStarted }) => {
        const named = (what, list) => {
            return list.map((row) => ({ ...row, reason: `${listener}, ${what}${row.reason}` }));
        };
        return [
            ...named("no process: ", refused),
            ...named("process ended: ", ends.filter(({ reason }) => FAULTS.has(reason))),
            ...named("", [
                { reason: "not answered in time", ...timeouts },
                { reason: "process not started", ...notStarted },
            ]),
        ];
    });
}

function paintReasons(figures) {
    const total = figures.closes.reduce((sum, row) => sum + row.total, 0);
    const part = (row) => (total === 0 ? 0 : row.total / total);
    const seen = figures.closes.filter((row) => row.total > 0);
    closes.fill(seen.map((row) => ({ ...row, part: part(row) })), ({ reason }) => {
        return FAILURES.has(reason) ? "failure" : "";
    });
    fold("closes-quiet", figures.closes, "reason");
    const named = (what, rows) => rows.map((row) => ({ ...row, reason: `${what}${row.reason}` }));
    const others = [
        ...named("client rejected: ", figures.rejections),
        ...named("accept error: ", figures.acceptErrors),
        ...programReasons(figures),
        ...named("late reply: ", figures.refusals),
        ...named("sidecar: ", figures.scrapesRejected),
        { reason: "panics caught", ...figures.panics },
        { reason: "log lines dropped", ...figures.linesDropped },
        { reason: "replies thrown away", unit: bytes, ...figures.reply.discarded },
        { reason: "attempts dropped by the accept queue", ...figures.queue.drops },
    ];
    refusals.fill(others.filter((row) => row.total > 0));
    fold("refusals-quiet", others, "count");
}

// What stands at 0, behind one line; a table without rows has no head.
function fold(id, rows, word) {
    const quiet = rows.filter((row) => row.total === 0).map(({ reason }) => reason);
    const details = document.getElementById(id);
    details.hidden = quiet.length === 0;
    const isAll = quiet.length === rows.length;
    details.previousElementSibling.hidden = isAll;
    const words = `${word}${quiet.length === 1 ? "" : "s"}`;
    const told = isAll ? `None: all ${quiet.length} ${words}` : `${quiet.length} other ${words}`;
    setText(details.querySelector("summary"), `${told} at 0`);
    setText(details.querySelector("p"), quiet.join(", "));
}

function paintProcess({ process }) {
    put("process-cpu", process.cpu === null ? NONE : share(process.cpu));
    put("process-resident", bytes(process.resident));
    put("process-virtual", bytes(process.virtual));
    put("process-fds", ofLimit(process.descriptors, process.maxDescriptors));
    put("process-threads", count(process.threads));
    put("process-overflows", count(process.overflows));
    const { started } = process;
    put("process-started", started === null ? NONE : new Date(started * 1000).toLocaleString());
}

// Connections that something is pending for, the most first; null where they are not told.
function pendingOf(byPending) {
    return byPending?.connections.filter((row) => row.pending_bytes > 0) ?? null;
}

function paintConnections([byPending, byBytes, byAge]) {
    const place = document.getElementById("connections");
    place.classList.toggle("refused", refused !== null);
    put("connections-refused", refused === null ? "" : `Connections are not shown: ${refused}`);
    const pending = pendingOf(byPending) ?? [];
    document.getElementById("pending-card").hidden = pending.length === 0;
    mostPending.fill(pending);
    busiest.fill(byBytes?.connections ?? []);
    oldest.fill(byAge?.connections ?? []);
}

// What is over, behind one line.
function paintPast() {
    const list = document.getElementById("past");
    const told = past.over.map(({ first, last, level, text }) => {
        const times = [...new Set([clock(first), clock(last)])].join("–");
        return { level, text: `${times} ${text}` };
    });
    list.hidden = told.length === 0;
    const number = told.length === Past.KEPT ? `the last ${told.length}` : told.length;
    const opened = `since this page was opened at ${clock(openedAt)}`;
    setText(list.querySelector("summary"), `Earlier: ${number}, ${opened}`);
    fillList(list.querySelector("ul"), told);
}

// A list is made anew only when it says something new.
function fillList(list, told) {
    const whole = told.map(({ level, text }) => `${level} ${text}`).join("\n");
    if (list.dataset.told === whole) {
        return;
    }
    list.dataset.told = whole;
    list.replaceChildren(...told.map(({ level, text }) => {
        const item = document.createElement("li");
        item.className = level;
        item.textContent = text;
        return item;
    }));
}

// The sentence at the top and the words at each station.
function paintProblems(problems, state, isSilent = false) {
    fillList(document.getElementById("problems"), problems);
    paintPast();
    const since = restartedAt === null ? "" : ` The server was restarted at ${clock(restartedAt)}.`;
    const seen = `Watched since ${clock(openedAt)}; totals below are since the start.`;
    const good = `Nothing waits long and nothing fails now.${since} ${seen}`;
    put("verdict", problems.length === 0 ? good : "");
    for (const station of document.querySelectorAll("[data-part]")) {
        const own = problems.filter(({ part }) => part === station.dataset.part);
        const level = own[0]?.level ?? (isSilent ? "unknown" : "good");
        station.dataset.level = level;
        const words = {
            good: "ok", note: "draining", warn: "watch", bad: "trouble", unknown: NONE,
        };
        setText(station.querySelector(".word"), words[level]);
    }
    const worst = problems[0]?.level ?? "good";
    document.body.dataset.level = worst;
    const mark = worst === "bad" || worst === "warn" ? "! " : "";
    const name = `${mark}${server.host} – talkback`;
    document.title = problems.length === 0 ? name : `${name}: ${problems[0].text}`;
    put("state", state ?? { good: "serving", warn: "serving", bad: "trouble" }[worst]);
}

function paint(at, snapshot, connections) {
    const { change, restarted } = timeline.take(at, snapshot);
    const [byPending] = connections;
    const { host, pid } = byPending ?? server;
    server = { host: host === "" ? location.host : host, pid };
    const figures = measure(change);
    timeline.keep(at, figures);
    wasDraining = figures.draining;
    paintHead(figures, at);
    paintChain(figures);
    for (const chart of charts) {
        chart.show(timeline.figures);
    }
    listeners.fill(figures.listeners);
    const stalled = byPending?.stalled ?? [];
    const isStalled = ({ worker, turn }) => {
        return stalled.includes(Number(worker)) || turn >= STALLED_TURN_SECONDS;
    };
    workers.fill(figures.workers, (row) => (isStalled(row) ? "failure" : ""));
    paintPrograms(figures);
    paintReasons(figures);
    paintProcess(figures);
    paintConnections(connections);
    const problems = findProblems(figures, stalled, pendingOf(byPending));
    if (restarted) {
        restartedAt = at;
        past.see(at - 1, [problem("warn", "", `restart ${at}`, "The server was restarted.")]);
    }
    past.take(at, problems);
    paintProblems(problems, figures.draining ? "draining" : undefined);
}

function paintSilence(error) {
    document.body.classList.add("silent");
    const { word, problem: found } = silence(error, lastAnswer, wasDraining);
    // What was wrong before may be so still.
    past.see(Date.now(), [found]);
    const text = `${found.text} What is shown below is the last that was heard.`;
    paintProblems([{ ...found, text }], word, true);
}

// ---- asking ----

// Relative, so that the page works under any prefix of a proxy.
async function ask(path) {
    return fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
}

async function askMetrics() {
    const answer = await ask("metrics");
    if (!answer.ok) {
        throw new Error("metrics", { cause: answer.status });
    }
    return new Snapshot(await answer.text());
}

// The connections, or null where they are not told; this never fails the page.
async function askConnections(sort) {
    if (refused !== null) {
        return null;
    }
    try {
        const answer = await ask(`connections?sort=${sort}&limit=${ROWS}`);
        if (answer.ok) {
            return await answer.json();
        }
        // What else there may be is over the next time.
        if (answer.status === 403) {
            refused = (await answer.text()).trim();
        }
    } catch {
        // The server is busy or gone; what is asked beside this tells which.
    }
    return null;
}

async function askAllOrders() {
    const answers = [];
    for (const sort of ["pending", "bytes", "age"]) {
        answers.push(await askConnections(sort));
    }
    return answers;
}

async function poll() {
    const began = performance.now();
    let answers = null;
    try {
        answers = await Promise.all([askMetrics(), askAllOrders()]);
    } catch (error) {
        paintSilence(error);
    }
    schedule(Math.max(INTERVAL_MS - (performance.now() - began), 100));
    // Not in the block above: a fault of the page's own is told in the console, not as a silence.
    if (answers !== null) {
        if (document.body.classList.contains("silent")) {
            document.body.classList.remove("silent");
            refused = CLOSED;
        }
        lastAnswer = Date.now();
        paint(lastAnswer, ...answers);
    }
}

// One question is under way or planned at any time; none for a page that nobody sees.
function schedule(delay) {
    clearTimeout(timer);
    timer = document.hidden ? null : setTimeout(poll, delay);
}

document.addEventListener("visibilitychange", () => {
    if (!document.hidden && timer === null) {
        schedule(0);
    }
});
