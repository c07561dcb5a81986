"""``ilu card`` and ``ilu push``: write a model card, and upload a model to the hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ilu.cli.flags import parse
from ilu.cli.help import Positional
from ilu.cli.terminal import console, table
from ilu.runs.report.card import card_file, missing_from_new_card, write_card
from ilu.runs.report.gather import gather
from ilu.runs.report.page import page
from ilu.runs.report.table import make_table
from ilu.system.atomic import write_text


@dataclass(frozen=True, kw_only=True)
class Card:
    """Write the model card RUN/model/README.md: data, scores, attacks, limits; no text of the data.

    Example: ilu card runs/first runs/attacked

    Args:
        runs: the run, then runs of ilu attack on its model.
        license: license identifier of the hub, such as mit.
    """

    runs: Positional[tuple[Path, ...]]
    license: str | None = None


def card(argv: Sequence[str]) -> None:
    """Carry out ``ilu card``."""
    wanted: Card = parse(Card, "ilu card", argv)
    if not wanted.runs:
        raise ValueError("ilu card needs a run directory")
    path = write_card(wanted.runs[0], wanted.runs[1:], wanted.license)
    console.print(f"card: {path}", markup=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Push:
    """Upload an unlearned model with its card and report to the Hugging Face hub.

    Uses the token of hf auth login, or HF_TOKEN. Writes the card first, as ilu card does; fails if
    the existing card lists more attacks or a license. Text added to the card by hand is lost.

    Example: ilu push runs/first runs/attacked --repo org/name --dry-run

    Args:
        runs: the run, then all runs of ilu attack on its model that the card lists.
        repo: ORG/NAME on the hub; created if it does not exist.
        license: license identifier of the hub, such as mit.
        public: make a new repository public; otherwise it is private.
        dry_run: write the card and list the files, but upload nothing.
    """

    runs: Positional[tuple[Path, ...]]
    repo: str
    license: str | None = None
    public: bool = False
    dry_run: bool = False


def push(argv: Sequence[str]) -> None:
    """Carry out ``ilu push``."""
    wanted: Push = parse(Push, "ilu push", argv)
    if not wanted.runs:
        raise ValueError("ilu push needs a run directory")
    if wanted.repo.count("/") != 1:
        raise ValueError(f"--repo {wanted.repo}: give ORG/NAME")
    renew_card(wanted.runs[0], wanted.runs[1:], wanted.license)
    model = wanted.runs[0] / "model"
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.html"
        runs, broken = gather(wanted.runs)
        write_text(report, page(make_table(runs), broken, public=True))
        files = [*sorted(p for p in model.iterdir() if p.is_file()), report]
        rows = [(p.name, f"{p.stat().st_size / 2**20:.1f}") for p in files]
        table(f"to {wanted.repo}", ("file", "MiB"), rows)
        if wanted.dry_run:
            console.print("--dry-run: nothing was uploaded")
            return
        upload(wanted, model, report)
    console.print(f"https://huggingface.co/{wanted.repo}", markup=False)


def renew_card(run: Path, attacked: Sequence[Path], license: str | None) -> None:
    """Write the card; ValueError if the existing one lists more attacks or a license."""
    if gone := missing_from_new_card(run, attacked, license):
        given = " ".join(map(str, (run, *attacked)))
        raise ValueError(
            f"{card_file(run)} lists {', '.join(gone)}; a card from {given} alone would not: "
            "give ilu push every run and the --license that ilu card was given, or write another "
            "card with ilu card first"
        )
    write_card(run, attacked, license)


def upload(wanted: Push, model: Path, report: Path) -> None:
    """Upload the model with its card, then the report."""
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(wanted.repo, private=not wanted.public, exist_ok=True)
        api.upload_folder(repo_id=wanted.repo, folder_path=model, commit_message="Model and card")
        api.upload_file(
            repo_id=wanted.repo,
            path_or_fileobj=report,
            path_in_repo=report.name,
            commit_message="Report",
        )
    except Exception as error:  # the library raises a different type for every cause
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"cannot upload to {wanted.repo} ({reason}): check the name, the network and the "
            "token (hf auth login)"
        ) from error
