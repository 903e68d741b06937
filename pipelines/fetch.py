"""The source that params.yaml names, whatever form it has -> the raw items of one kind. Argument: kind."""

import sys

from convoy.core import paths, stage, stage_names
from convoy.core.params import ParamsInvalid, read_section
from convoy.core.paths import DataKind
from convoy.data import raw
from convoy.sources import registry
from convoy.sources.download import SourceUnavailable
from convoy.sources.items import SourceParams, SourceRefused


def main(kind: DataKind) -> None:
    """Read the source once; no later stage depends on what it is."""
    section = stage_names.fetch(kind)
    params = read_section(SourceParams, section)
    try:
        source = registry.find(params.source, kind)
    except SourceRefused as refused:
        raise ParamsInvalid(f"{paths.PARAMS}: {section}.source: {refused}") from None
    labels = params.labels or registry.label_order(source, params)
    raw.write(paths.raw(kind), kind, source.read(params, kind), labels)


if __name__ == "__main__":
    stage.run(main, *sys.argv[1:], refusals=(SourceRefused, SourceUnavailable))
