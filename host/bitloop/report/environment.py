"""How every page is made from its template."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2

__all__ = ["page_environment"]


def page_environment() -> jinja2.Environment:
    """Return the environment of Jinja that pages are rendered in: text is escaped, and an unknown name is an error."""
    import jinja2  # noqa: PLC0415 - only a page needs it

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
