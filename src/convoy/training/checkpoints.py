"""Checkpoints of an unfinished training, whole files only, and the fingerprint that says which training they are of."""

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
KEPT = 2  # where the newest is damaged, there is one before it


def surroundings(accelerator: str) -> dict[str, Any]:
    """What of the machine and the libraries changes weights: versions, the kind of device, the number of threads."""
    return {
        "torch": torch.__version__,
        "lightning": version("pytorch-lightning"),
        "device": _device(accelerator),
        "threads": torch.get_num_threads(),
    }


def fingerprint(params: dict[str, Any], data: Iterable[Path], surroundings: dict[str, Any]) -> str:
    """sha256 (hex) over params, the content of the data files, all code of the pipeline loaded by now, surroundings."""
    content = {
        "params": params,
        "data": {str(path): sha256_of(path) for path in data},
        "code": {name: sha256_of(path) for name, path in _loaded_code()},
        **surroundings,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _loaded_code() -> list[tuple[str, Path]]:
    """Name and file of each module of convoy and pipelines, the one that `python -m` runs included."""
    specs = [module.__spec__ for module in list(sys.modules.values()) if getattr(module, "__spec__", None)]
    return [
        (spec.name, Path(spec.origin))
        for spec in specs
        if spec is not None and spec.origin and spec.name.split(".")[0] in ("convoy", "pipelines")
    ]


def _device(accelerator: str) -> str:
    if accelerator in ("auto", "gpu") and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "mps" if accelerator in ("auto", "mps") and torch.backends.mps.is_available() else "cpu"


class TrainingRunning(RuntimeError):
    """The same training runs already, in another process."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning writes to /tmp, moves and never syncs; here a checkpoint is on the disk whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write to a temporary name beside `path`, sync, rename. Raises OSError where the disk is full."""
        content = io.BytesIO()  # torch's own writer says "unexpected pos 704 vs 598" of a full disk
        torch.save(checkpoint, content)
        atomic.write_bytes(Path(path), content.getvalue())


def is_first_process() -> bool:
    """Whether this process, of those that train together, is the one that speaks and writes; known from its start."""
    return getattr(rank_zero_only, "rank", 0) == 0


def every_epoch(folder: Path) -> ModelCheckpoint:
    """Lightning's callback, set to keep the last epochs of a training, one file each."""
    # The folder of a training that goes on is not empty, of which Lightning warns.
    warnings.filterwarnings("ignore", ".*exists and is not empty.*")
    return ModelCheckpoint(
        folder,
        filename="{epoch:04d}",
        monitor="epoch",
        mode="max",
        save_top_k=KEPT,
        save_on_train_epoch_end=True,
        enable_version_counter=False,  # a damaged file is written over when its epoch has been trained again
    )


def newest_whole(folder: Path) -> Path | None:
    """The last epoch's checkpoint that can be read, None where there is none; warns of each that cannot."""
    for path in sorted(folder.glob("epoch=*.ckpt"), key=epochs_done, reverse=True):
        try:
            _check(path)
        except Exception as error:  # a damaged file can make its readers raise anything
            warnings.warn(f"{path} is damaged ({error}); going back to the checkpoint before it", stacklevel=2)
        else:
            return path
    return None


def epochs_done(checkpoint: Path) -> int:
    """How many epochs a checkpoint has behind it, by its name."""
    found = re.fullmatch(r"epoch=(\d+)\.ckpt", checkpoint.name)
    assert found
    return int(found[1]) + 1


@contextmanager
def training_folder(candidate: str, fingerprint: str) -> Iterator[Path]:
    """The folder of one training, for this process alone; what is in it outlives an exception or a kill.

    On success it is removed, and with it those of older params, data or code, which nobody would go on with.
    Of a training by several processes the first one sees to all this. Raises TrainingRunning where another has it.
    """
    folder = HOME / f"{candidate}-{fingerprint[:12]}"
    if not is_first_process():
        yield folder
        return
    others = [other for other in HOME.glob(f"{candidate}-*") if other.is_dir() and other != folder]
    if others and not folder.exists():
        print(f"{candidate}: starts anew: params, data or code have changed since {others[0]} was left unfinished")
    folder.mkdir(parents=True, exist_ok=True)
    with locks.hold(folder / "lock") as free:
        if not free:
            raise TrainingRunning(f"{candidate} is being trained by another process ({folder}); wait for it or end it")
        for half in folder.glob(".epoch=*"):  # a kill while writing
            half.unlink()
        yield folder
        shutil.rmtree(folder)
    for other in others:
        with suppress(FileNotFoundError), locks.hold(other / "lock") as free:
            if free:
                shutil.rmtree(other)


def _check(path: Path) -> None:
    """Raise unless every byte that torch reads is as it was written: a checkpoint is a zip file, with checksums."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged:
        raise zipfile.BadZipFile(f"{damaged} differs from its checksum")
    torch.load(path, map_location="cpu", weights_only=True)
