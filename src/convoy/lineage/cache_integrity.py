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


@dataclass(frozen=True)
class Item:
    """A file that should have this md5: a cache object, or the path in the working tree that was made from it."""

    file: Path
    md5: str
    cached: bool
    path: str  # in the working tree, of the out that it belongs to
    stage: str


@dataclass
class Verification:
    """The problems of a run, and what was looked at."""

    problems: list[tuple[Problem, Item]] = field(default_factory=list)
    records: list[str] = field(default_factory=list)  # DVC's own files that DVC could not read
    reasons: dict[Path, str] = field(default_factory=dict)  # the system's error, of each file that cannot be read
    items: list[Item] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether everything is as dvc.lock says."""
        return not self.problems and not self.records

    def add_unreadable(self, item: Item, error: OSError) -> None:
        """Note that a file cannot be read."""
        self.problems.append(("unreadable", item))
        self.reasons[item.file] = error.strerror or str(error)


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
            verification.items = list(_items_of_lock(repo, verification))
            if verification.problems:  # a listing cannot say what it named
                verification.items += _unlisted_objects(repo, verification)
            _compare_hashes(verification)
            if mend:
                _apply_mend(verification)
    _print_result(verification, root, mend, say)
    return verification


def _items_of_lock(repo: Any, verification: Verification) -> Iterator[Item]:
    """All files behind the outs of dvc.lock, each cache object once; and problems of folder listings."""
    yielded = set()
    for stage in repo.index.stages:
        for out in stage.outs:
            if not out.hash_info or out.hash_info.name != "md5":
                continue
            origin = str(out), stage.addressing
            for md5, subpath in _files_of_out(out, origin, verification):
                yield Item(Path(out.fs_path, subpath), md5, False, *origin)
                if out.use_cache and md5 not in yielded:
                    yielded.add(md5)
                    yield Item(Path(out.cache.oid_to_path(md5)), md5, True, str(Path(str(out), subpath)), origin[1])


def _unlisted_objects(repo: Any, verification: Verification) -> list[Item]:
    """All other objects of the cache, whose names are their hashes too."""
    checked = {item.file for item in [*verification.items, *(item for _, item in verification.problems)]}
    files = sorted(Path(repo.cache.local.path).glob("??/*"))
    return [
        Item(file, (file.parent.name + file.name).removesuffix(".dir"), True, "what no readable listing names", "?")
        for file in files
        if file not in checked
    ]


def _files_of_out(out: Any, origin: tuple[str, str], verification: Verification) -> Iterator[tuple[str, str]]:
    """md5 and path below the out, of the out itself or, where it is a folder, of all that its listing names."""
    if not out.hash_info.isdir:
        yield out.hash_info.value, ""
        return
    oid = out.hash_info.value
    listing = Item(Path(out.cache.oid_to_path(oid)), oid, True, *origin)
    try:
        is_whole = file_md5(str(listing.file)) == oid.removesuffix(".dir")
        tree = Tree.load(out.cache, out.hash_info) if is_whole else None
    except FileNotFoundError:
        verification.problems.append(("missing", listing))
        return
    except ObjectFormatError:
        tree = None
    except OSError as error:
        verification.add_unreadable(listing, error)
        return
    if tree is None:
        verification.problems.append(("damaged", listing))
        return
    for key, (_, hash_info) in tree.iteritems():  # type: ignore[no-untyped-call]
        yield hash_info.value, "/".join(key)


def _compare_hashes(verification: Verification) -> None:
    for item in tqdm(verification.items, desc="verify", unit=" files", disable=None):
        try:
            if item.file.is_file():
                if file_md5(str(item.file)) != item.md5:
                    verification.problems.append(("damaged" if item.cached else "differs", item))
            elif item.cached:  # in the working tree DVC finds by itself what is missing
                verification.problems.append(("missing", item))
        except OSError as error:
            verification.add_unreadable(item, error)


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
    items = [*verification.items, *(item for _, item in verification.problems)]
    objects = len({item.file for item in items if item.cached})
    missing = sum(problem == "missing" for problem, _ in verification.problems)
    if missing == objects > 0:
        say(f"nothing of {LOCK} is in the cache; `dvc pull` fetches it, `dvc repro` makes it")
    for problem, item in verification.problems:
        if problem == "missing" and missing == objects:
            continue
        path = item.file.relative_to(root) if item.file.is_relative_to(root) else item.file
        owner = f" (of {item.path})" if item.cached else ""
        reason = f" ({verification.reasons[item.file]})" if problem == "unreadable" else ""
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
