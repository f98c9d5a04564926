"""docs/cli.md from the commands' own --help: python -m mrse_cli.reference > docs/cli.md (a test holds the two
together).
"""

from __future__ import annotations

from typer.testing import CliRunner

from mrse_cli.main import app

HEAD = """# The commands

Written by `python -m mrse_cli.reference > docs/cli.md` from each command's `--help`.

Every command takes `--config FILE.toml`: one table a command, its keys the long options; flags win over it.

```toml
[feed]
endpoint = "https://vespa.example:8443"
via = "cli"

[query]
profile = "three_queues"
```

Exit codes: 0 done · 1 some documents were refused (a traceback: a bug) · 2 bad input, one line on stderr that says
where and what to do · 130 interrupted.
"""


def reference() -> str:
    """The whole page."""
    runner = CliRunner(env={"COLUMNS": "100", "TERMINAL_WIDTH": "100"})
    names = [command.name for command in app.registered_commands]
    pages = [(name, runner.invoke(app, [str(name), "--help"], prog_name="mrse").output) for name in names]
    return HEAD + "".join(f"\n## mrse {name}\n\n```\n{page.strip()}\n```\n" for name, page in pages)


if __name__ == "__main__":
    print(reference(), end="")
