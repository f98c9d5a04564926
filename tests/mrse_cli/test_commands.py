"""What all commands share: help with an example, the page of docs/cli.md, config files, and the ends of a run."""

from __future__ import annotations

import io
import zipfile
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import typer
from typer.testing import CliRunner

from mrse_cli import main
from mrse_cli.config import Config
from mrse_cli.reference import reference
from mrse_model.errors import InputError
from vespa_package.deploy import package_files

ROOT = Path(__file__).resolve().parents[2]
NAMES = [command.name for command in main.app.registered_commands]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_an_example_and_a_config_file(name) -> None:
    page = CliRunner().invoke(main.app, [name, "--help"]).output
    assert f"Example: mrse {name}" in " ".join(page.split())
    assert "--config" in page


def test_the_reference_is_what_the_commands_say() -> None:
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert page == reference(), "run: python -m mrse_cli.reference > docs/cli.md"


@pytest.fixture
def tool() -> typer.Typer:
    app = typer.Typer()

    @app.command("show")
    def show(size: int = 1, target_hits: int = 2, config: Config = None) -> None:
        print(size, target_hits)

    @app.command("other")
    def other(config: Config = None) -> None: ...

    return app


def run(tool: typer.Typer, toml: str, folder: Path, *arguments: str) -> str:
    file = folder / "mrse.toml"
    file.write_text(toml)
    return CliRunner().invoke(tool, ["show", "--config", str(file), *arguments], catch_exceptions=False).output.strip()


def test_flags_win_over_the_config_file(tool, tmp_path) -> None:
    toml = "[show]\nsize = 5\ntarget-hits = 7\n[other]\n"
    assert run(tool, toml, tmp_path) == "5 7"
    assert run(tool, toml, tmp_path, "--size", "9") == "9 7"


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[show]\nsise = 1\n", "field show.sise: 'sise' is not an option of mrse show. Did you mean size?"),
        ("[shwo]\n", "field shwo: 'shwo' is not a command. Did you mean show?"),
        ("show = 3\n", "field show: expected a table"),
        ("[show", "not TOML"),
    ],
)
def test_a_config_file_is_strict(tool, tmp_path, toml, words) -> None:
    with pytest.raises(InputError) as error:
        run(tool, toml, tmp_path)
    assert words in str(error.value) and "mrse.toml" in str(error.value)


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (InputError("it is empty", file="x.parquet", row=3), 2, "x.parquet, row 3: it is empty.\n"),
        (ModuleNotFoundError("no", name="torch"), 2, 'torch is not installed. Run: pip install "mrse-vespa[train]".\n'),
        (ModuleNotFoundError("no", name="faiss"), 2, 'faiss is not installed. Run: pip install "mrse-vespa[local]".\n'),
        (NotADirectoryError(20, "Not a directory", "a/file/x"), 2, "a/file/x: Not a directory. Check the path.\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_the_ends_of_a_run(monkeypatch, capsys, raised, code, words) -> None:
    tool = typer.Typer(pretty_exceptions_enable=False)

    @tool.command()
    def fail() -> None:
        raise raised

    monkeypatch.setattr(main, "app", lambda: tool([]))
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == code
    assert capsys.readouterr().err == words


@pytest.mark.parametrize(
    ("command", "job"),
    [
        (["train", "items.parquet"], "mrse_model.training.pipeline.train"),
        (["study", "loss", "--items", "i", "--validation-judgments", "j"], "mrse_model.studies.runner.run_study"),
        (["features", "items.parquet"], "mrse_model.images.extract.extract"),
    ],
)
def test_ctrl_c_says_that_the_job_goes_on(monkeypatch, command, job) -> None:
    pytest.importorskip("torch")
    for module in ("mrse_model.training.pipeline", "mrse_model.studies.runner"):
        import_module(module)  # what is imported first while something is replaced would keep the replacement
    monkeypatch.setattr("mrse_model.images.encoders.load_encoder", lambda name, size: None)
    monkeypatch.setattr(job, Mock(side_effect=KeyboardInterrupt))
    found = CliRunner().invoke(main.app, command)
    assert found.exit_code == 130 and "run the same command again to resume" in found.output


@pytest.mark.parametrize(
    "command",
    [
        ["train", "items.parquet", "--threads", "-1"],
        ["study", "loss", "--threads", "-1"],
        ["features", "items.parquet", "--size", "-3"],
        ["features", "items.parquet", "--threads", "0"],
        ["feed", "items.parquet", "--threads", "0"],
        ["evaluate", "run", "items.parquet", "--seconds", "0"],
        ["evaluate", "run", "items.parquet", "--k", "0"],
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_done(command) -> None:
    found = CliRunner().invoke(main.app, command)
    assert found.exit_code == 2 and command[-2] in found.output and "Invalid value for" in found.output


def test_a_package_is_zipped_without_what_vespaignore_names(tmp_path) -> None:
    for name in ("services.xml", "models/a.onnx", "models/notes.md", "drafts/x.sd", ".git/config", ".vespaignore"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / ".vespaignore").write_text("# comment\ndrafts\n*.md\n")
    assert [f.relative_to(tmp_path).as_posix() for f in package_files(tmp_path)] == ["models/a.onnx", "services.xml"]


def test_deploy_sends_the_package_and_waits(vespa, package) -> None:
    out = CliRunner().invoke(main.app, ["deploy", str(package), "--config-server", vespa.url], catch_exceptions=False)
    assert out.exit_code == 0 and "mrse-0123456789ab runs as generation 1" in " ".join(out.output.split())
    names = zipfile.ZipFile(io.BytesIO(vespa.deployed[0])).namelist()
    assert {"services.xml", "schemas/item.sd", "models/query_text.onnx", "models/manifest.json"} <= set(names)


def test_deploy_says_what_the_server_says(vespa, package) -> None:
    vespa.deployment = (400, {"error-code": "INVALID_APPLICATION_PACKAGE", "message": "unknown field 'x'"})
    with pytest.raises(InputError, match=r"refused .INVALID_APPLICATION_PACKAGE.: unknown field 'x'"):
        CliRunner().invoke(main.app, ["deploy", str(package), "--config-server", vespa.url], catch_exceptions=False)


def test_bad_ways_to_a_config_server(package, tmp_path) -> None:
    def deploy(url: str, *more: str) -> None:
        arguments = ["deploy", str(package), "--config-server", url, *more]
        CliRunner().invoke(main.app, arguments, catch_exceptions=False)

    with pytest.raises(InputError, match="field --config-server: not a URL"):
        deploy("http://h:abc")
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    with pytest.raises(InputError, match="field --ca: not a certificate authority"):
        deploy("http://127.0.0.1:9", "--ca", str(junk))


def test_a_package_without_a_model_is_not_deployed(vespa, package, tmp_path) -> None:
    (tmp_path / "services.xml").write_text("<services/>")
    with pytest.raises(InputError, match="the folder has no exported model"):
        CliRunner().invoke(main.app, ["deploy", str(tmp_path), "--config-server", vespa.url], catch_exceptions=False)
    assert vespa.deployed == []


def test_export_into_a_folder_needs_no_package(tmp_path, monkeypatch) -> None:
    written: list[tuple[str, Path]] = []

    def export(model: str, folder: Path) -> SimpleNamespace:
        written.append((model, folder))
        return SimpleNamespace(model_version="mrse-1", image_encoder=None)

    monkeypatch.setattr("mrse_model.export.export", export)
    monkeypatch.setattr("mrse_model.model.MRSE.from_pretrained", lambda run: f"the model of {run}")
    app = ["--app", str(tmp_path / "none")]
    with pytest.raises(InputError, match="not an application package"):
        CliRunner().invoke(main.app, ["export", "runs/new", *app], catch_exceptions=False)
    done = CliRunner().invoke(main.app, ["export", "runs/new", *app, "--out", str(tmp_path / "new")])
    assert done.exit_code == 0 and written == [("the model of runs/new", tmp_path / "new")]
