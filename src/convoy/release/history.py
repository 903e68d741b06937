"""All that was decided about a task -> who serves by it, who served before, and what stands against a model."""

from dataclasses import dataclass

from convoy.release.decision import CHANGES, Decision, Mark, Model


@dataclass(frozen=True)
class History:
    """All that was decided about a task, oldest first."""

    decisions: tuple[Decision, ...] = ()
    marks: tuple[Mark, ...] = ()
    lines: tuple[bytes, ...] = ()  # as they stand in the file
    torn: int = 0  # lines that a kill has cut off: they decided nothing, and stay where they are

    @property
    def unfinished(self) -> Decision | None:
        """The last change, where deployed/ may not have followed it yet."""
        changes = [decision for decision in self.decisions if decision.kind in CHANGES]
        marked = {mark.of for mark in self.marks}
        if not changes or changes[-1].kind == "found" or changes[-1].number in marked:
            return None
        return changes[-1]

    @property
    def undone(self) -> set[int]:
        """Numbers of the decisions that deployed/ could not follow."""
        return {mark.of for mark in self.marks if mark.kind == "undone"}

    @property
    def changes(self) -> list[Decision]:
        """The decisions that changed who serves."""
        return [each for each in self.decisions if each.kind in CHANGES and each.number not in self.undone]

    @property
    def champion(self) -> Model | None:
        """Who serves by this history."""
        return self.changes[-1].after if self.changes else None

    @property
    def one_before(self) -> Model | None:
        """The champion before this one: a rollback takes the way back, so that a second one goes one further."""
        way: list[Model] = []
        for change in self.changes:
            if change.kind == "migration":  # the same model, which loads no more as it was
                left = change.before and change.before.digest
                way = [change.after if model.digest == left else model for model in way]
            elif not way and change.before is not None:
                way.append(change.before)
            digests = [model.digest for model in way]
            if change.kind == "rollback" and change.after.digest in digests:
                way = way[: len(way) - digests[::-1].index(change.after.digest)]
            elif not way or way[-1].digest != change.after.digest:
                way.append(change.after)
        return way[-2] if len(way) > 1 else None

    def about(self, digest: str) -> Decision | None:
        """The last decision on a model: for it, against it, or one by which it stopped serving."""
        counted = [each for each in self.decisions if each.kind != "superseded" and each.number not in self.undone]
        return next((each for each in reversed(counted) if _concerns(each, digest)), None)

    def against(self, digest: str) -> Decision | None:
        """What stands against a model: the gates' refusal or a rollback, where nothing was decided on it since."""
        last = self.about(digest)
        if last is None or last.kind not in ("refusal", "rollback"):
            return None
        return last if last.kind == "refusal" or last.after.digest != digest else None

    def has_served(self, digest: str) -> bool:
        """Whether a model ever served by this history."""
        return any(digest in (each.after.digest, each.before and each.before.digest) for each in self.changes)


def _concerns(decision: Decision, digest: str) -> bool:
    left = decision.kind in CHANGES and decision.before is not None and decision.before.digest == digest
    return left or decision.after.digest == digest
