"""The source of a data set, whatever form it has -> its raw items. Argument: data set."""

import sys

from convoy.core import paths, stage, tasks
from convoy.core.params import ParamsInvalid, read_section
from convoy.data import raw
from convoy.sources import registry
from convoy.sources.download import SourceUnavailable
from convoy.sources.items import SourceParams, SourceRefused


def main(data: str) -> None:
    """Read the source once; no later stage depends on what it is."""
    kind = tasks.read().data_set(data).kind
    params = read_section(SourceParams, "data", data, "fetch")
    try:
        source = registry.find(params.source, kind)
    except SourceRefused as refused:
        raise ParamsInvalid(f"{paths.PARAMS}: data.{data}.fetch.source: {refused}") from None
    labels = params.labels or registry.label_order(source, params)
    raw.write(paths.raw(data), data, kind, source.read(params, kind), labels)


if __name__ == "__main__":
    stage.run(main, *sys.argv[1:], refusals=(SourceRefused, SourceUnavailable))
