"use strict";

// One answer of /metrics: the text format 0.0.4, read into samples by name.
class Snapshot {
    #samples = new Map();

    constructor(text) {
        for (const line of text.split("\n")) {
            const sample = line === "" || line.startsWith("#") ? null : parseSample(line);
            if (sample === null) {
                continue;
            }
            if (!this.#samples.has(sample.name)) {
                this.#samples.set(sample.name, []);
            }
            this.#samples.get(sample.name).push(sample);
        }
    }

    // The samples of a name that have these labels, in the order of the text.
    all(name, labels = {}) {
        const wanted = Object.entries(labels);
        const has = (sample) => wanted.every(([key, value]) => sample.labels.get(key) === value);
        return (this.#samples.get(name) ?? []).filter(has);
    }

    // Their sum; null where there are none, which is not the same as 0.
    sum(name, labels) {
        const samples = this.all(name, labels);
        return samples.length === 0 ? null : samples.reduce((sum, { value }) => sum + value, 0);
    }

    // The values that a label has, each once: numbers by size, words as the text has them.
    labelValues(name, label) {
        const values = [...new Set(this.all(name).map((sample) => sample.labels.get(label)))];
        return values.every((value) => /^\d+$/.test(value)) ? values.sort((a, b) => a - b) : values;
    }

    // A histogram's cumulative buckets, those of several series added up, by their upper bound.
    buckets(name, labels) {
        const counts = new Map();
        for (const sample of this.all(`${name}_bucket`, labels)) {
            const bound = parseNumber(sample.labels.get("le") ?? "");
            counts.set(bound, (counts.get(bound) ?? 0) + sample.value);
        }
        const buckets = [...counts].map(([bound, count]) => ({ bound, count }));
        return buckets.sort((a, b) => a.bound - b.bound);
    }
}

// One line: name, labels, value; null where it is none.
function parseSample(line) {
    const head = /^([a-zA-Z_:][\w:]*)(\{)?/.exec(line);
    if (head === null) {
        return null;
    }
    const [whole, name, brace] = head;
    const labels = new Map();
    let at = whole.length;
    if (brace !== undefined) {
        const label = /\s*,?\s*([a-zA-Z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"/y;
        label.lastIndex = at;
        for (let found = label.exec(line); found !== null; found = label.exec(line)) {
            labels.set(found[1], unescapeLabel(found[2]));
            at = label.lastIndex;
        }
        const close = line.indexOf("}", at);
        if (close < 0) {
            return null;
        }
        at = close + 1;
    }
    const [value] = line.slice(at).trim().split(/\s+/);
    return value === "" ? null : { name, labels, value: parseNumber(value) };
}

function unescapeLabel(text) {
    return text.replace(/\\(.)/g, (_, escaped) => (escaped === "n" ? "\n" : escaped));
}

// As strtod(3) reads it: infinities are written in more than one way.
function parseNumber(text) {
    const infinity = /^([+-]?)inf(inity)?$/i.exec(text);
    return infinity === null ? Number(text) : infinity[1] === "-" ? -Infinity : Infinity;
}
