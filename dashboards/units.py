"""How values and times are written, and where an axis has its marks."""

import math
import time

def rounded(value):
    """Three figures, without zeros that say nothing."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def scaled(value, names, base):
    power = 0
    while abs(value) >= base and power < len(names) - 1:
        value, power = value / base, power + 1
    return f"{rounded(value)} {names[power]}".rstrip()


def duration(value):
    if value == 0:
        return "0 s"
    for unit, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(value) >= unit * 0.9995:
            break
    if abs(value) < 100:
        return f"{rounded(value / unit)} {name}"
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if value >= unit:
            return f"{rounded(value / unit)} {name}"
    return f"{rounded(value)} s"


def long_duration(value):
    parts = []
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, value = divmod(value, unit)
        if count >= 1:
            parts.append(f"{count:.0f} {name}")
    return " ".join(parts[:2]) or "0 s"


SUFFIXES = {"cps": "c/s", "ops": "ops/s", "reqps": "req/s", "pps": "p/s"}


def written(value, unit, decimals=None):
    """As Grafana writes a value of that unit."""
    if value is None:
        return "–"
    if decimals is not None:
        value = round(value, decimals)
    if unit == "s":
        return duration(value)
    if unit == "dtdurations":
        return long_duration(value)
    if unit == "percentunit":
        return f"{rounded(value * 100)} %"
    if unit == "bytes":
        return scaled(value, ["B", "KiB", "MiB", "GiB", "TiB"], 1024)
    if unit == "Bps":
        return scaled(value, ["B/s", "kB/s", "MB/s", "GB/s"], 1000)
    short = scaled(value, ["", "K", "Mil", "Bil"], 1000)
    return f"{short} {SUFFIXES[unit]}" if unit in SUFFIXES else short


def ticks(top, unit):
    """Round steps from 0 to at least `top`, three to six of them."""
    rough = top / 4
    if unit == "bytes":
        step = 2.0 ** math.ceil(math.log2(rough))
    else:
        power = 10 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    if unit in ("short", "bytes"):
        step = max(step, 1.0)
    return [step * count for count in range(math.ceil(top / step * 0.999) + 1)]


def moments(begin, end, width):
    """Times of whole seconds, minutes or hours, for an axis of that width."""
    for step in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200):
        if (end - begin) / step <= width / 62:
            break
    first = math.ceil(begin / step) * step
    form = "%H:%M:%S" if step < 60 else "%H:%M"
    return [(at, time.strftime(form, time.gmtime(at))) for at in range(first, int(end) + 1, step)]
