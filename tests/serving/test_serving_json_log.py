"""Log lines for machines: JSON, with the request, without anything that a client sent."""

import json
import logging

import pytest

from serving import json_log
from serving.json_log import JsonLines

SECRET = "what the client wrote"


def record_of(**extra: object) -> logging.LogRecord:
    """The record of an error that repeats what it was given."""
    logger = logging.getLogger("bentoml.convoy.test")
    try:
        int(SECRET)
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    return logger.makeRecord(logger.name, logging.ERROR, __file__, 1, "request %s failed", ("a1",), info, None, extra)


def test_a_line_names_the_request_and_the_error_and_repeats_no_input() -> None:
    line = JsonLines().format(record_of(convoy_request_id="a1"))
    content = json.loads(line)
    assert (content["message"], content["request_id"], content["error"]) == ("request a1 failed", "a1", "ValueError")
    assert content["stack"][-1].endswith("record_of") and content["at"].endswith("+00:00")
    assert SECRET not in line and "\n" not in line


@pytest.mark.parametrize(("wanted", "formatter"), [("json", JsonLines), ("", logging.Formatter)])
def test_the_environment_says_who_reads_the_log(
    monkeypatch: pytest.MonkeyPatch, wanted: str, formatter: type[logging.Formatter]
) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter())
    monkeypatch.setattr(logging.getLogger("bentoml"), "handlers", [handler])
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "handlers", [])
    monkeypatch.setenv("CONVOY_LOG", wanted)
    json_log.set_up()
    assert type(handler.formatter) is formatter
