"""``bitloop monitor``: what a device says."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.text import Text

from bitloop.cli import console, options

_STYLES = {"log": "cyan", "raw": "", "frame": "dim", "damaged": "yellow", "meaning": "red"}


@console.handled
def monitor(
    device: Annotated[str, typer.Argument(metavar="URL", help="Port or pyserial URL.")],
    *,
    baud: options.Baud = 115200,
    hello: Annotated[bool, typer.Option(help="Ask the device who it is; that ends a run it may be at.")] = False,
    frames: Annotated[bool, typer.Option("--frames", help="Show all frames, not only the log's.")] = False,
    seconds: Annotated[float | None, typer.Option(min=0.0, help="Stop after so long.", show_default=False)] = None,
    record_file: options.Record = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier recording.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Show log frames and raw text of a device as they come, until Ctrl-C. Sends nothing unless asked to."""
    from bitloop.monitor import Monitor  # noqa: PLC0415 - pyserial

    try:
        with Monitor(device, baud=baud, record=record_file, overwrite=force) as watched:
            began = watched.clock()
            console.say(f"listening to {device}; Ctrl-C ends")
            if hello:
                watched.say_hello()
            for event in watched.events(seconds=seconds):
                if event.kind == "frame" and not (frames or event.important):
                    continue
                at = f"{event.monotonic - began:10.3f}"
                if as_json:
                    document = {"seconds": float(at), "kind": event.kind, "level": event.level, "text": event.text}
                    console.write_text(json.dumps(document, ensure_ascii=False) + "\n")
                else:
                    level = f"{event.level}: " if event.level else ""
                    line = Text.assemble((f"{at} ", "dim"), (f"{event.kind:8}", _STYLES[event.kind]), level, event.text)
                    console.OUT.print(line, highlight=False)
    except KeyboardInterrupt:
        console.say("ended")
