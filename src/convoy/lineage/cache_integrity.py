"""What dvc.lock names, read and hashed anew: DVC's cache and the working tree; what is damaged is found before its use.

DVC takes a cache object that is read-only for whole, and a file whose time and size it knows (treeverse/dvc #9641,
#9652). `mend` leaves to the next `dvc repro` or `dvc pull` what these do by themselves: make or fetch what is missing.
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

Fault = Literal["damaged", "missing", "differs", "unreadable"]
SAYS: dict[Fault, str] = {
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
    path: str  # what it is of, in the working tree
    stage: str


@dataclass
class Verification:
    """What is wrong, and how much was read."""

    faults: list[tuple[Fault, Item]] = field(default_factory=list)
    records: list[str] = field(default_factory=list)  # DVC's own files that DVC could not read
    reasons: dict[Path, str] = field(default_factory=dict)  # the system's, of each file that cannot be read
    items: list[Item] = field(default_factory=list)
    bytes: int = 0

    @property
    def whole(self) -> bool:
        """Whether all is as dvc.lock names it."""
        return not self.faults and not self.records

    def refuse(self, item: Item, error: OSError) -> None:
        """Note that a file cannot be read."""
        self.faults.append(("unreadable", item))
        self.reasons[item.file] = error.strerror or str(error)


def verify(mend: bool, say: Say) -> Verification:
    """Hash all that dvc.lock names, and say what is not as it names it.

    With `mend` damaged cache objects are removed, files in the working tree are touched, so that DVC looks at them
    itself, and records of DVC's that a kill has torn are put aside. What cannot be read stays: it may be whole. Raises
    DvcException outside a repository, OSError where DVC's own files cannot be read.
    """
    found = Verification()
    with Repo() as repo:
        root = Path(repo.root_dir)
        found.records = list(lock_repair.torn_records(root, mend))
        if found.records and not mend:
            _tell(found, root, mend, say)
            return found
        with repo.lock:
            found.items = list(_items(repo, found))
            if found.faults:  # a listing cannot say what it named
                found.items += _others(repo, found)
            _compare(found)
            if mend:
                _mend(found)
    _tell(found, root, mend, say)
    return found


def _items(repo: Any, found: Verification) -> Iterator[Item]:
    """All files behind the outs of dvc.lock, each cache object once; a damaged listing of a folder is found here."""
    objects = set()
    for stage in repo.index.stages:
        for out in stage.outs:
            if not out.hash_info or out.hash_info.name != "md5":
                continue
            about = str(out), stage.addressing
            for md5, below in _files(out, about, found):
                yield Item(Path(out.fs_path, below), md5, False, *about)
                if out.use_cache and md5 not in objects:
                    objects.add(md5)
                    yield Item(Path(out.cache.oid_to_path(md5)), md5, True, str(Path(str(out), below)), about[1])


def _others(repo: Any, found: Verification) -> list[Item]:
    """All other objects of the cache, whose names are their hashes too."""
    known = {item.file for item in [*found.items, *(item for _, item in found.faults)]}
    files = sorted(Path(repo.cache.local.path).glob("??/*"))
    return [
        Item(file, (file.parent.name + file.name).removesuffix(".dir"), True, "what no readable listing names", "?")
        for file in files
        if file not in known
    ]


def _files(out: Any, about: tuple[str, str], found: Verification) -> Iterator[tuple[str, str]]:
    """md5 and path below the out, of the out itself or, where it is a folder, of all that its listing names."""
    if not out.hash_info.isdir:
        yield out.hash_info.value, ""
        return
    oid = out.hash_info.value
    listing = Item(Path(out.cache.oid_to_path(oid)), oid, True, *about)
    try:
        whole = file_md5(str(listing.file)) == oid.removesuffix(".dir")
        tree = Tree.load(out.cache, out.hash_info) if whole else None
    except FileNotFoundError:
        found.faults.append(("missing", listing))
        return
    except ObjectFormatError:
        tree = None
    except OSError as error:
        found.refuse(listing, error)
        return
    if tree is None:
        found.faults.append(("damaged", listing))
        return
    for key, (_, hash_info) in tree.iteritems():  # type: ignore[no-untyped-call]
        yield hash_info.value, "/".join(key)


def _compare(found: Verification) -> None:
    sizes = [_size(item, found) for item in found.items]
    found.bytes = sum(size or 0 for size in sizes)
    with tqdm(total=found.bytes, desc="verify", unit="B", unit_scale=True, disable=None) as progress:
        for item, size in zip(found.items, sizes, strict=True):
            if size is None:
                continue
            try:
                if file_md5(str(item.file)) != item.md5:
                    found.faults.append(("damaged" if item.cached else "differs", item))
            except OSError as error:
                found.refuse(item, error)
            progress.update(size)


def _size(item: Item, found: Verification) -> int | None:
    """Bytes, or None where there is nothing to read; of the working tree DVC sees by itself what is missing."""
    try:
        if item.file.is_file():
            return item.file.stat().st_size
    except OSError as error:
        found.refuse(item, error)
        return None
    if item.cached:
        found.faults.append(("missing", item))
    return None


def _mend(found: Verification) -> None:
    for fault, item in found.faults:
        with suppress(FileNotFoundError):
            if fault == "damaged":
                item.file.unlink()
            elif fault == "differs":
                item.file.touch()


def _tell(found: Verification, root: Path, mend: bool, say: Say) -> None:
    for record in found.records:
        say(record + (", put aside" if mend else f"; {MEND}"))
    objects = len({item.file for item in [*found.items, *(item for _, item in found.faults)] if item.cached})
    missing = sum(fault == "missing" for fault, _ in found.faults)
    if missing == objects > 0:
        say(f"nothing of {LOCK} is in the cache; `dvc pull` fetches it, `dvc repro` makes it")
    for fault, item in found.faults:
        if fault == "missing" and missing == objects:
            continue
        where = item.file.relative_to(root) if item.file.is_relative_to(root) else item.file
        of = f" (of {item.path})" if item.cached else ""
        why = f" ({found.reasons[item.file]})" if fault == "unreadable" else ""
        say(f"{where}{of}, stage {item.stage}: {SAYS[fault]}{why}; {_remedy(fault, mend)}")
    say(f"{len(found.items)} files, {found.bytes / 1e6:,.0f} MB: {len(found.faults)} not as {LOCK} names them")


def _remedy(fault: Fault, mend: bool) -> str:
    if fault == "missing":
        return "`dvc pull` fetches it, `dvc repro` makes it"
    if fault == "unreadable":
        return "give yourself the right to it, or where the disk is at fault remove it, then `dvc pull` or `dvc repro`"
    if fault == "differs":
        return "the next `dvc repro` looks at it anew" if mend else MEND
    return "removed; `dvc pull` fetches it, `dvc repro` makes it" if mend else MEND
