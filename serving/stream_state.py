"""What is kept of a text in pieces <-> a signed token that the client carries, so that any replica can go on."""

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
from serving.deployed import Deployed
from serving.errors import RequestError
from serving.security import MIN_KEY_CHARACTERS

KEY_VARIABLE = "CONVOY_STATE_KEY"
FORMAT = 1
MAX_CHARACTERS = 65_536  # of a token; that of the model of params.yaml has 2,160, and up to 1,366 of a pending word
# Format, the digest of the model's bundle, how many words and how many labels; then the numbers and what is pending.
_HEAD = struct.Struct("<B32sIH")
_SIGNATURE_BYTES = hashlib.sha256().digest_size


def share_key(environment: MutableMapping[str, str] = os.environ) -> None:
    """Where no key is set, make one that lasts as long as this server; its workers inherit it.

    To be called where `bentoml serve` loads the service, before it starts them.
    """
    if not environment.get(KEY_VARIABLE):
        environment[KEY_VARIABLE] = secrets.token_hex(32)


@dataclass(frozen=True)
class StateToken:
    """Signs states by HMAC-SHA256 (RFC 2104) and knows its own again. Who has the token can read it, not change it."""

    key: bytes = field(repr=False)

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> "StateToken":
        """With the key that the environment has, or one that nobody else has. Raises ValueError for a short one."""
        key = environment.get(KEY_VARIABLE) or secrets.token_hex(32)
        if len(key) < MIN_KEY_CHARACTERS:
            raise ValueError(f"{KEY_VARIABLE} has {len(key)} characters, at least {MIN_KEY_CHARACTERS} are expected")
        return cls(key.encode())

    def close(self, state: StreamState, model: Deployed) -> str:
        """The token of a state."""
        head = _HEAD.pack(FORMAT, bytes.fromhex(model.predictor.digest), state.words, len(state.latest))
        numbers = np.concatenate([state.carried, state.latest]).astype("<f4").tobytes()
        content = head + numbers + state.pending.encode()
        return base64.urlsafe_b64encode(content + self._sign(content)).rstrip(b"=").decode()

    def open(self, token: str, model: Deployed) -> StreamState:
        """The state of a token. Raises RequestError for one that is not ours, or of another version of the model."""
        content = self._verified(token)
        if content[0] != FORMAT or content[1:33] != bytes.fromhex(model.predictor.digest):
            raise RequestError("state_outdated")
        _, _, words, labels = _HEAD.unpack_from(content)
        size = model.predictor.state_size
        numbers = np.frombuffer(content, "<f4", size + labels, _HEAD.size).astype(np.float32)
        pending = content[_HEAD.size + numbers.nbytes :].decode()
        return StreamState(numbers[:size], numbers[size:], words, pending)

    def _verified(self, token: str) -> bytes:
        """What was signed, after its signature has been checked; nothing of it is read before."""
        try:
            given = token.encode("ascii") if len(token) <= MAX_CHARACTERS else b""
            found = base64.b64decode(given + b"=" * (-len(given) % 4), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            raise RequestError("state_invalid") from None
        content, signature = found[:-_SIGNATURE_BYTES], found[-_SIGNATURE_BYTES:]
        # The last character has bits that decoding drops; another one in its place is a changed token too.
        canonical = base64.urlsafe_b64encode(found).rstrip(b"=") == given
        if not hmac.compare_digest(signature, self._sign(content)) or not canonical:
            raise RequestError("state_invalid")
        return content

    def _sign(self, content: bytes) -> bytes:
        return hmac.digest(self.key, content, "sha256")
