"""The page of ``ilu view`` that asks several models the same."""

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from ilu.models.named import NAMED
from ilu.runs.report.gather import find_runs
from ilu.system.errors import one_line

PAGE = Path(__file__).with_name("ask.html")
LONGEST = 20_000
"""Bytes of a request, at most."""
IN_MEMORY = 2
"""Models that stay loaded."""
NEW_TOKENS = 64


class Reply(NamedTuple):
    """What the server answers."""

    status: HTTPStatus
    kind: str
    body: bytes


@dataclass
class Asking:
    """Asks the models of the runs below ``root``, one request at a time.

    A page names models by their number in ``models``, so no request can name a path.
    """

    root: Path
    device: str = "cpu"
    loaded: dict[str, Any] = field(default_factory=dict[str, Any])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def models(self) -> dict[str, str]:
        """Label -> folder, or name of a model of the package: originals, then those of the runs."""
        runs = [run for run in find_runs(self.root) if self.has_model(run)]
        originals = {original(run) for run in runs}
        known = sorted(
            name for name in originals if name in NAMED or (name and Path(name).is_dir())
        )
        labels = {f"{Path(name).name} (original)": name for name in known}
        return {**labels, **{str(r.relative_to(self.root)): str(r / "model") for r in runs}}

    def has_model(self, run: Path) -> bool:
        """Whether a run has a model below ``root``."""
        files = [run / "recipe.json", run / "model" / "config.json"]
        return all(f.is_file() and f.resolve().is_relative_to(self.root) for f in files)

    def page(self) -> Reply:
        """The page with a box for each model."""
        boxes = [
            f'<label><input type="checkbox" value="{i}" checked> <bdi>{escape(name)}</bdi></label>'
            for i, name in enumerate(self.models())
        ]
        text = PAGE.read_text(encoding="utf-8")
        script = text.partition("<script>")[2].partition("</script>")[0]
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        shown = "\n".join(boxes) or "There is no finished run with a model yet."
        text = text.replace("SCRIPT", digest, 1).replace("<!-- models -->", shown)
        return Reply(HTTPStatus.OK, "text/html", text.encode())

    def reply(self, body: bytes) -> Reply:
        """The answers to a request ``{"prompt": text, "models": [numbers]}``, by label."""
        try:
            prompt, chosen = self.read(body)
        except (ValueError, KeyError, TypeError):
            return failed(HTTPStatus.BAD_REQUEST, "choose at least one model, and write a prompt")
        with self.lock:
            try:
                answers = {name: self.answer(path, prompt) for name, path in chosen.items()}
            except (ValueError, OSError, RuntimeError) as error:
                return failed(HTTPStatus.INTERNAL_SERVER_ERROR, one_line(error))
        return Reply(HTTPStatus.OK, "application/json", json.dumps({"answers": answers}).encode())

    def read(self, body: bytes) -> tuple[str, dict[str, str]]:
        """The prompt and the models of a request; ValueError if it has none, or other ones."""
        wanted = json.loads(body)
        prompt, numbers = wanted["prompt"], wanted["models"]
        models = dict(enumerate(self.models().items()))
        chosen = dict(models[number] for number in numbers)
        if not (isinstance(prompt, str) and prompt.strip() and chosen):
            raise ValueError("no prompt or no model")
        return prompt, chosen

    def answer(self, path: str, prompt: str) -> str:
        """One model's answer; the models used last stay in memory."""
        # Imported here, because the report alone needs no torch.
        from ilu.evals.answers import Answering
        from ilu.models.blocks import context_length
        from ilu.models.load import load_model

        lm = self.loaded.pop(path, None) or load_model(path, device=self.device)
        self.loaded[path] = lm
        while len(self.loaded) > IN_MEMORY:
            del self.loaded[next(iter(self.loaded))]
        taken = len(Answering().head(lm.tokenizer, prompt))
        room = NEW_TOKENS if (limit := context_length(lm.model)) is None else limit - taken
        how = Answering(max_new_tokens=max(1, min(NEW_TOKENS, room)))
        return how(lm, [prompt])[0].strip()


def original(run: Path) -> str:
    """The model that a run began with; empty if its record cannot be read."""
    try:
        return str(json.loads((run / "recipe.json").read_text(encoding="utf-8")).get("model", ""))
    except ValueError:
        return ""


def failed(status: HTTPStatus, why: str) -> Reply:
    """An answer that says what was wrong."""
    return Reply(status, "application/json", json.dumps({"error": why}).encode())
