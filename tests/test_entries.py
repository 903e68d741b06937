"""`init` changes its own entries of params.yaml and nothing else; what is taken out leaves nothing behind."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny_bundles
import yaml
from dvc.lock import make_lock
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from init_verb import PACKAGED, fetch, init, read, say, values
from sources_of_users import folder_of_images, folder_of_texts

from convoy.bundles.bundle import Release, digest_of
from convoy.core import locks, paths, tasks
from convoy.core.params import ParamsInvalid
from convoy.core.stage import RWLOCK
from convoy.operations.init import entries, leftovers
from convoy.operations.init import init as onboarding
from convoy.operations.init.survey import take_survey
from convoy.release import decision, deployment, journal

EXTRA = """\
  mine-mlp:                 # my own
    {task: mine, data: mine, kind: image, input: null, network: {name: mlp, hidden: [64], dropout: 0.1},
     learning: {epochs: 1, learning_rate: 0.1, muon_learning_rate: null, weight_decay: 0.0, label_smoothing: 0.0,
       class_weights: none, patience: 1}, batches: {size: 8, flip: false, shift_px: 0}}
"""
LOCK = """\
schema: '2.0'
stages:
{}  lab:
    cmd: exec python -m lab
    deps:
    - path: lab.py
      hash: md5
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the packaged params.yaml."""
    shutil.copy(PACKAGED, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def images(place: Path) -> Path:
    return folder_of_images(place / "images", {"a": 12, "b": 12})


def text() -> str:
    return paths.PARAMS.read_text()


def without_entries(content: str, *names: str) -> str:
    """A params.yaml without the lines of these entries."""
    for section in entries.SECTIONS:
        for name in set(names) & set(entries.names(content, section)):
            content = content.replace(entries.entry(content, section, name), "")
    return content


MINE = ("mine", "mine-cnn", "mine-lstm")


def test_new_entries_stand_last_in_their_sections(images: Path) -> None:
    assert init(images, "--write")[0] == 0
    for section in entries.SECTIONS:
        assert entries.names(text(), section)[-1].startswith("mine")
    assert without_entries(text(), *MINE).replace("\n", "") == PACKAGED.read_text().replace("\n", "")
    assert "\n\n  mine:\n    kind: image\n" in text(), "a blank line, as between the packaged data sets"
    assert "\n  mine:\n    data: mine\n" in text() and "\n\n  mine:\n    data: mine\n" not in text()


def test_without_write_nothing_is_written(place: Path, images: Path) -> None:
    code, said, _ = init(images)
    assert code == 0 and "+      source: folder" in said and "nothing is changed; add --write to do it" in said
    code, said, _ = say("--remove", "reviews")
    assert code == 0 and "-    data: reviews" in said and "nothing is changed; add --write to do it" in said
    assert "would remove the task reviews, with its candidates" in said
    assert paths.PARAMS.read_bytes() == PACKAGED.read_bytes()
    assert sorted(os.listdir(place)) == ["images", "params.yaml"]


def test_proposing_twice_changes_nothing(images: Path) -> None:
    assert init(images, "--write")[0] == 0
    before = text()
    code, said, _ = init(images, "--write")
    assert code == 0 and "params.yaml says all this already; next: dvc repro" in said and text() == before


def test_entries_are_replaced_where_they_stand(place: Path, images: Path) -> None:
    paths.PARAMS.write_text(text().replace("  reviews-cnn:\n", "  # mine: the quick one\n  reviews-cnn:\n"))
    before = text()
    assert init(images, "--write", name="fashion")[0] == 0
    assert [entries.names(text(), section) for section in entries.SECTIONS] == [
        entries.names(before, section) for section in entries.SECTIONS
    ]
    names = ("fashion", "fashion-cnn", "fashion-lstm")
    assert without_entries(text(), *names) == without_entries(before, *names)
    assert fetch("fashion")["source"] == "folder"


def test_own_candidates_of_the_task_stay(place: Path, images: Path) -> None:
    assert init(images, "--write")[0] == 0
    paths.PARAMS.write_text(text().replace("\n\ntrainer:", f"\n{EXTRA}\ntrainer:"))
    for options in ((), ("--replace",)):
        assert init(folder_of_images(place / "others", {"c": 5, "d": 5}), *options, "--write")[0] == 0
        assert EXTRA in text() and list(tasks.read().candidates)[-3:] == ["mine-cnn", "mine-lstm", "mine-mlp"]
    assert init(folder_of_texts(place / "texts"), "--replace", "--write")[0] == 0
    assert list(tasks.read().candidates) == ["mine-lstm", "mine-ngrams"], "of another kind they could not learn"


def test_replace_leaves_the_new_entries_alone(images: Path) -> None:
    code, said, _ = init(images, "--replace", "--write")
    assert code == 0 and "removing the task reviews-stream, with its candidates" in said
    found = tasks.read()
    assert (list(found.data), list(found.tasks), list(found.candidates)) == (["mine"], ["mine"], list(MINE[1:]))
    packaged = [f"{word}{end}" for word in ("fashion", "reviews", "reviews-stream") for end in ("", "-cnn", "-lstm")]
    before, after = without_entries(PACKAGED.read_text(), *packaged), without_entries(text(), *MINE)
    assert [line for line in after.splitlines() if line] == [line for line in before.splitlines() if line]
    assert "\n\n\n" not in text()
    assert init(images, "--replace")[1].endswith("says all this already; next: dvc repro\n")


def test_remove_gives_back_what_was_before(images: Path) -> None:
    assert init(images, "--write")[0] == 0
    code, said, _ = say("--remove", "mine", "--write")
    assert code == 0 and "removing the task mine, with its candidates" in said
    assert said.endswith("params.yaml is written\n"), "nothing is to be built for it"
    assert paths.PARAMS.read_bytes() == PACKAGED.read_bytes()


def test_a_data_set_in_use_stays() -> None:
    assert say("--remove", "reviews", "--write")[0] == 0
    assert set(values()["data"]) == {"fashion", "reviews"} and "reviews" not in values()["tasks"]
    assert say("--remove", "reviews-stream", "--write")[0] == 0
    assert set(values()["data"]) == set(values()["tasks"]) == {"fashion"}
    code, _, error = say("--remove", "fashion", "--write")
    assert code == 1 and "--remove is 'fashion', the only task of params.yaml; with `--task NAME --from PATH" in error
    code, _, error = say("--remove", "gone", "--write")
    assert code == 1 and "there is no task 'gone' in params.yaml; there is fashion" in error


def test_an_edit_during_the_survey_is_kept(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy("fashion")

    def edit_meanwhile(detected: Any) -> Any:
        paths.PARAMS.write_text(f"{text()}# mine\n")
        return take_survey(detected)

    monkeypatch.setattr(onboarding, "take_survey", edit_meanwhile)
    code, _, error = init(images, "--replace", "--write")
    assert (code, error) == (1, "params.yaml was changed meanwhile; say this again\n")
    assert text() == f"{PACKAGED.read_text()}# mine\n" and tasks.deployed() == ["fashion"]


def test_one_process_at_a_time_writes_params(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold, free = leftovers.hold, []

    @contextmanager
    def look(*arguments: Any) -> Iterator[None]:
        with locks.hold(onboarding.WRITING) as is_free, hold(*arguments):
            free.append(is_free)
            yield

    monkeypatch.setattr(leftovers, "hold", look)
    assert init(images, "--write")[0] == 0 and free == [False]
    with locks.hold(onboarding.WRITING) as is_free:
        assert is_free


def test_links_to_params_and_lock_stay(place: Path) -> None:
    (place / "real").mkdir()
    for link in (paths.PARAMS, leftovers.LOCK):
        (place / "real" / link).write_text(text() if link == paths.PARAMS else lock_of(stages_of("fashion")))
        link.unlink(missing_ok=True)
        link.symlink_to(Path("real", link))
    assert say("--remove", "fashion", "--write")[0] == 0
    assert paths.PARAMS.is_symlink() and leftovers.LOCK.is_symlink()
    assert "fashion" not in values(place / "real/params.yaml")["tasks"]
    assert (place / "real/dvc.lock").read_text() == lock_of([])


def lay_outputs(task: str) -> list[Path]:
    of_task = (paths.candidates, paths.winner, paths.bundle, paths.reports)
    of_data = (paths.raw, paths.prepared, paths.data_reports, paths.baselines)
    folders = [folder(task) for folder in (*of_task, *of_data)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    return folders


def lock_of(names: list[str]) -> str:
    return LOCK.format("".join(f"  {name}:\n    cmd: exec\n    outs:\n    - path: x/{name}\n" for name in names))


def stages_of(task: str, *candidates: str) -> list[str]:
    of_data, of_task = ("fetch", "prepare", "baselines"), ("choose", "export", "evaluate")
    return [f"{stage}@{task}" for stage in (*of_data, *of_task)] + [f"train@{name}" for name in candidates]


def test_remove_takes_lock_stages_and_folders(place: Path) -> None:
    gone, kept = stages_of("fashion", "fashion-cnn", "fashion-lstm"), stages_of("reviews", "reviews-lstm")
    leftovers.LOCK.write_text(lock_of([*gone[:4], *kept, *gone[4:]]))
    folders, others = lay_outputs("fashion"), lay_outputs("reviews")
    code, said, _ = say("--remove", "fashion")
    assert code == 0 and "would remove from dvc.lock: baselines@fashion, choose@fashion" in said
    assert "would remove candidates/fashion, winner/fashion, bundles/fashion" in said
    assert all(folder.exists() for folder in folders) and "train@fashion-cnn" in leftovers.LOCK.read_text()
    assert say("--remove", "fashion", "--write")[0] == 0
    assert leftovers.LOCK.read_text() == lock_of(kept)
    assert not any(folder.exists() for folder in folders)
    assert all(folder.exists() for folder in others)


def test_folders_of_data_in_use_stay(place: Path) -> None:
    lay_outputs("reviews")
    assert say("--remove", "reviews", "--write")[0] == 0
    assert paths.raw("reviews").exists() and paths.data_reports("reviews").exists()
    assert not paths.bundle("reviews").exists()
    assert say("--remove", "reviews-stream", "--write")[0] == 0
    assert not paths.raw("reviews").exists() and not paths.data_reports("reviews").exists()


def test_a_source_among_outputs_is_kept(place: Path) -> None:
    lay_outputs("fashion")
    source = folder_of_images(paths.raw("fashion") / "own", {"a": 12, "b": 12})
    (place / "link").symlink_to(source)
    (paths.raw("fashion") / "linked").symlink_to(folder_of_images(place / "elsewhere", {"a": 12, "b": 12}))
    for path in (source, "link", paths.raw("fashion") / "linked"):
        code, said, _ = init(path, "--replace", "--write")
        assert code == 0 and "not removed, for a source lies there: data/raw/fashion\n" in said
        assert source.is_dir() and not paths.prepared("fashion").exists()
        shutil.copy(PACKAGED, "params.yaml")


def test_a_source_of_an_old_entry_is_kept(place: Path) -> None:
    lay_outputs("fashion")
    paths.PARAMS.write_text(text().replace("src/convoy/sources/fashion-mnist.yaml", "data/raw/fashion"))
    assert say("--remove", "fashion", "--write")[0] == 0
    assert paths.raw("fashion").exists() and not paths.prepared("fashion").exists()


def test_a_task_never_changes_its_kind_unsaid(place: Path, images: Path) -> None:
    assert init(images, "--write")[0] == 0
    before = text()
    texts = folder_of_texts(place / "texts")
    code, said, error = init(texts, "--write")
    assert code == 1 and "+" not in said and text() == before
    assert "--task is 'mine', in params.yaml a task of kind image, and " in error
    assert "texts is of kind text; choose another name, take that task out first (--remove mine), or take a" in error
    code, said, _ = init(texts, "--replace")
    assert code == 0 and "the task mine of kind image goes; one of kind text takes its name" in said
    code, said, _ = init(folder_of_images(place / "others", {"c": 5, "d": 5}))
    assert code == 0 and "params.yaml has a task mine: the proposal takes the place of its entries" in said


def test_a_task_of_another_kind_leaves_nothing(place: Path, images: Path) -> None:
    assert init(images, "--write")[0] == 0
    lay_outputs("mine")
    deploy("mine")
    leftovers.LOCK.write_text(lock_of(stages_of("mine", "mine-cnn", "mine-lstm")))
    assert init(folder_of_texts(place / "texts"), "--replace", "--write")[0] == 0
    assert leftovers.LOCK.read_text() == lock_of([])
    assert not any(of("mine").exists() for of in (paths.candidates, paths.bundle, paths.raw, paths.prepared))
    assert not tasks.deployed() and list(tasks.read().candidates) == ["mine-lstm", "mine-ngrams"]


def test_an_emptied_lock_stays_valid() -> None:
    lock = lock_of(["fetch@a"])
    emptied = leftovers.without_stages(lock, frozenset({"fetch@a", "lab"}))
    assert read(emptied) == {"schema": "2.0", "stages": {}}


def test_the_repositorys_lock_loses_named_stages_alone() -> None:
    lock = (Path(__file__).parents[1] / "dvc.lock").read_text()
    stages = read(lock)["stages"]
    names = frozenset(list(stages)[::2])
    assert leftovers.without_stages(lock, frozenset()) == lock, "to the byte"
    left = read(leftovers.without_stages(lock, names))
    assert left["stages"] == {name: stage for name, stage in stages.items() if name not in names}


def test_a_running_dvc_is_waited_for(place: Path) -> None:
    leftovers.LOCK.write_text(lock_of(stages_of("fashion")))
    (place / ".dvc/tmp").mkdir(parents=True)
    deploy("fashion")
    with make_lock(str(leftovers.DVC_LOCK)):
        code, _, error = say("--remove", "fashion", "--write")
    assert tasks.deployed() == ["fashion"]
    assert code == 1 and "a DVC is running here, which writes dvc.lock; say this again when it has ended" in error
    assert paths.PARAMS.read_bytes() == PACKAGED.read_bytes() and "fetch@fashion" in leftovers.LOCK.read_text()
    assert say("--remove", "fashion", "--write")[0] == 0 and not tasks.deployed()


def write_rwlock(place: Path, content: str) -> None:
    leftovers.LOCK.write_text(lock_of(stages_of("fashion")))
    (place / ".dvc/tmp").mkdir(parents=True)
    RWLOCK.write_text(content)


@pytest.mark.parametrize("kind", ["write", "read"])
def test_a_running_stage_of_dvc_is_seen(place: Path, kind: str) -> None:
    """DVC frees its lock meanwhile."""
    holder = {"pid": os.getppid(), "cmd": "dvc repro"}
    write_rwlock(place, json.dumps({kind: {"out": holder if kind == "write" else [holder]}}))
    lay_outputs("fashion")
    code, _, error = say("--remove", "fashion", "--write")
    assert code == 1 and "a DVC is running here, which writes dvc.lock" in error
    assert f"(process {os.getppid()} in .dvc/tmp/rwlock)" in error
    assert paths.PARAMS.read_bytes() == PACKAGED.read_bytes() and "fetch@fashion" in leftovers.LOCK.read_text()
    assert paths.raw("fashion").exists()


def pid_of_the_dead() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"write": 1}', '{"read": {"a": [{}]}}', "dead", "\x00"])
def test_a_torn_or_old_rwlock_is_empty(place: Path, content: str) -> None:
    dead = json.dumps({"write": {"out": {"pid": pid_of_the_dead(), "cmd": "dvc repro"}}})
    write_rwlock(place, dead if content == "dead" else content)
    assert say("--remove", "fashion", "--write")[0] == 0 and "fashion" not in values()["tasks"]


def test_a_broken_history_stops_all_changes(images: Path) -> None:
    for task in ("fashion", "reviews"):
        deploy(task)
    history = journal.path_of("reviews")
    history.write_bytes(history.read_bytes().replace(b"the first", b"the third"))
    lay_outputs("fashion")
    code, said, error = init(images, "--replace", "--write")
    assert code == 1 and "was not appended to the line before it" in error
    assert tasks.deployed() == ["fashion", "reviews"] and "is no longer deployed" not in said
    assert len(journal.read_history("fashion").changes) == 1 and paths.bundle("fashion").exists()
    assert paths.PARAMS.read_bytes() == PACKAGED.read_bytes()


def deploy(task: str) -> None:
    shutil.rmtree("bundle", ignore_errors=True)
    tiny_bundles.write_image_bundle(Path("bundle"))
    release = Release(
        name=f"convoy-{task}", version="1", run_id="r", digest=digest_of(Path("bundle")), promoted_at="2026-01-01"
    )
    deployment.deploy(task, Path("bundle"), release)
    journal.decide(task, release, decision.Grounds("promotion", "the first", revision=None))


@pytest.mark.parametrize("options", [["--remove", "fashion"], ["--task", "mine", "--from", "images", "--replace"]])
def test_a_deployed_model_is_withdrawn(images: Path, options: list[str]) -> None:
    deploy("fashion")
    code, said, _ = say(*options)
    assert code == 0 and "would remove its model from service" in said and tasks.deployed() == ["fashion"]
    code, said, error = say(*options, "--write")
    assert code == 0, error
    assert "is no longer deployed" in said and not tasks.deployed() and tasks.with_history() == ["fashion"]
    assert journal.read_history("fashion").changes[-1].why == leftovers.REASON
    assert "fashion" not in tasks.read().tasks


def test_remove_withdraws_what_only_deployed_knows(place: Path) -> None:
    deploy("older")
    code, said, _ = say("--remove", "older")
    assert code == 0 and "would remove its model from service" in said and tasks.deployed() == ["older"]
    assert said.endswith("nothing is changed; add --write to do it\n")
    assert say("--remove", "older", "--write")[0] == 0 and not tasks.deployed()
    assert tasks.with_history() == ["older"] and paths.PARAMS.read_bytes() == PACKAGED.read_bytes()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Mine", "--task is 'Mine': a name has small letters, digits and hyphens and begins with a letter"),
        ("1st", "--task is '1st': a name has small letters"),
        ("a.b", "--task is 'a.b': a name has small letters"),
        ("models", "--task is 'models': baselines, bench"),
        ("data", "pictures are names of Convoy's own; choose another"),
        ("no", "--task is 'no': YAML reads it as False; choose another"),
        ("null", "--task is 'null': YAML reads it as None; choose another"),
        ("text", "--task is 'text': the packaged task reviews had this name before; choose another"),
        ("a" * 51, ": it has 51 characters, 50 are the most"),
    ],
)
def test_a_name_that_cannot_be_is_refused(images: Path, name: str, said: str) -> None:
    code, out, error = init(images, "--write", name=name)
    assert (code, out, error.count("\n")) == (1, "", 1) and said in error, "before the survey"
    assert paths.PARAMS.read_bytes() == PACKAGED.read_bytes()


def test_the_longest_name_fits_all_candidates(images: Path, place: Path) -> None:
    name = "a" * onboarding.LONGEST
    for source in (images, folder_of_texts(place / "texts")):
        assert init(source, "--replace", "--write", name=name)[0] == 0


def test_a_candidate_of_another_task_is_not_taken(images: Path) -> None:
    paths.PARAMS.write_text(text().replace("fashion-lstm", "mine-lstm"))
    code, _, error = init(images, "--write")
    assert code == 1 and "which needs the name candidates.mine-lstm, and that is a candidate of the task fash" in error


def test_another_task_of_the_data_set_is_told(place: Path) -> None:
    code, out, _ = init(folder_of_texts(place / "texts"), name="reviews")
    assert code == 0 and "the task reviews-stream learns from this data set too" in out


def test_what_does_not_fit_other_entries_is_refused(images: Path) -> None:
    assert say("--remove", "reviews", "--write")[0] == 0  # the data set stays, with a task that reads it
    before = text()
    code, _, error = init(images, "--write", name="reviews")
    assert code == 1 and "does not fit other entries: params.yaml: tasks.reviews-stream.kind is 'text'" in error
    assert text() == before


def test_options_that_exclude_each_other_are_refused(images: Path) -> None:
    for option, value in (("--task", ["mine"]), ("--encoding", ["latin-1"]), ("--replace", [])):
        code, _, error = say("--remove", "fashion", option, *value)
        assert code == 1 and f"--remove fashion and {option} exclude each other: --remove takes a task out" in error
    for options in ((), ("--task", "mine"), ("--from", images)):
        code, _, error = say(*options)
        assert code == 1 and "--task NAME and --from PATH are needed, or --remove NAME" in error


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing; run this in"),
        ("a: [", "is not valid YAML"),
        ("a: 1", "the section data is missing"),
        ("data: {}\ntasks: {}\ncandidates: {}", "the section data is missing, or has no entries"),
        ("data:\n  a: 1\n  b: 2\n  a: 3\n", "params.yaml: the key a stands in line 2 and again in line 4"),
        (b"data: \xff", "is not UTF-8"),
    ],
)
def test_a_broken_params_file_is_told(images: Path, content: Any, said: str) -> None:
    match content:
        case None:
            paths.PARAMS.unlink()
        case bytes():
            paths.PARAMS.write_bytes(content)
        case _:
            paths.PARAMS.write_text(content)
    for code, _, error in (init(images, "--write"), say("--remove", "fashion")):
        assert (code, error.count("\n")) == (1, 1)
        assert said in error


def test_other_indents_and_line_ends_are_kept(images: Path) -> None:
    tree = values()
    wide = "".join(f"{name}:\n" + "".join(f"    {line}\n" for line in yaml.safe_dump(part).splitlines())
                   if isinstance(part, dict) else f"{name}: {part}\n" for name, part in tree.items())  # fmt: skip
    paths.PARAMS.write_bytes(wide.rstrip("\n").replace("\n", "\r\n").encode())
    assert init(images, "--write")[0] == 0
    written = paths.PARAMS.read_bytes().decode()
    assert "\r\n    mine:\r\n      kind: image\r\n" in written and written.count("\n") == written.count("\r\n")
    assert {name: part for name, part in values()["data"].items() if name != "mine"} == tree["data"]


NAMES = {section: list(values(PACKAGED)[section]) for section in entries.SECTIONS}
STEPS = st.tuples(
    st.sampled_from(entries.SECTIONS), st.integers(0, 5), st.sampled_from(["put", "take out"]), st.booleans()
)


@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.lists(STEPS, max_size=4))
def test_any_edits_leave_all_other_lines(steps: list[tuple[str, int, str, bool]]) -> None:
    content, expected = PACKAGED.read_text(), values(PACKAGED)
    for section, place, step, is_new in steps:
        name = "new" if is_new else NAMES[section][place % len(NAMES[section])]
        if step == "put":
            content = entries.put(content, section, name, f"  {name}:  # a\n    a: [1]\n    # b\n\n    b: 2\n")
            expected[section][name] = {"a": [1], "b": 2}
        elif len(expected[section]) > 1:
            content = entries.take_out(content, section, name)
            expected[section].pop(name, None)
        assert read(content) == expected and list(read(content)[section]) == list(expected[section])
    edited = {name for section, place, _, _ in steps for name in [NAMES[section][place % len(NAMES[section])], "new"]}
    before, after = (without_entries(lines, *edited).splitlines() for lines in (PACKAGED.read_text(), content))
    assert [line for line in after if line] == [line for line in before if line]


def test_comments_between_entries_stay() -> None:
    of_a, of_b = "  # of a\n  a:\n    x: 1\n    # in a\n", "  # of b\n  b: {y: 2}  # to b\n  # after b\n"
    content = f"\ufeffdata:\n{of_a}\n{of_b}\n# of tasks\ntasks: {{}}\n"
    assert entries.entry(content, "data", "a") == "  a:\n    x: 1\n    # in a\n"
    without = entries.take_out(content, "data", "b")
    assert without == content.replace("  b: {y: 2}  # to b\n", "")
    assert entries.put(content, "data", "c", "  c: 3\n") == content.replace("# to b\n", "# to b\n\n  c: 3\n")
    with pytest.raises(ParamsInvalid, match="the section tasks is missing, or has no entries on lines of their own"):
        entries.put(content, "tasks", "t", "  t: 1\n")
