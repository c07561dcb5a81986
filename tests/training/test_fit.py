import math

import pytest
import torch
from safetensors.torch import save_file

from ilu.data.stream import Stream, collate, split
from ilu.methods.forget.ascent import Ascent
from ilu.methods.forget.npo import NPO
from ilu.methods.forget.rmu import RMU
from ilu.methods.masks.storage import load_mask
from ilu.methods.retain.likelihood import NLL
from ilu.methods.robust.ilu import Penalty
from ilu.methods.robust.sam import SAM
from ilu.system.errors import Stopped
from ilu.training.checkpoint import Checkpoints
from ilu.training.fit import Optim, fit
from ilu.training.objective import Term
from ilu.types import Example, Needs
from tests.conftest import make_tiny

EXAMPLES = [Example([(i * k) % 31 + 1 for k in range(3, 9)], prompt=1) for i in range(1, 13)]
OBJECTIVE = {
    "forget": Term(NPO(0.1), on="forget"),
    "retain": Term(NLL(), on="retain"),
    "invariance": Term(NLL(), on="environment", weight=0.1, rule=Penalty()),
}


def streams(seed=0):
    names = ("forget", "retain", "environment")
    return {n: Stream(EXAMPLES[i:], 3, seed) for i, n in enumerate(names)}


def trained(optim, **settings):
    model, rows = make_tiny(), []
    fit(model, OBJECTIVE, streams(), optim, log=rows.append, **settings)
    return model, rows


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_fit_lowers_the_loss(tiny):
    rows = []
    stream = {"task": Stream(EXAMPLES[:3], 3, 0)}
    fit(tiny, {"task": Term(NLL(), on="task")}, stream, Optim(lr=1e-2, steps=40), log=rows.append)
    assert rows[-1]["task"] < 0.5 * rows[0]["task"]


def test_two_runs_are_equal_to_the_bit():
    (a, rows_a), (b, rows_b) = (trained(Optim(lr=1e-2, steps=6)) for _ in range(2))
    assert same(a, b)
    assert rows_a == rows_b


@pytest.mark.parametrize("at", [1, 4, 7])
def test_a_stopped_and_resumed_run_is_equal_to_the_bit(at, tmp_path):
    optim = Optim(lr=1e-2, steps=8, warmup=2, schedule="cosine", weight_decay=0.1)
    whole, rows = trained(optim)
    seen: list[dict[str, float]] = []
    points = Checkpoints(tmp_path / "c", every=3)
    model = make_tiny()
    with pytest.raises(Stopped):
        fit(model, OBJECTIVE, streams(), optim, log=seen.append, checkpoints=points,
            stop=lambda: len(seen) == at)  # fmt: skip
    model = make_tiny()
    fit(model, OBJECTIVE, streams(), optim, log=seen.append, checkpoints=points)
    assert same(whole, model)
    assert seen == rows


def test_a_killed_run_continues_from_its_last_checkpoint(tmp_path):
    optim = Optim(lr=1e-2, steps=8)
    points = Checkpoints(tmp_path / "c", every=3)

    def die(row):
        if row["step"] == 6:
            raise MemoryError

    with pytest.raises(MemoryError):
        fit(make_tiny(), OBJECTIVE, streams(), optim, log=die, checkpoints=points)
    assert points.latest().name == "000000006"
    (tmp_path / "c" / "000000007.partial").mkdir()  # what a kill while saving leaves
    model, rows = make_tiny(), []
    fit(model, OBJECTIVE, streams(), optim, log=rows.append, checkpoints=points)
    assert [r["step"] for r in rows] == [6, 7]
    assert same(model, trained(optim)[0])


def test_micro_batches_give_the_same_terms_and_gradient():
    whole, parts = (trained(Optim(lr=1e-3, steps=3, micro_batch=m))[1] for m in (None, 1))
    for a, b in zip(whole, parts, strict=True):
        assert a == pytest.approx(b, rel=2e-3)


def test_masked_weights_are_bit_identical_even_with_weight_decay(tmp_path):
    start = make_tiny()
    torch.manual_seed(0)
    mask = {n: torch.rand_like(p) < 0.3 for n, p in start.named_parameters() if "mlp" in n}
    save_file(mask, tmp_path / "mask.safetensors")
    loaded = load_mask(tmp_path / "mask.safetensors", start)
    model, _ = trained(Optim(lr=1e-2, steps=4, weight_decay=0.1), mask=loaded)
    moved = 0
    for (n, p), (_, before) in zip(model.named_parameters(), start.named_parameters(), strict=True):
        keep = ~mask[n] if n in mask else torch.ones_like(p, dtype=torch.bool)
        assert torch.equal(p[keep], before[keep])
        moved += (p != before).sum()
    assert moved > 0


def test_only_the_named_parameters_move_and_the_rest_is_unfrozen_again():
    start = make_tiny()
    model, _ = trained(Optim(lr=1e-2, steps=2, parameters=r"1\.mlp\.down_proj"))
    changed = {
        n
        for (n, p), b in zip(model.named_parameters(), start.parameters(), strict=True)
        if not torch.equal(p, b)
    }
    assert changed == {"model.layers.1.mlp.down_proj.weight"}
    assert all(p.requires_grad for p in model.parameters())


def reaching(**given):
    """One MLP learns at the worst point that SAM finds among all that it may perturb."""
    term = Term(NLL(), on="retain", rule=SAM(0.5))
    optim = Optim(lr=1e-2, steps=2, parameters=r"1\.mlp\.down_proj", weight_decay=0.1, **given)
    model, rows = make_tiny(), []
    fit(model, {"retain": term}, streams(), optim, log=rows.append)
    return model, rows


def test_what_is_only_in_reach_keeps_its_bits_and_has_no_gradient_left():
    start = make_tiny()
    model, _ = reaching(perturbed=".")
    for (n, p), before in zip(model.named_parameters(), start.parameters(), strict=True):
        assert torch.equal(p, before) == ("1.mlp.down_proj" not in n)
        assert p.grad is None


def test_a_rule_perturbs_what_is_in_reach():
    (own, rows), (reached, wider) = reaching(), reaching(perturbed=".")
    assert not same(own, reached)
    assert wider[0]["retain"] > rows[0]["retain"]  # a worse point is found among more weights


def test_the_reference_is_the_original_model_also_where_weights_are_perturbed():
    """At the first step, NPO's log-ratio at the perturbed weights is that to the original."""
    seen = []

    class Seen:
        needs = Needs(reference=True)

        def __call__(self, forward, reference, batch):
            seen.append(reference(batch).logits.detach().clone())
            return -forward.tokens(batch).mean()

    fit(make_tiny(), {"forget": Term(Seen(), on="forget", rule=SAM(0.5))}, streams(),
        Optim(lr=1e-2, steps=1, parameters=r"1\.mlp", perturbed="."))  # fmt: skip
    here, there = seen
    assert torch.equal(here, there)


def test_a_pattern_that_matches_nothing_shows_some_names(tiny):
    with pytest.raises(ValueError, match=r"no weight name matches 'layers\.9'.*embed_tokens"):
        fit(tiny, OBJECTIVE, streams(), Optim(lr=1e-2, steps=1, parameters="layers.9"))


def test_a_term_that_is_not_finite_is_named(tiny):
    class Broken:
        needs = Needs()

        def __call__(self, forward, reference, batch):
            return forward(batch).logits.sum((1, 2)) * math.inf

    before = [p.detach().clone() for p in tiny.parameters()]
    with pytest.raises(ValueError, match=r"^odd became (inf|-inf|nan) at step 0 .*lower `lr`"):
        fit(tiny, {"odd": Term(Broken(), on="forget")}, streams(), Optim(lr=1e-2, steps=3))
    assert all(torch.equal(a, b) for a, b in zip(before, tiny.parameters(), strict=True))


def test_ascent_runs_into_the_error_and_not_into_nan_weights(tiny):
    stream = {"forget": Stream(EXAMPLES, 3, 0)}
    optim = Optim(lr=1e18, steps=50, clip=1e30)
    with pytest.raises(ValueError, match="became"):
        fit(tiny, {"forget": Term(Ascent(), on="forget")}, stream, optim)


def test_rates_follow_warm_up_and_schedule():
    def rates(schedule):
        optim = Optim(lr=1.0, steps=6, warmup=2, schedule=schedule)
        return [round(optim.rate(s), 3) for s in range(6)]

    assert rates("constant") == [0.5, 1, 1, 1, 1, 1]
    assert rates("linear") == [0.5, 1, 1, 0.75, 0.5, 0.25]
    assert rates("cosine") == [0.5, 1, 1, 0.854, 0.5, 0.146]


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"steps": -1}, {"micro_batch": 0}])
def test_impossible_training_is_refused(bad):
    with pytest.raises(ValueError, match="must be"):
        Optim(**{"lr": 1e-3, "steps": 1, **bad})


def test_bfloat16_forward_keeps_float32_weights():
    model, rows = trained(Optim(lr=1e-3, steps=2, precision="bfloat16"))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    exact = trained(Optim(lr=1e-3, steps=2))[1]
    assert rows[0]["retain"] != exact[0]["retain"]
    assert rows[0]["retain"] == pytest.approx(exact[0]["retain"], rel=0.02)
    assert rows[0]["invariance"] == exact[0]["invariance"]


def test_collate_pads_right_and_labels_only_the_answer():
    b = collate([Example([5, 6, 7], 2), Example([8], 0)])
    assert b.input_ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert b.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert b.labels.tolist() == [[-100, -100, 7], [8, -100, -100]]


def test_a_stream_covers_every_example_once_an_epoch_in_a_new_order():
    stream = Stream(EXAMPLES, 4, seed=1)
    epochs = [
        [tuple(r) for k in range(3) for r in stream(e * 3 + k).input_ids.tolist()] for e in (0, 1)
    ]
    assert set(epochs[0]) == set(epochs[1]) == {tuple(e.ids) for e in EXAMPLES}
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("size", [0, 13])
def test_a_batch_that_cannot_be_filled_says_what_can(size):
    with pytest.raises(ValueError, match=f"12 examples cannot fill a batch of {size}"):
        Stream(EXAMPLES, size, 0)


def test_split_keeps_every_example():
    parts = split(collate(EXAMPLES), 5)
    assert [len(p) for p in parts] == [5, 5, 2]
    assert torch.equal(torch.cat([p.labels for p in parts]), collate(EXAMPLES).labels)


def test_weights_that_the_objective_does_not_reach_do_not_decay():
    """As in torch's AdamW: RMU's loss reaches no block above its layer."""
    model = make_tiny()
    before = {n: p.clone() for n, p in model.named_parameters()}
    optim = Optim(lr=1e-2, steps=2, weight_decay=0.5)
    stream = {"forget": Stream(EXAMPLES, 3, 0)}
    fit(model, {"forget": Term(RMU(layer=0), on="forget")}, stream, optim)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert any(".layers.0." in n for n in moved)
    assert not any(".layers.1." in n or "lm_head" in n for n in moved)
