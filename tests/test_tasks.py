"""Entries of params.yaml are read whole or refused with the entry, the value and what was expected; names are found."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from convoy.core import params, tasks
from convoy.core.params import ParamsInvalid, Section
from convoy.core.tasks import Candidate, DataSet, Task, TaskUnknown

GOOD: dict[str, Any] = {
    "data": {"digits": {"kind": "image"}, "mails": {"kind": "text"}},
    "tasks": {"digits": {"data": "digits", "kind": "image"}, "spam": {"data": "mails", "kind": "text"}},
    "candidates": {
        "digits-cnn": {"task": "digits", "data": "digits", "kind": "image", "network": {"name": "cnn"}},
        "spam-a": {"task": "spam", "data": "mails", "kind": "text", "network": {"name": "lstm"}},
        "spam-b": {"task": "spam", "data": "mails", "kind": "text", "network": {"name": "ngrams"}},
    },
}


def parsed(content: Any) -> tasks.Entries:
    return tasks.parse(yaml.safe_dump(content))


def test_entries_name_each_other_and_their_stages() -> None:
    entries = parsed(GOOD)
    assert entries.data["mails"] == DataSet("mails", "text")
    assert entries.task("spam") == Task("spam", "mails", "text")
    assert entries.candidate("spam-b") == Candidate("spam-b", "spam", "mails", "text", "ngrams")
    assert [candidate.name for candidate in entries.of_task("spam")] == ["spam-a", "spam-b"]
    data, task, candidate = entries.data["digits"], entries.task("digits"), entries.candidate("digits-cnn")
    assert (data.fetch, data.prepare, data.baselines) == ("fetch@digits", "prepare@digits", "baselines@digits")
    assert (task.choose, task.export, task.evaluate) == ("choose@digits", "export@digits", "evaluate@digits")
    assert (candidate.train, candidate.key) == ("train@digits-cnn", "candidates.digits-cnn")


def test_the_packaged_entries_are_read() -> None:
    entries = tasks.read()
    assert list(entries.tasks) == ["fashion", "reviews", "reviews-stream"]
    assert all(entries.of_task(task) for task in entries.tasks)


def renamed(section: str, old: str, new: object) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content[section] = {new if key == old else key: value for key, value in content[section].items()}

    return change


def given(value: object, *keys: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


def without(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


LETTERS = "small letters, digits and hyphens and begins with a letter"
REFUSED: dict[str, tuple[Callable[[dict[str, Any]], None], list[str]]] = {
    "capital": (renamed("data", "digits", "Digits"), ["data.Digits", LETTERS]),
    "digit first": (renamed("tasks", "spam", "2spam"), ["tasks.2spam", LETTERS]),
    "dot": (renamed("candidates", "spam-a", "spam.a"), ["candidates.spam.a", LETTERS]),
    "underscore": (renamed("candidates", "spam-a", "spam_a"), ["candidates.spam_a", LETTERS]),
    "umlaut": (renamed("data", "digits", "zählen"), ["data.zählen", LETTERS]),
    "line break": (renamed("data", "digits", "digits\n"), ["data.digits", LETTERS]),
    "number": (renamed("data", "digits", 7), ["data.7", LETTERS]),
    "empty name": (renamed("data", "digits", ""), ["data.", LETTERS]),
    "no entry": (given(None, "data", "digits"), ["data.digits is None", "a section"]),
    "text for an entry": (given("image", "data", "digits"), ["data.digits is 'image'", "a section"]),
    "data without a kind": (without("data", "digits", "kind"), ["data.digits.kind is None", "a name"]),
    "kind is a list": (given(["image"], "data", "digits", "kind"), ["data.digits.kind is ['image']", "a name"]),
    "unknown data": (given("numbers", "tasks", "digits", "data"), ["tasks.digits.data is 'numbers'", "digits, mails"]),
    "kind of a task": (
        given("text", "tasks", "digits", "kind"),
        ["tasks.digits.kind is 'text'", "data.digits.kind is"],
    ),
    "unknown task": (given("ham", "candidates", "spam-a", "task"), ["spam-a.task is 'ham'", "tasks has digits, spam"]),
    "data of a candidate": (
        given("digits", "candidates", "spam-a", "data"),
        ["candidates.spam-a.data is 'digits'", "tasks.spam.data is 'mails'"],
    ),
    "kind of a candidate": (
        given("image", "candidates", "spam-a", "kind"),
        ["candidates.spam-a.kind is 'image'", "tasks.spam.kind is 'text'"],
    ),
    "no network": (without("candidates", "spam-a", "network"), ["candidates.spam-a.network is None", "with a name"]),
    "network is a word": (given("cnn", "candidates", "spam-a", "network"), ["spam-a.network is 'cnn'", "a section"]),
    "nameless network": (given({}, "candidates", "spam-a", "network"), ["candidates.spam-a.network.name is None"]),
    "task without candidates": (
        without("candidates", "digits-cnn"),
        ["no entry of candidates has task: digits", "add one, or remove tasks.digits"],
    ),
    "no data": (without("data"), ["the section data is missing"]),
    "no tasks": (without("tasks"), ["the section tasks is missing"]),
    "no candidates": (given(None, "candidates"), ["the section candidates is missing, or has no entries"]),
    "list of tasks": (given([], "tasks"), ["the section tasks is missing"]),
    "empty tasks": (given({}, "tasks"), ["the section tasks is missing, or has no entries"]),
    "empty data": (given({}, "data"), ["the section data is missing, or has no entries"]),
    "64 characters": (renamed("data", "digits", "d" * 64), [f"data.{'d' * 64}", LETTERS, "63 characters at most"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_entry_that_cannot_be_meant_is_named(name: str) -> None:
    change, words = REFUSED[name]
    content = copy.deepcopy(GOOD)
    change(content)
    with pytest.raises(ParamsInvalid) as error:
        parsed(content)
    for word in ["params.yaml: ", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(("present", "former"), tasks.FORMER_NAMES.items())
def test_a_former_name_of_a_packaged_task_is_refused(present: str, former: str) -> None:
    """Its decisions and versions would be taken for those of the packaged task, and the other way round."""
    content = copy.deepcopy(GOOD)
    renamed("tasks", "spam", former)(content)
    with pytest.raises(ParamsInvalid, match=f"tasks.{former}: the packaged task {present} had this name before"):
        parsed(content)
    content = copy.deepcopy(GOOD)
    content["data"][former] = {"kind": "text"}  # a data set may have it
    assert former in parsed(content).data


@pytest.mark.parametrize("name", tasks.RESERVED)
def test_a_name_of_convoys_own_is_refused_everywhere(name: str) -> None:
    for section, old in (("data", "digits"), ("tasks", "spam"), ("candidates", "spam-a")):
        content = copy.deepcopy(GOOD)
        renamed(section, old, name)(content)
        with pytest.raises(ParamsInvalid, match=rf"{section}\.{name}: .* are names of Convoy's own; choose another"):
            parsed(content)


def test_a_name_may_have_63_characters() -> None:
    content = copy.deepcopy(GOOD)
    renamed("candidates", "spam-a", "a" * 63)(content)
    assert "a" * 63 in parsed(content).candidates


DOUBLE = {
    "an entry": ("candidates:\n  a: {b: 1}\n  c: {}\n  a: {b: 2}\n", "the key a stands in line 2 and again in line 4"),
    "a section": ("a: 1\nb: 2\n\na: 3\n", "the key a stands in line 1 and again in line 4"),
    "on one line": ("a:\n  - {b: 1, 'b': 2}\n", "the key b stands in line 2 and again in line 2"),
    "a number": ("a: {2: 1, '2': 1, 2: 3}", "the key 2 stands in line 1 and again in line 1"),
    "below itself": ("a: &a {b: *a, c: 1, c: 2}", "the key c stands in line 1 and again in line 1"),
}


@pytest.mark.parametrize("name", DOUBLE)
def test_a_doubled_key_is_refused(name: str, tmp_path: Path) -> None:
    text, words = DOUBLE[name]
    path = tmp_path / "params.yaml"
    path.write_text(text)
    for read in (
        tasks.read,
        lambda path: params.read_section(Section, path=path),
        lambda path: params.compose(text, path),
    ):
        with pytest.raises(ParamsInvalid, match=f"^{path}: {words}; remove or rename one of them$"):
            read(path)


def test_merged_keys_are_no_doubled_keys() -> None:
    text = "a: &a {x: 1, y: 2}\nq:\n  b: &b {<<: *a, x: 3}\nc: {<<: *b, y: 4}\n"
    assert params.load(text) == yaml.safe_load(text)


@pytest.mark.parametrize("text", ["data: [", "data: {a: b}}", "\t- x", "a: b: c", "", "[]", "just words", "\x00"])
def test_what_is_no_params_file_is_one_line(text: str) -> None:
    with pytest.raises(ParamsInvalid, match=r"params\.yaml") as error:
        tasks.parse(text)
    assert "\n" not in str(error.value)


def test_a_missing_or_odd_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsInvalid, match=r"none\.yaml is missing; run this in the folder of Convoy"):
        tasks.read(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("data: {zä: 1}".encode("latin-1"))
    with pytest.raises(ParamsInvalid, match=r"latin\.yaml is not UTF-8"):
        tasks.read(tmp_path / "latin.yaml")


def test_a_task_or_candidate_that_is_unknown_is_answered_with_those_that_exist() -> None:
    entries = parsed(GOOD)
    with pytest.raises(TaskUnknown, match=r"no task 'ham' in params\.yaml; there is digits, spam"):
        entries.task("ham")
    with pytest.raises(TaskUnknown, match=r"no data set 'spam' in params\.yaml; there is digits, mails"):
        entries.data_set("spam")
    with pytest.raises(TaskUnknown, match=r"no candidate 'spam' in params\.yaml; there is digits-cnn, spam-a, spam-b"):
        entries.candidate("spam")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Beside the two of params.yaml: `old` is deployed, and of `gone` there is a history alone."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(GOOD, sort_keys=False))
    for name in ("old", "spam", "gone", "Not a task", ".hidden"):
        folder = Path("deployed", name)
        folder.mkdir(parents=True)
        (folder / tasks.HISTORY).touch()
        if name != "gone":
            (folder / tasks.CURRENT).symlink_to("bundle")
    Path("deployed/stray.txt").touch()
    return tmp_path


def test_deployed_tasks_are_folders_with_a_current_model(place: Path) -> None:
    assert tasks.deployed() == ["old", "spam"]
    assert tasks.with_history() == ["gone", "old", "spam"]
    assert tasks.deployed(place / "nowhere") == tasks.with_history(place / "nowhere") == []


def test_known_tasks_are_those_of_params_and_those_of_before(place: Path) -> None:
    assert tasks.known() == ["digits", "spam", "old", "gone"]
    Path("params.yaml").unlink()
    assert tasks.known() == ["old", "spam", "gone"]


def test_a_task_is_required_by_its_present_name(place: Path) -> None:
    assert [tasks.require_known(name) for name in tasks.known()] == tasks.known()
    with pytest.raises(TaskUnknown, match="there is no task 'image'; there is digits, spam, old, gone"):
        tasks.require_known("image")


def test_a_former_name_is_answered_with_the_present_one(place: Path) -> None:
    packaged = yaml.safe_dump(GOOD).replace("digits", "fashion")
    Path("params.yaml").write_text(packaged)
    with pytest.raises(TaskUnknown, match="no task 'image'; 'image' is called 'fashion' now"):
        tasks.require_known("image")
    assert (tasks.present_name("image"), tasks.present_name("text"), tasks.present_name("spam")) == (
        "fashion",
        "text",  # there is no task reviews here
        "spam",
    )


def test_two_names_of_one_task_are_the_same() -> None:
    assert tasks.is_same("fashion", "fashion") and tasks.is_same("fashion", "image")
    assert tasks.is_same("reviews-stream", "text-stream") and not tasks.is_same("reviews", "text-stream")
    assert not tasks.is_same("fashion", "text") and not tasks.is_same("image", "fashion")
    assert tasks.names_of("reviews") == ("reviews", "text") and tasks.names_of("spam") == ("spam",)
