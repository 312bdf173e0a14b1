"""Plots as SVG text: axes with ticks, lines, bands, points and bars; every text in them is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

__all__ = ["COLOURS", "STYLE", "Plot", "bars", "standalone", "ticks"]

COLOURS = 8
"""Number of colours; series beyond them begin again, with other dashes."""
STYLE = """svg.plot { font: 12px system-ui, sans-serif; color: var(--text, #222); }
svg.plot text { fill: currentColor; } svg.plot .grid { stroke: #8884; } svg.plot .axis { stroke: currentColor; }
svg.plot .line, svg.plot .c { fill: none; stroke-width: 1.6; } svg.plot .thin { stroke-width: 1; opacity: .45; }
svg.plot .band { stroke: none; opacity: .2; } svg.plot .dot { stroke-width: 5; stroke-linecap: round; opacity: .75; }
svg.plot .cross { stroke-width: 1.4; }
.c0 { stroke: #0072b2; } .c1 { stroke: #d55e00; } .c2 { stroke: #009e73; } .c3 { stroke: #cc79a7; }
.c4 { stroke: #9a6a00; } .c5 { stroke: #56b4e9; } .c6 { stroke: #7b3fb5; } .c7 { stroke: #8a8a8a; }
.f0 { fill: #0072b2; } .f1 { fill: #d55e00; } .f2 { fill: #009e73; } .f3 { fill: #cc79a7; }
.f4 { fill: #9a6a00; } .f5 { fill: #56b4e9; } .f6 { fill: #7b3fb5; } .f7 { fill: #8a8a8a; }
.d1 { stroke-dasharray: 6 3; } .d2 { stroke-dasharray: 2 3; }
"""
_LARGEST = 1e100  # beyond it nothing is drawn
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 42


def standalone(svg: str) -> str:
    """Return a plot as a file of its own, with its colours in it."""
    head, mark, rest = svg.partition(">")
    return f"{head}{mark}<style>{STYLE}</style>{rest}"


def ticks(low: float, high: float, logarithmic: bool = False, count: int = 5) -> list[float]:
    """Return round numbers between two: steps of 1, 2 or 5, or powers of ten."""
    if logarithmic:
        first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
        every = max(1, math.ceil((last - first) / 8))
        powers = [10.0**power for power in range(first, last + 1, every)]
        inside = [value for value in powers if low * 0.999 <= value <= high * 1.001]
        if len(inside) < 3:
            fine = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
            inside = [value for value in fine if low * 0.999 <= value <= high * 1.001]
        return inside if len(inside) > 1 else ticks(low, high, count=count)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass
class Plot:
    """A plot that grows by its methods and is drawn by `render`.

    Attributes
    ----------
    title : str
        Says to a screen reader what is seen.
    x, y : str
        Labels of the axes, with units.
    log_y : bool
        A logarithmic axis; what is not positive is left out.
    x_names : dict of float to str
        Ticks of the x axis, where these are names.
    notes : list of (x, y, text)
        Words beside points; with them the y axis has no ticks of its own where ``bare`` says so.
    square : bool
        Both axes have the same range.
    remark : str
        Said in the caption: what is not seen.
    """

    title: str
    x: str
    y: str
    width: int = 520
    height: int = 340
    log_y: bool = False
    square: bool = False
    remark: str = ""
    bare: bool = False
    xs: list[float] = field(default_factory=list)
    ys: list[float] = field(default_factory=list)
    _marks: list[tuple[str, list[tuple[float, float]], int, str]] = field(default_factory=list)
    x_names: dict[float, str] = field(default_factory=dict)
    notes: list[tuple[float, float, str]] = field(default_factory=list)

    def line(self, points: Iterable[tuple[float, float]], colour: int, label: str = "", kind: str = "line") -> None:
        """Add a line; ``kind`` is ``line`` or ``thin``."""
        self._add(kind, points, colour, label)

    def dots(self, points: Iterable[tuple[float, float]], colour: int, label: str = "", kind: str = "dot") -> None:
        """Add points; ``kind`` is ``dot`` or ``cross``."""
        self._add(kind, points, colour, label)

    def band(self, band: Iterable[tuple[float, float, float]], colour: int) -> None:
        """Fill between a lower and an upper line: x, low, high."""
        points = list(band)
        self._add(
            "band", [(x, low) for x, low, _ in points] + [(x, high) for x, _, high in reversed(points)], colour, ""
        )

    def diagonal(self) -> None:
        """Draw y = x."""
        self._marks.append(("diagonal", [], 0, ""))

    def level(self, y: float) -> None:
        """Draw a horizontal line."""
        if _drawable(y, self.log_y):
            self._marks.append(("level", [(0, y)], 0, ""))
            self.ys.append(y)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to see."""
        return not self.xs

    def render(self) -> Markup:
        """Return the plot as an ``<svg>`` element."""
        x_range, y_range = _range(self.xs), _range(self.ys, self.log_y)
        if self.square and not self.log_y:
            x_range = y_range = min(x_range[0], y_range[0]), max(x_range[1], y_range[1])
        parts = [
            Markup(
                '<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {w} {h}" width="{w}" height="{h}" '
                'role="img" aria-label="{title}"><title>{title}</title>'
            ).format(w=self.width, h=self.height, title=self.title[:300])
        ]
        right, bottom = self.width - _RIGHT, self.height - _BOTTOM

        def across(value: float) -> float:
            return _LEFT + (right - _LEFT) * _place(value, x_range)

        def up(value: float) -> float:
            return bottom - (bottom - _TOP) * _place(value, y_range, self.log_y)

        named = sorted(self.x_names.items())
        for value, text in named or [(one, f"{one:.4g}") for one in ticks(*x_range)]:
            at = across(value)
            parts.append(Markup('<path class="grid" d="M{:.1f} {}V{}"/>').format(at, _TOP, bottom))
            parts.append(_text(at, bottom + 16, _short(text, 14), "middle"))
        for value in [] if self.bare else ticks(*y_range, self.log_y):
            at = up(value)
            parts.append(Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(_LEFT, at, right))
            parts.append(_text(_LEFT - 6, at + 4, f"{value:.4g}", "end"))
        axes = Markup('<path class="axis" fill="none" d="M{} {}V{}H{}"/>')
        parts.append(axes.format(_LEFT, _TOP, bottom, right))
        parts.append(_text((_LEFT + right) / 2, self.height - 8, _short(self.x, 60), "middle"))
        parts.append(
            Markup('<text transform="translate(13 {}) rotate(-90)" text-anchor="middle">{}</text>').format(
                f"{(_TOP + bottom) / 2:.0f}", _short(self.y, 44)
            )
        )
        for kind, points, colour, label in self._marks:
            if kind == "diagonal":
                low, high = max(x_range[0], y_range[0]), min(x_range[1], y_range[1])
                points = [(low, low), (high, high)] if high > low else []
            elif kind == "level":
                points = [(x_range[0], points[0][1]), (x_range[1], points[0][1])]
            placed = [(across(x), up(y)) for x, y in points]
            parts.append(_mark(kind, placed, colour, label))
        parts += [_text(across(x) + 4, up(y) + 4, _short(text, 18), "start") for x, y, text in self.notes]
        parts.append(Markup("</svg>"))
        return Markup("").join(parts)

    def _add(self, kind: str, points: Iterable[tuple[float, float]], colour: int, label: str) -> None:
        kept = [(float(x), float(y)) for x, y in points if _drawable(x) and _drawable(y, self.log_y)]
        if kept:
            self.xs += [x for x, _ in kept]
            self.ys += [y for _, y in kept]
            self._marks.append((kind, kept, colour, label))


def bars(title: str, shares: Sequence[tuple[str, float]]) -> Markup:
    """Return a horizontal bar for each name, from 0 to the largest."""
    height, width, left = 24, 520, 210
    most = max((share for _, share in shares), default=1.0) or 1.0
    parts = [
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {w} {h}" width="{w}" height="{h}" '
            'role="img" aria-label="{title}"><title>{title}</title>'
        ).format(w=width, h=height * max(len(shares), 1) + 6, title=title)
    ]
    for row, (name, share) in enumerate(shares):
        top = row * height
        long = max(share, 0.0) / most * (width - left - 60)
        parts.append(_text(left - 8, top + 17, _short(name, 32), "end"))
        bar = Markup('<rect class="f0" x="{}" y="{}" width="{:.1f}" height="{}"/>')
        parts.append(bar.format(left, top + 5, long, height - 8))
        parts.append(_text(left + long + 6, top + 17, f"{share:.3f}", "start"))
    return Markup("").join([*parts, Markup("</svg>")])


def _mark(kind: str, points: Sequence[tuple[float, float]], colour: int, label: str) -> Markup:
    title = Markup("<title>{}</title>").format(_short(label, 200)) if label else Markup("")
    names = {"stroke": f"c{colour % COLOURS}", "dash": f"d{colour // COLOURS % 3}", "title": title, "kind": kind}
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""
    if kind in ("diagonal", "level"):
        return Markup('<path class="axis d1" fill="none" d="{}"/>').format(path)
    if kind == "band":
        return Markup('<path class="band f{}" d="{}Z"/>').format(colour % COLOURS, path)
    if kind == "cross":
        path = "".join(f"M{x - 3.5:.1f} {y - 3.5:.1f}l7 7m-7 0l7-7" for x, y in points)
    elif kind == "dot":
        path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)  # with round ends
        names["dash"] = ""
    return Markup('<path class="{kind} {stroke} {dash}" fill="none" d="{path}">{title}</path>').format(
        path=path, **names
    )


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _drawable(value: float, logarithmic: bool = False) -> bool:
    return abs(value) < _LARGEST and (value > 1 / _LARGEST or not logarithmic)


def _range(values: Sequence[float], logarithmic: bool = False) -> tuple[float, float]:
    if not values:
        return (1.0, 10.0) if logarithmic else (0.0, 1.0)
    low, high = min(values), max(values)
    if logarithmic:
        room = (high / low) ** 0.04 if high > low else 2.0
        return low / room, high * room
    room = 0.04 * (high - low) if high > low else abs(low) * 0.1 or 1.0
    return low - room, high + room


def _place(value: float, limits: tuple[float, float], logarithmic: bool = False) -> float:
    low, high = limits
    if logarithmic:
        return (math.log10(value) - math.log10(low)) / (math.log10(high) - math.log10(low))
    return (value - low) / (high - low)
