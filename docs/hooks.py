"""What the site needs beside mkdocs: equations without a network, and files outside of docs/."""

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
WRITTEN_ELSEWHERE = {"Performance": "performance.md", "Reliability": "reliability.md"}
"""Pages that join the navigation once they are there."""
OUTWARD = re.compile(r"\]\(\.\./([^)#\s]+)")
MATH = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def on_config(config: Any) -> Any:
    """Add what is there to the navigation."""
    here = {t: p for t, p in WRITTEN_ELSEWHERE.items() if (Path(config.docs_dir) / p).is_file()}
    config.nav[-1:-1] = [{title: page} for title, page in here.items()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Take along the files of the repository that pages link to, as ``../FILE``."""
    for page in list(files.documentation_pages()):
        for name in OUTWARD.findall(page.content_string):
            if (ROOT / name).is_file() and files.get_file_from_path(name) is None:
                data = (ROOT / name).read_bytes()
                files.append(File.generated(config, name, content=data))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let links out of docs/ lead to the site's copies; folders are named, not linked."""
    if page.file.generated_by:
        return re.sub(r"\[([^\]]+)\]\((?!http)[^)]+\)", r"\1", markdown)
    markdown = re.sub(r"\[([^\]]+)\]\(\.\./[^)]+/\)", r"\1", markdown)
    return OUTWARD.sub(r"](\1", markdown)


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    """Equations as MathML, which browsers draw themselves."""
    return MATH.sub(lambda found: mathml(*found.groups()), content)


def mathml(element: str, text: str) -> str:
    """One equation, which stands in a line or by itself."""
    latex = html.unescape(text.strip())[2:-2]
    return convert(latex, display="block" if element == "div" else "inline")
