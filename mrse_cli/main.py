"""`mrse`: the commands, each a function in its own module of this folder, and the rules that they share.

Bad input, and a path that cannot be read or written, is one line on stderr and exit code 2; Ctrl-C is 130; anything
else that escapes is a bug, with its traceback.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

import typer

from mrse_model.errors import InputError, MissingExtra

COMMANDS = (
    "demo",
    "sample",
    "features",
    "train",
    "evaluate",
    "study",
    "export",
    "validate",
    "size",
    "serve-local",
    "deploy",
    "feed",
    "query",
    "web",
    "migrate",
)
EXTRA_OF = {
    **dict.fromkeys(
        ("accelerate", "gensim", "onnx", "onnxscript", "pandas", "safetensors", "torch", "torchvision", "transformers"),
        "train",
    ),
    **dict.fromkeys(("bm25s", "filelock", "ir_measures", "matplotlib", "tensorboard"), "train"),
    **dict.fromkeys(("faiss", "lark", "tantivy"), "local"),
    "granian": "local",
    "starlette": "web",
}

app = typer.Typer(
    name="mrse",
    help="Personal, multimodal product search on Vespa: from Parquet to a trained model, a fed index and answers.",
    epilog="Start with: mrse demo. Every command takes --config FILE.toml, a table a command; flags win over it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
for name in COMMANDS:
    module = f"mrse_cli.{name.replace('-', '_')}"
    if find_spec(module):
        app.command(name)(getattr(import_module(module), name.replace("-", "_")))


def main() -> None:
    """The console script."""
    try:
        app()
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        print(InputError(error.strerror or str(error), file=error.filename), file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in EXTRA_OF:
            raise
        print(MissingExtra(package, EXTRA_OF[package]), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
