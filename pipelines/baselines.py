"""Train split -> predictions of simple, well-known models on the test split, the measure of every candidate.

Argument: data set.
"""

import sys

from convoy.core import atomic, paths, spreadsheet, stage, tasks
from convoy.core.params import read_section
from convoy.evaluation.metrics import accuracy
from convoy.kinds.registry import module


def main(data: str) -> None:
    """Train the baselines of a data set; write their figures, and the predictions that evaluate compares one by one."""
    kind = tasks.read().data_set(data).kind
    baselines, prepared = module(kind, "baselines"), module(kind, "items.prepared")
    params = read_section(baselines.Baselines, "data", data, "baselines")
    train, test = (prepared.read(paths.split_file(data, split)) for split in ("train", "test"))
    figures, columns = {}, {"actual": test.labels}
    for name, predicted in baselines.predictions(params, train, test.contents):
        figures[name], columns[name] = accuracy(predicted == test.labels), predicted
        print(f"{data}, baseline {name}: test {figures[name]}", flush=True)
    rows = [[train.names[label] for label in row] for row in zip(*columns.values(), strict=True)]
    folder = paths.baselines(data)
    atomic.write_bytes(folder / "predictions.csv", spreadsheet.to_csv([list(columns), *rows]).encode())
    atomic.write_json(folder / "figures.json", figures)


if __name__ == "__main__":
    stage.run(main, *sys.argv[1:])
