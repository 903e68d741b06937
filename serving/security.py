"""Host, Origin and API key of a request -> accepted, or the RequestError that it ends with."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from urllib.parse import urlsplit

from serving.errors import RequestError

HOSTS_VARIABLE = "CONVOY_HOSTS"
ORIGINS_VARIABLE = "CONVOY_ORIGINS"
KEY_VARIABLE = "CONVOY_API_KEY"
MIN_KEY_CHARACTERS = 16


@dataclass(frozen=True)
class Security:
    """Host names of this service, origins of pages that may use it, and the API key; without a key anyone may use it.

    A page can point its own name at 127.0.0.1 (DNS rebinding) and can post to any address (request forgery). The
    first has that name as Host, the second has its Origin. An address as Host cannot come of rebinding.
    """

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    key: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Security":
        """By the environment: comma-separated lists, and the key. Raises ValueError for a short key."""
        key = environment.get(KEY_VARIABLE, "")
        if key and len(key) < MIN_KEY_CHARACTERS:
            raise ValueError(f"{KEY_VARIABLE} has {len(key)} characters, at least {MIN_KEY_CHARACTERS} are expected")
        return cls(
            _split_names(environment.get(HOSTS_VARIABLE, "")), _split_names(environment.get(ORIGINS_VARIABLE, "")), key
        )

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raise RequestError where the request is not allowed."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._is_known_host(host):
            raise RequestError("forbidden_host")
        origin = headers.get(b"origin")
        if origin is not None and not self._is_allowed_origin(origin.decode("latin-1").lower(), host):
            raise RequestError("forbidden_origin")
        if self.key and not compare_digest(_sent_key(headers), self.key.encode()):
            raise RequestError("unauthorized", headers={"www-authenticate": "Bearer"})

    def _is_known_host(self, host: str) -> bool:
        if not host:
            return True  # HTTP/1.0; a browser always sends one
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return name == "localhost" or name in self.hosts or "*" in self.hosts or _is_address(name)

    def _is_allowed_origin(self, origin: str, host: str) -> bool:
        try:
            return urlsplit(origin).netloc == host or origin in self.origins
        except ValueError:  # such as `http://[`, which is no URL
            return False


def _split_names(text: str) -> frozenset[str]:
    return frozenset(name.strip().lower().rstrip("/") for name in text.split(",") if name.strip())


def _is_address(name: str) -> bool:
    if name == "127.0.0.1":
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _sent_key(headers: Mapping[bytes, bytes]) -> bytes:
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""
