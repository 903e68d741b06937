"""Prepared splits come back as they were written, and the same content is the same file."""

from pathlib import Path

import numpy as np
import pytest
from prepared_splits import image_split, text_split, write_split

from convoy.kinds.image.items.prepared import read as read_images
from convoy.kinds.text.items.prepared import read as read_texts


def test_images_come_back(tmp_path: Path) -> None:
    split = image_split()
    found = read_images(write_split("image", tmp_path / "a.arrow"))
    assert np.array_equal(found.contents, split.contents)
    assert np.array_equal(found.labels, split.labels)
    assert found.names == split.names


def test_texts_come_back_with_their_tokens(tmp_path: Path) -> None:
    split = text_split()
    found = read_texts(write_split("text", tmp_path / "a.arrow"))
    assert (
        list(found.contents) == split.contents
        and found.contents[-1] == split.contents[-1]
        and found.contents[2:5] == split.contents[2:5]
    )
    assert all(np.array_equal(one, other) for one, other in zip(found.tokens, split.tokens, strict=True))
    assert (found.names, found.vocabulary, found.pad_id) == (split.names, split.vocabulary, split.pad_id)


@pytest.mark.parametrize("task", ["image", "text"])
def test_the_same_content_is_the_same_bytes(task: str, tmp_path: Path) -> None:
    one, other = write_split(task, tmp_path / "one.arrow"), write_split(task, tmp_path / "deep" / "other.arrow")
    assert one.read_bytes() == other.read_bytes()


def test_a_missing_split_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dvc repro"):
        read_images(tmp_path / "none.arrow")
