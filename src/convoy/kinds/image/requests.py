"""Images as requests to the service: one image a request, its bytes are the body."""

from collections.abc import Iterator, Sequence
from pathlib import Path

EXAMPLE_FILE = Path(".run/example.png")


def bodies(raws: Sequence[bytes], max_items: int) -> Iterator[tuple[str, bytes]]:
    """Content type and body of each request for predictions of these images, in their order."""
    for raw in raws:
        yield "image/png", raw


def curl(raw: bytes) -> list[str]:
    """The words of a curl command that follow its URL; the image is written to a file."""
    EXAMPLE_FILE.parent.mkdir(exist_ok=True)
    EXAMPLE_FILE.write_bytes(raw)
    return ["-H", "Content-Type: image/png", "--data-binary", f"@{EXAMPLE_FILE.absolute()}"]
