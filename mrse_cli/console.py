"""Where commands print: no markup, since titles and paths may hold brackets, and no wrapping of lines into a pipe."""

from __future__ import annotations

from rich.console import Console


def console() -> Console:
    """The standard output."""
    return Console(markup=False, highlight=False, soft_wrap=True)
