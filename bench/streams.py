"""What a word of a stream costs after few and after many words, and many streams at once, measured at a service."""

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from httpx_ws import AsyncWebSocketSession, WebSocketSession, aconnect_ws, connect_ws

from bench import machine, servers
from bench.bodies import JSON, deploy
from bench.contest import Contest, Ratio, hold, table
from bench.load import Load
from bench.samples import STREAM, TEXTS
from convoy.core import atomic, paths
from convoy.kinds.text.items.prepared import read as read_texts

REPORT = Path("reports/bench/streams.json")
PATH = f"/v1/{STREAM}/stream"
ANSWER_S = 60.0
PIECE_CHARACTERS = 15_000  # of what goes before; a piece may have 20,000


@dataclass(frozen=True)
class Size:
    """Rounds, one-word pieces whose median is a round's figure; streams at once, and how many words each sends."""

    rounds: int = 7
    pieces: int = 100
    streams: int = 200
    words_each: int = 20
    after_words: tuple[int, ...] = (10, 1_000, 10_000)


def measure(size: Size, url: str, words: list[str]) -> dict[str, Any]:
    """The cost of a word, then many streams at once, at a service that is up."""
    contestants = {f"after_{count}": _after(url, words, count, size.pieces) for count in size.after_words}
    few = f"after_{size.after_words[0]}"
    # What goes before is in the state, so that only noise is left; a text read anew would cost a hundred times as much.
    ratios = {f"{name}_over_{few}": Ratio(name, few, 1.2, at_most=True) for name in contestants if name != few}
    cost = hold(Contest("ms per one-word piece, there and back", size.rounds, contestants, ratios), "a word")
    return {"cost": cost, "at_once": asyncio.run(_at_once(url, words, size))}


def _start(stack: ExitStack, folder: Path) -> str:
    """A service of what was built last, which has answered a stream; gives its URL."""
    deploy(folder / "deployed")
    url = f"http://127.0.0.1:{stack.enter_context(servers.ours(folder / 'deployed', folder / 'log'))}"
    body = folder / "piece.json"
    body.write_text(json.dumps({"text": "good ", "final": True}))
    servers.wait_for(Load(f"{url}{PATH}", JSON, [body]), folder / "log")
    return url


def _after(url: str, words: list[str], count: int, pieces: int) -> Callable[[], float]:
    def run() -> float:
        session: WebSocketSession
        with connect_ws(f"{url}{PATH}") as session:
            for piece in _pieces(words[:count]):
                _tell(session, piece)
            took_s = []
            for word in words[:pieces]:
                began_s = time.perf_counter()
                _tell(session, f"{word} ")
                took_s.append(time.perf_counter() - began_s)
        return 1000 * median(took_s)

    return run


def _pieces(words: list[str]) -> list[str]:
    """All words with a space after each, in as few pieces as may be sent."""
    pieces, piece = [], ""
    for word in words:
        if len(piece) + len(word) >= PIECE_CHARACTERS:
            pieces.append(piece)
            piece = ""
        piece += f"{word} "
    return [*pieces, piece]


def _tell(session: WebSocketSession, text: str) -> None:
    session.send_text(json.dumps({"text": text}))
    _check(session.receive_text(timeout=ANSWER_S))


def _check(answer: str) -> None:
    if "probabilities" not in json.loads(answer):
        raise RuntimeError(f"{PATH} answered {answer}")


async def _at_once(url: str, words: list[str], size: Size) -> dict[str, Any]:
    """All streams open, then each sends word by word, the next as soon as the last is answered."""
    everybody = asyncio.Barrier(size.streams)

    async def one(number: int) -> list[float]:
        session: AsyncWebSocketSession
        async with aconnect_ws(f"{url}{PATH}") as session:
            await everybody.wait()
            mine = words[number : number + size.words_each]
            return [await _wait_for(session, f"{word} ") for word in mine]

    began_s = time.perf_counter()
    took_ms = [1000 * each for waits in await asyncio.gather(*map(one, range(size.streams))) for each in waits]
    p50, p99 = np.percentile(took_ms, (50, 99))
    return {
        "streams": size.streams,
        "pieces": len(took_ms),
        "p50_ms": round(p50, 1),
        "p99_ms": round(p99, 1),
        "slowest_ms": round(max(took_ms), 1),
        "seconds": round(time.perf_counter() - began_s, 1),
    }


async def _wait_for(session: AsyncWebSocketSession, text: str) -> float:
    began_s = time.perf_counter()
    await session.send_text(json.dumps({"text": text}))
    _check(await session.receive_text(timeout=ANSWER_S))
    return time.perf_counter() - began_s


def main(
    report: Annotated[Path, typer.Option(help="Where to write.")] = REPORT,
    rounds: Annotated[int, typer.Option(help="Rounds that count.")] = Size.rounds,
) -> None:
    """Measure on what `dvc repro` built last; clients and service share the cores. Two minutes."""
    try:
        words = " ".join(read_texts(paths.split_file(TEXTS, "validation")).contents[:200]).split()
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            facts = machine.facts()
            results = measure(Size(rounds=rounds), _start(stack, Path(folder)), words)
    except FileNotFoundError as error:
        typer.echo(f"{error}\n`dvc repro` makes it", err=True)
        raise typer.Exit(2) from None
    atomic.write_json(report, {**facts, "results": results})
    typer.echo(table(results["cost"]))
    typer.echo(json.dumps(results["at_once"]))
    typer.echo(f"written: {report}")


if __name__ == "__main__":
    typer.run(main)
