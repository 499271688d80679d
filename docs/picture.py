"""Draw picture.svg: one segment, many processes, and the wire coming in (`python docs/picture.py`)."""

from __future__ import annotations

from pathlib import Path

PICTURE = Path(__file__).with_name("picture.svg")
WIDTH, HEIGHT = 860, 400

# One picture for light pages and dark ones: an image knows the reader's scheme by this query alone.
STYLE = """
    text { font: 14px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
    .small { font-size: 12px; fill: #59636e; }
    .code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 12.5px; }
    .bold { font-weight: 600; }
    .box { fill: #f6f8fa; stroke: #8c959f; }
    .memory { fill: #ddf4ff; stroke: #0969da; stroke-width: 1.5; }
    .block { fill: #ffffff; stroke: #0969da; }
    .arrow { fill: none; stroke: #0969da; stroke-width: 1.8; }
    .handle { fill: none; stroke: #8c959f; stroke-width: 1.5; stroke-dasharray: 5 4; }
    .tip { fill: #0969da; }
    .graytip { fill: #8c959f; }
    @media (prefers-color-scheme: dark) {
        text { fill: #e6edf3; }
        .small { fill: #9198a1; }
        .box { fill: #212830; stroke: #656c76; }
        .memory { fill: #0c2d4d; stroke: #4493f8; }
        .block { fill: #0d1117; stroke: #4493f8; }
        .arrow { stroke: #4493f8; }
        .tip { fill: #4493f8; }
    }
"""


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> str:
    words = words.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" class="{kind}">{words}</text>'


def box(x: float, y: float, width: float, height: float, kind: str = "box") -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" class="{kind}"/>'


def arrow(path: str, kind: str = "arrow", ends: str = "end") -> str:
    tip = "tip" if kind == "arrow" else "graytip"
    markers = "".join(f' marker-{end}="url(#{tip})"' for end in ends.split())
    return f'<path d="{path}" class="{kind}"{markers}/>'


def tip(name: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" class="{name}"/></marker>'
    )


def processes() -> list[str]:
    """Who works on the segment: each maps the same pages."""
    parts = []
    named = [
        ("your notebook", "SDataFrame(df)"),
        ("a pool's worker", 'part["x"] += 1'),
        ("a pool's worker", 'part["x"] += 1'),
        ("unrelated process", 'attach("prices")'),
    ]
    for i, (who, does) in enumerate(named):
        x = 200 + 166 * i
        parts += [
            box(x, 14, 150, 64),
            text(x + 75, 38, who, "bold"),
            text(x + 75, 61, does, "code"),
            arrow(f"M{x + 75} 80V164", ends="start end"),
        ]
    for i in range(2):
        x = 275 + 166 * i
        parts.append(arrow(f"M{x + 12} 80C{x + 40} 118 {x + 126} 118 {x + 154} 82", "handle"))
    parts += [
        text(358, 128, "a handle of 127 bytes", "small"),
        text(762, 128, "the same pages,", "small", "end"),
        text(762, 144, "no copies", "small", "end"),
    ]
    return parts


def segment() -> list[str]:
    """The one file in shared memory."""
    parts = [
        box(200, 168, 648, 146, "memory"),
        text(216, 192, "one segment in /dev/shm", "bold", "start"),
        text(832, 192, "lives while anyone uses it; kill -9 leaves nothing", "small", "end"),
    ]
    blocks = [
        (130, "header", "robust mutex, who uses it"),
        (190, "float64", "x  y  z"),
        (120, "int64", "id  n"),
        (140, "strings", "name  city"),
    ]
    x = 216
    for width, name, inside in blocks:
        parts += [
            box(x, 208, width, 88, "block"),
            text(x + width / 2, 248, name),
            *(
                text(x + width / 2, 268 + 16 * i, line, "small")
                for i, line in enumerate(inside.split(", "))
            ),
        ]
        x += width + 12
    return parts


def sources() -> list[str]:
    """Where data comes from, and how it gets in."""
    return [
        box(12, 168, 128, 146),
        text(76, 192, "the wire", "bold"),
        *(
            text(76, 216 + 20 * i, name, "small")
            for i, name in enumerate(["TCP, TLS", "ZeroMQ", "TIPC", "unix sockets"])
        ),
        arrow("M142 240H196"),
        text(169, 230, "splice", "small"),
        text(169, 258, "recv", "small"),
        box(200, 340, 648, 46),
        text(216, 368, "stores", "bold", "start"),
        text(836, 368, "files, MooseFS, Redis, HDF5, Blosc2, Arrow, Parquet, CSV", "small", "end"),
        arrow("M420 338V318"),
        arrow("M620 318V338"),
        text(408, 332, "get", "code", "end"),
        text(632, 332, "put", "code", "start"),
    ]


def draw() -> str:
    title = "One segment: processes map the same pages and pass handles; sockets and stores fill it"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img">',
        f"<title>{title}</title>",
        f"<style>{STYLE}</style>",
        f"<defs>{tip('tip')}{tip('graytip')}</defs>",
        *processes(),
        *segment(),
        *sources(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw())
