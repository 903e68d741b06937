"""The request log of a service -> the lines of one request."""

import json
from pathlib import Path
from typing import Any

from convoy.core import request_files


def find_requests(named: str, request_id: str) -> list[dict[str, Any]]:
    """The lines with this id, the newest first: who sends an id may send it twice."""
    found = [line for path in request_files.existing(named) for line in reversed(_lines(path, request_id.encode()))]
    return [line for line in found if line.get("id") == request_id]


def _lines(path: Path, wanted: bytes) -> list[dict[str, Any]]:
    """The lines of a file that hold these bytes; what is no JSON, such as the half line of a kill, is passed over."""
    lines = []
    with path.open("rb") as stream:
        for line in stream:
            if wanted in line:
                try:
                    content = json.loads(line)
                except ValueError:
                    continue
                if isinstance(content, dict):
                    lines.append(content)
    return lines
