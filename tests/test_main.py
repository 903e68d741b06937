"""The verbs as a user calls them: what they print, and what they do when something is wrong."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import built_pipeline
import pytest
import typer

from convoy.bundles.bundle import BundleInvalid, digest_of, read_release
from convoy.cli.application import open_mlflow
from convoy.core.params import ParamsInvalid
from convoy.tracking.provenance import GitFailed


def convoy(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    variables = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-m", "convoy", *words],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.mlflow
@pytest.mark.process
def test_after_mlflow_was_deleted_publish_brings_all_back_and_what_serves_goes_on_serving() -> None:
    built_pipeline.lay(Path())
    first = convoy("publish")
    assert first.returncode == 0 and first.stderr == "" and "version 1 promoted" in first.stdout
    built_pipeline.lay(Path(), shift=40, version=2)
    assert "stays challenger" in convoy("publish").stdout
    release = read_release(Path("deployed/fashion/current"))
    Path("mlflow-store/mlflow.db").unlink()
    shutil.rmtree("mlruns")
    again = convoy("publish")
    assert again.returncode == 0 and again.stderr == ""
    assert "version 2 stays challenger, version 1 serves" in again.stdout
    found = read_release(Path("deployed/fashion/current"))
    assert release is not None and found is not None
    assert found.digest == release.digest and found.promoted_at == release.promoted_at
    assert found.run_id != release.run_id  # of the new record
    refused = convoy("promote", "--task", "fashion", "--version", "2")
    assert refused.returncode == 1 and "needs --reason" in refused.stderr and "it is worse by" in refused.stderr
    assert convoy("promote", "--task", "fashion", "--version", "2", "--reason", "a trial").returncode == 0
    assert digest_of(Path("deployed/fashion/current")) == digest_of(Path("bundles/fashion"))


@pytest.mark.mlflow
@pytest.mark.process
def test_two_at_once_publish_once() -> None:
    built_pipeline.lay(Path())
    words = [sys.executable, "-m", "convoy", "publish"]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted((process.communicate(timeout=120) for process in both), key=lambda pair: "new, with" not in pair[0])
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0].count("new, with") == 3 and said[1][0].count("it is complete") == 3
    assert "waiting for another publish, promote or rollback" in said[1][0] and "version 1 serves" in said[1][0]


@pytest.mark.mlflow
@pytest.mark.process
def test_with_nothing_built_publish_says_what_to_do() -> None:
    built_pipeline.write_params(Path(), "fashion")
    done = convoy("publish")
    assert done.returncode == 0 and "`dvc repro` makes what is missing" in done.stdout


@pytest.mark.mlflow
@pytest.mark.process
def test_elsewhere_publish_says_where_it_belongs() -> None:
    done = convoy("publish")
    assert done.returncode == 1 and "params.yaml is missing; run this in the folder" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.mlflow
@pytest.mark.process
def test_what_a_user_can_mend_is_a_sentence_without_a_traceback() -> None:
    built_pipeline.lay(Path())
    for words, environment, said in [
        (["promote", "--task", "fashion", "--version", "3"], {}, "convoy-fashion has no version 3; there is none"),
        (["publish"], {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}, "MLflow (http://127.0.0.1:1) refuses"),
    ]:
        done = convoy(*words, **environment)
        assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
    Path("mlflow-store/mlflow.db").write_text("no database at all")
    done = convoy("publish")
    assert done.returncode == 1 and "mlflow.db cannot be used" in done.stderr and "Traceback" not in done.stderr
    Path("mlflow-store/mlflow.db").unlink()
    Path("dvc.lock").write_text("[")
    done = convoy("publish")
    assert done.returncode == 1 and "dvc.lock is not a DVC lock file" in done.stderr


@pytest.mark.mlflow
@pytest.mark.process
def test_publish_needs_no_torch_and_up_no_mlflow() -> None:
    asked = "import sys, convoy.release.publish; assert 'torch' not in sys.modules, 'torch'"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0
    asked = (
        "import sys, convoy.operations.supervisor, convoy.__main__; assert not {'mlflow', 'numpy'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


PULLS = """
import builtins
LACKS = {
    "datasketch", "dvc", "imagehash", "jinja2", "matplotlib", "onnx", "onnxscript", "optuna", "pandas",
    "psutil", "pyarrow", "pytorch_lightning", "ruamel", "safetensors", "scipy", "sklearn", "sqlalchemy", "torch",
    "tqdm",
}
real = builtins.__import__

def installed(name, names=None, *more, **named):
    if name.partition(".")[0] in LACKS and (names or {}).get("__name__", "").startswith("convoy"):
        raise ImportError(f"{names['__name__']} imports {name}, which [pull] does not install")
    return real(name, names, *more, **named)

builtins.__import__ = installed
import convoy.__main__, convoy.cli.release, convoy.release.decision, convoy.release.journal, convoy.release.pull
import convoy.operations.status, convoy.release.rollback, convoy.tracking.artifacts, convoy.tracking.registry
import os
from convoy.tracking import store
os.environ["MLFLOW_TRACKING_URI"], os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "http://127.0.0.1:1", "0"
try:
    store.read_registry("fashion")
except store.RegistryUnavailable:
    pass
"""


@pytest.mark.mlflow
@pytest.mark.process
def test_pull_imports_nothing_that_its_machine_lacks() -> None:
    """`pip install .[pull]` brings mlflow-skinny, whose own imports are its affair; Convoy's must need no more."""
    done = subprocess.run([sys.executable, "-c", PULLS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.mlflow
@pytest.mark.process
@pytest.mark.parametrize("error", [BundleInvalid("why"), ParamsInvalid("why"), GitFailed("why"), OSError("why")])
def test_an_error_that_has_a_name_is_a_sentence(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), open_mlflow():
        raise error
    assert capsys.readouterr().err == "why\n"


@pytest.mark.mlflow
def test_an_error_of_the_programme_itself_keeps_its_traceback() -> None:
    with pytest.raises(ValueError, match="too many values"), open_mlflow():
        raise ValueError("too many values to unpack")


def test_the_help_says_that_a_running_service_follows() -> None:
    said = convoy("promote", "--help").stdout
    assert "follows within seconds" in " ".join(said.split())
