"""`make bench`: how fast training and serving are, one after the other, each with its report below reports/bench/."""

import typer

from bench import serving, training


def main() -> None:
    """Measure both; the serving part wants wrk, and makes an environment per peer in .run/peers/."""
    training.main()
    serving.main()


if __name__ == "__main__":
    typer.run(main)
