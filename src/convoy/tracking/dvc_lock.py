"""dvc.lock and git -> which content made which, as hashes."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LOCK = Path("dvc.lock")
_CODE = ("src/", "pipelines/")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # 40 ms instead of 300; not every build of PyYAML has it


class LockInvalid(ValueError):
    """dvc.lock cannot be read."""


@dataclass(frozen=True)
class Lock:
    """What DVC wrote down about each stage that it ran."""

    stages: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, path: Path = LOCK) -> "Lock":
        """Read dvc.lock; an absent one is a pipeline that never ran."""
        if not path.exists():
            return cls({})
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
            return cls(dict(content["stages"]))
        except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise LockInvalid(
                f"{path} is not a DVC lock file ({error}); run `dvc repro`, or `git checkout {path}`"
            ) from None

    def deps(self, stage: str) -> dict[str, str]:
        """Path -> md5 of all that a stage read."""
        return self._hashes(stage, "deps")

    def outs(self, stage: str) -> dict[str, str]:
        """Path -> md5 of all that a stage wrote."""
        return self._hashes(stage, "outs")

    def params(self, stage: str) -> dict[str, Any]:
        """Params of a stage as they were when it ran, by their keys in params.yaml."""
        files: dict[str, dict[str, Any]] = self.stages.get(stage, {}).get("params", {})
        return {key: value for content in files.values() for key, value in content.items()}

    def outdated(self, stage: str) -> list[str]:
        """Inputs of a stage that another stage has made anew since; empty for a stage that is up to date."""
        made = {path: md5 for name in self.stages for path, md5 in self.outs(name).items()}
        return [path for path, md5 in self.deps(stage).items() if made.get(path, md5) != md5]

    def changed_code(self, stages: list[str]) -> list[str]:
        """Source files that are not what they were when these stages ran: those of now did not make the outputs."""
        read = {(path, md5) for name in stages for path, md5 in self.deps(name).items() if path.startswith(_CODE)}
        return sorted({path for path, md5 in read if not same_file(Path(path), md5)})

    def excerpt(self, stages: list[str]) -> bytes:
        """A lock file of these stages alone."""
        kept = {name: self.stages[name] for name in stages if name in self.stages}
        return yaml.safe_dump({"schema": "2.0", "stages": kept}, sort_keys=False, allow_unicode=True).encode()

    def _hashes(self, stage: str, side: str) -> dict[str, str]:
        entries = self.stages.get(stage, {}).get(side, [])
        return {entry["path"]: str(entry.get("md5", "")) for entry in entries}


def same_file(path: Path, md5: str) -> bool:
    """Whether a file or folder is the one that DVC wrote down."""
    return path.exists() and md5_of(path) == md5


def md5_of(path: Path) -> str:
    """The hash that DVC gives a file or a folder."""
    return _md5_of_folder(path) if path.is_dir() else _md5(path.read_bytes())


def _md5_of_folder(folder: Path) -> str:
    """DVC's hash of a folder: that of a JSON list of its files."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    listed = [{"md5": _md5(path.read_bytes()), "relpath": name} for name, path in sorted(files.items())]
    return _md5(json.dumps(listed, sort_keys=True).encode()) + ".dir"


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
