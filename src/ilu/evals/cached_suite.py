"""Evaluate a suite with a cache: each part is stored under a hash of all its inputs."""

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from ilu.data.stream import fingerprint
from ilu.data.token_cache import tokenizer_hash
from ilu.evals.suite import Scores, Suite, measure, named
from ilu.models.load import weights_hash
from ilu.scores import Score, Steps
from ilu.system.atomic import json_hash, write_json
from ilu.system.locks import alone
from ilu.system.provenance import code_hash, installed
from ilu.system.record import describe
from ilu.types import LM, Group, Metric

LIBRARIES = (
    "torch", "transformers", "tokenizers", "peft", "torchao", "rouge-score", "sacrebleu", "scipy",
    "scikit-learn", "lm-eval", "evaluate",
)  # fmt: skip
"""Libraries whose versions may change a score or an attack."""


@runtime_checkable
class Content(Protocol):
    """A metric that lists itself the data that it reads."""

    def content(self, tokenizer: Any) -> Any:
        """Everything except the settings that affects the scores, as JSON."""
        ...


class Evaluation(NamedTuple):
    """Scores of one model: ``weights`` is its hash, ``parts`` names the file of each part."""

    weights: str
    parts: Mapping[str, str]
    scores: Scores


def evaluate(
    suite: Suite, lm: LM, folder: Path | None, *, progress: Steps = lambda done, total: None
) -> Evaluation:
    """Measure every part that ``folder`` does not have yet; without a folder, all parts.

    If several processes share the folder, one measures a part and the others wait for it.
    """
    weights = weights_hash(lm.model)
    base = {"weights": weights, **circumstances(lm)}
    keys: dict[str, str] = {}
    scores: dict[str, Score] = {}
    for i, (name, part) in enumerate(suite.parts.items(), start=1):
        keys[name] = part_key(name, part, lm, base)
        scores |= (
            kept(folder / f"{keys[name]}.json", name, part, lm, base)
            if folder
            else named(name, part(lm))
        )
        progress(i, len(suite.parts))
    return Evaluation(weights, keys, {**scores, **suite.derived(scores)})


def kept(file: Path, name: str, part: Any, lm: LM, base: Mapping[str, Any]) -> Scores:
    """The scores of a part from its file. A missing file is measured and written."""
    if not file.is_file():
        with alone(file, wait=True):
            if not file.is_file():
                write_scores(file, name, part, base, named(name, part(lm)))
    return read_scores(file)


def evaluate_once(metrics: Mapping[str, Metric | Group], lm: LM, folder: Path | None) -> Scores:
    """Every score; those that ``folder`` has are read from it."""
    if folder is None:
        return measure(metrics, lm)
    return evaluate(Suite(metrics), lm, folder / "evaluation").scores


def with_reference(suite: Suite, evaluation: Evaluation, reference: Evaluation) -> Evaluation:
    """Add the scores that compare with a reference model; ValueError if it is the same model."""
    if evaluation.weights == reference.weights:
        raise ValueError(
            "the reference has the same weights as the model: compared with itself every model is "
            "perfect. Give a model that never saw the forget set, such as one made by ilu oracle"
        )
    return evaluation._replace(
        scores={**evaluation.scores, **suite.compared(evaluation.scores, reference.scores)}
    )


def with_order(suite: Suite, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Add the scores that depend on the order of the models, if the suite has any."""
    if suite.followed is None:
        return list(evaluations)
    added = suite.followed([each.scores for each in evaluations])
    pairs = zip(evaluations, added, strict=True)
    return [each._replace(scores={**each.scores, **more}) for each, more in pairs]


def circumstances(lm: LM) -> dict[str, Any]:
    """Everything else that affects a score: configuration, tokenizer, code and library versions."""
    model: Any = lm.model
    settings = {**model.config.to_dict(), "ends": model.generation_config.eos_token_id}
    settings = {k: v for k, v in settings.items() if k not in ("_name_or_path", "dtype")}
    return {
        "config": json_hash(settings),
        "tokenizer": tokenizer_hash(lm.tokenizer),
        "code": code_hash(),
        "libraries": {name: installed(name) for name in LIBRARIES},
    }


def part_key(name: str, part: Any, lm: LM, base: Mapping[str, Any]) -> str:
    """Hash of model, metric, its settings and the content of all data that it reads."""
    data = [json_hash(read) for read in reads(part, lm.tokenizer)]
    return json_hash({"name": name, "metric": describe(part), "data": data, **base})


def reads(value: Any, tokenizer: Any) -> Iterator[Any]:
    """The content of all data that a metric reads. Examples are hashed: they may exceed memory.

    A source is called with a tokenizer and returns examples, or is called without arguments.
    """
    source: Any = value
    parameters = call_parameters(value)
    if parameters is not None and isinstance(source, Content):
        yield source.content(tokenizer)
    elif parameters == ["tokenizer"]:
        yield fingerprint(source(tokenizer))
    elif parameters == []:
        yield source()
    else:
        for each in inside(value):
            yield from reads(each, tokenizer)


def call_parameters(value: Any) -> list[str] | None:
    """Names of the parameters of a dataclass's ``__call__``; None for any other value."""
    source: Any = value
    known = is_dataclass(value) and not isinstance(value, type) and callable(value)
    return list(inspect.signature(source).parameters) if known else None


def inside(value: Any) -> Iterable[Any]:
    """The values that a mapping, a sequence or a dataclass consists of."""
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, list | tuple):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in fields(value)]
    return ()


def write_scores(file: Path, name: str, part: Any, base: Mapping[str, Any], scores: Scores) -> None:
    """Write the scores of a part with every item and all that identifies them."""
    values = {metric: score._asdict() for metric, score in scores.items()}
    write_json(file, {"part": name, "metric": describe(part), **base, "scores": values})


def read_scores(file: Path) -> Scores:
    """The scores of a part."""
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["scores"]
    return {m: Score(**v)._replace(items=tuple(v["items"])) for m, v in values.items()}


def harness_results(suite: str, model: str, scores: Scores) -> dict[str, Any]:
    """The scores in the result format of lm-evaluation-harness, for its viewers."""
    values: dict[str, Any] = {"alias": suite}
    for name, score in scores.items():
        values[f"{name},none"] = score.value
        values[f"{name}_stderr,none"] = score.stderr if score.items else "N/A"
    largest = max(score.n for score in scores.values())
    return {
        "results": {suite: values},
        "group_subtasks": {suite: []},
        "configs": {suite: {"task": suite}},
        "versions": {suite: 0},
        "n-shot": {suite: 0},
        "higher_is_better": {suite: {}},
        "n-samples": {suite: {"original": largest, "effective": largest}},
        "config": {"model": "ilu", "model_args": f"pretrained={model}"},
        "model_name": model,
        "model_name_sanitized": model.strip("/").replace("/", "__"),
    }
