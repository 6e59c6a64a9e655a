"use strict";

// Small line charts in SVG. A chart's place in the page is a <figure> with a legend and an <svg>.
const SVG = "http://www.w3.org/2000/svg";
const CHART_HEIGHT = 112;
const CHART_LEFT = 52;
const CHART_RIGHT = 6;
const CHART_TOP = 8;
const CHART_BOTTOM = 18;
// The least of these that holds what was seen is the width of a chart.
const CHART_SPANS = [
    { milliseconds: 30_000, ticks: ["30 s ago", "15 s", "now"] },
    { milliseconds: 60_000, ticks: ["1 min ago", "30 s", "now"] },
    { milliseconds: 120_000, ticks: ["2 min ago", "1 min", "now"] },
    { milliseconds: Timeline.SPAN_MS, ticks: ["5 min ago", "2½ min", "now"] },
];
// Samples further apart than this were not seen together: no line joins them.
const CHART_GAP_MS = 3500;

function svgElement(name, attributes, text) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) {
        element.setAttribute(key, value);
    }
    if (text !== undefined) {
        element.textContent = text;
    }
    return element;
}

// A path through what is not null; a point without neighbours becomes a dot.
function linePath(points, x, y) {
    let path = "";
    let last = null;
    for (const { at, value } of points) {
        if (value === null) {
            last = null;
            continue;
        }
        const joined = last !== null && at - last <= CHART_GAP_MS;
        const place = `${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
        path += joined ? `L${place}` : `M${place}h0.01`;
        last = at;
    }
    return path;
}

// 0 to the least 1, 2 or 5 times a power of ten that is not below the largest value; in the unit
// that it is written with, where units are steps of `base`.
function linearScale(values, base) {
    const largest = Math.max(...values, 1);
    const unit = base === undefined ? 1 : base ** Math.floor(Math.log(largest) / Math.log(base));
    const power = unit * 10 ** Math.floor(Math.log10(largest / unit));
    const steps = [1, 2, 5, 10].map((step) => step * power);
    const step = steps.find((step) => step >= largest * 0.999);
    // A thousand of a unit would be written in the next one, and as no round number.
    const top = base !== undefined && step >= 1000 * unit ? base * unit : step;
    return { ticks: [0, top / 2, top], place: (value) => value / top };
}

// Whole powers of ten around the values, at least two of them.
function logScale(values) {
    const positive = values.filter((value) => value > 0);
    const least = positive.length === 0 ? 1e-4 : Math.min(...positive);
    const most = positive.length === 0 ? 1e-2 : Math.max(...positive);
    const low = Math.floor(Math.log10(least) + 1e-9);
    const high = Math.max(Math.ceil(Math.log10(most) - 1e-9), low + 2);
    const ticks = Array.from({ length: high - low + 1 }, (_, step) => 10 ** (low + step));
    const place = (value) => {
        return value > 0 ? Math.max((Math.log10(value) - low) / (high - low), 0) : 0;
    };
    return { ticks: ticks.length > 4 ? ticks.filter((_, at) => at % 2 === 0) : ticks, place };
}

function timeMarks({ ticks }, width) {
    const right = width - CHART_RIGHT;
    const places = [[CHART_LEFT, "start"], [(CHART_LEFT + right) / 2, "middle"], [right, "end"]];
    return places.map(([x, anchor], at) => {
        return svgElement("text", { x, y: CHART_HEIGHT - 4, class: anchor }, ticks[at]);
    });
}

class Chart {
    #figure;
    #svg;
    #options;
    #legend = [];
    #note;
    #points = [];
    #pointed = null;

    // options: title, series of {name, value(figures), text?(figures)}, format, isLog, base.
    constructor(figure, options) {
        this.#figure = figure;
        this.#options = options;
        const caption = figure.appendChild(document.createElement("figcaption"));
        const title = caption.appendChild(document.createElement("h3"));
        title.textContent = options.title;
        this.#note = title.appendChild(document.createElement("small"));
        const legend = caption.appendChild(document.createElement("p"));
        for (const [index, { name }] of options.series.entries()) {
            const entry = legend.appendChild(document.createElement("span"));
            entry.className = `key key-${index + 1}`;
            entry.append(`${name} `);
            this.#legend.push(entry.appendChild(document.createElement("b")));
        }
        this.#svg = figure.appendChild(svgElement("svg", { role: "img" }));
        this.#svg.addEventListener("pointermove", (event) => {
            this.#pointed = event.clientX - this.#svg.getBoundingClientRect().left;
            this.#draw();
        });
        this.#svg.addEventListener("pointerleave", () => {
            this.#pointed = null;
            this.#draw();
        });
        new ResizeObserver(() => this.#draw()).observe(figure);
    }

    show(timeline) {
        this.#points = timeline;
        this.#draw();
    }

    #draw() {
        const last = this.#points.at(-1);
        const width = this.#figure.clientWidth;
        if (last === undefined || width === 0) {
            return;
        }
        const bottom = CHART_HEIGHT - CHART_BOTTOM;
        const span = width - CHART_LEFT - CHART_RIGHT;
        const end = last.at;
        const seen = end - this.#points[0].at;
        const shown = CHART_SPANS.find(({ milliseconds }) => milliseconds >= seen);
        const x = (at) => CHART_LEFT + span * (1 - (end - at) / shown.milliseconds);
        const { series, isLog, base } = this.#options;
        const lines = series.map(({ value }) => {
            return this.#points.map(({ at, figures }) => ({ at, value: value(figures) }));
        });
        const values = lines.flat().map(({ value }) => value).filter((value) => value !== null);
        const scale = isLog ? logScale(values) : linearScale(values, base);
        const y = (value) => bottom - (bottom - CHART_TOP) * scale.place(value);

        const marks = [...this.#grid(scale, y, width), ...timeMarks(shown, width)];
        this.#svg.replaceChildren(...marks);
        this.#svg.setAttribute("viewBox", `0 0 ${width} ${CHART_HEIGHT}`);
        for (const [index, points] of lines.entries()) {
            const line = { class: `line line-${index + 1}`, d: linePath(points, x, y) };
            this.#svg.append(svgElement("path", line));
        }
        this.#tell(x);
    }

    #grid(scale, y, width) {
        const { format } = this.#options;
        return scale.ticks.flatMap((tick) => {
            const [height, right] = [y(tick), width - CHART_RIGHT];
            const line = { class: "grid", d: `M${CHART_LEFT} ${height}H${right}` };
            const label = { x: CHART_LEFT - 6, y: height + 3.5, class: "y" };
            const text = format(tick).replace(/\.0+(?!\d)/, "");
            return [svgElement("path", line), svgElement("text", label, text)];
        });
    }

    // The legend: the values at the pointer, else the last ones.
    #tell(x) {
        const { title, series, format } = this.#options;
        let index = this.#points.length - 1;
        this.#note.textContent = "";
        if (this.#pointed !== null) {
            const distance = ({ at }) => Math.abs(x(at) - this.#pointed);
            const distances = this.#points.map(distance);
            index = distances.indexOf(Math.min(...distances));
            const { at } = this.#points[index];
            this.#note.textContent = ` at ${clock(at)}`;
            const bottom = CHART_HEIGHT - CHART_BOTTOM;
            const line = { class: "pointer", d: `M${x(at)} ${CHART_TOP}V${bottom}` };
            this.#svg.append(svgElement("path", line));
        }
        const { figures } = this.#points[index];
        const told = series.map(({ value, text }) => text?.(figures) ?? format(value(figures)));
        for (const [at, text] of told.entries()) {
            this.#legend[at].textContent = text;
        }
        const words = series.map(({ name }, at) => `${name} ${told[at]}`);
        this.#svg.setAttribute("aria-label", `${title}, last 5 minutes: ${words.join(", ")}`);
    }
}
