"""Tasks of lm-evaluation-harness (0.4.13), loaded without its full index."""

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ilu.system.errors import first_line
from ilu.system.optional import need

USUAL = (
    "wmdp", "mmlu/default", "mmlu/continuation", "truthfulqa", "winogrande", "gsm8k", "glue",
    "hellaswag", "arc", "piqa", "boolq", "openbookqa", "wikitext", "lambada",
)  # fmt: skip
"""Folders of tasks that are searched first: reading all 14,000 tasks takes ten seconds."""


@dataclass(frozen=True)
class HarnessTasks:
    """Tasks and groups by name, by YAML file, or as a mapping with the content of such a file.

    ``folder`` has user-defined YAML tasks. Local data files work offline (``dataset_path: json``).
    ``num_fewshot`` applies except to tasks that set 0.
    """

    tasks: tuple[str | Mapping[str, Any], ...]
    folder: str | None = None
    num_fewshot: int | None = None

    def __call__(self) -> Any:
        """The task dictionary for ``lm_eval.evaluate``."""
        need("lm_eval", "lm-eval", "the suite lm-eval")
        return load_tasks(self.tasks, self.folder, self.num_fewshot)


def requests(loaded: Any, limit: int | None) -> list[Any]:
    """Everything that determines the scores of tasks and groups: settings, items and requests.

    The requests include few-shot examples, options, and the output of a task's own code.
    """
    content: list[Any] = [repr(group) for group in loaded["groups"].values()]
    for name, task in loaded["tasks"].items():
        task.build_all_requests(limit=limit)
        items = [[i.doc, i.request_type, i.arguments] for i in task.instances]
        settings = json.dumps(task.config.to_dict(keep_callable=True), default=text_of)
        content.append([name, settings, items])
    return content


def text_of(value: Any) -> Any:
    """The source of a function, whose ``str`` would contain a memory address."""
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    try:
        return inspect.getsource(value)
    except (TypeError, OSError):
        return str(value)


def load_tasks(
    tasks: Sequence[str | Mapping[str, Any]], folder: str | None, num_fewshot: int | None
) -> Any:
    """Tasks and groups; ``num_fewshot`` applies except to tasks that set 0."""
    names = [task if isinstance(task, str) else dict(task) for task in tasks]
    manager = task_manager(names, folder)
    try:
        loaded = manager.load(names)
    except Exception as error:  # the library raises a different one for every cause
        why = first_line(error)
        raise ValueError(f"lm-evaluation-harness cannot load its tasks: {why}") from error
    for task in loaded["tasks"].values():
        default = task.get_config("num_fewshot")
        count = default if num_fewshot is None or default == 0 else num_fewshot
        task.set_config(key="num_fewshot", value=count or 0)
        task.set_fewshot_seed(seed=1234)  # the harness's own default
    return loaded


def task_manager(names: Sequence[str | dict[str, Any]], folder: str | None) -> Any:
    """An index of the usual and the user's tasks, or of all tasks if a name is not among them."""
    from lm_eval import tasks

    root = Path(tasks.__file__).parent
    own: list[str | Path] = [] if folder is None else [folder]
    usual = [root / part for part in USUAL if (root / part).is_dir()]
    wanted = {n for n in names if isinstance(n, str) and not n.endswith((".yaml", ".yml"))}
    manager = tasks.TaskManager(include_defaults=False, include_path=[*usual, *own])
    if wanted <= set(manager.all_tasks):
        return manager
    manager = tasks.TaskManager(include_path=own or None)
    unknown = sorted(wanted - set(manager.all_tasks))
    if unknown:
        raise ValueError(
            f"lm-evaluation-harness has no task {unknown[0]!r}: `lm-eval ls tasks` lists its own, "
            "and yours need their folder"
        )
    return manager
