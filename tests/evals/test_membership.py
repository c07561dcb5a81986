"""Membership inference: every score by hand, and the direction of each."""

import math
import zlib

import pytest
import torch
from sklearn.metrics import roc_auc_score

from ilu.data.stream import Stream, collate
from ilu.evals.metrics.membership import (
    MembershipInference,
    TokenStats,
    all_stats,
    auc,
    gradient_norms,
    mean_logp,
    min_k,
    min_k_plus_plus,
    reference_attack,
    reference_ratio,
    token_stats,
    tpr_at_fpr,
    zlib_ratio,
)
from ilu.methods.retain.likelihood import NLL
from ilu.models.forward import ModelForward
from ilu.models.lm_head import head_of
from ilu.models.token_math import mean_nll
from ilu.system.scores import Score
from ilu.training.fit import Optim, fit
from ilu.training.objective import Term
from ilu.types import LM, Example
from tests.methods.test_math import Words


class Said(Words):
    """Numbers as words, both ways."""

    def decode(self, ids, skip_special_tokens=False):
        return " ".join(map(str, ids))


LIKELY, UNLIKELY = [-0.1, -0.2, -0.3, -0.4], [-1.0, -4.0, -2.0, -3.0]


def test_scores_of_one_text_by_hand():
    assert mean_logp(UNLIKELY) == pytest.approx(-2.5)
    assert min_k(UNLIKELY, share=0.5) == pytest.approx(-3.5)
    assert min_k(UNLIKELY, share=0.26) == pytest.approx(-4.0)
    assert min_k(UNLIKELY, share=0.01) == pytest.approx(-4.0)  # at least one token
    assert min_k(torch.tensor(UNLIKELY), share=1.0) == pytest.approx(-2.5)
    assert zlib_ratio(UNLIKELY, "abc") == pytest.approx(-2.5 / len(zlib.compress(b"abc")))
    assert reference_ratio(LIKELY, UNLIKELY) == pytest.approx(-0.25 + 2.5)
    with pytest.raises(ValueError, match=r"share of 1\.5"):
        min_k(LIKELY, share=1.5)


def test_every_score_is_larger_for_the_likelier_text():
    """The likelier text is the likelier member, whatever the attack."""
    assert mean_logp(LIKELY) > mean_logp(UNLIKELY)
    assert min_k(LIKELY, share=0.5) > min_k(UNLIKELY, share=0.5)
    assert zlib_ratio(LIKELY, "abc") > zlib_ratio(UNLIKELY, "abc")
    assert reference_ratio(LIKELY, UNLIKELY) > 0 > reference_ratio(UNLIKELY, LIKELY)
    same = [torch.full((4,), v) for v in (-2.0, 1.0)]
    stats = [TokenStats(torch.tensor(x), *same) for x in (LIKELY, UNLIKELY)]
    assert min_k_plus_plus(stats[0], share=0.5) > min_k_plus_plus(stats[1], share=0.5)


def test_statistics_of_a_prediction_by_hand():
    """Of p = (1/2, 1/4, 1/4): mean of log p is -1.5 log 2, its deviation 0.5 log 2."""
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log().repeat(2, 1)
    stats = token_stats(logits, [0, 2])
    log2 = math.log(2)
    torch.testing.assert_close(stats.logp, torch.tensor([-log2, -2 * log2]))
    torch.testing.assert_close(stats.mean, torch.full((2,), -1.5 * log2))
    torch.testing.assert_close(stats.std, torch.full((2,), 0.5 * log2))
    assert min_k_plus_plus(stats, share=0.5) == pytest.approx(-1)
    assert min_k_plus_plus(stats, share=1.0) == pytest.approx(0)
    certain = token_stats(torch.tensor([[0.0, -math.inf]]), [0])
    assert min_k_plus_plus(certain, share=1.0) == 0


def test_statistics_are_those_of_the_tokens_that_take_a_loss(tiny):
    examples = [Example([1, 2, 3, 4, 5, 6], 3), Example([7, 8], 0), Example([9], 0)]
    long, short, none = all_stats(LM(tiny, Words()), examples, batch_size=3)
    assert none is None
    assert long is not None
    assert short is not None
    logp = tiny(torch.tensor([examples[0].ids])).logits[0].log_softmax(-1)
    torch.testing.assert_close(long.logp, logp[[2, 3, 4], [4, 5, 6]])
    torch.testing.assert_close(long.mean, (logp.exp() * logp).sum(-1)[2:5])
    out = ModelForward(tiny)(collate([examples[1]]))
    assert mean_logp(short.logp) == pytest.approx(-mean_nll(out.logits, out.targets).item())


def test_the_gradient_norm_is_that_of_the_whole_model(tiny):
    example = Example([1, 2, 3, 4], 1)
    (ours, none) = gradient_norms(LM(tiny, Words()), [example, Example([1], 0)])
    assert none is None
    assert all(p.grad is None for p in tiny.parameters())
    out = ModelForward(tiny)(collate([example]))
    mean_nll(out.logits, out.targets).sum().backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in tiny.parameters()])
    assert ours == pytest.approx(-norm.item(), rel=1e-5)


def test_auc_by_hand_and_by_scikit_learn():
    """Of six pairs, members win four and tie one."""
    found = auc([3.0, 1.0, None], [0.0, 1.0, 2.0])
    assert found.value == pytest.approx(4.5 / 6)
    assert found.items == (1.0, 0.5, None)
    assert (found.n, found.unscored) == (2, 1)
    # DeLong: the variance of the members' shares over 2 plus that of the others' over 3.
    assert found.stderr == pytest.approx((0.125 / 2 + 0.0625 / 3) ** 0.5)
    assert auc([1.0], [0.0]).value == 1
    assert auc([0.0], [1.0]).value == 0
    assert auc([0.0], [0.0]).value == 0.5
    with pytest.raises(ValueError, match="none of the non-members"):
        auc([1.0], [None])


def test_the_error_of_an_auc_is_the_spread_over_samples():
    generator = torch.Generator().manual_seed(0)
    values, errors = [], []
    for _ in range(300):
        members = (torch.randn(40, generator=generator) + 0.7).tolist()
        others = torch.randn(60, generator=generator).tolist()
        found = auc(members, others)
        values.append(found.value)
        errors.append(found.stderr)
        labels = [1] * 40 + [0] * 60
        assert found.value == pytest.approx(roc_auc_score(labels, [*members, *others]))
    assert torch.tensor(values).std().item() == pytest.approx(sum(errors) / 300, rel=0.1)


def test_members_found_at_a_low_false_positive_rate():
    members, others = [5.0, 4.0, 3.0, 0.0], [4.5, 2.0, 1.0, 1.0]
    # Above 4.5 lies one member; above 2 lie three, at one false alarm of four.
    assert tpr_at_fpr(members, others, fpr=0.01).value == 0.25
    found = tpr_at_fpr(members, others, fpr=0.25)
    assert found.value == 0.75
    assert found.items == (1.0, 1.0, 1.0, 0.0)
    assert tpr_at_fpr([1.0], [1.0], fpr=0.0).value == 0


def test_a_model_gives_its_training_text_away(tiny):
    """Trained on the members, every attack finds them; with the sign wrong none would."""
    generator = torch.Generator().manual_seed(1)
    texts = torch.randint(1, 32, (12, 10), generator=generator).tolist()
    members, others = ([Example(ids, 0) for ids in part] for part in (texts[:6], texts[6:]))
    stream = {"task": Stream(members, 6, 0)}
    fit(
        tiny,
        {"task": Term(NLL(), on="task")},
        stream,
        Optim(lr=1e-2, steps=60),
        log=lambda row: None,
    )
    attack = MembershipInference(lambda t: members, lambda t: others, share=0.4, gradient=True)
    found = attack(LM(tiny, Said()))
    names = ("loss", "min_k", "min_k_plus_plus", "zlib", "gradient_norm")
    logps = {"members_logp", "nonmembers_logp"}
    assert set(found) == logps | {f"{n}_{kind}" for n in names for kind in ("auc", "tpr")}
    assert found["members_logp"].value > found["nonmembers_logp"].value
    assert {name: found[f"{name}_auc"].value for name in names} == dict.fromkeys(names, 1.0)
    assert found["loss_tpr"].value == 1


def test_one_pass_serves_all_but_the_gradient(tiny):
    head_of(tiny)  # tries the output layer, once for each model
    calls = []
    tiny.register_forward_pre_hook(lambda *a: calls.append(1))
    examples = [Example([i, 2, 3], 0) for i in range(1, 5)]
    MembershipInference(lambda t: examples, lambda t: examples, batch_size=4)(LM(tiny, Said()))
    assert len(calls) == 2


def test_the_reference_is_another_model_with_its_own_tokens():
    """By hand: texts that are likely to both models say nothing, others what only one knows."""
    own = {
        "members_logp": Score(-1.0, 0, 2, (-1.0, -2.0)),
        "nonmembers_logp": Score(-2.0, 0, 2, (-1.0, None, -3.0)),
    }
    other = {
        "members_logp": Score(-3.0, 0, 2, (-3.0, -2.5)),  # 2 and 0.5 above the reference
        "nonmembers_logp": Score(-1.0, 0, 3, (-2.0, -1.0, -1.0)),  # 1, nothing, -2
    }
    found = reference_attack(own, other)
    assert found["reference_auc"].value == 0.75
    assert found["reference_tpr"].value == 0.5
    assert reference_attack(other, own)["reference_auc"].value == 0.25
    same = reference_attack(other, other)  # its own reference: every difference is 0
    assert same["reference_auc"].value == 0.5
