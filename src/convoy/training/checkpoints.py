"""Checkpoints of an unfinished training, whole files only, and the fingerprint of the training that they belong to."""

import hashlib
import io
import json
import re
import shutil
import sys
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only

from convoy.core import atomic, locks
from convoy.core.atomic import sha256_of

HOME = Path(".run/training")  # outside DVC's outs, which DVC deletes before a stage runs
KEPT = 2  # epochs: where the newest is damaged, there is one before it


class TrainingRunning(RuntimeError):
    """The same training runs already, in another process."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to the disk whole or not at all; Lightning's writer moves a file from /tmp without a sync."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write to a temporary name beside `path`, sync, rename. Raises OSError where the disk is full."""
        content = io.BytesIO()  # torch's own writer says "unexpected pos 704 vs 598" of a full disk
        torch.save(checkpoint, content)
        atomic.write_bytes(Path(path), content.getvalue())


def training_environment(accelerator: str) -> dict[str, Any]:
    """What changes weights beside code, params and data: versions, the kind of device, the number of threads."""
    return {
        "torch": torch.__version__,
        "lightning": version("pytorch-lightning"),
        "device": _device_name(accelerator),
        "threads": torch.get_num_threads(),
    }


def fingerprint(params: dict[str, Any], data: Iterable[Path], environment: dict[str, Any]) -> str:
    """sha256 (hex) over params, the content of the data files, all code of the pipeline loaded by now, environment."""
    content = {
        "params": params,
        "data": {str(path): sha256_of(path) for path in data},
        "code": {name: sha256_of(path) for name, path in _loaded_code()},
        **environment,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def hash_of(content: bytes) -> str:
    """The sha256 (hex) of a content."""
    return hashlib.sha256(content).hexdigest()


def is_first_process() -> bool:
    """Whether this process, of those that train together, is the one that prints and writes; valid from its start."""
    return getattr(rank_zero_only, "rank", 0) == 0


def make_checkpoint_callback(folder: Path) -> ModelCheckpoint:
    """Lightning's callback, set to keep the last epochs of a training, one file each."""
    # Lightning warns that the folder of a resumed training is not empty.
    warnings.filterwarnings("ignore", ".*exists and is not empty.*")
    return ModelCheckpoint(
        folder,
        filename="{epoch:04d}",
        monitor="epoch",
        mode="max",
        save_top_k=KEPT,
        save_on_train_epoch_end=True,
        enable_version_counter=False,  # a damaged file is overwritten when its epoch has been trained again
    )


def newest_readable(folder: Path) -> Path | None:
    """The checkpoint of the latest epoch that can be read, or None; warns of each that cannot."""
    for path in sorted(folder.glob("epoch=*.ckpt"), key=epochs_done, reverse=True):
        try:
            _check_readable(path)
        except Exception as error:  # a damaged file can make its readers raise anything
            warnings.warn(f"{path} is damaged ({error}); going back to the checkpoint before it", stacklevel=2)
        else:
            return path
    return None


def epochs_done(checkpoint: Path) -> int:
    """How many epochs had been trained when a checkpoint was written, by its name."""
    match = re.fullmatch(r"epoch=(\d+)\.ckpt", checkpoint.name)
    assert match
    return int(match[1]) + 1


@contextmanager
def training_folder(candidate: str, fingerprint: str) -> Iterator[Path]:
    """The folder of one training, locked for this process; its files survive an exception or a kill.

    On success it is removed, and with it the folders of older params, data or code, which no training would resume.
    Of a training by several processes the first one does this. Raises TrainingRunning where another process has it.
    """
    folder = HOME / f"{candidate}-{fingerprint[:12]}"
    if not is_first_process():
        yield folder
        return
    names = f"{candidate}-" + 12 * "[0-9a-f]"  # another candidate's name may begin with this one's
    outdated = [path for path in HOME.glob(names) if path.is_dir() and path != folder]
    if outdated and not folder.exists():
        print(f"{candidate}: starts anew: params, data or code have changed since {outdated[0]} was left unfinished")
    folder.mkdir(parents=True, exist_ok=True)
    with locks.hold(folder / "lock") as acquired:
        if not acquired:
            raise TrainingRunning(f"{candidate} is being trained by another process ({folder}); wait for it or end it")
        for partial in folder.glob(".epoch=*"):  # of a kill while writing
            partial.unlink()
        yield folder
        shutil.rmtree(folder)
    for path in outdated:
        with suppress(FileNotFoundError), locks.hold(path / "lock") as acquired:
            if acquired:
                shutil.rmtree(path)


def _loaded_code() -> list[tuple[str, Path]]:
    """Name and file of each module of convoy and pipelines, the one that `python -m` runs included."""
    specs = [module.__spec__ for module in list(sys.modules.values()) if getattr(module, "__spec__", None)]
    return [
        (spec.name, Path(spec.origin))
        for spec in specs
        if spec is not None and spec.origin and spec.name.split(".")[0] in ("convoy", "pipelines")
    ]


def _device_name(accelerator: str) -> str:
    if accelerator in ("auto", "gpu") and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "mps" if accelerator in ("auto", "mps") and torch.backends.mps.is_available() else "cpu"


def _check_readable(path: Path) -> None:
    """Raise unless every byte that torch reads is as it was written: a checkpoint is a zip file, with checksums."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged:
        raise zipfile.BadZipFile(f"{damaged} differs from its checksum")
    torch.load(path, map_location="cpu", weights_only=True)
