"""Standard fine-tuning as a run, such as of a retrained model that never saw the forget set."""

from ilu.data.stream import Feed
from ilu.methods.retain.likelihood import NLL
from ilu.models.named import full_name
from ilu.recipes import user_data
from ilu.runs.recipe import Recipe
from ilu.training.fit import Optim
from ilu.training.objective import Term
from ilu.types import Source


def oracle(
    model: str,
    source: Source,
    optim: Optim,
    *,
    batch_size: int,
    limit: int = 200,
    seed: int = 0,
    name: str = "oracle",
) -> Recipe:
    """Train ``model`` on the retain split only: the result of perfect unlearning.

    On the full data, with another ``name``, the result is the model to unlearn from.
    """
    feed = Feed(source, batch_size)
    return Recipe(
        name=name,
        model=full_name(model),
        data={"retain": feed},
        objective={"retain": Term(NLL(), on="retain")},
        optim=optim,
        metrics=user_data.metrics({"retain": feed}, limit),
        seed=seed,
    )
