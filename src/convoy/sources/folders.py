"""A folder, or an archive of it, with one subfolder per label -> items; folders of splits may stand above."""

from pathlib import PurePosixPath
from typing import Any

from convoy.kinds.registry import module
from convoy.sources.items import SPLIT_NAMES, Item, ItemsAndRejections, Rejection, SourceParams, SourceRefused
from convoy.sources.trees import TreeFile, open_tree


def read(params: SourceParams, kind: str) -> ItemsAndRejections:
    """`label/file`, or `split/label/file`; folders below those of the labels are read too.

    Raises SourceRefused for a source that cannot be read, and for a label's folder without a usable file.
    """
    tree, raw = open_tree(params.path), module(kind, "items.raw")
    label_depth = 1 if is_divided(tree.outermost) else 0
    label_folders: set[str] = set()
    usable_folders: set[str] = set()
    problems: dict[str, Rejection] = {}  # of each label's folder the first
    for file in tree.files:
        folders = file.parts if file.name.endswith("/") else file.parts[:-1]
        label = "/".join(folders[: label_depth + 1])
        if not file.name.endswith("/"):
            entry = _read_entry(file, folders, label_depth, params, raw)
            if isinstance(entry, Item):
                usable_folders.add(label)
            elif not entry.ignored:
                problems.setdefault(label, entry)
            yield entry
        elif len(folders) == label_depth + 1 and _names_label(file, folders, label_depth, params):
            label_folders.add(label)
    if usable_folders or not problems:  # else nothing is usable, and raw.require_labels refuses it
        _refuse_empty(params, (label_folders | problems.keys()) - usable_folders, problems)


def _refuse_empty(params: SourceParams, empty: set[str], problems: dict[str, Rejection]) -> None:
    """Only at the end: in an archive a folder may follow its files."""
    if empty:
        described = [
            f"{label} ({problems[label].name}: {problems[label].message})" if label in problems else label
            for label in empty
        ]
        listed = ", ".join(sorted(described)[:5])
        raise SourceRefused(f"{params.path}: no usable file in {listed} (of {len(empty)}); fill or remove such folders")


def is_divided(outermost: frozenset[str]) -> bool:
    """Whether these folders are splits: one for training, and at least one that is held out."""
    splits = {SPLIT_NAMES.get(name.lower()) for name in outermost}
    return "train" in splits and bool(splits - {"train", None})


def _names_label(file: TreeFile, folders: tuple[str, ...], label_depth: int, params: SourceParams) -> bool:
    in_split = not label_depth or folders[0].lower() in SPLIT_NAMES
    return in_split and not file.is_hidden and _is_wanted(folders[label_depth], params)


def _read_entry(
    file: TreeFile, folders: tuple[str, ...], label_depth: int, params: SourceParams, raw: Any
) -> Item | Rejection:
    ignored = _reason_to_ignore(file, folders, label_depth, params, raw.SUFFIXES)
    if ignored is not None:
        return Rejection(file.name, *ignored, ignored=True)
    if file.problem:
        return Rejection(file.name, "unreadable", file.problem)
    split = SPLIT_NAMES[folders[0].lower()] if label_depth and params.given_splits else ""
    try:
        encoded = file.read()
        content = decode(encoded, params.table.encoding) if raw.RAW is str else encoded
    except UnicodeDecodeError as error:
        return Rejection(file.name, "encoding", explain(error))
    except OSError as error:
        return Rejection(file.name, "unreadable", error.strerror or str(error))
    return Item(file.name, folders[label_depth], split, content)


def _reason_to_ignore(
    file: TreeFile, folders: tuple[str, ...], label_depth: int, params: SourceParams, suffixes: tuple[str, ...]
) -> tuple[str, str] | None:
    if file.is_hidden:
        return "hidden", "a hidden file"
    if label_depth and folders and folders[0].lower() not in SPLIT_NAMES:
        return "no_split", f"{folders[0]!r} is no folder of a split"
    if len(folders) <= label_depth:
        return "no_label", "not in a folder of a label"
    if not _is_wanted(folders[label_depth], params):
        return "label_not_wanted", f"the label {folders[label_depth]!r} is not in params.yaml"
    if suffixes and PurePosixPath(file.name).suffix.lower() not in suffixes:
        return "no_text_file", f"its name does not end in {' or '.join(suffixes)}"
    return None


def decode(content: bytes, encoding: str) -> str:
    """Text in a stated encoding, without the byte order mark at its start.

    Raises UnicodeDecodeError, and SourceRefused where there is no such encoding.
    """
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except LookupError:
        raise SourceRefused(f"{encoding!r} is no encoding that Python knows; utf-8 mostly is") from None


def explain(error: UnicodeDecodeError) -> str:
    """The byte that is wrong, and where it stands."""
    return f"not {error.encoding}: byte 0x{error.object[error.start]:02x} at {error.start}"


def _is_wanted(label: str, params: SourceParams) -> bool:
    return params.labels is None or label in params.labels
