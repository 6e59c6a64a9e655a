"use strict";

// What a counter grew by. One that is smaller than before has begun anew.
function increase(before, now) {
    return now >= before ? now - before : now;
}

// What each bucket grew by, and with it the observations between two snapshots.
function bucketIncrease(before, now) {
    const old = new Map(before.map(({ bound, count }) => [bound, count]));
    const began = now.some(({ bound, count }) => count < (old.get(bound) ?? 0));
    return now.map(({ bound, count }) => {
        return { bound, count: began ? count : count - (old.get(bound) ?? 0) };
    });
}

// The quantile as Prometheus estimates it: linear within its bucket, the lowest of which begins at
// 0; beyond the last bound it is that bound. Null without observations.
function quantile(q, buckets) {
    const total = buckets.at(-1)?.count ?? 0;
    if (!(total > 0) || buckets.at(-1).bound !== Infinity || buckets.length < 2) {
        return null;
    }
    const rank = q * total;
    const at = buckets.findIndex(({ count }) => count >= rank);
    if (at === buckets.length - 1) {
        return buckets[at - 1].bound;
    }
    const { bound, count } = buckets[at];
    if (at === 0 && bound <= 0) {
        return bound;
    }
    const [start, below] = at === 0 ? [0, 0] : [buckets[at - 1].bound, buckets[at - 1].count];
    return count === below ? bound : start + (bound - start) * ((rank - below) / (count - below));
}

// A quantile with what its buckets cannot tell: one in the first of them is at most, and one beyond
// the last bound more than `bound`.
function estimate(q, buckets) {
    const seconds = quantile(q, buckets);
    if (seconds === null) {
        return null;
    }
    const rank = q * buckets.at(-1).count;
    const last = buckets.at(-2);
    if (last.count < rank) {
        return { seconds, side: ">", bound: last.bound };
    }
    const [first] = buckets;
    return { seconds, side: first.count >= rank ? "≤" : "", bound: first.bound };
}

// Whether two snapshots are of two processes: another start, or fewer answers given.
function isAnotherProcess(before, now) {
    const [start, answers] = ["process_start_time_seconds", "talkback_scrapes_total"];
    return before.sum(start) !== now.sum(start) || before.sum(answers) > now.sum(answers);
}

// The change between two snapshots of one process. All rates are null without an earlier one.
class Change {
    #seen;

    // `seen` are all snapshots of the window, the earlier first; the newest is not among them.
    constructor(before, now, seen = []) {
        this.#seen = seen;
        this.seconds = before === null ? null : (now.at - before.at) / 1000;
        this.before = before?.snapshot ?? null;
        this.now = now.snapshot;
    }

    growth(name, labels) {
        const now = this.now.sum(name, labels);
        if (this.before === null || now === null) {
            return null;
        }
        return increase(this.before.sum(name, labels) ?? 0, now);
    }

    rate(name, labels) {
        const growth = this.growth(name, labels);
        return growth === null ? null : growth / this.seconds;
    }

    // The least that it was in the window, at its beginning and its end too; null as long as too
    // little was seen.
    least(name, labels) {
        const values = this.#seen.map((snapshot) => snapshot.sum(name, labels));
        return values.length < 5 ? null : Math.min(...values, this.now.sum(name, labels));
    }

    // Estimates of what was observed meanwhile; each is null where that is nothing.
    quantiles(name, labels, qs) {
        if (this.before === null) {
            return qs.map(() => null);
        }
        const buckets = bucketIncrease(
            this.before.buckets(name, labels),
            this.now.buckets(name, labels),
        );
        return qs.map((q) => estimate(q, buckets));
    }
}

// What was seen so far: snapshots for as long as rates look back, figures for as long as charts do.
class Timeline {
    static WINDOW_MS = 10_000;
    static SPAN_MS = 300_000;

    #snapshots = [];
    #figures = [];

    // Takes a snapshot and returns the change that it brings. After a restart there is nothing to
    // compare it with.
    take(at, snapshot) {
        const last = this.#snapshots.at(-1);
        const restarted = last !== undefined && isAnotherProcess(last.snapshot, snapshot);
        if (restarted) {
            this.#snapshots = [];
        }
        const sample = { at, snapshot };
        // Samples are about a second apart: a window begins with the one nearest to 10 s ago. After
        // a gap that is the last one before it, until the window is full again: what happened in
        // the gap is neither lost nor taken for the work of one second.
        const isBefore = (old) => old.at <= at - Timeline.WINDOW_MS + 500;
        this.#snapshots.splice(0, Math.max(this.#snapshots.findLastIndex(isBefore), 0));
        const seen = this.#snapshots.map(({ snapshot }) => snapshot);
        const change = new Change(this.#snapshots[0] ?? null, sample, seen);
        this.#snapshots.push(sample);
        return { change, restarted };
    }

    keep(at, figures) {
        this.#figures = this.#figures.filter((old) => at - old.at <= Timeline.SPAN_MS);
        this.#figures.push({ at, figures });
    }

    get figures() {
        return this.#figures;
    }
}
