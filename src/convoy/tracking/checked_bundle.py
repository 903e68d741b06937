"""A bundle that was read and checked once, with its folder: passed on, so that nobody reads and hashes it again."""

from dataclasses import dataclass
from pathlib import Path

from convoy.bundles.bundle import Bundle, Card, read_bundle


@dataclass(frozen=True)
class CheckedBundle:
    """The content of a bundle, and the folder that it was read from."""

    folder: Path
    content: Bundle

    @classmethod
    def read(cls, folder: Path) -> "CheckedBundle":
        """Read and check a folder. Raises BundleInvalid."""
        return cls(folder, read_bundle(folder))

    @property
    def digest(self) -> str:
        """The sha256 of its manifest."""
        return self.content.digest

    @property
    def card(self) -> Card:
        """What it says about itself."""
        return self.content.card

    @property
    def files(self) -> dict[str, bytes]:
        """File -> content, without the manifest."""
        return self.content.files

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))
