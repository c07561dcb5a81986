"""The report as one self-contained HTML page: no network access, deterministic, below 2 MB."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ilu.runs.report.curves import forgotten_figures, guessed, legend, training_figures
from ilu.runs.report.escape import printable, script_json
from ilu.runs.report.evaluate_files import Evaluated
from ilu.runs.report.figures import GUESS
from ilu.runs.report.gather import Broken
from ilu.runs.report.landscape import landscape_figures, similarity_figures
from ilu.runs.report.mask_agreement import MOST, agreements, modules
from ilu.runs.report.paired import comparisons
from ilu.runs.report.places import local, shortened
from ilu.runs.report.questions import after_attacks, explorer, recovered, recovery
from ilu.runs.report.records import before_and_after, cosines, masks, repeats
from ilu.runs.report.samples import samples
from ilu.runs.report.sparsity import mask_figures
from ilu.runs.report.table import DAMAGE, Table
from ilu.runs.report.verdict import unranked, verdicts
from ilu.runs.results.display import MEANINGS

LARGEST = 1_900_000
"""Largest size of a page in bytes."""
QUESTIONS = (2000, 500, 100, 20, 0)
"""Numbers of questions per run to try until the page is small enough; 0 also drops the training
curves."""


def page(
    table: Table,
    broken: Sequence[Broken],
    evaluations: Sequence[Evaluated] = (),
    *,
    live: bool = False,
    public: bool = False,
    home: Path | None = None,
) -> str:
    """The page. With ``live`` it polls its server and reloads when the runs have changed.

    With ``public`` it has no records, commands or texts, which may reveal paths and private data.
    ``home`` is its folder, the current one if left out: no path on the page is absolute.
    """
    home = (home or Path()).absolute()
    places = [local_broken(each, home) for each in broken]
    models = [e._replace(models=[local(m, home) for m in e.models]) for e in evaluations]
    shared = {**contents(table, places, home), "evaluations": models}
    if public:
        bare = [each._replace(commands=(), records={}) for each in shared["repeat"]]
        shared = {**shared, "shared": {}, "repeat": bare}
    html = ""
    for limit in QUESTIONS:
        answers = questions(table, limit, texts=not public)
        answered = {row.label: samples(row) for row in table.rows if limit and not public}
        html = render({**shared, **answers, "samples": answered, "live": live, "public": public})
        if len(html.encode()) <= LARGEST:
            break
    return html


def render(shown: Mapping[str, Any]) -> str:
    """Fill the template; all text is escaped, since names and answers are not trusted."""
    import jinja2
    from markupsafe import Markup, escape

    env = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters["number"] = number
    # Quotes are safe between tags; a record has thousands of them.
    env.filters["record"] = lambda text: Markup(str(escape(text)).replace("&#34;", '"'))
    script, style = (resource(f"page.{kind}") for kind in ("js", "css"))
    template = env.from_string(resource("page.html.j2"))
    return printable(
        template.render(
            **shown, style=Markup(style), script=Markup(script), script_hash=fingerprint(script)
        )
    )


def resource(name: str) -> str:
    """The text of a file of this package."""
    return files("ilu.runs.report").joinpath(name).read_text(encoding="utf-8")


def fingerprint(script: str) -> str:
    """Hash of the only script that the content security policy of the page allows."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def local_broken(each: Broken, home: Path) -> Broken:
    """A run that cannot be shown, without absolute paths."""
    place, state = shortened(str(each.place), home), local(each.state, home)
    return each._replace(place=Path(place), state=state)


def contents(table: Table, broken: Sequence[Broken], home: Path) -> dict[str, Any]:
    """The parts of the page that do not depend on its size limit."""
    rows = table.rows
    shared, each = repeats(rows, home)
    return {
        "table": table,
        "meanings": MEANINGS,
        "damage": -DAMAGE,
        "broken": broken,
        "places": {row.label: i for i, row in enumerate(rows)},
        "legend": legend(table),
        "verdicts": verdicts(rows),
        "unranked": unranked(rows),
        "after_attacks": (ends := after_attacks(rows)),
        "recovered": recovered(rows),
        "recovery": recovery(rows),
        "attacks": list(dict.fromkeys(a for found in ends.values() for a in found)),
        "curves": forgotten_figures(rows),
        "guess": GUESS,
        "guess_drawn": guessed(rows) is not None,
        "comparisons": comparisons(rows, table.against),
        "cosines": (compared := cosines(rows)),
        "tuned": list(dict.fromkeys(task for angles in compared.values() for task in angles)),
        "landscapes": landscape_figures(rows),
        "similarities": similarity_figures(rows),
        "masks": masks(rows),
        "sparsities": mask_figures(rows),
        "agreements": (pairs := agreements(rows)),
        "modules": modules(pairs),
        "most_masks": MOST,
        "attack_changes": [each for each in before_and_after(rows) if each.attack],
        "training": training_figures(rows, broken),
        "shared": shared,
        "repeat": each,
    }


def questions(table: Table, limit: int, *, texts: bool) -> dict[str, Any]:
    """The answers to the first ``limit`` questions, as JSON for the script of the page."""
    found = explorer(table.rows, limit=limit)
    if not texts:
        found = [{**each, "texts": {}} for each in found]
    marked = any(isinstance(v, str) for each in found for v in each["values"].values())
    return {
        "explorer": len(found),
        "marked": marked,
        "questions": script_json(found),
        "question_limit": limit,
    }


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"
