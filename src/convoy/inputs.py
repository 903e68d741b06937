"""A bundle's own examples as a user would send them."""

import base64

from convoy.bundle import Bundle


def raw_input(bundle: Bundle) -> bytes | str:
    """The first image as PNG bytes, or the shortest text: what is shown should be readable."""
    inputs = [example.input for example in bundle.examples]
    return base64.b64decode(inputs[0]) if bundle.card.task == "image" else min(inputs, key=len)
