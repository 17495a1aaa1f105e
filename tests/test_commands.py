"""What the command line says about components, completes, and writes while training."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from small_study import STUDY, write
from typer.testing import CliRunner

from distillery import project
from distillery.cli import app, main
from distillery.cli.components import _parts, keys
from distillery.cli.cost import lines
from distillery.errors import DistilleryError
from distillery.models import NETWORKS
from distillery.pipeline import check
from distillery.pipeline.planner import resolve
from distillery.training.progress import Progress


def said(*command: str) -> str:
    result = CliRunner().invoke(app, [*command], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.exception
    return result.stdout


@pytest.mark.slow
def test_every_key_of_every_component_has_a_meaning_and_a_kind() -> None:
    for registry in _parts().values():
        for name in registry.names:
            for key, default, values, meaning in keys(registry[name].load().Config):
                assert default and meaning, f"{name}.{key} has no line of text"
                assert "typing" not in values and "FieldInfo" not in values, f"{name}.{key}: {values}"


def test_one_method_in_full() -> None:
    text = said("methods", "kd")
    assert "arXiv:1503.02531" in text and "Needs: logits." in text
    assert "number, > 0" in text and "Of both softmaxes" in text
    assert "list of number, >= 0, < 1" in said("methods", "adamw")
    unknown = CliRunner().invoke(app, ["methods", "kdd"])
    assert isinstance(unknown.exception, DistilleryError) and "did you mean" in str(unknown.exception)


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ('"""Of mine."""\nfrom distillery.objectives.kd import KD\nclass Mine(KD):\n    pass\n', "Mine", "Of mine."),
        ("from distillery.objectives.plugins.swap import Swap as S\nclass Mine(S):\n    pass\n", "Mine", "(plug-in)"),
        (None, "Mine", "there is no file mine.py here"),
        ("class Mine(:\n", "Mine", "importing mine.py raises SyntaxError"),
        ("class Mine:\n    pass\n", "Mine", "mine.py:Mine is no objective: derive it from"),
        ("class Mine:\n    pass\n", "Mne", "did you mean 'Mine'?"),
    ],
)
def test_a_method_of_ones_own(
    text: str | None, name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("mine.py").write_text(text)
    result = CliRunner().invoke(app, ["methods", f"mine.py:{name}"], env={"COLUMNS": "160"})
    assert expected in result.stdout + str(result.exception or ""), result.exception
    assert isinstance(result.exception, DistilleryError | None)


def test_a_file_that_git_does_not_know_is_missing_in_an_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").touch()
    experiment = tmp_path / ".dvc/tmp/exps/tmp123"
    experiment.mkdir(parents=True)
    monkeypatch.chdir(experiment)
    with pytest.raises(SystemExit):
        main(["methods", "mine.py:Mine"])
    hint = f": DVC copies what git knows of {tmp_path}: `git add mine.py` there, then repeat\n"
    assert capsys.readouterr().err.endswith(f"there is no file mine.py here{hint}")
    with pytest.raises(SystemExit):
        main(["methods", "other.py:Mine"])
    assert capsys.readouterr().err.endswith("there is no file other.py here\n")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space"), "the disk is full; free some space"),
        (OSError(errno.EROFS, "Read-only", "a/b"), "a/b: the file system is read-only"),
        (FileNotFoundError(errno.ENOENT, "No such", "a/b"), "a/b: there is no such file or folder"),
        (PermissionError(errno.EACCES, "denied", "a/b"), "a/b: permission denied"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(
    error: OSError, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(project, "studies", lambda: (_ for _ in ()).throw(error))
    with pytest.raises(SystemExit) as left:
        main(["study"])
    said = capsys.readouterr().err
    assert left.value.code == 1 and said.startswith(f"distillery: {expected}") and said.count("\n") == 1
    monkeypatch.setattr(project, "studies", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["study"])


@pytest.mark.parametrize(
    ("shell", "said"),
    [(">/dev/full", "distillery: the disk is full; free some space and run the command again\n"), ("| true", "")],
)
@pytest.mark.parametrize("command", ["--version", "study"])
def test_where_nothing_can_be_printed(command: str, shell: str, said: str, tmp_path: Path) -> None:
    line = f"{sys.executable} -m distillery {command} {shell}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", said) and (done.returncode == 1) == bool(said)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_locale_without_the_letters_of_tables(encoding: str, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-m", "distillery", "methods"], env=environment, capture_output=True)
    assert done.returncode == 0 and b"kd" in done.stdout and not done.stderr, done.stderr


def test_help_names_defaults() -> None:
    assert "exports/STUDY-PAIR-METHOD-SEED" in said("export", "-h")


def test_networks() -> None:
    listed = said("models")
    assert not [name for name in NETWORKS.names if name not in listed]
    assert "278,324 parameters, 40.82 M multiply-accumulates" in said("models", "resnet20")
    assert "1 x 8 x 8 images: 5,142 parameters" in said(
        "models", "resnet8_w4", "--classes", "10", "--size", "8", "--channels", "1"
    )


LARGE = {"r3d_18", "r3d_18_grey", "mc3_18_grey", "r2plus1d_18", "r2plus1d_18_grey"}  # as mc3_18


@pytest.mark.parametrize("name", [name for name in NETWORKS.elsewhere if name not in LARGE])
def test_networks_of_every_task_are_described(name: str) -> None:
    task = NETWORKS[name].task
    clips = NETWORKS[name].module.endswith(("resnet3d", "torchvision_video"))
    shape = ("24", "16") if clips else ("2", "1")  # frames, or rows of features
    channels = ("--channels", shape[0], "--size", shape[1]) if not task else ()
    said_of = said("models", name, "--classes", "2", *channels)
    assert said_of.startswith(f"{name}: ")
    assert f"`task: {task}`" in said_of if task else "parameters" in said_of


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "workflow/studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_what_every_study_costs_is_said(path: Path) -> None:
    study = check.load(path)
    *_, training, time = lines(study, resolve(study))
    assert re.fullmatch(r"training the students: [\d,]+ epochs in all.*", training)
    assert time.startswith("time: ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("distillery mod", {"models"}),
        ("distillery distill --pair ", {"t-s"}),
        ("distillery distill --method k", {"kd"}),
        ("distillery evaluate --seed ", {"0"}),
        ("distillery study dig", {"digits"}),
        ("distillery methods mlkd_", {"mlkd_single", "mlkd_levels"}),
    ],
)
def test_the_shell_completes_commands_and_names_of_the_study(
    words: str, expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(STUDY)
    env = {"_DISTILLERY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    result = CliRunner().invoke(app, [], env=env, prog_name="distillery")
    assert set(result.stdout.split()) == expected, result.output


def test_curves_while_training_are_off_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTILLERY_LIVE", raising=False)
    monkeypatch.chdir(tmp_path)
    with Progress("p kd seed 0") as progress:
        progress({"epoch": 1, "epochs": 1, "seconds": 0.1, "loss": 2.0})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_curves_for_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a training that was killed and went on from an earlier epoch."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("DISTILLERY_LIVE", str(tmp_path))
    for epochs, loss in (((1, 2, 3), 2.0), ((3, 4), 1.0)):
        with Progress("p kd seed 0") as progress:
            for epoch in epochs:
                progress({"epoch": epoch, "epochs": 4, "seconds": 0.1, "loss": loss, "test_top1": 10.0 * epoch})
    found = EventAccumulator(str(tmp_path / "p" / "kd" / "seed" / "0"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [(1, 2.0), (2, 2.0), (3, 1.0), (4, 1.0)]
    assert found.Scalars("test_top1")[-1].value == 40.0


def test_without_tensorboard_one_sentence(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch.utils.tensorboard'] = None\n"
        "from distillery.training.progress import Progress\n"
        "from distillery.errors import DistilleryError\n"
        "try:\n    Progress('x')({'epoch': 1, 'epochs': 1, 'seconds': 0.1, 'loss': 1.0})\n"
        "except DistilleryError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"DISTILLERY_LIVE": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "TensorBoard is not installed: `pip install 'distillery[live]'`" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "command", ["show", "compare", "verify", "plots", "record", "keep", "check", "status", "clean"]
)
def test_a_folder_without_a_study_is_called_that(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, [command])
    assert isinstance(found.exception, DistilleryError)
    assert str(found.exception).startswith("there is no params.yaml here: go to the repository root, or begin")
