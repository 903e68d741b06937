"""The state of a text in pieces <-> a signed token that the client carries, so that any replica can go on."""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import struct
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field

import numpy as np

from convoy.bundles.streaming import StreamState
from serving.admission import MIN_KEY_CHARACTERS
from serving.deployed import Deployed
from serving.errors import RequestError

KEY_VARIABLE = "CONVOY_STATE_KEY"
FORMAT = 1
MAX_CHARACTERS = 65_536  # of a token; with the model of params.yaml it has 2,160, and up to 1,366 for a pending word
# Format, digest of the model's bundle, number of words, number of labels; the numbers and the pending text follow.
_HEADER = struct.Struct("<B32sIH")
_SIGNATURE_BYTES = hashlib.sha256().digest_size


def share_key(environment: MutableMapping[str, str] = os.environ) -> None:
    """Where no key is set, make one for the life of this server; its workers inherit it.

    Call it where `bentoml serve` loads the service, before the workers start.
    """
    if not environment.get(KEY_VARIABLE):
        environment[KEY_VARIABLE] = secrets.token_hex(32)


@dataclass(frozen=True)
class StateToken:
    """Signs states by HMAC-SHA256 (RFC 2104) and verifies them. A client can read a token, but not change it."""

    key: bytes = field(repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "StateToken":
        """With the environment's key, or a random one. Raises ValueError for a short one."""
        key = environment.get(KEY_VARIABLE) or secrets.token_hex(32)
        if len(key) < MIN_KEY_CHARACTERS:
            raise ValueError(f"{KEY_VARIABLE} has {len(key)} characters, at least {MIN_KEY_CHARACTERS} are expected")
        return cls(key.encode())

    def encode(self, state: StreamState, model: Deployed) -> str:
        """The token of a state."""
        header = _HEADER.pack(FORMAT, bytes.fromhex(model.predictor.digest), state.words, len(state.latest))
        numbers = np.concatenate([state.carried, state.latest]).astype("<f4").tobytes()
        content = header + numbers + state.pending.encode()
        return base64.urlsafe_b64encode(content + self._sign(content)).rstrip(b"=").decode()

    def decode(self, token: str, model: Deployed) -> StreamState:
        """The state of a token. Raises RequestError for a wrong signature, or another version of the model."""
        content = self._verify(token)
        if content[0] != FORMAT or content[1:33] != bytes.fromhex(model.predictor.digest):
            raise RequestError("state_outdated")
        _, _, words, labels = _HEADER.unpack_from(content)
        size = model.predictor.state_size
        numbers = np.frombuffer(content, "<f4", size + labels, _HEADER.size).astype(np.float32)
        pending = content[_HEADER.size + numbers.nbytes :].decode()
        return StreamState(numbers[:size], numbers[size:], words, pending)

    def _verify(self, token: str) -> bytes:
        """The signed content. The signature is checked before anything is read of it."""
        try:
            encoded = token.encode("ascii") if len(token) <= MAX_CHARACTERS else b""
            decoded = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            raise RequestError("state_invalid") from None
        content, signature = decoded[:-_SIGNATURE_BYTES], decoded[-_SIGNATURE_BYTES:]
        # The last character has bits that decoding drops; a token that differs only there is a changed one too.
        canonical = base64.urlsafe_b64encode(decoded).rstrip(b"=") == encoded
        if not hmac.compare_digest(signature, self._sign(content)) or not canonical:
            raise RequestError("state_invalid")
        return content

    def _sign(self, content: bytes) -> bytes:
        return hmac.digest(self.key, content, "sha256")
