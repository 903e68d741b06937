"""Bundles -> versions of MLflow's registered models, each found by its digest, and the aliases of who serves."""

import importlib.metadata
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import mlflow.pyfunc
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Map, TensorSpec

import convoy
from convoy.bundle import RELEASE, Bundle, BundleInvalid, digest_of, read_bundle
from convoy.layout import Task
from convoy.publishing.tracking import list_files

Alias = Literal["champion", "challenger"]
DIGEST = "digest"
_FOLDER = "model"  # of the run's artifacts
_BUNDLE = f"{_FOLDER}/data/bundle"
# What convoy.publishing.mlflow_model imports: a version carries it, so it loads where Convoy is not installed.
_CODE = (
    "__init__.py",
    "atomic.py",
    "bundle.py",
    "layout.py",
    "params.py",
    "predictor.py",
    "preprocessing",
    "publishing/__init__.py",
    "publishing/mlflow_model.py",
)
_REQUIREMENTS = ("numpy", "onnxruntime", "pandas", "pillow", "pydantic", "pyyaml", "tokenizers")


class VersionUnknown(LookupError):
    """A registered version that does not exist, or whose files are gone."""


def model_name(task: Task) -> str:
    """The name of a task's registered model."""
    return f"convoy-{task}"


def find_version(client: MlflowClient, task: Task, digest: str) -> ModelVersion | None:
    """The version that holds the bundle with this digest."""
    found = client.search_model_versions(f"name = '{model_name(task)}' and tags.{DIGEST} = '{digest}'")
    return min(found, key=lambda version: int(version.version), default=None)


def get_version(client: MlflowClient, task: Task, version: str) -> ModelVersion:
    """One version by its number. Raises VersionUnknown, which names those there are."""
    try:
        return client.get_model_version(model_name(task), version)
    except MlflowException:
        known = sorted(int(found.version) for found in client.search_model_versions(f"name = '{model_name(task)}'"))
        raise VersionUnknown(
            f"{model_name(task)} has no version {version}; there is {', '.join(map(str, known)) or 'none'}"
        ) from None


def version_with(client: MlflowClient, task: Task, alias: Alias) -> ModelVersion | None:
    """The version that has an alias now; None where none has."""
    try:
        return client.get_model_version_by_alias(model_name(task), alias)
    except MlflowException:
        return None


def register(client: MlflowClient, task: Task, folder: Path, run_id: str, tags: dict[str, str]) -> ModelVersion:
    """The version of this bundle, made where it is missing: files first, so that no version is without them."""
    bundle = read_bundle(folder)
    version = find_version(client, task, bundle.digest)
    source_run = run_id if version is None else str(version.run_id)
    if not _is_stored(client, source_run, bundle):
        _store(client, source_run, folder, bundle)
    if version is not None:
        return version
    try:
        client.create_registered_model(model_name(task), description=f"Convoy's {task} model; `champion` serves.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"runs:/{run_id}/{_FOLDER}"
    return client.create_model_version(model_name(task), source, run_id, tags={DIGEST: bundle.digest, **tags})


def set_alias(client: MlflowClient, task: Task, alias: Alias, version: str) -> bool:
    """Give `version` the alias; says whether it had another one before. A champion is no challenger any more."""
    changed = False
    now = version_with(client, task, alias)
    if now is None or str(now.version) != str(version):
        client.set_registered_model_alias(model_name(task), alias, str(version))
        changed = True
    if alias == "champion":
        challenger = version_with(client, task, "challenger")
        if challenger is not None and str(challenger.version) == str(version):
            client.delete_registered_model_alias(model_name(task), "challenger")
            changed = True
    return changed


@contextmanager
def bundle_of(client: MlflowClient, version: ModelVersion, nearby: list[Path]) -> Iterator[Path]:
    """A folder with a version's bundle: a whole copy among `nearby`, or downloaded from MLflow for the while."""
    digest = version.tags[DIGEST]
    for folder in nearby:
        if _is_whole(folder, digest):
            yield folder
            return
    with tempfile.TemporaryDirectory() as temporary:
        try:
            folder = Path(client.download_artifacts(str(version.run_id), _BUNDLE, temporary))
            found = read_bundle(folder).digest
        except (MlflowException, OSError, BundleInvalid) as error:
            raise VersionUnknown(f"MLflow cannot give the files of {version.name} {version.version}: {error}") from None
        if found != digest:
            raise VersionUnknown(f"MLflow's files of {version.name} {version.version} are another bundle ({found})")
        yield folder


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        return digest_of(folder) == digest and read_bundle(folder).digest == digest
    except (OSError, BundleInvalid):
        return False


def _is_stored(client: MlflowClient, run_id: str, bundle: Bundle) -> bool:
    stored = list_files(client, run_id, _FOLDER)
    wanted = {f"{_BUNDLE}/{name}": len(content) for name, content in bundle.files.items()}
    rest = (f"{_BUNDLE}/manifest.json", f"{_FOLDER}/MLmodel")
    return all(stored.get(name) == size for name, size in wanted.items()) and all(name in stored for name in rest)


def _store(client: MlflowClient, run_id: str, folder: Path, bundle: Bundle) -> None:
    """Write the bundle as an MLflow model without a pickle: its own bytes, and the name of the module that loads it."""
    package = Path(next(iter(convoy.__path__)))
    ignore = shutil.ignore_patterns("__pycache__", RELEASE)
    with tempfile.TemporaryDirectory() as temporary:
        data, code = Path(temporary, "bundle"), Path(temporary, "convoy")
        shutil.copytree(folder.resolve(), data, ignore=ignore)
        code.mkdir()
        for name in _CODE:
            if (package / name).is_dir():
                shutil.copytree(package / name, code / name, ignore=ignore)
            else:
                (code / name).parent.mkdir(exist_ok=True)
                shutil.copy(package / name, code / name)
        mlflow.pyfunc.save_model(
            f"{temporary}/{_FOLDER}",
            loader_module="convoy.publishing.mlflow_model",
            data_path=str(data),
            code_paths=[str(code)],
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in ("mlflow", *_REQUIREMENTS)],
            signature=_signature(bundle.card.task),
            input_example=pd.DataFrame({bundle.card.task: [bundle.shown_input]}),
            metadata={DIGEST: bundle.digest, "labels": list(bundle.card.labels)},
        )
        client.log_artifacts(run_id, f"{temporary}/{_FOLDER}", _FOLDER)


def _signature(task: Task) -> ModelSignature:
    given = ColSpec(DataType.binary if task == "image" else DataType.string, task)
    answer: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "label"),
        ColSpec(DataType.double, "probability"),
        ColSpec(Map(DataType.double), "probabilities"),
    ]
    return ModelSignature(inputs=Schema([given]), outputs=Schema(answer))
