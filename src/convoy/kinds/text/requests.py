"""Texts as requests to the service: JSON, several texts a request."""

import json
from collections.abc import Iterator, Sequence

JSON = "application/json"


def bodies(raws: Sequence[str], max_items: int) -> Iterator[tuple[str, bytes]]:
    """Content type and body of each request for predictions of these texts, in their order."""
    for start in range(0, len(raws), max_items):
        yield JSON, json.dumps({"texts": list(raws[start : start + max_items])}).encode()


def curl(raw: str) -> list[str]:
    """The words of a curl command that follow its URL."""
    return ["-H", f"Content-Type: {JSON}", "--data-raw", json.dumps({"texts": [raw]})]
