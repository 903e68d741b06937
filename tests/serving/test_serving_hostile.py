"""The hostile corpus against a real `bentoml serve`: the exact status and code of each, and a service that lives."""

import http.client
import json
from contextlib import closing

import hostile
import pytest
from conftest import Server

pytestmark = pytest.mark.process
CASES = hostile.cases()


def ask(server: Server, case: hostile.Case) -> tuple[int, bytes]:
    """Send a request as it stands: nothing is completed, encoded or checked on the way."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    names = {name for name, _ in case.headers}
    connection.putrequest(case.method, case.path, skip_host="host" in names, skip_accept_encoding=True)
    for name, value in (("content-type", case.content_type), *case.headers):
        if name != "content-type" or value:
            connection.putheader(name, value.encode("utf-8"))
    connection.putheader("content-length", str(len(case.body)))
    with closing(connection):
        connection.endheaders(case.body)
        response = connection.getresponse()
        return response.status, response.read()


def test_the_corpus_has_more_than_300_requests_and_no_name_twice() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 300


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_request_gets_exactly_its_answer(server: Server, case: hostile.Case) -> None:
    status, content = ask(server, case)
    if case.expected == hostile.OK:
        assert status == 200, content
        answer = json.loads(content)
        rows = [prediction["probabilities"].values() for prediction in answer.get("predictions", [answer])]
        assert all(abs(sum(row) - 1) < 1e-6 for row in rows)
    else:
        error = json.loads(content)["error"]
        assert (status, error["code"]) == case.expected, error
        assert set(error) == {"code", "message", "request_id"}


def test_after_the_corpus_the_same_worker_lives_and_its_log_holds_no_traceback(server: Server) -> None:
    good = hostile.Case("good", hostile.IMAGES, hostile.PNG, "image/png", hostile.OK)
    assert ask(server, good)[0] == 200
    assert "Traceback" not in server.log.read_text()
