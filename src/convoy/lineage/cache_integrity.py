"""Hashes again what dvc.lock names, in DVC's cache and in the working tree: finds damage before the files are used.

DVC does not check a cache object that is read-only, nor a file whose time and size it knows (treeverse/dvc #9641,
#9652). `mend` makes and fetches nothing: the next `dvc repro` makes what is missing, `dvc pull` fetches it.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dvc.repo import Repo
from dvc_data.hashfile.hash import file_md5
from dvc_data.hashfile.tree import Tree
from dvc_objects.errors import ObjectFormatError
from tqdm import tqdm

from convoy.core.process import Say
from convoy.lineage import lock_repair
from convoy.lineage.lock_repair import LOCK

MEND = "`python -m convoy verify --mend`, then `dvc repro`"

Problem = Literal["damaged", "missing", "differs", "unreadable"]
DESCRIPTIONS: dict[Problem, str] = {
    "damaged": "damaged",
    "missing": "missing",
    "differs": "not what dvc.lock says",
    "unreadable": "cannot be read",
}


@dataclass
class Item:
    """A file that should have this md5: a cache object, or the path in the working tree that was made from it."""

    file: Path
    md5: str
    cached: bool
    path: str  # in the working tree, of the out that it belongs to
    stage: str
    problem: Problem | None = None
    error: str = ""  # the system's, where the file cannot be read

    def check(self) -> None:
        """Hash the file, and note what is wrong with it."""
        try:
            if not self.file.is_file():
                self.problem = "missing" if self.cached else None  # in the working tree DVC finds it by itself
            elif file_md5(str(self.file)) != self.md5.removesuffix(".dir"):
                self.problem = "damaged" if self.cached else "differs"
        except OSError as error:
            self.problem, self.error = "unreadable", error.strerror or str(error)


@dataclass
class Verification:
    """What was looked at, with its problems."""

    items: list[Item] = field(default_factory=list)
    records: list[str] = field(default_factory=list)  # DVC's own files that DVC could not read

    @property
    def problems(self) -> list[tuple[Problem, Item]]:
        """Those items that are not as dvc.lock says."""
        return [(item.problem, item) for item in self.items if item.problem]

    @property
    def whole(self) -> bool:
        """Whether everything is as dvc.lock says."""
        return not self.problems and not self.records

    @property
    def mendable(self) -> bool:
        """Whether `mend` does all that is to do: it leaves what cannot be read."""
        return all(problem != "unreadable" for problem, _ in self.problems)


def verify(mend: bool, say: Say) -> Verification:
    """Hash all that dvc.lock names, and say what differs from it.

    With `mend` damaged cache objects are removed; files in the working tree are touched, so that DVC hashes them
    itself; and DVC's records that a kill has torn are put aside. A file that cannot be read stays: it may be whole.
    Raises DvcException outside a repository, OSError where DVC's own files cannot be read.
    """
    verification = Verification()
    with Repo() as repo:
        root = Path(repo.root_dir)
        verification.records = list(lock_repair.torn_records(root, mend))
        if verification.records and not mend:
            _print_result(verification, root, mend, say)
            return verification
        with repo.lock:
            items: dict[Path, Item] = {}  # an object once, with the first stage that names it
            for item in (item for stage in repo.index.stages for item in _items_of_stage(stage)):
                items.setdefault(item.file, item)
            if any(item.problem for item in items.values()):  # a listing cannot say what it named
                items = {item.file: item for item in _all_objects(repo)} | items
            verification.items = list(items.values())
            for item in tqdm(verification.items, desc="verify", unit=" files", disable=None):
                if item.problem is None:
                    item.check()
            if mend:
                _apply_mend(verification)
    _print_result(verification, root, mend, say)
    return verification


def _items_of_stage(stage: Any) -> Iterator[Item]:
    """All files behind the outs of a stage, in the working tree and in the cache; or a folder's bad listing."""
    for out in stage.outs:
        if not out.hash_info or out.hash_info.name != "md5":
            continue
        files = {"": out.hash_info.value}
        if out.hash_info.isdir:
            listing = _object_of(out, out.hash_info.value, "", stage)
            files = _files_of(listing, out)
            if listing.problem:
                yield listing
        for subpath, md5 in files.items():
            yield Item(Path(out.fs_path, subpath), md5, False, str(out), stage.addressing)
            if out.use_cache:
                yield _object_of(out, md5, subpath, stage)


def _object_of(out: Any, md5: str, subpath: str, stage: Any) -> Item:
    return Item(Path(out.cache.oid_to_path(md5)), md5, True, str(Path(str(out), subpath)), stage.addressing)


def _files_of(listing: Item, out: Any) -> dict[str, str]:
    """Path below a folder -> md5, of all that its listing names; empty where the listing is bad, which it then says."""
    listing.check()
    if listing.problem:
        return {}
    try:
        tree = Tree.load(out.cache, out.hash_info)
    except ObjectFormatError:
        listing.problem = "damaged"
        return {}
    return {"/".join(key): info.value for key, (_, info) in tree.iteritems()}  # type: ignore[no-untyped-call]


def _all_objects(repo: Any) -> Iterator[Item]:
    """All objects of the cache, whose names are their hashes too."""
    for file in sorted(Path(repo.cache.local.path).glob("??/*")):
        yield Item(file, file.parent.name + file.name, True, "what no readable listing names", "?")


def _apply_mend(verification: Verification) -> None:
    for problem, item in verification.problems:
        with suppress(FileNotFoundError):
            if problem == "damaged":
                item.file.unlink()
            elif problem == "differs":
                item.file.touch()


def _print_result(verification: Verification, root: Path, mend: bool, say: Say) -> None:
    for record in verification.records:
        say(record + (", put aside" if mend else f"; {MEND}"))
    objects = sum(item.cached for item in verification.items)
    missing = sum(problem == "missing" for problem, _ in verification.problems)
    if missing == objects > 0:
        say(f"nothing of {LOCK} is in the cache; `dvc pull` fetches it, `dvc repro` makes it")
    for problem, item in verification.problems:
        if problem == "missing" and missing == objects:
            continue
        path = item.file.relative_to(root) if item.file.is_relative_to(root) else item.file
        owner = f" (of {item.path})" if item.cached else ""
        reason = f" ({item.error})" if item.error else ""
        say(f"{path}{owner}, stage {item.stage}: {DESCRIPTIONS[problem]}{reason}; {_remedy(problem, mend)}")
    say(f"{len(verification.items)} files: {len(verification.problems)} not as {LOCK} names them")


def _remedy(problem: Problem, mend: bool) -> str:
    if problem == "missing":
        return "`dvc pull` fetches it, `dvc repro` makes it"
    if problem == "unreadable":
        return "give yourself the right to it, or where the disk is at fault remove it, then `dvc pull` or `dvc repro`"
    if problem == "differs":
        return "the next `dvc repro` looks at it anew" if mend else MEND
    return "removed; `dvc pull` fetches it, `dvc repro` makes it" if mend else MEND
