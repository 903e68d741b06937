"""The state that a client carries: it comes back as it was, and nothing else is taken for one."""

import base64
import string

import numpy as np
import pytest
import tiny_bundles
from conftest import deploy

from convoy.bundles.streaming import StreamState, begin, read
from serving.deployed import Deployed, load_task
from serving.errors import RequestError
from serving.streams import KEY_VARIABLE, MAX_CHARACTERS, StateToken, share_key

STATE_TOKEN = StateToken(b"a key of at least sixteen characters")
ALPHABET = string.ascii_letters + string.digits + "-_"


def code_of(token: str, model: Deployed, state_token: StateToken = STATE_TOKEN) -> str:
    with pytest.raises(RequestError) as error:
        state_token.decode(token, model)
    return error.value.code


@pytest.fixture
def state(stream_model: Deployed) -> StreamState:
    return read(stream_model.predictor, begin(stream_model.predictor), "the good film isn\u2019t ba").state


def test_a_state_comes_back_as_it_was(stream_model: Deployed, state: StreamState) -> None:
    for before in (state, begin(stream_model.predictor)):
        after = STATE_TOKEN.decode(STATE_TOKEN.encode(before, stream_model), stream_model)
        np.testing.assert_array_equal(after.carried, before.carried)
        np.testing.assert_array_equal(after.latest, before.latest)
        assert (after.words, after.pending) == (before.words, before.pending)
    assert state.words == 4 and state.pending == " ba"


def test_no_character_of_a_token_can_be_changed(stream_model: Deployed, state: StreamState) -> None:
    token = STATE_TOKEN.encode(state, stream_model)
    assert set(token) <= set(ALPHABET)
    for place, character in enumerate(token):
        others = {ALPHABET[(ALPHABET.index(character) + step) % 64] for step in (1, 2, 7, 32)}
        for other in others | {"+", "/", "=", "\u00e9"}:
            assert code_of(token[:place] + other + token[place + 1 :], stream_model) == "state_invalid"


def test_no_byte_of_a_token_can_be_changed_left_out_or_added(stream_model: Deployed, state: StreamState) -> None:
    token = STATE_TOKEN.encode(state, stream_model)
    content = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for place in range(len(content)):
        for changed in (
            content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :],
            content[:place] + content[place + 1 :],
            content[:place] + b"\0" + content[place:],
        ):
            made = base64.urlsafe_b64encode(changed).rstrip(b"=").decode()
            assert code_of(made, stream_model) == "state_invalid"


NO_TOKENS = ["", "a", "=", "\u00e9", "A" * 43, "A" * MAX_CHARACTERS, "A" * (MAX_CHARACTERS + 4), "\x00"]


@pytest.mark.parametrize("token", NO_TOKENS, ids=lambda token: f"{len(token)} {token[:1]!a}")
def test_what_is_no_token_is_refused(token: str, stream_model: Deployed) -> None:
    assert code_of(token, stream_model) == "state_invalid"


def test_a_token_that_is_too_long_is_refused_though_it_is_signed(stream_model: Deployed) -> None:
    state = StreamState(np.zeros(2, np.float32), np.zeros(0, np.float32), 0, "a" * MAX_CHARACTERS)
    assert code_of(STATE_TOKEN.encode(state, stream_model), stream_model) == "state_invalid"


def test_a_token_of_another_key_is_refused(stream_model: Deployed, state: StreamState) -> None:
    assert code_of(StateToken(b"another key of sixteen").encode(state, stream_model), stream_model) == "state_invalid"


def test_a_token_of_another_version_of_the_model_is_told_apart(
    stream_model: Deployed, state: StreamState, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("other")
    deploy(root, "reviews-stream", lambda folder: tiny_bundles.write_stream_bundle(folder, shift=1.0))
    other = load_task(root, "reviews-stream")
    assert isinstance(other, Deployed)
    assert code_of(STATE_TOKEN.encode(state, other), stream_model) == "state_outdated"


def test_the_key_comes_from_the_environment_or_is_made_for_this_server_alone() -> None:
    environment = {KEY_VARIABLE: "0123456789abcdef"}
    share_key(environment)
    assert StateToken.from_environment(environment) == StateToken(b"0123456789abcdef")
    empty: dict[str, str] = {}
    share_key(empty)
    assert (
        StateToken.from_environment(empty) == StateToken.from_environment(dict(empty))
        and len(empty[KEY_VARIABLE]) == 64
    )
    assert StateToken.from_environment({}) != StateToken.from_environment({})
    with pytest.raises(ValueError, match="CONVOY_STATE_KEY has 3 characters, at least 16 are expected"):
        StateToken.from_environment({KEY_VARIABLE: "abc"})
    assert "0123456789abcdef" not in repr(StateToken.from_environment(environment))
