"""The page that `picture` photographs: panels as HTML in the dashboard's grid, charts as SVG."""

import html
import math
import struct
import time
import zlib

from units import moments, rounded, ticks, written

MARGIN = 16
CELL = 30
GAP = 6
WIDTH = 1320
COLUMNS = 24
HEADER = 92
TITLE = 26
LEGEND = 16
MAX_LEGEND_LINES = 3
MAX_MARKS = 3

COLORS = {
    "green": "#5fb878", "orange": "#e8a13c", "red": "#e5565b", "blue": "#5b9bd5", "text": "#d9dde4",
}
PALETTE = [
    "#5fb878", "#e3bf4a", "#5b9bd5", "#e58a4b", "#b07cc6", "#4fb7b3", "#e5565b", "#a3b04d",
    "#d67ba8", "#8795e6", "#b08968", "#7f8c99",
]
STYLE = f"""
body {{ margin: 0; background: #121419; color: #d9dde4; width: {WIDTH}px;
  font: 12px/1.3 "DejaVu Sans Condensed", "DejaVu Sans", sans-serif; }}
.at {{ position: absolute; box-sizing: border-box; }}
.panel {{ background: #1a1d23; border: 1px solid #2a2e37; border-radius: 3px; overflow: hidden; }}
.panel h3 {{ margin: 0; padding: 6px 9px 0; font-size: 12.5px; font-weight: bold;
  white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }}
.row {{ font-size: 15px; font-weight: bold; padding: 7px 2px 0; }}
h1 {{ margin: 0; font-size: 22px; }}
.note {{ color: #98a0ad; }}
.legend {{ position: absolute; left: 9px; right: 9px; bottom: 4px; overflow: hidden;
  color: #b9c0cb; font-size: 11px; line-height: {LEGEND}px; }}
.legend i {{ display: inline-block; width: 12px; height: 3px; margin: 0 5px 3px 0; }}
.legend span {{ margin-right: 12px; white-space: nowrap; display: inline-block; }}
table {{ border-collapse: collapse; font-size: 11px; color: #b9c0cb; width: 100%; }}
td, th {{ padding: 1px 3px; text-align: right; font-weight: normal; white-space: nowrap; }}
th {{ color: #98a0ad; }}
td:first-child {{ text-align: left; max-width: 106px; overflow: hidden; text-overflow: ellipsis; }}
td i {{ display: inline-block; width: 10px; height: 3px; margin: 0 4px 3px 0; }}
.nothing {{ color: #98a0ad; text-align: center; }}
.stat {{ position: absolute; left: 10px; right: 10px; display: flex; align-items: center;
  justify-content: space-between; white-space: nowrap; }}
.stat b {{ font-weight: normal; font-variant-numeric: tabular-nums; }}
.stat span {{ color: #b9c0cb; }}
text {{ fill: #98a0ad; font-size: 10.5px; }}
"""


def color(name):
    return COLORS.get(name, name)


def step_of(color_steps, value):
    """The colour of the last threshold that the value has reached."""
    found = color_steps[0]["color"]
    for one in color_steps[1:]:
        if value is not None and value >= one["value"]:
            found = one["color"]
    return color(found)


# ---- charts ----


class Plane:
    """Where values and times stand in a chart."""

    def __init__(self, width, height, span, bounds, logarithmic):
        self.left, self.right, self.top, self.bottom = 58, width - 10, 8, height - 18
        self.span, self.bounds, self.logarithmic = span, bounds, logarithmic

    def x(self, at):
        begin, end = self.span
        return self.left + (at - begin) / (end - begin) * (self.right - self.left)

    def y(self, value):
        low, high = self.bounds
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low))
        share = (value - low) / (high - low)
        return self.bottom - min(max(share, 0), 1) * (self.bottom - self.top)

    def frame(self, marks, unit):
        parts = []
        for value in marks:
            y = self.y(value)
            parts.append(f'<path d="M{self.left} {y:.1f}H{self.right}" stroke="#2a2e37"/>')
            parts.append(f'<text x="{self.left - 6}" y="{y + 3.5:.1f}" text-anchor="end">'
                         f"{html.escape(written(value, unit))}</text>")
        for at, name in moments(*self.span, self.right - self.left):
            x = self.x(at)
            parts.append(f'<path d="M{x:.1f} {self.top}V{self.bottom}" stroke="#23272f"/>')
            if self.left + 14 < x < self.right - 12:
                parts.append(f'<text x="{x:.1f}" y="{self.bottom + 14}" text-anchor="middle">'
                             f"{name}</text>")
        return parts


def path(plane, series):
    """Line segments; a gap begins a new one, and a lone point is a dot."""
    parts, gap = [], True
    for at, value in zip(series.times, series.values):
        if value is None or (plane.logarithmic and value <= 0):
            gap = True
            continue
        parts.append(f"{'M' if gap else 'L'}{plane.x(at):.1f} {plane.y(value):.1f}")
        if gap:
            parts.append("h0.1")
        gap = False
    return "".join(parts)


def area(plane, series):
    parts, run = [], []
    for at, value in [*zip(series.times, series.values), (None, None)]:
        if value is not None and not (plane.logarithmic and value <= 0):
            run.append((plane.x(at), plane.y(value)))
            continue
        if len(run) > 1:
            line = "L".join(f"{x:.1f} {y:.1f}" for x, y in run)
            parts.append(f"M{run[0][0]:.1f} {plane.bottom}L{line}L{run[-1][0]:.1f} {plane.bottom}Z")
        run = []
    return "".join(parts)


def bars(plane, stack):
    """Stacked bars, one a step."""
    parts, floors = [], {}
    for series, shade in stack:
        step = series.times[1] - series.times[0] if len(series.times) > 1 else 1
        width = max(1.0, plane.x(plane.span[0] + step) - plane.left)
        run = []
        for at, value in zip(series.times, series.values):
            if not value:
                continue
            floor = floors.get(at, 0)
            floors[at] = floor + value
            x, low, high = plane.x(at) - width / 2, plane.y(floor), plane.y(floor + value)
            run.append(f"M{max(x, plane.left):.1f} {low:.1f}V{high:.1f}h{width:.1f}V{low:.1f}Z")
        parts.append(f'<path d="{"".join(run)}" fill="{shade}" fill-opacity=".8"/>')
    return parts


def shades(found):
    """Each series with its colour: its own, or the palette's next."""
    shaded, count = [], 0
    for series in found:
        own = series.overrides.get("color")
        shaded.append((series, color(own["fixedColor"]) if own else PALETTE[count % len(PALETTE)]))
        count += own is None
    return shaded


def highest(found, stacked):
    values = [value for series in found for value in series.values if value is not None]
    if stacked and values:
        sums = {}
        for series in found:
            for at, value in zip(series.times, series.values):
                sums[at] = sums.get(at, 0) + (value or 0)
        values = list(sums.values())
    return max(values, default=0)


def axis(found, panel, stacked, logarithmic):
    """The bounds of the values, and where lines stand."""
    defaults = panel["fieldConfig"]["defaults"]
    unit = defaults["unit"]
    top = defaults.get("max", highest(found, stacked))
    if not logarithmic:
        marks = ticks(top or 1, unit)
        return (0, defaults.get("max", marks[-1])), marks
    values = [v for series in found for v in series.values if v is not None and v > 0]
    # Bytes go in steps of 16, as powers of 2 do that are easy to read.
    base = 16.0 if logarithmic == 2 else 10.0
    low = math.floor(math.log(min(values, default=0.1), base) + 1e-9)
    high = max(math.ceil(math.log(max(values, default=1), base) - 1e-9), low + 1)
    return (base**low, base**high), [base**power for power in range(low, high + 1)]


def limits(plane, panel):
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]
    for one in steps:
        if plane.bounds[0] < one["value"] <= plane.bounds[1] and one["value"] >= 1e-6:
            y = plane.y(one["value"])
            yield (f'<path d="M{plane.left} {y:.1f}H{plane.right}" stroke-dasharray="7 5" '
                   f'stroke="{color(one["color"])}" stroke-opacity=".9"/>')


def timeseries(panel, found, span, notes, width, height):
    custom = panel["fieldConfig"]["defaults"]["custom"]
    stacked = custom["stacking"]["mode"] == "normal"
    logarithmic = custom["scaleDistribution"].get("log")
    bounds, marks = axis(found, panel, stacked, logarithmic)
    plane = Plane(width, height, span, bounds, logarithmic)
    parts = plane.frame(marks, panel["fieldConfig"]["defaults"]["unit"])
    for at, _, shade, _ in notes:
        parts.append(f'<path d="M{plane.x(at):.1f} {plane.top}V{plane.bottom}" '
                     f'stroke-dasharray="4 4" stroke="{shade}" stroke-opacity=".6"/>')
    shaded = shades(found)
    if stacked:
        parts += bars(plane, shaded)
    for series, shade in [] if stacked else shaded:
        dash = ' stroke-dasharray="8 6"' if "custom.lineStyle" in series.overrides else ""
        if not dash and custom["fillOpacity"]:
            parts.append(f'<path d="{area(plane, series)}" fill="{shade}" fill-opacity=".08"/>')
        parts.append(f'<path d="{path(plane, series)}" fill="none" stroke="{shade}" '
                     f'stroke-width="1.4" stroke-linejoin="round" stroke-linecap="round"{dash}/>')
    if custom["thresholdsStyle"]["mode"] != "off":
        parts += limits(plane, panel)
    return f'<svg width="{width}" height="{height}">{"".join(parts)}</svg>', shaded


def legend_lines(found, width):
    """How many lines the names need, as far as their length tells."""
    needed = sum(30 + 5.9 * len(series.name) for series in found)
    return min(math.ceil(needed / (width - 18)), MAX_LEGEND_LINES)


def list_legend(shaded, lines):
    items = [f'<span><i style="background:{shade}"></i>{html.escape(series.name)}</span>'
             for series, shade in shaded]
    return f'<div class="legend" style="height:{lines * LEGEND}px">{"".join(items)}</div>'


def table_legend(shaded, unit, width, height, calculations):
    names = {"lastNotNull": "last", "max": "max"}
    rows = []
    # What was highest stands first: the table may be cut.
    for series, shade in sorted(shaded, key=lambda pair: -highest([pair[0]], False)):
        cells = {"lastNotNull": series.last(), "max": highest([series], False)}
        values = "".join(f"<td>{html.escape(written(cells[c], unit))}</td>" for c in calculations)
        rows.append(f'<tr><td><i style="background:{shade}"></i>{html.escape(series.name)}</td>'
                    f"{values}</tr>")
    head = "".join(f"<th>{names[c]}</th>" for c in calculations)
    return (f'<div class="at" style="right:6px;top:{TITLE}px;width:{width - 10}px;'
            f'height:{height}px;overflow:hidden"><table><tr><td></td>{head}</tr>'
            f'{"".join(rows)}</table></div>')


def spark(series, span, width, height, shade):
    top = highest([series], False)
    plane = Plane(width, height, span, (0, top or 1), False)
    plane.left, plane.right, plane.top, plane.bottom = 0, width, 2, height
    return (f'<svg class="at" style="left:0;top:0" width="{width}" height="{height}">'
            f'<path d="{area(plane, series)}" fill="{shade}" fill-opacity=".13"/>'
            f'<path d="{path(plane, series)}" fill="none" stroke="{shade}" '
            f'stroke-opacity=".4"/></svg>')


def stat(panel, found, span, width, height):
    defaults, options = panel["fieldConfig"]["defaults"], panel["options"]
    if not found:
        return nothing(panel, height)
    parts, each = [], (height - 6) / len(found)
    for number, series in enumerate(found):
        value = series.last()
        unit = series.overrides.get("unit", defaults["unit"])
        steps = series.overrides.get("thresholds", defaults["thresholds"])["steps"]
        shade, text = step_of(steps, value), written(value, unit)
        for mapping in defaults.get("mappings", []):
            said = mapping["options"].get(rounded(value)) if value is not None else None
            if said:
                shade, text = color(said["color"]), said["text"]
        name = f"<span>{html.escape(series.name)}</span>" if len(found) > 1 else ""
        if options["textMode"] == "name":
            name, text = "", series.name
        graph = ""
        if options["graphMode"] == "area":
            graph = spark(series, span, width, each - 4, shade)
        room = width - 26 - (5.9 * len(series.name) if name else 0)
        size = min(26, each * 0.5, room / max(len(text), 1) * 1.75)
        justify = "space-between" if name else "center"
        parts.append(
            f'<div class="at" style="left:0;top:{TITLE + number * each:.1f}px;width:{width}px;'
            f'height:{each - 4:.1f}px">{graph}<div class="stat" style="top:0;bottom:0;'
            f'justify-content:{justify}">{name}<b style="color:{shade};font-size:{size:.1f}px">'
            f"{html.escape(text)}</b></div></div>")
    return "".join(parts)


def bar_gauge(panel, found, width, height):
    if not found:
        return nothing(panel, height)
    defaults = panel["fieldConfig"]["defaults"]
    top = max(highest(found, False), defaults.get("max", 0)) or 1
    each, parts = min((height - 8) / len(found), 38), []
    for number, series in enumerate(found):
        value = series.last() or 0
        steps = series.overrides.get("thresholds", defaults["thresholds"])["steps"]
        shade = step_of(steps, value)
        said = written(value, defaults["unit"], defaults.get("decimals"))
        y = TITLE + 4 + number * each
        long = (width - 20) * value / top
        # The bar lies behind its words, so that many fit.
        parts.append(
            f'<div class="at" style="left:10px;top:{y:.1f}px;width:{width - 20}px">'
            f'<div class="at" style="top:0;left:0;height:{each - 3:.1f}px;'
            f'width:{width - 20}px;background:#23272f"></div>'
            f'<div class="at" style="top:0;left:0;height:{each - 3:.1f}px;'
            f'width:{max(long, 2):.1f}px;background:{shade};opacity:.45"></div>'
            f'<div class="stat" style="left:6px;right:6px;height:{each - 3:.1f}px">'
            f'<span>{html.escape(series.name)}</span>'
            f'<b style="color:{shade}">{html.escape(said)}</b></div></div>')
    return "".join(parts)


def heat_map(panel, found, span, width, height):
    """Counts of cumulative buckets, one column a step, darker where there are more."""
    unit = panel["options"]["yAxis"]["unit"]
    found = [series for series in found if "le" in series.labels]
    found.sort(key=lambda series: float(series.labels["le"]))
    counts = []
    for index, series in enumerate(found):
        below = found[index - 1].values if index else [0] * len(series.values)
        counts.append([max((v or 0) - (b or 0), 0) for v, b in zip(series.values, below)])
    used = [index for index, row in enumerate(counts) if any(row)]
    if not used:
        return nothing(panel, height)
    low, high = max(used[0] - 1, 0), min(used[-1] + 1, len(found) - 1)
    plane = Plane(width, height, span, (0, high - low + 1), False)
    parts, top = plane.frame([], unit), max(max(row) for row in counts)
    step = found[0].times[1] - found[0].times[0]
    wide = plane.x(span[0] + step) - plane.left + 0.3
    for index in range(low, high + 1):
        y, tall = plane.y(index - low + 1), plane.y(0) - plane.y(1)
        for at, count in zip(found[index].times, counts[index]):
            if count <= 1e-9:
                continue
            share = math.sqrt(count / top)
            x = max(plane.x(at) - wide, plane.left)
            parts.append(f'<path d="M{x:.1f} {y:.1f}h{wide:.1f}v{tall - 1:.1f}h-{wide:.1f}Z" '
                         f'fill="hsl({46 - 34 * share:.0f} 85% {22 + 40 * share:.0f}%)"/>')
        if (index - low) % 2 == 0:
            bound = float(found[index].labels["le"])
            name = "more" if math.isinf(bound) else written(bound, unit)
            parts.append(f'<text x="{plane.left - 6}" y="{y + 4:.1f}" text-anchor="end">'
                         f"{html.escape(name)}</text>")
    return f'<svg width="{width}" height="{height}">{"".join(parts)}</svg>'


def nothing(panel, height):
    text = html.escape(panel["fieldConfig"]["defaults"].get("noValue", "no data"))
    return f'<div class="nothing" style="padding-top:{max(height / 2 - 16, 0):.0f}px">{text}</div>'


# ---- the page ----


class Page:
    """Panels are added one by one; the page is as high as they need."""

    def __init__(self, dashboard, note, span, notes):
        self.dashboard, self.note, self.span, self.notes = dashboard, note, span, notes
        # Where the first panel stands: rows before it may have been left out.
        self.first = None
        self.parts = []
        self.width, self.height = WIDTH, HEADER

    def box(self, place):
        wide = (WIDTH - 2 * MARGIN + GAP) / COLUMNS
        left = MARGIN + place["x"] * wide
        self.first = place["y"] if self.first is None else self.first
        top = HEADER + (place["y"] - self.first) * (CELL + GAP)
        width, height = place["w"] * wide - GAP, place["h"] * (CELL + GAP) - GAP
        self.height = max(self.height, math.ceil(top + height) + MARGIN)
        return left, top, round(width), round(height)

    def add(self, panel, found):
        left, top, width, height = self.box(panel["gridPos"])
        place = f"left:{left:.1f}px;top:{top:.1f}px;width:{width}px;height:{height}px"
        title = html.escape(panel["title"])
        if panel["type"] == "row":
            self.parts.append(f'<div class="at row" style="{place}">{title}</div>')
            return
        inside = self.content(panel, found, width - 2, height - TITLE - 2)
        self.parts.append(f'<div class="at panel" style="{place}"><h3>{title}</h3>{inside}</div>')

    def content(self, panel, found, width, height):
        kind = panel["type"]
        if kind == "stat":
            return stat(panel, found, self.span, width, height)
        if kind == "bargauge":
            return bar_gauge(panel, found, width, height)
        if kind == "heatmap":
            return heat_map(panel, found, self.span, width, height)
        if not found:
            return nothing(panel, height)
        legend = panel["options"]["legend"]
        unit = panel["fieldConfig"]["defaults"]["unit"]
        if legend["displayMode"] == "table":
            beside = min(240, width * 0.42)
            chart, shaded = timeseries(
                panel, found, self.span, self.notes, round(width - beside), height - 4)
            return chart + table_legend(shaded, unit, beside, height - 4, legend["calcs"])
        lines = legend_lines(found, width)
        height -= lines * LEGEND + 6
        chart, shaded = timeseries(panel, found, self.span, self.notes, width, height)
        return chart + list_legend(shaded, lines)

    def marks(self, name):
        """An annotation's marks by what they say, as many as there is room for."""
        said = [f"{text} {time.strftime('%H:%M:%S', time.gmtime(at))}"
                for at, of, _, text in self.notes if of == name]
        more = [f"and {len(said) - MAX_MARKS} more"] if len(said) > MAX_MARKS else []
        return f"{name}: {', '.join(said[:MAX_MARKS] + more) or 'none'}"

    def header(self):
        names = [v["label"] for v in self.dashboard["templating"]["list"]]
        begin, end = (time.strftime("%Y-%m-%d %H:%M", time.gmtime(at)) for at in self.span)
        variables = " · ".join(f"{name}: All" for name in names if name != "Data source")
        notes = "".join(
            f'<span style="color:{note["iconColor"]}">┆</span> '
            f'<span style="margin-right:16px">{html.escape(self.marks(note["name"]))}</span>'
            for note in self.dashboard["annotations"]["list"] if "expr" in note
        )
        title = html.escape(self.dashboard["title"])
        return (f'<div class="at" style="left:{MARGIN}px;right:{MARGIN}px;top:14px;width:auto">'
                f'<h1>{title}</h1><div class="note" style="margin-top:4px">{variables}</div>'
                f'<div class="note" style="margin-top:3px">{notes}</div></div>'
                f'<div class="at note" style="right:{MARGIN}px;top:18px;text-align:right">'
                f"{begin} to {end[-5:]} UTC<br><br>{html.escape(self.note)}</div>")

    def html(self):
        return (f'<!doctype html><html><head><meta charset="utf-8"><style>{STYLE}</style></head>'
                f"<body>{self.header()}{''.join(self.parts)}</body></html>")


def shrink(picture):
    """The same PNG, packed as tightly as zlib can: Chromium packs for speed."""
    signature, rest, chunks, pixels = picture[:8], picture[8:], [], b""
    while rest:
        length, kind = struct.unpack(">I4s", rest[:8])
        if kind == b"IDAT":
            pixels += rest[8 : 8 + length]
        else:
            chunks.append((kind, rest[8 : 8 + length]))
        rest = rest[12 + length :]
    end = chunks.pop()
    packed = zlib.compress(zlib.decompress(pixels), 9)
    chunks += [(b"IDAT", packed), end]
    return signature + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
