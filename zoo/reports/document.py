"""Documents of headings, paragraphs, tables and figures, as Markdown and as one self-contained HTML page."""

import base64
import hashlib
import html
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zoo import files, folders, manifest
from zoo.errors import UserError

NOTE, SHEET = "note.txt", "figures.svg"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a;
  overflow-wrap: break-word; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; font-size: 0.875rem; }
td { font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { border-bottom: 1px solid #ccc; padding: 0.25rem 0.6rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #444; vertical-align: bottom; }
figure { margin: 1.5rem 0; } img { max-width: 100%; } figcaption, caption { color: #444; text-align: left; }
"""


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Table:
    """Cells as text; `name` is that of the CSV file."""

    name: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """A matplotlib figure; `name` is that of the PNG and SVG files, and its title in figures.svg."""

    name: str
    caption: str
    drawing: Any


def note(folder: Path, given: str | None) -> str:
    """The note at the top of a report: the given one, or that of note.txt in a folder."""
    path = folder / NOTE
    if given is not None or not path.exists():
        return given or ""
    try:
        return " ".join(path.read_text(encoding="utf-8").split())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read as text: {error}") from None


def write(out: Path, title: str, blocks: Sequence[Heading | Paragraph | Table | Figure]) -> None:
    """Writes report.md, report.html, a file for each table and figure, and figures.svg with all of them.

    Where two have the same name, the second one's ends with a number.

    Raises:
        UserError: if they can't be written; if one exists and isn't ours, before any is written.
    """
    blocks = list(_with_own_names(blocks))
    manifest.check(out / name for name in _names(blocks))
    pictures, drawings = {}, {}
    for block in blocks:
        if isinstance(block, Table):
            files.write_csv(out / f"{block.name}.csv", block.header, block.rows, manifest.claim)
        if isinstance(block, Figure):
            pictures[block.name], drawings[block.name] = _png(block.drawing), svg(block.drawing)
            files.write_bytes(out / f"{block.name}.png", pictures[block.name], manifest.claim)
            files.write_text(out / f"{block.name}.svg", drawings[block.name], manifest.claim)
    if drawings:
        files.write_text(out / SHEET, sheet(drawings), manifest.claim)
    end = [f"![{', '.join(drawings)}]({SHEET})"] if drawings else []
    text = "\n\n".join([f"# {title}", *map(markdown, blocks), *end]) + "\n"
    files.write_text(out / "report.md", text, manifest.claim)
    body = "\n".join([f"<h1>{html.escape(title)}</h1>", *(_html(block, pictures) for block in blocks)])
    files.write_text(
        out / "report.html",
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n",
        manifest.claim,
    )


def _with_own_names(
    blocks: Sequence[Heading | Paragraph | Table | Figure],
) -> Iterator[Heading | Paragraph | Table | Figure]:
    taken: set[tuple[type, str]] = set()
    for block in blocks:
        if isinstance(block, Table | Figure):
            names = itertools.chain([block.name], (f"{block.name}-{i}" for i in itertools.count(2)))
            block = replace(block, name=next(name for name in names if (type(block), name) not in taken))
            taken.add((type(block), block.name))
        yield block


def _names(blocks: Sequence[Heading | Paragraph | Table | Figure]) -> Iterator[str]:
    for block in blocks:
        if isinstance(block, Table):
            yield f"{block.name}.csv"
        if isinstance(block, Figure):
            yield from (f"{block.name}.png", f"{block.name}.svg")
    yield from (SHEET, "report.md", "report.html")


def folder(given: Path | None, source: Path) -> Path:
    """Creates the folder of a report: the given one, or `report` in that of its source.

    Raises:
        UserError: if it can't be created, or a link leads out of the source.
    """
    out = given or folders.check_inside(source / "report", source)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: can't create the folder: {error.strerror}") from None
    return out


def _png(drawing) -> bytes:
    content = io.BytesIO()
    drawing.savefig(content, format="png", dpi=150)
    return content.getvalue()


def svg(drawing) -> str:
    """A matplotlib figure as SVG: coordinates to a tenth of a point, so that backends agree; without date, so that the
    same figure gives the same bytes.
    """
    from matplotlib import rc_context

    content = io.StringIO()
    with rc_context({"svg.hashsalt": "keras_adaptact", "svg.fonttype": "none"}):  # the same IDs; text as text
        drawing.savefig(content, format="svg", metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>|^ +", "", content.getvalue(), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"font-family: ('[^']+'), [^;]*sans-serif", r"font-family: \1, sans-serif", text)
    text = re.sub(r' transform="rotate\(-?0 [^"]*\)"|(?<=<g) id="[\w.]+_\d+"', "", text)  # turns by nothing, and names
    placed = r' (?:(?:d|x|y|width|height)="[^"]*"|transform="(?:rotate|translate)\([^)]*\)")'
    return _with_classes(re.sub(placed, lambda found: _rounded(found[0]), text))


def _with_classes(drawing: str) -> str:
    """A drawing that begins with a style sheet, as matplotlib writes it, with styles that recur as classes there."""
    before, end, rest = drawing.partition("</style>")
    counted = Counter(re.findall(r' style="([^"]*)"', rest))
    names = {style: _letters(style) for style, count in counted.items() if count > 1}
    rules = "".join(f"\n.{name}{{{style}}}" for style, name in names.items())

    def named(found: re.Match) -> str:
        return f' class="{names[found[1]]}"' if found[1] in names else found[0]

    return f"{before}{rules}{end}" + re.sub(r' style="([^"]*)"', named, rest)


def _letters(text: str) -> str:
    return "".join(chr(ord("a") + byte % 26) for byte in hashlib.sha256(text.encode()).digest()[:6])


def _rounded(coordinates: str) -> str:
    short = re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), coordinates)
    return short.replace(" \nL ", "\n")  # pairs that follow a pair are lines anyway


def sheet(drawings: Mapping[str, str]) -> str:
    """SVG drawings by title as one, below one another: few files to commit."""
    width, height, parts = 0.0, 0.0, []
    for name, drawing in drawings.items():
        w, h = (float(found) for found in re.findall(r'(?:width|height)="([\d.]+)pt"', drawing)[:2])
        title = f'<text x="4" y="{height + 16:g}" font-family="sans-serif" font-size="12">{html.escape(name)}</text>'
        root = f'<svg y="{height + 20:g}" width="{w:g}" height="{h:g}" viewBox="0 0 {w:g} {h:g}">'
        parts += [title, re.sub(r".*?<svg[^>]*>", root, drawing, count=1, flags=re.DOTALL)]
        width, height = max(width, w), height + 20 + h
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width:g}pt" height="{height:g}pt" viewBox="0 0 {width:g} {height:g}">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{"".join(parts)}</svg>\n'
    )


def markdown(block: Heading | Paragraph | Table | Figure) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Paragraph):
        return block.text
    if isinstance(block, Figure):
        return f"`{block.name}`: {block.caption}"
    lines = [block.header, ["---", *["---:"] * (len(block.header) - 1)], *block.rows]
    cells = "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in lines)
    return f"{block.caption}\n\n{cells}"


def _html(block, pictures: dict[str, bytes]) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        text = re.sub("`(.*?)`", r"<code>\1</code>", html.escape(block.text))
        return f"<p>{text}</p>"
    caption = html.escape(block.caption)
    if isinstance(block, Figure):
        source = f"data:image/png;base64,{base64.b64encode(pictures[block.name]).decode()}"
        return f'<figure><img alt="{caption}" src="{source}"><figcaption>{caption}</figcaption></figure>'

    def row(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(row(cells, "td") for cells in block.rows)
    head = f"<thead>{row(block.header, 'th')}</thead>"
    return f"<table><caption>{caption}</caption>{head}\n<tbody>\n{body}\n</tbody></table>"
