"""Log records -> one JSON object per line, for machines; with CONVOY_LOG=json, else BentoML's lines for people."""

import json
import logging
import os
import traceback
import warnings
from datetime import UTC, datetime

LOG_VARIABLE = "CONVOY_LOG"


class JsonLines(logging.Formatter):
    """Time, level, logger and message, and where there is one the request, the error's class and the way to it.

    What an exception says is left out: libraries repeat in it what they were given, and that is nobody's business.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        content: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if request_id := getattr(record, "convoy_request_id", None):
            content["request_id"] = request_id
        if record.exc_info and record.exc_info[0]:
            content["error"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])
            content["stack"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return json.dumps(content, ensure_ascii=False)


def set_up() -> None:
    """Let every handler of this process write as the environment wants it; after BentoML has made its own."""
    # Pillow warns of each broken tag of a photo: one of 780 kB wrote 65,000 lines.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if os.environ.get(LOG_VARIABLE, "") != "json":
        return
    for logger in (logging.getLogger(), logging.getLogger("bentoml"), logging.getLogger("uvicorn.error")):
        for handler in logger.handlers:
            handler.setFormatter(JsonLines())
