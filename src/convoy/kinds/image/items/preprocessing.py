"""Image bytes of any size and mode -> the uint8 pixels that the model expects; for preparation and serving alike."""

import io
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import Field

from convoy.core.params import Section
from convoy.core.rejection import InputRejected

FORMATS = ("PNG", "JPEG", "WEBP")
# A progressive JPEG goes over all its pixels once per scan: about ten in practice, 600,000 fit into 20 MB (an hour).
MAX_JPEG_SCANS = 100
_JPEG_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")  # the marker and its length
# Pillow joins the Exif segments of a JPEG one by one: 20 MB of small ones take minutes. It unpacks each of these chunks
# of a PNG, up to 1 MB; its limit of 64 MB does not count profiles, unnamed texts and texts that are no UTF-8.
MAX_COSTLY_PARTS = 100
_COSTLY_PARTS = {b"\xff\xd8": (b"Exif\x00\x00",), b"\x89P": (b"iCCP", b"iTXt", b"zTXt")}
_IS_LIGHT = bytes(value > 127 for value in range(256))
Polarity = Literal["light_on_dark", "dark_on_light"]
FILES = ()  # of a bundle, that the preprocessor reads
DYNAMIC = (0,)  # dimensions of the graph's input that differ between requests: the batch


class Stored(Section):
    """The form in which the images of a data set are kept."""

    size_px: int = Field(ge=4, le=1024)
    channels: Literal[1, 3]


class ImagePreprocessing(Section):
    """The contract of an image model, part of its card.

    An image is brought to the form `stored` first, where a candidate has learnt from smaller or other images than its
    data set keeps: so it sees the same pixels in training and in use.
    """

    carries_state: ClassVar[bool] = False
    kind: Literal["image"]
    size_px: int = Field(ge=4, le=1024)
    channels: Literal[1, 3]
    fit: Literal["pad", "crop", "stretch"]
    polarity: Polarity | Literal["any"]
    max_pixels: int = Field(ge=1)
    stored: Stored | None = None


@dataclass(frozen=True)
class PreparedImage:
    """Pixels ready for the model, (height, width, channels) uint8, and what the sender should know about them."""

    array: NDArray[np.uint8]
    warnings: tuple[str, ...] = ()


class ImagePreprocessor:
    """Turns encoded images into pixels according to one contract."""

    def __init__(self, contract: ImagePreprocessing) -> None:
        self.contract = contract

    def prepare(self, encoded: bytes, polarity: Polarity | None = None) -> PreparedImage:
        """Decode, convert and fit one image; `polarity` says how it was made where that is not what the model expects.

        Raises InputRejected for everything that is not a whole PNG, JPEG or WebP of an allowed size.
        """
        return self.convert(decode(encoded, self.contract.max_pixels), polarity)

    def convert(self, image: Image.Image, polarity: Polarity | None = None) -> PreparedImage:
        """Convert and fit one decoded image."""
        expected = self.contract.polarity
        actual = polarity or expected
        background = 255 if actual == "dark_on_light" else 0
        first = self.contract.stored or self.contract
        flat = _flatten(image, first.channels, background)
        inverted = "any" not in (actual, expected) and actual != expected
        if inverted:
            flat = ImageOps.invert(flat)
            background = 255 - background
        fitted = fit(flat, first.size_px, self.contract.fit, background)
        if self.contract.stored is not None:
            fitted = _reduce(fitted, self.contract)
        pixels = fitted.tobytes()
        grey = pixels if fitted is flat and flat.mode == "L" else None
        warnings = _polarity_warnings(flat, grey, expected, inverted)
        array = np.frombuffer(pixels, dtype=np.uint8).reshape(self.contract.size_px, self.contract.size_px, -1)
        return PreparedImage(array, warnings)

    def collate(self, arrays: list[NDArray[Any]]) -> NDArray[Any]:
        """Stack pixels to (batch, height, width, channels) uint8."""
        return arrays[0][np.newaxis] if len(arrays) == 1 else np.stack(arrays)


def open_preprocessor(contract: ImagePreprocessing, files: Mapping[str, bytes]) -> ImagePreprocessor:
    """The preprocessor of a bundle."""
    return ImagePreprocessor(contract)


def read_contract(content: dict[str, Any]) -> ImagePreprocessing:
    """The contract that a candidate keeps."""
    return ImagePreprocessing.model_validate(content)


def from_prepared(preprocessor: ImagePreprocessor, contents: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """The contents of a prepared split as the model takes them: its pixels, or what a contract of its own makes."""
    return [to_input(pixels, preprocessor.contract) for pixels in contents]


def to_input(pixels: NDArray[np.uint8], contract: ImagePreprocessing) -> NDArray[np.uint8]:
    """Pixels of a data set (height, width, channels) -> those that a model with this contract takes."""
    if contract.stored is None:
        return pixels
    reduced = _reduce(Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels), contract)
    return np.asarray(reduced).reshape(contract.size_px, contract.size_px, -1)


def slice_by(preprocessor: ImagePreprocessor, contents: Sequence[NDArray[np.uint8]]) -> tuple[str, NDArray[np.float64]]:
    """What figures are also sliced by, and its value for each of the contents of a prepared split: the mean pixel."""
    return "brightness", np.array([pixels.mean() for pixels in contents])


def blank_batch(contract: ImagePreprocessing) -> NDArray[np.uint8]:
    """A batch of one input of the largest size."""
    return np.zeros((1, contract.size_px, contract.size_px, contract.channels), dtype=np.uint8)


def decode(encoded: bytes, max_pixels: int) -> Image.Image:
    """Read one image, its first frame, upright; the size is checked from the header, before any pixel is unpacked."""
    with _open_checked(encoded, max_pixels) as image:
        image.load()
        # To search for an orientation takes longer than to decode a small image; few images can hold one.
        may_be_turned = any("exif" in name.lower() or "xmp" in name.lower() for name in map(str, image.info))
        return ImageOps.exif_transpose(image) if may_be_turned else image


def read_size(encoded: bytes, max_pixels: int) -> tuple[int, int]:
    """Width and height from the header, no pixel unpacked; raises what `decode` raises for the header."""
    with _open_checked(encoded, max_pixels) as image:
        return image.size


def fit(image: Image.Image, size_px: int, how: Literal["pad", "crop", "stretch"], background: int) -> Image.Image:
    """Bring an image to size_px x size_px; one that already has this size is left as it is."""
    size = (size_px, size_px)
    if image.size == size:
        return image
    if how == "stretch":
        return image.resize(size, Image.Resampling.LANCZOS)
    if how == "crop":
        return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    colour: Any = background if image.mode == "L" else (background,) * 3
    return ImageOps.pad(image, size, Image.Resampling.LANCZOS, color=colour)


@contextmanager
def _open_checked(encoded: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """An open image of an allowed size; any error in it, now or while it is used, becomes an InputRejected."""
    if not encoded:
        raise InputRejected("undecodable_image", "the image is empty (0 bytes)")
    if any(encoded.count(name) > MAX_COSTLY_PARTS for name in _COSTLY_PARTS.get(encoded[:2], ())):
        raise InputRejected(
            "undecodable_image", f"the image has more than {MAX_COSTLY_PARTS} Exif segments, profiles or texts"
        )
    try:
        # Pillow only warns about a decompression bomb between one and two times its own limit, hence this check.
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise InputRejected(
                    "image_too_large",
                    f"the image has {image.width} x {image.height} pixels, at most {max_pixels} in all are allowed",
                )
            if _has_too_many_scans(encoded):
                raise InputRejected("undecodable_image", f"the JPEG has more than {MAX_JPEG_SCANS} scans")
            yield image
    except InputRejected:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # the warning where warnings are errors
        raise InputRejected("image_too_large", f"the image has more than {max_pixels} pixels") from None
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, struct.error, MemoryError):
        # Pillow reports broken files by any of these.
        raise InputRejected("undecodable_image", "the bytes are not a whole PNG, JPEG or WebP image") from None


def _has_too_many_scans(encoded: bytes) -> bool:
    return encoded.startswith(b"\xff\xd8") and any(islice(_JPEG_SCAN.finditer(encoded), MAX_JPEG_SCANS, None))


def _flatten(image: Image.Image, channels: int, background: int) -> Image.Image:
    """Any mode -> L or RGB, transparent pixels over the background, 16 bits scaled to 8."""
    if image.mode.startswith(("I", "F")):
        # PNG's 16 bits; convert("L") would clip them to white.
        scaled = (np.asarray(image, dtype=np.float32) / 257).round().clip(0, 255)
        image = Image.fromarray(scaled.astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.new("RGBA", rgba.size, (background, background, background, 255))
        image.alpha_composite(rgba)
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _reduce(image: Image.Image, contract: ImagePreprocessing) -> Image.Image:
    """An image of a data set -> the side and the channels of a contract of its own."""
    mode = "L" if contract.channels == 1 else "RGB"
    converted = image if image.mode == mode else image.convert(mode)
    return fit(converted, contract.size_px, "stretch", 0)


def _polarity_warnings(image: Image.Image, grey: bytes | None, expected: str, inverted: bool) -> tuple[str, ...]:
    if expected == "any" or min(image.size) < 3:
        return ()
    width = image.width
    if grey is None:
        grey = (image if image.mode == "L" else image.convert("L")).tobytes()
    border = grey[:width] + grey[-width:] + grey[::width] + grey[width - 1 :: width]
    polarity = "dark_on_light" if border.translate(_IS_LIGHT).count(1) * 2 > len(border) else "light_on_dark"
    if polarity == expected:
        return ()
    if inverted:
        return (f"the image looked {expected} before ?polarity={polarity} inverted it",)
    return (f"the image looks {polarity}, the model expects {expected}; ?polarity={polarity} would convert it",)
