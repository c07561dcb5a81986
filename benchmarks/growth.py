"""How the cost of a step, of choice, of facts and of attacks grows with their sizes.

    OMP_NUM_THREADS=1 python benchmarks/growth.py    # minutes; writes results/growth.json and .svg

An NPO step in the steady state and the scores of multiple-choice questions, both with a random
Llama of width 64, against what is doubled: the texts of a batch, their tokens, the blocks, the
vocabulary up to 262,144. Documents and questions of facts, and a run with one-step attacks, with
the lab's model. Processor seconds of one thread, least of several turns. Memory is the largest
resident set beyond that of the process before, with freed memory returned at once. ``exponent`` is
the slope in a double logarithmic picture over the last doubling: 1 where cost is proportional.
``docs/growth.svg`` is a copy of the picture.
"""

import argparse
import json
import math
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measured import Step, alone, least_seconds, llama, our_step, peak_mib, return_freed_memory
from real_cell import Counts, recipe
from steps import OBJECTIVES, Size

from ilu.data.facts.sources import _ENCODED, FactDocuments, FactItems, FactQuestions
from ilu.evals.metrics.multiple_choice import option_logps
from ilu.models.load import load_model, load_tokenizer
from ilu.runs.run import Options, run
from ilu.system.atomic import write_json, write_text
from ilu.system.optional import quiet_libraries
from ilu.system.provenance import environment
from ilu.types import LM, Question

LAB = "lab"
WIDTH, TEXTS, TOKENS, BLOCKS, VOCABULARY = 64, 4, 64, 2, 4096
QUESTIONS, BATCH = 64, 16
TOPICS = ("capitals", "elements", "professions", "animals", "authors", "currencies", "inventions",
          "languages")  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """What is doubled; ``topics`` and ``attacks`` are numbers of them."""

    batch: int = TEXTS
    tokens: int = TOKENS
    vocabulary: int = VOCABULARY
    blocks: int = BLOCKS
    questions: int = QUESTIONS
    topics: int = 1
    attacks: int = 1


def npo(size: Sizes) -> Step:
    """A step of NPO with a retain batch."""
    shape = Size(size.vocabulary, size.blocks, WIDTH, size.batch, size.tokens)
    model = llama(width=WIDTH, layers=size.blocks, vocabulary=size.vocabulary)
    return our_step(model, OBJECTIVES["npo"], shape.batches())


def choice(size: Sizes) -> Step:
    """Scores of questions with four options of several tokens."""
    model = llama(width=WIDTH, layers=size.blocks, vocabulary=size.vocabulary)
    lm = LM(model, load_tokenizer(LAB))
    options = (" the red one", " a blue one", " no other one", " all of them")
    asked = [
        Question(f"{i} " + "so it is " * (size.tokens // 3), options, 0)
        for i in range(size.questions)
    ]

    def step() -> float:
        return option_logps(lm, asked, batch_size=size.batch)[0][0] or 0.0

    return step


def facts(size: Sizes) -> Step:
    """Documents of facts in tokens, and the scores of their questions."""
    lm, name = load_model(LAB), "facts:" + ",".join(TOPICS[: size.topics])

    def step() -> float:
        _ENCODED.clear()
        documents = FactDocuments(name)(lm.tokenizer)
        option_logps(lm, FactQuestions(FactItems(name))(), batch_size=BATCH)
        return float(len(documents))

    return step


def attacks(size: Sizes) -> Step:
    """A run of one step with attacks of one step each."""
    given = recipe(LAB, Counts(1, 1, 4))
    first = next(iter(given.attacks.values()))
    given = replace(given, attacks={f"attack {i}": first for i in range(size.attacks)})

    def step() -> float:
        with tempfile.TemporaryDirectory() as folder:
            run(given, Path(folder) / "run", Options(samples=False))
        return 0.0

    return step


Kind = Callable[[Sizes], Step]
SERIES: Mapping[str, tuple[Kind, str, Sizes, int]] = {
    "step, texts": (npo, "batch", Sizes(), 4),
    "step, tokens": (npo, "tokens", Sizes(), 4),
    "step, blocks": (npo, "blocks", Sizes(), 4),
    "step, vocabulary": (npo, "vocabulary", Sizes(), 6),
    "choice, questions": (choice, "questions", Sizes(batch=BATCH), 4),
    "choice, batch": (choice, "batch", Sizes(batch=BATCH, questions=4 * QUESTIONS), 3),
    "choice, tokens": (choice, "tokens", Sizes(batch=BATCH), 4),
    "choice, blocks": (choice, "blocks", Sizes(batch=BATCH), 4),
    "choice, vocabulary": (choice, "vocabulary", Sizes(batch=BATCH), 6),
    "facts, topics": (facts, "topics", Sizes(), 3),
    "run, attacks": (attacks, "attacks", Sizes(), 3),
}
"""What is measured, what is doubled, from where, and how often."""


def seconds(kind: Kind, size: Sizes, turns: int) -> float:
    """Least seconds after a first turn."""
    step = kind(size)
    step()
    return least_seconds([step], turns)[0]


def memory(kind: Kind, size: Sizes) -> float:
    """Peak in MiB."""
    return_freed_memory()
    return peak_mib(partial(kind, size), turns=1)


def series(name: str, turns: int, doublings: int | None = None) -> list[dict[str, float]]:
    """One row for each size."""
    kind, what, start, most = SERIES[name]
    rows: list[dict[str, float]] = []
    for k in range(1 + min(most, doublings or most)):
        size = replace(start, **{what: getattr(start, what) * 2**k})
        took, peak = alone(seconds, kind, size, turns), alone(memory, kind, size)
        rows.append({what: getattr(size, what), "seconds": took, "mib": peak})
        print(f"{name:20} {rows[-1][what]:7} {took:8.3f} s {peak:8.1f} MiB", flush=True)
    return rows


def exponent(rows: Sequence[Mapping[str, float]], key: str) -> float:
    """Slope over the last doubling."""
    first, last = rows[-2][key], rows[-1][key]
    return round(math.log2(last / first), 2)


def growth(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """The exponents of seconds and of memory."""
    keys = ("seconds", "mib")
    return {name: {key: exponent(each, key) for key in keys} for name, each in rows.items()}


def picture(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Seconds and memory against size, in multiples of the smallest, with the look of reports."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    from ilu.runs.report.palette import looks
    from ilu.runs.report.svg import STYLE, Line, draw, inline

    with rc_context(STYLE):
        panel = Figure(figsize=(7.2, 3.2), layout="constrained")
        FigureCanvasSVG(panel)
        for ax, key in zip(panel.subplots(1, 2), ("seconds", "mib"), strict=True):
            for i, (look, each) in enumerate(zip(looks([*rows]), rows.values(), strict=True)):
                points = [(2.0**k, row[key] / each[0][key]) for k, row in enumerate(each)]
                draw(ax, Line(i, points), look, marked=True)
            ax.set_xscale("log", base=2)
            ax.set_yscale("log", base=2)
            ax.set_xlabel("times the smallest size")
            ax.set_ylabel(f"times the least {'seconds' if key == 'seconds' else 'memory'}")
        panel.legend([*rows], loc="outside right center", frameon=False)
        return inline(panel)


def main() -> None:
    """Measure, print, draw and write."""
    parser = argparse.ArgumentParser(description="cost against size")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="one doubling, to try the script")
    parser.add_argument("--series", nargs="+", choices=SERIES, default=[*SERIES])
    parser.add_argument("--add", action="store_true", help="keep other series of the record")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/growth.json")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    warnings.simplefilter("ignore")
    began = time.monotonic()
    made = {n: series(n, wanted.turns, 1 if wanted.tiny else None) for n in wanted.series}
    if wanted.add and wanted.out.is_file():
        made = json.loads(wanted.out.read_text())["rows"] | made
    command = " ".join(["python", "benchmarks/growth.py", *sys.argv[1:]])
    record: dict[str, Any] = {"command": command, "environment": environment(), "rows": made}
    taken = round(time.monotonic() - began)
    write_json(wanted.out, {**record, "wall_seconds": taken, "exponents": growth(made)})
    write_text(wanted.out.with_suffix(".svg"), picture(made))
    print(json.dumps(growth(made)))


if __name__ == "__main__":
    main()
