"""Line charts as SVG text, small enough that no plotting library is needed: panels in a grid, both axes logarithmic."""

import html
import math
import pathlib

PANEL_WIDTH, PANEL_HEIGHT = 330, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 26, 40
COLUMNS = 4
COLOURS = ["#c0392b", "#2471a3", "#7d8c93", "#1e8449", "#af7ac5"]


def write_grid(path: pathlib.Path, title: str, panels: list, x_label: str, y_label: str):
    """Each panel is (title, {series: [(x, y), …]}); all panels share the y axis' range, so that they can be compared."""
    series = list(dict.fromkeys(name for _, lines in panels for name in lines))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(series)}
    values = [y for _, lines in panels for points in lines.values() for _, y in points if y > 0]
    low, high = _decades(values)
    columns = min(COLUMNS, max(1, len(panels)))
    rows = -(-len(panels) // columns)
    width, height = columns * PANEL_WIDTH + 20, rows * PANEL_HEIGHT + 70
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        _text(10, 22, title, size=15),
    ]
    for index, name in enumerate(series):
        x = 10 + 130 * index
        out.append(f'<line x1="{x}" y1="40" x2="{x + 22}" y2="40" stroke="{colours[name]}" stroke-width="2"/>')
        out.append(_text(x + 28, 44, name))
    out.append(_text(width - 10, 44, f"{x_label} → {y_label}", anchor="end"))
    for index, (name, lines) in enumerate(panels):
        x, y = 10 + index % columns * PANEL_WIDTH, 60 + index // columns * PANEL_HEIGHT
        out.append(f'<g transform="translate({x} {y})">{_panel(name, lines, colours, low, high, x_label)}</g>')
    out.append("</svg>")
    path.write_text("\n".join(out) + "\n")


def _panel(title, lines, colours, low, high, x_label) -> str:
    xs = [x for points in lines.values() for x, _ in points if x > 0]
    first, last = _decades(xs)
    inner_width, inner_height = PANEL_WIDTH - LEFT - RIGHT, PANEL_HEIGHT - TOP - BOTTOM

    def at(x, y):
        across = LEFT + (math.log10(x) - first) / (last - first) * inner_width
        return across, TOP + (high - math.log10(y)) / (high - low) * inner_height

    out = [_text(LEFT, TOP - 9, title, size=12)]
    for decade in range(first, last + 1):
        x, _ = at(10**decade, 10**low)
        out.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{TOP + inner_height}" stroke="#e5e7e9"/>')
        out.append(_text(x, TOP + inner_height + 14, f"1e{decade}", anchor="middle"))
    for decade in range(low, high + 1):
        _, y = at(10**first, 10**decade)
        out.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + inner_width}" y2="{y:.1f}" stroke="#e5e7e9"/>')
        out.append(_text(LEFT - 5, y + 4, f"{10.0**decade:g}", anchor="end"))
    out.append(_text(LEFT + inner_width / 2, TOP + inner_height + 30, x_label, anchor="middle"))
    for name, points in lines.items():
        places = [at(x, y) for x, y in points if x > 0 and y > 0]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colours[name]}" stroke-width="1.8"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{colours[name]}"/>' for x, y in places]
    return "\n".join(out)


def _decades(values):
    """The whole decades that hold all values, at least one."""
    if not values:
        return 0, 1
    low = math.floor(math.log10(min(values)) + 1e-9)
    return low, max(low + 1, math.ceil(math.log10(max(values)) - 1e-9))


def _text(x, y, text, size=11, anchor="start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{html.escape(text)}</text>'
