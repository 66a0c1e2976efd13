"""The picture of `despacho top`: what it shows, drawn as a terminal does."""

import io
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME

from client import Client
from client.cli.top import view

WIDTH: Final = 80
"""Characters of a line."""

WINDOW_S: Final = 9.0
"""Over how long the rates are counted at least, seconds."""

LIMIT_S: Final = 60.0

FORMAT: Final = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
  <style>
    .{unique_id}-matrix {{
      font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
      font-size: {char_height}px; line-height: {line_height}px;
    }}
    {styles}
  </style>
  <defs>{lines}</defs>
  <rect width="100%" height="100%" rx="8" fill="#14181a"/>
  <g transform="translate(20, 24)">
    {backgrounds}
    <g class="{unique_id}-matrix">{matrix}</g>
  </g>
</svg>
"""
"""As rich's own, without a window around it, and without a font from elsewhere."""


def draw(server_address: str, path: Path) -> None:
    """Watch a system that works, and draw what is seen."""
    with Client(server_address) as client:
        shown = client.admin.watch_stats(timeout_s=LIMIT_S)
        stats = next(each for each in shown if each.window_s > WINDOW_S)
        shown.close()
    console = Console(width=WIDTH, file=io.StringIO(), record=True, force_terminal=True)
    console.print(view(stats, server_address))
    path.write_text(
        console.export_svg(code_format=FORMAT, theme=SVG_EXPORT_THEME, unique_id="top"),
        encoding="utf-8",
    )
