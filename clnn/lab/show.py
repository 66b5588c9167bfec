"""The package's kernels, to be read in a notebook: ``show("gemm")``, ``show("gemm", "gemm_plain")``."""

import difflib
import html
import re
from functools import cache
from importlib import resources

from ..errors import ClnnError

# A kernel's head up to its name; a macro's definition with its continued lines; a kernel that a macro writes
HEAD = r"^(?:__)?kernel\b[^;{{}}]*?\bvoid\s+{}\s*\("
MACRO = r"^#define {}\((?:.*\\\n)*.*\n"
USE = r"^([A-Z_]+)\(({}),.*\n"


class Source:
    """OpenCL C with its colours. Attributes: ``title``, ``text``; shown as HTML, printed as plain text."""

    def __init__(self, title: str, text: str):
        self.title, self.text = title, text

    def __repr__(self):
        return f"// {self.title}\n{self.text}"

    def _repr_html_(self):
        return f"<p><code>{html.escape(self.title)}</code></p>{highlight(self.text)}"


def show(family: str, name: str | None = None) -> Source:
    """A file of kernels, ``clnn/kernels/FAMILY.cl``, with its header; or one kernel of it with what is said above it.

    One name alone may be a kernel's, too. Raises ClnnError where there is none, with the names nearest to it.
    """
    files = families()
    if family not in files and name is None:
        family, name = next((f for f in files if family in kernel_names(f)), family), family
    if family not in files:
        raise ClnnError(f"no file of kernels is named {family!r}{_near(family, files)}; there are {', '.join(files)}")
    text, title = files[family].read_text(encoding="utf-8"), f"clnn/kernels/{files[family].name}"
    if name is None or (name == family and name not in kernel_names(family)):
        return Source(title, text)
    if name not in (names := kernel_names(family)):
        raise ClnnError(f"{title} holds no kernel {name!r}{_near(name, names)}; it holds {', '.join(names)}")
    head = re.match(r"(?://.*\n)*", text)[0]
    return Source(f"{title}, {name}", f"{head}\n{kernel_text(text, name)}")


def _near(name: str, names) -> str:
    close = difflib.get_close_matches(name, names)
    return f": did you mean {', '.join(close)}?" if close else ""


@cache
def families() -> dict:
    """The files in ``clnn/kernels`` by what ``show`` calls them: kernels without their ending, headers with it."""
    found = sorted(resources.files("clnn.kernels").iterdir(), key=lambda file: file.name)
    return {file.name.removesuffix(".cl"): file for file in found if file.name.endswith((".cl", ".h"))}


def kernel_names(family: str) -> list[str]:
    """The kernels of a file that can be shown, in the order of the text."""
    text = families()[family].read_text(encoding="utf-8")
    plain = [(m.start(), m[1]) for m in re.finditer(HEAD.format(r"(\w+)"), text, re.MULTILINE)]
    made = [(m.start(), m[2]) for m in re.finditer(USE.format(r"\w+"), text, re.MULTILINE)]
    return [name for _, name in sorted(plain + made)]


def kernel_text(text: str, name: str) -> str:
    """One kernel of a text with the comment above it, and the macros that write it; "" where it is not there."""
    if found := re.search(HEAD.format(name), text, re.MULTILINE):
        depth, end = 0, len(text)
        for brace in re.finditer("[{}]", text[found.start() :]):
            depth += 1 if brace[0] == "{" else -1
            if depth == 0:
                end = found.start() + brace.end()
                break
        above = re.search(r"(?:^[ \t]*//.*\n)*\Z", text[: found.start()], re.MULTILINE)[0]
        return f"{above}{text[found.start() : end]}\n"
    if found := re.search(USE.format(name), text, re.MULTILINE):
        return "".join(f"{macro}\n" for macro in _macros(text, found[1])) + found[0]
    return ""


def _macros(text: str, name: str) -> list[str]:
    """The definition of a macro, after those of the macros that it uses."""
    found = re.search(MACRO.format(name), text, re.MULTILINE)
    if not found:
        return []
    used = dict.fromkeys(re.findall(r"\b([A-Z_]+)\(", found[0].partition(")")[2]))
    return [*(macro for other in used if other != name for macro in _macros(text, other)), found[0]]


# Colours

TYPES = re.compile(r"(?:u?(?:char|short|int|long)|float|double|half)(?:2|3|4|8|16)?|size_t|bool|void")
WORDS = re.compile(r"(?:__)?(?:kernel|global|local|constant|private|read_only|write_only)|reqd_work_group_size")
CALLS = re.compile(r"get_\w+|barrier|mem_fence|v(?:load|store)\w+|as_\w+|convert_\w+|CLK_\w+|fma|mad|atomic_\w+")


@cache
def _lexer():
    """Pygments' lexer of C, with OpenCL's words."""
    from pygments.lexers import CLexer
    from pygments.token import Keyword, Name

    class OpenCLLexer(CLexer):
        def get_tokens_unprocessed(self, text, stack=("root",)):
            kinds = (TYPES, Keyword.Type), (WORDS, Keyword), (CALLS, Name.Builtin)
            for index, token, value in super().get_tokens_unprocessed(text, stack):
                if token in Name:
                    token = next((kind for words, kind in kinds if words.fullmatch(value)), token)
                yield index, token, value

    return OpenCLLexer(stripnl=False)


def highlight(text: str) -> str:
    """OpenCL C as HTML with its colours written into it; in black where Pygments, which comes with IPython, is not."""
    try:
        import pygments
        from pygments.formatters import HtmlFormatter
    except ImportError:
        return f"<pre>{html.escape(text)}</pre>"
    page = HtmlFormatter(noclasses=True, prestyles="color: #202020; padding: 6px")  # dark pages keep it readable, too
    return pygments.highlight(text, _lexer(), page)
