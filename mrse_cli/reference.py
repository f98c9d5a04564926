"""docs/cli.md from the commands' own --help: python -m mrse_cli.reference > docs/cli.md (a test holds the two
together).
"""

from __future__ import annotations

from typer.testing import CliRunner

from mrse_cli.main import COMMANDS, app

HEAD = """# The commands

Written by `python -m mrse_cli.reference > docs/cli.md` from each command's `--help`.

Every command takes `--config FILE.toml`: a table per command whose keys are its long options (`[feed]` for all of
`mrse feed`, `[feed.items]` for one); flags override it.

```toml
[feed]
endpoint = "https://vespa.example:8443"
give-up-after = 10

[query]
profile = "three_queues"
```

Exit codes: 0 done · 1 some documents were refused or not reached (with a traceback: a bug) · 2 bad input, or a disk or
path that cannot be used: stderr says what is wrong, where, and what to do · 130 interrupted · 143 terminated.
"""


def reference() -> str:
    """The whole page."""
    runner = CliRunner(env={"COLUMNS": "100", "TERMINAL_WIDTH": "100"})
    pages = [(name, runner.invoke(app, [*name.split(), "--help"], prog_name="mrse").output) for name in names()]
    return HEAD + "".join(f"\n## mrse {name}\n\n```\n{page.strip()}\n```\n" for name, page in pages)


def names() -> list[str]:
    """The commands as they are typed, in the order of `mrse --help`; a command of several before its parts."""
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    found = []
    for name in COMMANDS:
        found.append(name)
        if (group := groups.get(name)) is not None:
            found += [f"{name} {command.name}" for command in group.registered_commands]
    return found


if __name__ == "__main__":
    print(reference(), end="")
