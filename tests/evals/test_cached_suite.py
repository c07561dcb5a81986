"""Suites on models: shared work, what is kept and for whom, and what stands beside a reference."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tokenizers.normalizers import Lowercase
from tokenizers.processors import TemplateProcessing

from ilu.attacks.interpolate import Interpolate
from ilu.attacks.prompting.prompts import Reworded
from ilu.attacks.sequence import other_models
from ilu.attacks.weight_edit import WeightEdit
from ilu.cli import evaluate as evaluate_command
from ilu.cli import oracle as oracle_command
from ilu.cli.evaluate import labels
from ilu.data.lazy import View
from ilu.data.multiple_choice import ChoiceRows
from ilu.data.stream import Feed, fingerprint
from ilu.data.text import Dataset
from ilu.data.token_cache import tokenizer_hash
from ilu.evals.cached_suite import (
    Evaluation,
    evaluate,
    harness_results,
    part_key,
    reads,
    with_reference,
)
from ilu.evals.metrics.likelihood import AnswerNLL
from ilu.evals.metrics.tofu import Answers
from ilu.evals.score import mean_score
from ilu.evals.suite import Suite, measure
from ilu.models.lm_head import head_of
from ilu.models.load import SecondModel, fingerprint_model, load_model, load_tokenizer, weights_hash
from ilu.recipes.retrain import oracle
from ilu.recipes.suite import suite_of
from ilu.recipes.suite_request import SuiteRequest
from ilu.runs.recipe import Recipe
from ilu.runs.run import run, run_once
from ilu.system.record import describe, restore
from ilu.system.scores import Score
from ilu.training.fit import Optim
from ilu.types import LM
from tests.conftest import make_tiny


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def lm() -> LM:
    return LM(make_tiny(1985), load_model("lab").tokenizer)


@pytest.fixture
def data(tmp_path) -> str:
    return write(tmp_path / "d.jsonl", [{"text": "Ann sleeps near the mill."}, {"text": "A mill"}])


CALLS: list[str] = []


@dataclass(frozen=True)
class Counted:
    """A metric of the embedding's first number, which counts how often it was asked."""

    source: Dataset
    scale: float = 1.0
    fails: bool = False
    higher_is_better: ClassVar[bool] = True

    def __call__(self, lm: LM) -> Score:
        CALLS.append(str(self.scale))
        if self.fails:
            raise ValueError("interrupted")
        return mean_score([self.scale * next(lm.model.parameters()).flatten()[0].item(), None])


@pytest.fixture(autouse=True)
def no_calls():
    CALLS.clear()


def test_another_model_never_gets_the_numbers_of_the_first(lm, data, tmp_path):
    suite, folder = Suite({"m": Counted(Dataset(data))}), tmp_path / "parts"
    first = evaluate(suite, lm, folder)
    assert evaluate(suite, lm, folder) == first
    assert len(CALLS) == 1
    with torch.no_grad():
        next(lm.model.parameters()).flatten()[0] += 1
    second = evaluate(suite, lm, folder)
    assert len(CALLS) == 2
    assert second.scores["m"].value == pytest.approx(first.scores["m"].value + 1, abs=1e-5)
    assert second.weights != first.weights
    assert first.scores["m"].unscored == 1
    assert len(list(folder.iterdir())) == 2


BEGUN = TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
CHANGES = [
    lambda suite, lm, data: replace(suite, parts={"m": replace(suite.parts["m"], scale=2.0)}),
    lambda suite, lm, data: write(Path(data), [{"text": "Ben sings."}]),
    lambda suite, lm, data: setattr(lm.model.config, "rope_theta", 5.0),
    lambda suite, lm, data: setattr(lm.tokenizer, "chat_template", "{{ messages }}"),
    lambda suite, lm, data: setattr(lm.model.generation_config, "eos_token_id", 7),
    lambda suite, lm, data: setattr(lm.tokenizer.backend_tokenizer, "post_processor", BEGUN),
    lambda suite, lm, data: setattr(lm.tokenizer.backend_tokenizer, "normalizer", Lowercase()),
]


@pytest.mark.parametrize("change", CHANGES)
def test_settings_data_configuration_and_tokenizer_are_part_of_the_key(change, lm, data, tmp_path):
    suite, folder = Suite({"m": Counted(Dataset(data))}), tmp_path / "parts"
    evaluate(suite, lm, folder)
    changed = change(suite, lm, data)
    evaluate(changed if isinstance(changed, Suite) else suite, lm, folder)
    assert len(CALLS) == 2


def test_a_tokenizer_is_the_same_wherever_it_lies_and_whatever_it_was_used_for(lm, tmp_path):
    """A call that pads leaves its mark in what is saved, and so does the folder it comes from."""
    first = tokenizer_hash(lm.tokenizer)
    lm.tokenizer.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "is_local": False}))
    assert tokenizer_hash(load_tokenizer(str(tmp_path))) == first
    lm.tokenizer.pad_token = lm.tokenizer.eos_token
    padded = tokenizer_hash(lm.tokenizer)
    assert padded != first
    lm.tokenizer(["Ann", "Ann sleeps"], padding=True, truncation=True, max_length=2)
    assert tokenizer_hash(lm.tokenizer) == padded


def test_an_interrupted_suite_goes_on_after_the_parts_that_are_done(lm, data, tmp_path):
    whole, broken = Counted(Dataset(data), 2.0), Counted(Dataset(data), 3.0, fails=True)
    with pytest.raises(ValueError, match="interrupted"):
        evaluate(Suite({"a": whole, "b": broken}), lm, tmp_path)
    evaluate(Suite({"a": whole, "b": replace(broken, fails=False)}), lm, tmp_path)
    assert CALLS == ["2.0", "3.0", "3.0"]


def test_nothing_is_kept_without_a_folder(lm, data, tmp_path):
    evaluate(Suite({"m": Counted(Dataset(data))}), lm, None)
    assert [p.name for p in tmp_path.iterdir()] == ["d.jsonl"]


@dataclass(frozen=True)
class Nested:
    """A metric that holds its sources in a mapping, one of them without a tokenizer."""

    sources: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, lm: LM) -> Score:
        raise NotImplementedError


@dataclass(frozen=True)
class Plain:
    """A source that needs no tokenizer."""

    def __call__(self) -> list[str]:
        return ["question"]


def test_all_data_of_a_metric_is_found(lm, data):
    nested = Nested({"a": Dataset(data), "b": (Plain(),)})
    found = list(reads(nested, lm.tokenizer))
    assert found == [fingerprint(Dataset(data)(lm.tokenizer)), ["question"]]
    assert len(list(reads(suite_of("lab", SuiteRequest(limit=3)).parts, lm.tokenizer))) == 10


def test_large_data_has_the_key_of_its_content(lm, data, tmp_path, monkeypatch):
    """Examples that stay on disk are a view, whose text names a place in memory."""
    monkeypatch.setenv("ILU_CACHE", str(tmp_path / "cache"))
    metric = AnswerNLL(Dataset(data))
    in_memory = part_key("m", metric, lm, {})
    monkeypatch.setattr("ilu.data.token_cache.IN_MEMORY", 0)
    assert isinstance(Dataset(data)(lm.tokenizer), View)
    assert part_key("m", metric, lm, {}) == in_memory
    write(Path(data), [{"text": "Ben sings."}])
    assert part_key("m", metric, lm, {}) != in_memory


def test_other_paraphrases_are_other_data(lm, tmp_path):
    def key(words: str) -> str:
        row = {"question": "Who?", "choices": ["Ann", "Ben"], "answer": 0, "paraphrases": [words]}
        return part_key("m", Reworded(ChoiceRows(write(tmp_path / "q.jsonl", [row]))), lm, {})

    assert key("Whose is it?") == key("Whose is it?") != key("Who is it?")


def cached(folder: Path, name: str, commit: str) -> None:
    """A model in the cache of the hub, as far as its configuration."""
    model = folder / f"models--{name.replace('/', '--')}"
    for file, text in ((f"snapshots/{commit}/config.json", "{}"), ("refs/main", commit)):
        (model / file).parent.mkdir(parents=True, exist_ok=True)
        (model / file).write_text(text)


def test_a_model_of_the_hub_counts_by_its_commit(lm, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    metric = Nested({"judge": SecondModel("org/judge")})
    attack = WeightEdit(Interpolate("org/judge"))
    with pytest.raises(ValueError, match="cannot load model 'org/judge'"):
        part_key("m", metric, lm, {})
    cached(tmp_path, "org/judge", 40 * "a")
    first = part_key("m", metric, lm, {})
    assert [fingerprint_model(*each) for each in other_models(attack)] == [{"commit": 40 * "a"}]
    assert fingerprint_model("lab").keys() == {"model.safetensors"}
    cached(tmp_path, "org/judge", 40 * "b")
    assert part_key("m", metric, lm, {}) != first
    loaded: list[str] = []
    monkeypatch.setattr(
        "ilu.attacks.interpolate.load_model", lambda name, revision: loaded.append(revision) or lm
    )
    Interpolate("org/judge")(lm.model)
    assert loaded == [40 * "b"]


def test_the_key_knows_the_name_under_which_a_metric_is_kept(lm, data):
    metric = AnswerNLL(Dataset(data))
    assert part_key("a", metric, lm, {}) != part_key("b", metric, lm, {})


def doubled(scores: Mapping[str, Score]) -> Mapping[str, Score]:
    return {"doubled": mean_score([2 * scores["m"].value])}


def difference(scores: Mapping[str, Score], reference: Mapping[str, Score]):
    return {"difference": mean_score([scores["m"].value - reference["m"].value])}


def test_a_reference_must_be_another_model(lm, data):
    suite = Suite({"m": Counted(Dataset(data))}, derived=doubled, compared=difference)
    own = evaluate(suite, lm, None)
    assert own.scores["doubled"].value == 2 * own.scores["m"].value
    with pytest.raises(ValueError, match="same weights as the model"):
        with_reference(suite, own, own)
    other = Evaluation("other", {}, {"m": mean_score([own.scores["m"].value - 3])})
    assert with_reference(suite, own, other).scores["difference"].value == pytest.approx(3)


def test_weights_are_told_apart_by_content(tmp_path):
    one, two = make_tiny(), make_tiny()
    assert weights_hash(one) == weights_hash(two)
    with torch.no_grad():
        list(two.parameters())[-1].flatten()[-1] += 1e-6
    assert weights_hash(one) != weights_hash(two)


def test_groups_keep_the_names_of_their_own(lm, data):
    suite = Suite({"m": Counted(Dataset(data))}, derived=doubled)
    assert list(measure({"suite": suite, "n": Counted(Dataset(data))}, lm)) == ["m", "doubled", "n"]


def test_suites_say_what_data_they_need():
    with pytest.raises(ValueError, match="has its own data"):
        suite_of("tofu", SuiteRequest(data="x.jsonl"))
    with pytest.raises(ValueError, match="needs `data`"):
        suite_of("verbatim", SuiteRequest())
    with pytest.raises(ValueError, match="no split 'forget15', it has one of forget01"):
        suite_of("tofu", SuiteRequest(split="forget15"))
    with pytest.raises(ValueError, match="none: leave `split` out"):
        suite_of("lab", SuiteRequest(split="news"))


def test_a_series_of_models_can_be_recorded():
    suite = suite_of("muse", SuiteRequest(split="news-sust"))
    assert suite.followed is not None
    assert restore(json.loads(json.dumps(describe(suite)))) == suite


SENTENCES = ["Ann sleeps.", "Ben sings near the mill.", "The miller sleeps.", "Tom sings."]


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Path:
    """TOFU and MUSE in miniature."""
    hub = tmp_path / "hub"
    row = {
        "question": "Who sleeps?",
        "answer": SENTENCES[0],
        "paraphrased_answer": SENTENCES[2],
        "perturbed_answer": [SENTENCES[1], SENTENCES[3]],
    }
    bare = {k: v for k, v in row.items() if k != "paraphrased_answer"}
    for name in ("forget10", "retain", "real_authors", "world_facts"):
        own = row if name in ("forget10", "retain") else bare
        rows = [{**own, "question": f"{q} sleeps?"} for q in ("Who", "And who")]
        write(hub / f"locuslab/TOFU/{name}_perturbed/train.jsonl", rows)
    news = hub / "muse-bench/MUSE-News"
    questions = [{"question": "Who?", "answer": "Ann"}, {"question": "Where?", "answer": "A mill"}]
    for split in ("forget_qa", "forget_qa_icl", "retain_qa", "retain_qa_icl"):
        write(news / f"knowmem/{split}.jsonl", questions)
    write(news / "verbmem/forget.jsonl", [{"prompt": "The old", "gt": "mill near the river"}])
    write(news / "privleak/forget.jsonl", [{"text": s} for s in SENTENCES[:2]])
    write(news / "privleak/holdout.jsonl", [{"text": s} for s in SENTENCES[2:]])
    monkeypatch.setenv("ILU_HUB", str(hub))
    return hub


def small(suite: Suite) -> Suite:
    """The suite with short generations."""
    parts = {
        name: replace(p, max_new_tokens=4) if hasattr(p, "max_new_tokens") else p
        for name, p in suite.parts.items()
    }
    return replace(suite, parts=parts)


def test_tofu_from_end_to_end_says_what_the_model_says(mirror):
    lab = load_model("lab")
    suite = small(suite_of("tofu", SuiteRequest()))
    scores = suite(lab)
    assert scores["forget_probability"].n == 2
    assert len(scores["forget_truth_ratio"].items) == 2
    assert 0 < scores["real_authors_probability"].value < 1
    values = by_hand(lab, suite.parts["forget"].source)
    assert scores["forget_probability"].items[0] == pytest.approx(values[0], rel=1e-4)
    geometric = (values[2] * values[3]) ** 0.5 / values[1]
    assert scores["forget_truth_ratio"].items[0] == pytest.approx(geometric, rel=1e-4)
    arithmetic = (values[2] + values[3]) / 2 / values[1]
    assert scores["forget_truth_ratio_arithmetic"].items[0] == pytest.approx(arithmetic, rel=1e-4)
    assert scores["forget_truth"].items[0] == pytest.approx(min(geometric, 1 / geometric), rel=1e-4)
    assert scores["retain_truth"].items[0] == pytest.approx(max(0, 1 - geometric), rel=1e-4)
    answer, _, *wrong = by_hand(lab, suite.parts["real_authors"].source)
    chosen = answer / (answer + sum(wrong))
    assert scores["real_authors_probability"].items[0] == pytest.approx(chosen, rel=1e-4)


def by_hand(lm: LM, source) -> list[float]:
    """Probability per token of every answer to the first question, each scored alone."""
    first = source(lm.tokenizer)[0]
    values = []
    for e in (first, *first.others):
        with torch.no_grad():
            logits = lm.model(torch.tensor([e.ids])).logits[0, e.prompt - 1 : -1].double()
        picked = logits.log_softmax(-1)[range(len(e.ids) - e.prompt), e.ids[e.prompt :]]
        values.append(picked.mean().exp().item())
    return values


def test_tofu_reads_every_answer_in_one_forward_pass(mirror, monkeypatch):
    lab = load_model("lab")
    part = suite_of("tofu", SuiteRequest()).parts["forget"]
    assert isinstance(part, Answers)
    head_of(lab.model)  # tries the output layer, once for each model
    rows = 0
    forward = lab.model.forward

    def counting(**inputs):
        nonlocal rows
        rows += 0 if inputs.get("use_cache") else len(inputs["input_ids"])
        return forward(**inputs)

    monkeypatch.setattr(lab.model, "forward", counting)
    part(lab)
    assert rows == 2 * 4  # two questions: an answer, its paraphrase, two wrong ones


def test_tofu_keeps_what_is_read_when_its_generation_is_interrupted(mirror, tmp_path, monkeypatch):
    lab, suite = load_model("lab"), small(suite_of("tofu", SuiteRequest(limit=1)))

    def interrupted(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("ilu.evals.metrics.tofu.continuations", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(suite, lab, tmp_path / "parts")
    (kept,) = (tmp_path / "parts").glob("*.json")
    assert "forget_probability" in json.loads(kept.read_text())["scores"]


def test_muse_follows_models_that_unlearn_more_and_more(mirror, tmp_path, monkeypatch):
    """As the paper has it: the utility of each as a share of the original's."""
    for split, text in enumerate(SENTENCES, start=1):
        write(mirror / f"muse-bench/MUSE-News/scal/forget_{split}.jsonl", [{"text": text}])
    worse, hashed = load_model("lab"), weights_hash(load_model("lab").model)
    with torch.no_grad():
        worse.model.lm_head.weight.mul_(0.9)
    models = {"lab": load_model("lab"), "worse": worse}

    def said(lm, heads, **settings):  # the original answers both questions, the other one of them
        return ["Ann", "A mill" if weights_hash(lm.model) == hashed else "nobody"]

    monkeypatch.setattr("ilu.evals.metrics.muse.continuations", said)
    monkeypatch.setattr(evaluate_command, "load_model", lambda name, device: models[name])
    out = tmp_path / "s.json"
    evaluate_command.main(
        ["lab", "worse", "--suite", "muse", "--split", "news-scal", "--out", str(out)]
    )
    found = json.loads(out.read_text())["models"]
    kept = [found[name]["knowmem_retain_kept"]["value"] for name in models]
    assert kept == [1.0, 0.5]
    assert all(found["worse"][f"forget_{i}_nll"]["value"] > 0 for i in range(1, 5))
    for models_given, why in (
        (["lab"], "needs the original and models that follow it"),
        (["lab", "worse", "--reference", "lab"], "compares with the first model"),
    ):
        with pytest.raises(ValueError, match=why):
            evaluate_command.main([*models_given, "--suite", "muse", "--split", "news-sust"])


def test_muse_from_end_to_end(mirror):
    lab = load_model("lab")
    suite = small(suite_of("muse", SuiteRequest()))
    scores = suite(lab)
    assert scores["verbmem"].n == 1
    assert scores["knowmem_retain"].n == scores["membership_holdout"].n == 2
    assert 0 <= scores["membership_auc"].value <= 1


def test_a_run_measures_a_suite_and_keeps_every_item(mirror, data, tmp_path):
    suite = small(suite_of("tofu", SuiteRequest(limit=1)))
    recipe = Recipe(
        name="x",
        model="lab",
        data={"task": Feed(Dataset(data), 1)},
        objective={},
        optim=Optim(lr=1e-3, steps=0),
        metrics={"tofu": suite},
    )
    assert restore(json.loads(json.dumps(describe(recipe)))) == recipe
    out = run(recipe, tmp_path / "run")
    assert "model_utility" in out.scores("after")
    assert (tmp_path / "run/examples/after/forget_rouge.jsonl").is_file()


def test_verbatim_goes_on_from_half_a_text_that_has_no_prompt(data):
    suite = suite_of("verbatim", SuiteRequest(data=data))
    scores = small(suite)(load_model("lab"))
    assert scores["verbatim_rouge"].n == 2
    assert 0 <= scores["verbatim_bleu"].value <= 1


def test_harness_results_have_the_shape_of_lm_eval():
    scores = {"a": mean_score([0.0, 1.0]), "b": Score(0.5, 0.0, 9)}
    found = harness_results("tofu", "./runs/npo/model", scores)
    assert found["results"]["tofu"]["a,none"] == 0.5
    assert found["results"]["tofu"]["a_stderr,none"] == scores["a"].stderr
    assert found["results"]["tofu"]["b_stderr,none"] == "N/A"
    assert {"versions", "n-shot", "higher_is_better", "configs", "n-samples"} <= set(found)


def test_lm_evals_own_table_reads_them():
    utils = pytest.importorskip("lm_eval.utils", reason="lm-eval is not installed")
    table = utils.make_table(harness_results("tofu", "x", {"a": mean_score([0.0, 1.0])}))
    assert "|tofu |" in table
    assert "0.5|" in table


def test_an_oracle_is_trained_once_for_its_data_settings_and_weights(tmp_path):
    data = write(tmp_path / "keep.jsonl", [{"text": s} for s in SENTENCES])
    recipe = oracle("lab", Dataset(data), Optim(lr=1e-3, steps=2), batch_size=2)
    first = run_once(recipe, tmp_path / "oracles")
    before = (first.path / "done.json").stat().st_mtime_ns
    assert run_once(recipe, tmp_path / "oracles").path == first.path
    assert (first.path / "done.json").stat().st_mtime_ns == before
    longer = replace(recipe, optim=Optim(lr=1e-3, steps=3))
    assert run_once(longer, tmp_path / "oracles").path != first.path
    write(Path(data), [{"text": s} for s in SENTENCES[::-1]])
    assert run_once(recipe, tmp_path / "oracles").path != first.path
    assert first.scores("after")["retain_nll"].value < first.scores("before")["retain_nll"].value


def test_the_commands_compare_models_beside_an_oracle_and_continue(
    mirror, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path / "keep.jsonl", [{"text": s} for s in SENTENCES])
    train = ("--steps", "2", "--lr", "1e-3", "--batch-size", "2")
    oracle_command.main(["lab", "--retain", data, *train])
    (folder,) = (tmp_path / "oracles").iterdir()
    model = f"oracles/{folder.name}/model"
    assert f"--reference {model}" in capsys.readouterr().out
    command = ["lab", model, "--suite", "tofu", "--limit", "1", "--reference", model]
    command += ["--out", "scores.json"]
    with pytest.warns(UserWarning, match="is the reference: it is not compared with itself"):
        evaluate_command.main(command)
    found = json.loads((tmp_path / "scores.json").read_text())["models"]
    assert found["lab"]["forget_quality"]["n"] == 1
    assert "forget_quality" not in found[model]
    assert found["lab"]["weights"] != found[model]["weights"]
    results = json.loads((tmp_path / "scores/lab/results.json").read_text())["results"]["tofu"]
    assert results["retain_rouge,none"] == found["lab"]["retain_rouge"]["value"]
    parts = tmp_path / "scores/parts"
    part = json.loads((parts / f"{found['lab']['parts']['forget']}.json").read_text())
    assert len(part["scores"]["forget_truth_ratio"]["items"]) == 1
    times = {p: p.stat().st_mtime_ns for p in parts.iterdir()}
    with pytest.warns(UserWarning, match="is the reference"):
        evaluate_command.main(command)
    assert {p: p.stat().st_mtime_ns for p in parts.iterdir()} == times
    assert len(times) == 16  # two models, four sets, what is read and what is written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--suite", "lab"), "needs at least one model"),
        (("lab", "--suite", "tofu", "--data", "x.jsonl"), "has its own data"),
        (("lab", "--suite", "lab", "--out", "scores"), "give a file that ends in .json"),
        (("lab", "--suite", "tofu", "--split", "x"), "no split 'x'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate_command.main(list(arguments))


def test_labels_are_short_where_they_tell_models_apart():
    assert labels(["runs/npo/model", "org/base", "lab"]) == ["npo", "base", "lab"]
    assert labels(["a/npo/model", "b/npo/model"]) == ["a/npo/model", "b/npo/model"]
