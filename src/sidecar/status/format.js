"use strict";

// Numbers for people. Three digits that count are enough, and a dash says that there is none.
const NONE = "–";

function round(value, digits) {
    return value.toLocaleString("en-US", {
        minimumFractionDigits: digits,
        maximumFractionDigits: digits,
    });
}

function threeDigits(value) {
    const size = Math.abs(value);
    return round(value, size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

function count(value) {
    return value === null ? NONE : round(value, 0);
}

function rate(value) {
    if (value === null) {
        return NONE;
    }
    if (value === 0) {
        return "0";
    }
    if (value >= 1e6) {
        return `${threeDigits(value / 1e6)} M`;
    }
    return value >= 1e4 ? `${threeDigits(value / 1e3)} k` : threeDigits(value);
}

function share(value) {
    if (value === null) {
        return NONE;
    }
    const digits = value >= 0.0005 && value < 0.0995 ? 1 : 0;
    return `${round(value * 100, digits)} %`;
}

function bytes(value) {
    if (value === null) {
        return NONE;
    }
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let [size, unit] = [value, 0];
    while (size >= 1000 && unit < units.length - 1) {
        [size, unit] = [size / 1024, unit + 1];
    }
    const digits = unit === 0 && Number.isInteger(size) ? round(size, 0) : threeDigits(size);
    return `${digits} ${units[unit]}`;
}

// A wait or an age: 12.3 µs, 4.00 ms, 1.25 s, 3 m 05 s, 2 h 03 m, 4 d 07 h.
function duration(seconds) {
    if (seconds === null) {
        return NONE;
    }
    if (seconds === 0) {
        return "0 s";
    }
    if (seconds < 0.9995e-3) {
        return `${threeDigits(seconds * 1e6)} µs`;
    }
    if (seconds < 0.9995) {
        return `${threeDigits(seconds * 1e3)} ms`;
    }
    if (seconds < 60) {
        return `${threeDigits(seconds)} s`;
    }
    const two = (value) => String(Math.floor(value)).padStart(2, "0");
    if (seconds < 3600) {
        return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`;
    }
    if (seconds < 86_400) {
        return `${Math.floor(seconds / 3600)} h ${two((seconds % 3600) / 60)} m`;
    }
    return `${Math.floor(seconds / 86_400)} d ${two((seconds % 86_400) / 3600)} h`;
}

// A span that needs no fraction.
function whole(seconds) {
    return duration(Math.round(seconds)).replace(".0", "");
}

// An estimate out of buckets is worth two digits: 12 µs, 4.0 ms, 28 s.
function roughly(seconds) {
    const value = Number(seconds.toPrecision(2));
    const [unit, name] = value < 1e-3 ? [1e-6, "µs"] : value < 1 ? [1e-3, "ms"] : [1, "s"];
    const size = value / unit;
    return `${round(size, size < 9.95 && size > 0 ? 1 : 0)} ${name}`;
}

// A wait as its histogram knows it: also "≤ 4 ms" and "> 60 s".
function waited(estimate) {
    if (estimate === null) {
        return NONE;
    }
    const { seconds, side, bound } = estimate;
    return side === "" ? roughly(seconds) : `${side} ${roughly(bound).replace(".0", "")}`;
}

// The kernel queues one connection more than its limit says.
function queueLimit(length, limit) {
    return length > limit ? `${count(limit)} + 1` : count(limit);
}

function clock(milliseconds) {
    const date = new Date(milliseconds);
    const two = (value) => String(value).padStart(2, "0");
    return [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
}
