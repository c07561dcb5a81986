"""What the site needs from outside mkdocs: equations as MathML, and files outside of docs/."""

import html
import posixpath
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File

from ilu.cli.methods_page import page as methods_page

ROOT = Path(__file__).parent.parent
METHODS = "methods.md"
"""Written from the docstrings when the site is built."""
SHIM = '<script src="https://unpkg.com/iframe-worker/shim"></script>'
"""What the theme loads from the network for the search in pages from the disk."""
OPTIONAL_PAGES = {"Performance": "performance.md", "Reliability": "reliability.md"}
"""Pages that join the navigation if they exist."""
UPWARD = re.compile(r"\]\((\.\./[^)#\s]*[^)#\s/])")
FOLDER = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+/\)")
MATH = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def on_config(config: Any) -> Any:
    """Add optional pages to the navigation."""
    here = {t: p for t, p in OPTIONAL_PAGES.items() if (Path(config.docs_dir) / p).is_file()}
    config.nav[-1:-1] = [{title: page} for title, page in here.items()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Write the page of methods, and add the files of the repository that pages link to."""
    files.append(File.generated(config, METHODS, content=methods_page()))
    for page in list(files.documentation_pages()):
        for link in UPWARD.findall(page.content_string):
            name = outside(page.src_uri, link)
            if name and files.get_file_from_path(name) is None:
                data = (ROOT / name).read_bytes()
                files.append(File.generated(config, name, content=data))
    return files


def outside(page: str, link: str) -> str | None:
    """The file of the repository, outside of docs/, that a link of a page names."""
    name = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    if name.startswith("docs/") or not (ROOT / name).is_file():
        return None
    if name == "README.md":  # mkdocs would make it the home page
        raise ValueError(f"docs/{page} links to README.md: link to a page of docs/ instead")
    return name


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Link to the site's copies of files outside of docs/; folders are named, not linked."""
    source = page.file.src_uri
    home = posixpath.dirname(source) or "."
    if page.file.generated_by and source != METHODS:
        return re.sub(r"\[([^\]]+)\]\((?!http)[^)]+\)", r"\1", markdown)

    def copied(found: re.Match[str]) -> str:
        name = outside(source, found[1])
        return f"]({posixpath.relpath(name, home)}" if name else found[0]

    return UPWARD.sub(copied, FOLDER.sub(r"\1", markdown))


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    """Equations as MathML, which browsers draw themselves."""
    return MATH.sub(lambda found: mathml(*found.groups()), content)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Load our own worker for pages from the disk: no page asks a network."""
    return with_own_worker(output, posixpath.dirname(page.file.src_uri) or ".")


def on_post_template(output: str, template_name: str, config: Any) -> str:
    """The same for the page of unknown addresses."""
    return with_own_worker(output, ".")


def with_own_worker(output: str, home: str) -> str:
    """The page in the folder ``home`` with our worker instead of the theme's."""
    return output.replace(SHIM, f'<script src="{posixpath.relpath("worker.js", home)}"></script>')


def mathml(element: str, text: str) -> str:
    """One equation, inline or displayed."""
    latex = html.unescape(text.strip())[2:-2]
    return convert(latex, display="block" if element == "div" else "inline")
