"""A file -> what tells its content from any other's."""

import hashlib
from pathlib import Path


def sha256_of(path: Path) -> str:
    """The sha256 (hex) of a file, read in blocks. Raises OSError, so FileNotFoundError where there is none."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
