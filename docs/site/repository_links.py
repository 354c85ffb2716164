"""Hooks of MkDocs: README.md becomes the first page, and links to files of the repository work.

Pages link to configs and code by relative paths, which lead somewhere in a checkout and on a code
host, but not in a site. Such a link must lead to something that exists, and is shown as its path.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r'(?<!!)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)')


def on_files(files: Files, config: Any) -> Files:
    """Add README.md as the index, with its links relative to docs/."""
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    text = re.sub(r'\]\(docs/', '](', text)
    files.append(File.generated(config, 'index.md', content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Show links that leave docs/ as paths.

    Raises:
        PluginError: The link leads to nothing in the repository.
    """
    name = page.file.src_uri
    folder = posixpath.dirname(f'docs/{name}')

    def replace(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        path = posixpath.normpath(posixpath.join(folder, target))
        if name == 'index.md' and (ROOT / target).exists():
            path = target
        if path.startswith('docs/'):
            return match[0]  # MkDocs checks it
        if not (ROOT / path).exists():
            raise PluginError(f'{name}: the link {target} leads to nothing in the repository')
        return f'`{path}`' if text.strip('`') in (path, target) else f'{text} (`{path}`)'

    return _LINK.sub(replace, markdown)
