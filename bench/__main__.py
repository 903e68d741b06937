"""`make bench`: every benchmark, one after the other, each with its report below reports/bench/."""

import typer

from bench import training

if __name__ == "__main__":
    typer.run(training.main)
