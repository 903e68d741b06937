"""Images of any size and mode become the pixels that the model was trained on, or a clear refusal."""

import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import chunk, encode
from PIL import Image, ImageFile

from convoy.core.rejection import InputRejected
from convoy.kinds.image.items.preprocessing import ImagePreprocessing, ImagePreprocessor, decode, read_size

CONTRACT = ImagePreprocessing(
    kind="image", size_px=28, channels=1, fit="pad", polarity="light_on_dark", max_pixels=1_000_000
)
PREPROCESSOR = ImagePreprocessor(CONTRACT)
COLOUR = ImagePreprocessor(CONTRACT.model_copy(update={"channels": 3, "polarity": "any"}))


def gradient(width: int = 28, height: int = 28) -> np.ndarray:
    """Dark at the frame, lighter towards the lower right."""
    pixels = np.add.outer(np.arange(height), np.arange(width)) * 200 // (width + height)
    pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1] = 0, 0, 0, 0
    return pixels.astype(np.uint8)


def test_an_image_of_the_models_own_size_passes_unchanged() -> None:
    pixels = gradient()
    prepared = PREPROCESSOR.prepare(encode(Image.fromarray(pixels)))
    assert np.array_equal(prepared.array[:, :, 0], pixels)
    assert prepared.warnings == ()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_png_mode_gives_nearly_the_same_pixels(mode: str) -> None:
    pixels = np.zeros((28, 28), dtype=np.uint8)
    pixels[8:20, 8:20] = 255
    wide = pixels.astype(np.uint16) * 257
    image = Image.fromarray(wide) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    found = PREPROCESSOR.prepare(encode(image)).array[:, :, 0]
    assert np.abs(found.astype(int) - pixels).max() <= 1


def test_all_sixteen_bit_values_are_scaled_to_the_nearest_of_eight() -> None:
    values = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    whole = ImagePreprocessor(CONTRACT.model_copy(update={"size_px": 256}))
    found = whole.prepare(encode(Image.fromarray(values))).array[:, :, 0]
    assert np.array_equal(found, (values.astype(int) + 128) // 257)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_jpeg_mode_is_read(mode: str) -> None:
    pixels = np.zeros((64, 64), dtype=np.uint8)
    pixels[16:48, 16:48] = 200
    found = PREPROCESSOR.prepare(encode(Image.fromarray(pixels).convert("RGB").convert(mode), "JPEG")).array
    assert found.shape == (28, 28, 1)
    assert found[14, 14, 0] > 150 > 60 > found[1, 1, 0]


@given(
    st.integers(1, 90), st.integers(1, 90), st.sampled_from(["pad", "crop", "stretch"]), st.sampled_from(["L", "RGBA"])
)
@settings(max_examples=60, deadline=None)
def test_any_size_becomes_the_models_size(width: int, height: int, how: Any, mode: str) -> None:
    preprocessor = ImagePreprocessor(CONTRACT.model_copy(update={"fit": how}))
    found = preprocessor.prepare(encode(Image.new(mode, (width, height), 0)))
    assert found.array.shape == (28, 28, 1)
    assert found.array.dtype == np.uint8


def test_padding_keeps_the_proportions_on_the_background() -> None:
    found = PREPROCESSOR.prepare(encode(Image.new("L", (20, 80), 200)), polarity="light_on_dark").array[:, :, 0]
    assert found[:, 14].min() > 150
    assert found[:, :9].max() == 0


def test_colour_models_get_three_channels() -> None:
    found = COLOUR.prepare(encode(Image.new("RGB", (28, 28), (10, 20, 30)))).array
    assert found.shape == (28, 28, 3)
    assert list(found[3, 3]) == [10, 20, 30]


def test_transparency_lies_on_the_background() -> None:
    image = Image.new("RGBA", (28, 28), (255, 255, 255, 0))
    assert PREPROCESSOR.prepare(encode(image)).array.max() == 0


def test_a_photo_that_says_it_lies_on_its_side_is_turned() -> None:
    pixels = np.zeros((28, 28), dtype=np.uint8)
    pixels[2:6, 2:26] = 255  # a bar at the top
    exif = Image.Exif()
    exif[274] = 6  # the top is at the right
    found = PREPROCESSOR.prepare(encode(Image.fromarray(pixels), exif=exif.tobytes())).array[:, :, 0]
    assert found[14, 24] == 255
    assert found[4, 4] == 0


def test_polarity_converts_on_request() -> None:
    pixels = gradient()
    inverted = encode(Image.fromarray(255 - pixels))
    found = PREPROCESSOR.prepare(inverted, polarity="dark_on_light")
    assert np.array_equal(found.array[:, :, 0], pixels)
    assert found.warnings == ()


def test_an_image_that_looks_the_other_way_gets_a_warning_and_is_left_alone() -> None:
    pixels = 255 - gradient()
    found = PREPROCESSOR.prepare(encode(Image.fromarray(pixels)))
    assert np.array_equal(found.array[:, :, 0], pixels)
    assert "dark_on_light" in found.warnings[0]


def test_only_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("L", (28, 28), value) for value in (0, 90, 250)]
    animated = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert PREPROCESSOR.prepare(animated).array.max() <= 1


WHOLE = encode(Image.fromarray(gradient(60, 60)))


@given(st.integers(0, len(WHOLE) - 21))  # what follows are checksums and the end mark, no pixels
@settings(deadline=None)
def test_a_truncated_image_is_refused(length: int) -> None:
    with pytest.raises(InputRejected) as error:
        PREPROCESSOR.prepare(WHOLE[:length])
    assert error.value.code == "undecodable_image"


@given(st.binary(max_size=200), st.integers(0, len(WHOLE)))
@settings(deadline=None)
def test_damage_is_refused_or_read_but_never_another_error(noise: bytes, place: int) -> None:
    try:
        prepared = PREPROCESSOR.prepare(WHOLE[:place] + noise + WHOLE[place + len(noise) :])
    except InputRejected:
        return
    assert prepared.array.shape == (28, 28, 1)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "ICO"])
def test_other_kinds_of_image_are_refused(kind: str) -> None:
    with pytest.raises(InputRejected, match="PNG, JPEG or WebP"):
        PREPROCESSOR.prepare(encode(Image.new("L", (28, 28)), kind))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_size_is_read_from_the_header_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = encode(Image.new("RGB", (70, 50)), kind)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("the pixels were unpacked"))
    assert read_size(encoded, 70 * 50) == (70, 50)


@pytest.mark.parametrize(
    "encoded",
    [b"", b"nonsense", WHOLE[:20], encode(Image.new("L", (28, 28)), "GIF"), encode(Image.new("1", (2000, 2000)))],
    ids=["empty", "nonsense", "cut", "kind", "large"],
)
def test_a_size_is_refused_as_the_image_is(encoded: bytes) -> None:
    refusals = []
    for read in (read_size, decode):
        with pytest.raises(InputRejected) as error:
            read(encoded, 1_000_000)
        refusals.append((error.value.code, error.value.message))
    assert refusals[0] == refusals[1]


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    whole = encode(Image.fromarray(gradient(60, 60)), "JPEG", progressive=True)
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    assert PREPROCESSOR.prepare(whole[:-2] + scan * 50 + whole[-2:]).array.shape == (28, 28, 1)
    with pytest.raises(InputRejected, match="more than 100 scans") as error:
        PREPROCESSOR.prepare(whole[:-2] + scan * 100 + whole[-2:])
    assert error.value.code == "undecodable_image"


def test_a_jpeg_of_very_many_exif_segments_is_refused() -> None:
    whole = encode(Image.fromarray(gradient(60, 60)), "JPEG")
    segment = b"\xff\xe1\x00\x16Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    assert PREPROCESSOR.prepare(whole[:2] + segment * 100 + whole[2:]).array.shape == (28, 28, 1)
    with pytest.raises(InputRejected, match="more than 100 Exif segments") as error:
        PREPROCESSOR.prepare(whole[:2] + segment * 101 + whole[2:])
    assert error.value.code == "undecodable_image"


@pytest.mark.parametrize(("name", "head"), [(b"iCCP", b"a\0\0"), (b"zTXt", b"\0\0"), (b"iTXt", b"a\0\1\0\xff\0\0")])
def test_a_png_of_very_many_unpacked_chunks_is_refused(name: bytes, head: bytes) -> None:
    whole, one = encode(Image.fromarray(gradient())), chunk(name, head + zlib.compress(bytes(1000)))
    assert np.array_equal(PREPROCESSOR.prepare(whole[:33] + one * 100 + whole[33:]).array[:, :, 0], gradient())
    with pytest.raises(InputRejected, match="more than 100 Exif segments, profiles or texts") as error:
        PREPROCESSOR.prepare(whole[:33] + one * 101 + whole[33:])
    assert error.value.code == "undecodable_image"


@pytest.mark.process
def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    bomb = encode(Image.new("1", (20_000, 20_000)))
    with pytest.raises(InputRejected) as error:
        PREPROCESSOR.prepare(bomb)
    assert error.value.code == "image_too_large"
