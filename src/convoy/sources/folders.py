"""A folder, or an archive of it, with one subfolder per label -> items; the folders of a division may stand above."""

from pathlib import PurePosixPath

from convoy.core.paths import Task
from convoy.sources.items import SPLIT_NAMES, Item, ItemsAndRejections, Rejection, SourceParams, SourceRefused
from convoy.sources.trees import TreeFile, open_tree


def read(params: SourceParams, task: Task) -> ItemsAndRejections:
    """`label/file`, or `split/label/file`; folders below those of the labels are looked into too.

    Raises SourceRefused for a source that cannot be read, and for a label's folder without a usable file.
    """
    tree = open_tree(params.path)
    above = 1 if is_divided(tree.outermost) else 0
    of_labels: set[str] = set()
    filled: set[str] = set()
    faults: dict[str, Rejection] = {}  # of each label's folder the first
    for file in tree.files:
        folders = file.parts if file.name.endswith("/") else file.parts[:-1]
        label = "/".join(folders[: above + 1])
        if not file.name.endswith("/"):
            found = _look(file, folders, above, params, task)
            if isinstance(found, Item):
                filled.add(label)
            elif not found.ignored:
                faults.setdefault(label, found)
            yield found
        elif len(folders) == above + 1 and _says_label(file, folders, above, params):
            of_labels.add(label)
    if filled or not faults:  # else all is faulty, which whoever counts the items tells with every reason
        _refuse_empty(params, (of_labels | faults.keys()) - filled, faults)


def _refuse_empty(params: SourceParams, empty: set[str], faults: dict[str, Rejection]) -> None:
    """Only at the end: in an archive a folder may follow its files."""
    if empty:
        told = [
            f"{label} ({faults[label].name}: {faults[label].message})" if label in faults else label for label in empty
        ]
        listed = ", ".join(sorted(told)[:5])
        raise SourceRefused(f"{params.path}: no usable file in {listed} (of {len(empty)}); fill or remove such folders")


def is_divided(outermost: frozenset[str]) -> bool:
    """Whether these folders are those of a division: one of training, and at least one of what is held out."""
    splits = {SPLIT_NAMES.get(name.lower()) for name in outermost}
    return "train" in splits and bool(splits - {"train", None})


def _says_label(file: TreeFile, folders: tuple[str, ...], above: int, params: SourceParams) -> bool:
    in_split = not above or folders[0].lower() in SPLIT_NAMES
    return in_split and not file.is_hidden and _is_wanted(folders[above], params)


def _look(file: TreeFile, folders: tuple[str, ...], above: int, params: SourceParams, task: Task) -> Item | Rejection:
    ignored = _why_ignored(file, folders, above, params, task)
    if ignored is not None:
        return Rejection(file.name, *ignored, ignored=True)
    if file.problem:
        return Rejection(file.name, "unreadable", file.problem)
    split = SPLIT_NAMES[folders[0].lower()] if above and params.given_splits else ""
    try:
        content = file.read()
        found = content if task == "image" else decode(content, params.table.encoding)
    except UnicodeDecodeError as error:
        return Rejection(file.name, "encoding", explain(error))
    except OSError as error:
        return Rejection(file.name, "unreadable", error.strerror or str(error))
    return Item(file.name, folders[above], split, found)


def _why_ignored(
    file: TreeFile, folders: tuple[str, ...], above: int, params: SourceParams, task: Task
) -> tuple[str, str] | None:
    if file.is_hidden:
        return "hidden", "a hidden file"
    if above and folders and folders[0].lower() not in SPLIT_NAMES:
        return "no_split", f"{folders[0]!r} is no folder of a split"
    if len(folders) <= above:
        return "no_label", "not in a folder of a label"
    if not _is_wanted(folders[above], params):
        return "label_not_wanted", f"the label {folders[above]!r} is not in params.yaml"
    if task == "text" and PurePosixPath(file.name).suffix.lower() != ".txt":
        return "no_text_file", "its name does not end in .txt"
    return None


def decode(content: bytes, encoding: str) -> str:
    """Text in a stated encoding; a mark at its start is no part of it.

    Raises UnicodeDecodeError, and SourceRefused where there is no such encoding.
    """
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except LookupError:
        raise SourceRefused(f"{encoding!r} is no encoding that Python knows; utf-8 mostly is") from None


def explain(error: UnicodeDecodeError) -> str:
    """What stands where, in words."""
    return f"not {error.encoding}: byte 0x{error.object[error.start]:02x} at {error.start}"


def _is_wanted(label: str, params: SourceParams) -> bool:
    return params.labels is None or label in params.labels
