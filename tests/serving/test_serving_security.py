"""Who may ask: Host, Origin and API key."""

import pytest

from serving.admission import Security
from serving.errors import RequestError

KEY = "a-key-of-enough-characters"


def code_of(security: Security, **headers: str) -> str:
    """The code of the error that these headers end with; empty where they may ask."""
    try:
        security.check({name.replace("_", "-").encode(): value.encode() for name, value in headers.items()})
    except RequestError as error:
        return error.code
    return ""


@pytest.mark.parametrize(
    "host", ["", "localhost", "localhost:3000", "LocalHost", "127.0.0.1:80", "10.1.2.3", "[::1]", "[fe80::1]:3000"]
)
def test_the_local_machine_and_addresses_are_known_by_themselves(host: str) -> None:
    assert code_of(Security(), host=host) == ""


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.", "[evil]", "999.0.0.1", ":80"])
def test_another_name_is_not_since_a_page_may_have_led_it_here(host: str) -> None:
    assert code_of(Security(), host=host) == "forbidden_host"


def test_names_are_told_by_the_environment() -> None:
    security = Security.from_environment(
        {"CONVOY_HOSTS": " Api.example , serving", "CONVOY_ORIGINS": "https://app.example/,"}
    )
    assert [code_of(security, host=host) for host in ("api.example:443", "serving", "b")] == ["", "", "forbidden_host"]
    assert code_of(security, host="serving", origin="https://app.example") == ""
    assert code_of(security, host="serving", origin="http://app.example") == "forbidden_origin"
    assert code_of(Security.from_environment({"CONVOY_HOSTS": "*"}), host="anything") == ""


def test_the_own_page_may_ask_and_others_may_not() -> None:
    own = {"host": "127.0.0.1:3000", "origin": "http://127.0.0.1:3000"}
    assert code_of(Security(), **own) == ""
    for origin in ("http://127.0.0.1:4000", "http://localhost:3000", "null", "http://evil.example", ""):
        assert code_of(Security(), **{**own, "origin": origin}) == "forbidden_origin"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (f"Bearer {KEY}", ""),
        (f"bearer  {KEY}", ""),
        ("", "unauthorized"),
        (KEY, "unauthorized"),
        (f"Basic {KEY}", "unauthorized"),
        (f"Bearer {KEY}x", "unauthorized"),
        ("Bearer é", "unauthorized"),
    ],
)
def test_where_a_key_is_set_it_is_wanted(sent: str, code: str) -> None:
    assert code_of(Security.from_environment({"CONVOY_API_KEY": KEY}), authorization=sent) == code


def test_a_short_key_is_an_error_at_start_and_no_key_is_shown() -> None:
    with pytest.raises(ValueError, match="CONVOY_API_KEY has 5 characters, at least 16"):
        Security.from_environment({"CONVOY_API_KEY": "short"})
    assert KEY not in repr(Security.from_environment({"CONVOY_API_KEY": KEY}))
