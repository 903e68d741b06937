"""A bundle -> a version of MLflow's registered model, made where it is missing; its files are the bundle's own."""

import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

import convoy
from convoy.bundles.bundle import MANIFEST, Bundle
from convoy.kinds.registry import KINDS, module
from convoy.tracking.artifacts import list_files, put_files
from convoy.tracking.checked_bundle import CheckedBundle
from convoy.tracking.registry import DIGEST, FOLDER, bundle_folder, find_version, model_folder, model_name, versions

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

# What convoy.tracking.pyfunc imports: a version carries it, so it loads where Convoy is not installed.
_CODE_FILES = (
    "__init__.py",
    "bundles/__init__.py",
    "bundles/bundle.py",
    "bundles/predictor.py",
    "core/__init__.py",
    "core/atomic.py",
    "core/params.py",
    "core/paths.py",
    "core/png.py",
    "core/rejection.py",
    "core/tasks.py",
    "kinds/__init__.py",
    "kinds/registry.py",
    "tracking/__init__.py",
    "tracking/pyfunc.py",
)
_CODE_FILES_OF_KIND = (  # of every kind: a process that loads two versions has the code of the first
    "__init__.py",
    "explanation.py",
    "items/__init__.py",
    "items/preprocessing.py",
    "items/raw.py",
)
_REQUIREMENTS = ("numpy", "onnxruntime", "pandas", "pillow", "pydantic", "pyyaml", "tokenizers")


def register(
    client: MlflowClient,
    task: str,
    bundle: CheckedBundle,
    run_id: str,
    tags: dict[str, str],
    sources: Callable[[], Mapping[str, bytes]] = dict,
) -> tuple[ModelVersion, bool]:
    """The version of this bundle and whether it is new: its files come first, so no version is without them.

    `sources`, file -> content, stand beside a new version, in the folder of its model.
    """
    version = find_version(client, task, bundle.digest)
    if version is not None:
        _store_model(client, str(version.run_id), model_folder(version), bundle)
        return version, False
    model = _unused_folder(client, task, run_id, bundle)
    _store_model(client, run_id, model, bundle)
    put_files(client, run_id, {f"{model}/{name}": content for name, content in sources().items()})
    try:
        client.create_registered_model(model_name(task), description=f"Convoy's {task} model; `champion` serves.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"runs:/{run_id}/{model}"
    version = client.create_model_version(model_name(task), source, run_id, tags={DIGEST: bundle.digest, **tags})
    return version, True


def _unused_folder(client: MlflowClient, task: str, run_id: str, bundle: CheckedBundle) -> str:
    """`model`, or a name with the digest where another export of the same training has `model`."""
    return f"{FOLDER}-{bundle.digest[:12]}" if versions(client, task, run_id) else FOLDER


def _is_stored(client: MlflowClient, run_id: str, model: str, bundle: CheckedBundle) -> bool:
    stored, inside = list_files(client, run_id, model), bundle_folder(model)
    expected = {f"{inside}/{name}": len(content) for name, content in bundle.files.items()}
    other_files = (f"{inside}/manifest.json", f"{model}/MLmodel")
    return all(stored.get(name) == size for name, size in expected.items()) and all(
        name in stored for name in other_files
    )


def _store_model(client: MlflowClient, run_id: str, model: str, bundle: CheckedBundle) -> None:
    """Write the bundle as an MLflow model without a pickle: its own bytes, and the name of the module that loads it.

    Writes nothing where it is complete already.
    """
    if _is_stored(client, run_id, model, bundle):
        return
    import mlflow.pyfunc  # takes half a second, and most publishes store nothing
    import pandas as pd

    package = Path(next(iter(convoy.__path__)))
    with tempfile.TemporaryDirectory() as temporary:
        data, code = Path(temporary, "bundle"), Path(temporary, "convoy")
        for folder in (data, code):
            folder.mkdir()
        for name in (*bundle.files, MANIFEST):
            shutil.copyfile(bundle.folder / name, data / name)
        for name in [*_CODE_FILES, *(f"kinds/{kind}/{name}" for kind in KINDS for name in _CODE_FILES_OF_KIND)]:
            (code / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(package / name, code / name)
        mlflow.pyfunc.save_model(
            f"{temporary}/{model}",
            loader_module="convoy.tracking.pyfunc",
            data_path=str(data),
            code_paths=[str(code)],
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in ("mlflow", *_REQUIREMENTS)],
            signature=_signature(bundle.content),
            input_example=pd.DataFrame({bundle.card.task: [bundle.content.shown_input]}),
            metadata={DIGEST: bundle.digest, "labels": list(bundle.card.labels)},
        )
        made = Path(temporary, model)
        files = {
            path.relative_to(temporary).as_posix(): path.read_bytes() for path in made.rglob("*") if path.is_file()
        }
        put_files(client, run_id, files)


def _signature(bundle: Bundle) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Map, TensorSpec

    is_bytes = module(bundle.card.kind, "items.raw").RAW is bytes
    input_column = ColSpec(DataType.binary if is_bytes else DataType.string, bundle.card.task)
    output_columns: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "label"),
        ColSpec(DataType.double, "probability"),
        ColSpec(Map(DataType.double), "probabilities"),
    ]
    return ModelSignature(inputs=Schema([input_column]), outputs=Schema(output_columns))
