"""dvc.lock and git -> which content made which, as hashes."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LOCK = Path("dvc.lock")


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
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
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

    def key(self, stage: str) -> str:
        """The sha256 of all that a stage read, was told and wrote: equal keys are the same work."""
        content = {"deps": self.deps(stage), "params": self.params(stage), "outs": self.outs(stage)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def outdated(self, stage: str) -> list[str]:
        """Inputs of a stage that another stage has made anew since; empty for a stage that is up to date."""
        made = {path: md5 for name in self.stages for path, md5 in self.outs(name).items()}
        return [path for path, md5 in self.deps(stage).items() if made.get(path, md5) != md5]

    def up_to_date(self, stage: str) -> bool:
        """Whether a stage has run, on what the stages before it make now."""
        return stage in self.stages and not self.outdated(stage)

    def excerpt(self, stages: list[str]) -> bytes:
        """A lock file of these stages alone."""
        kept = {name: self.stages[name] for name in stages if name in self.stages}
        return yaml.safe_dump({"schema": "2.0", "stages": kept}, sort_keys=False, allow_unicode=True).encode()

    def _hashes(self, stage: str, side: str) -> dict[str, str]:
        entries = self.stages.get(stage, {}).get(side, [])
        return {entry["path"]: str(entry.get("md5", "")) for entry in entries}


def same_file(path: Path, md5: str) -> bool:
    """Whether a file is the one that DVC wrote down; a folder's hash is of DVC's own making and not looked at."""
    if md5.endswith(".dir") or path.is_dir():
        return path.exists()
    return path.is_file() and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == md5
