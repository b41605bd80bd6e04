"""Documents of headings, paragraphs, tables and figures, as Markdown and as one self-contained HTML page."""

import base64
import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo import files, folders, manifest
from zoo.errors import UserError

NOTE = "note.txt"
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
    """A matplotlib figure; `name` is that of the PNG and SVG files."""

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
    """Writes report.md, report.html, and a file for each table and figure.

    Raises:
        UserError: if they can't be written; if one exists and isn't ours, before any is written.
    """
    manifest.check(out / name for name in _names(blocks))
    pictures = {}
    for block in blocks:
        if isinstance(block, Table):
            files.write_csv(out / f"{block.name}.csv", block.header, block.rows, manifest.claim)
        if isinstance(block, Figure):
            for suffix in ("png", "svg"):
                files.write_whole(out / f"{block.name}.{suffix}", _saver(block.drawing), manifest.claim)
            pictures[block.name] = base64.b64encode((out / f"{block.name}.png").read_bytes()).decode()
    text = "\n\n".join([f"# {title}", *map(_markdown, blocks)]) + "\n"
    files.write_text(out / "report.md", text, manifest.claim)
    body = "\n".join([f"<h1>{html.escape(title)}</h1>", *(_html(block, pictures) for block in blocks)])
    files.write_text(
        out / "report.html",
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n",
        manifest.claim,
    )


def _names(blocks: Sequence[Heading | Paragraph | Table | Figure]) -> Iterator[str]:
    for block in blocks:
        if isinstance(block, Table):
            yield f"{block.name}.csv"
        if isinstance(block, Figure):
            yield from (f"{block.name}.png", f"{block.name}.svg")
    yield from ("report.md", "report.html")


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


def _saver(drawing):
    # Without dates and random IDs the same figure gives the same bytes.
    return lambda path: drawing.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _markdown(block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Paragraph):
        return block.text
    if isinstance(block, Figure):
        return f"![{block.caption}]({block.name}.svg)\n\n{block.caption}"
    lines = [block.header, ["---", *["---:"] * (len(block.header) - 1)], *block.rows]
    cells = "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in lines)
    return f"{block.caption}\n\n{cells}"


def _html(block, pictures: dict[str, str]) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        text = re.sub("`(.*?)`", r"<code>\1</code>", html.escape(block.text))
        return f"<p>{text}</p>"
    caption = html.escape(block.caption)
    if isinstance(block, Figure):
        source = f"data:image/png;base64,{pictures[block.name]}"
        return f'<figure><img alt="{caption}" src="{source}"><figcaption>{caption}</figcaption></figure>'

    def row(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(row(cells, "td") for cells in block.rows)
    head = f"<thead>{row(block.header, 'th')}</thead>"
    return f"<table><caption>{caption}</caption>{head}\n<tbody>\n{body}\n</tbody></table>"
