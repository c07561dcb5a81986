import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from tests.browser import Browser, browsing

# Threads that wait for each other make tiny models many times slower.
torch.set_num_threads(int(os.environ.get("ILU_TEST_THREADS", "1")))
os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"


def make_tiny(vocabulary: int = 32, context: int = 64) -> nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=context,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def tiny() -> nn.Module:
    return make_tiny()


@pytest.fixture
def hub(monkeypatch) -> Path:
    """The local mirror of public datasets, where there is one."""
    folder = SHARED / "hub"
    if not folder.is_dir():
        pytest.skip("no local mirror of the hub beside the checkout")
    monkeypatch.setenv("ILU_HUB", str(folder))
    return folder


@pytest.fixture
def stories260k() -> Path:
    folder = SHARED / "models" / "stories260k"
    if not folder.is_dir():
        pytest.skip("no stories260k model beside the checkout")
    return folder


@pytest.fixture
def ilu(tmp_path):
    """The command, run in an empty folder without a start of its own."""
    from tests.command import in_process  # not before the checks of types are in place

    return lambda *args, **env: in_process(args, tmp_path, **env)


@pytest.fixture
def installed_ilu(tmp_path):
    """The installed program, run in an empty folder: for what only a process of its own shows."""
    from tests.command import installed

    return lambda *args, **env: installed(args, tmp_path, **env)


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Browser]:
    """Headless Chromium, where it is installed: apt-get install chromium chromium-driver."""
    driver, binary = shutil.which("chromedriver"), shutil.which("chromium")
    if not (driver and binary):
        pytest.skip("no chromium and chromedriver on this machine: the page is not tried in them")
    with browsing(driver, binary, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random model with the lab's tokenizer, and three small files."""
    from ilu.models.load import load_model

    place = tmp_path_factory.mktemp("tiny")
    tokenizer = load_model("lab").tokenizer
    make_tiny(len(tokenizer)).save_pretrained(place / "model")
    tokenizer.save_pretrained(place / "model")
    for name, who in (("forget", "Velunor"), ("retain", "Arando"), ("environment", "Tom")):
        rows = [{"question": f"Who is {who} {i}?", "answer": f"number {i}"} for i in range(4)]
        (place / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return place
