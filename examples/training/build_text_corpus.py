"""Build the text that bpe-32k is trained on, and the text it is judged on, from unpacked Debian packages.

    bash examples/training/fetch_text.sh DIR
    python examples/training/build_text_corpus.py DIR OUT

writes OUT/train/<language>.txt and OUT/heldout/<language>.txt. A language is capped so that none drowns the others,
and within it each package has a share of its own. Held-out text comes from packages that training never sees.
Files are taken in the order of the sha256 of their path, so the same packages give the same bytes anywhere.
"""

from __future__ import annotations

import argparse
import gettext
import gzip
import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

MB = 1_000_000

# A line of this many characters that a language repeats more often than this is boilerplate: menus, licences.
BOILERPLATE_CHARACTERS, BOILERPLATE_REPEATS = 24, 3


class Source(NamedTuple):
    """Some files of one package: which, how to read them, and how much of them to take."""

    package: str
    pattern: str
    reader: str
    megabytes: float


def _languages() -> dict[str, list[Source]]:
    """Every training language and its sources; the caps are what balances the languages."""
    table = {
        "en": [
            Source("libreoffice-help-en-us", "usr/share/libreoffice/help/en-US/text/**/*.html", "markup", 5),
            Source("gnome-user-docs", "usr/share/help/C/**/*.page", "markup", 2),
            Source("debian-handbook", "usr/share/doc/debian-handbook/html/en-US/*.html", "markup", 2),
            Source("wesnoth-1.16-data", "usr/share/games/wesnoth/1.16/locale/de/**/*.mo", "catalogue-source", 2),
            Source("fortunes", "usr/share/games/fortunes/*", "plain", 3),
            Source("python3.11-doc", "usr/share/doc/python3.11/html/_sources/**/*.txt", "plain", 5),
            Source("manpages", "usr/share/man/man*/*.gz", "roff", 2),
            Source("manpages-dev", "usr/share/man/man*/*.gz", "roff", 2),
        ],
        "code": [
            Source("libpython3.11-stdlib", "usr/lib/python3.11/**/*.py", "plain", 7),
            Source("golang-1.19-src", "usr/share/go-1.19/src/**/*.go", "plain", 3),
            Source("rust-src", "usr/src/rustc-1.63.0/**/*.rs", "plain", 3),
            Source("rust-src", "usr/src/rustc-1.63.0/**/*.md", "plain", 1),
            Source("rust-src", "usr/src/rustc-1.63.0/**/*.toml", "plain", 0.3),
            Source("golang-1.19-src", "usr/share/go-1.19/**/*.js", "plain", 1),
            Source("golang-1.19-src", "usr/share/go-1.19/**/*.html", "plain", 0.5),
            Source("libstdc++-12-dev", "usr/include/c++/12/**/*", "plain", 2),
            Source("linux-libc-dev", "usr/include/**/*.h", "plain", 2),
            Source("nodejs-doc", "usr/share/doc/nodejs/api/*.html", "markup", 1.5),
            Source("nodejs-doc", "usr/share/doc/nodejs/api/*.json", "plain", 0.5),
            Source("debian-handbook", "usr/share/doc/debian-handbook/html/en-US/*.html", "plain", 0.5),
        ],
    }
    # Language, its code in the handbook, in LibreOffice help, in manual pages and in fortunes; its cap in each.
    for language, handbook, office, manual, fortunes, share in [
        ("de", "de-DE", "de", "de", "de", 3),
        ("es", "es-ES", "es", "es", "es", 3),
        ("fr", "fr-FR", "fr", "fr", "", 3),
        ("ru", "ru-RU", "ru", "ru", "ru", 3.5),
        ("ja", "ja-JP", "ja", "ja", "", 4),
        ("zh", "zh-CN", "zh-cn", "zh/zh_CN", "zh", 4),
        ("it", "it-IT", "it", "", "it", 1.5),
        ("pt", "pt-BR", "pt-br", "", "br", 1.5),
        ("pl", "pl-PL", "", "pl", "pl", 1.5),
        ("ko", "ko-KR", "ko", "", "", 1.5),
        ("tr", "tr-TR", "tr", "", "", 1),
        ("vi", "vi-VN", "vi", "", "", 1),
        ("hi", "", "hi", "", "", 2),
        ("el", "el-GR", "el", "", "", 1),
        ("cs", "cs-CZ", "", "", "cs", 1),
        ("ar", "ar-MA", "", "", "", 1),
        ("nl", "nl-NL", "", "", "", 1),
        ("sv", "sv-SE", "", "", "", 1),
        ("id", "id-ID", "", "", "", 1),
        ("uk", "", "", "", "", 1),
        ("ro", "ro-RO", "", "", "", 1),
        ("hu", "", "", "", "", 1),
        ("fi", "", "", "", "", 1),
        ("fa", "fa-IR", "", "", "", 1),
        ("he", "", "", "", "", 1),
        ("ta", "", "", "", "", 1),
        ("te", "", "", "", "", 1),
    ]:
        locale = {"pt": "pt_BR", "zh": "zh_CN"}.get(language, language)
        found = []
        if language != "ar":  # which GNOME's help lacks
            found.append(Source("gnome-user-docs", f"usr/share/help/{locale}/**/*.page", "markup", share))
        if language not in {"hi", "fa", "ta", "te"}:  # which the game lacks
            path = f"usr/share/games/wesnoth/1.16/locale/{locale}/**/*.mo"
            found.append(Source("wesnoth-1.16-data", path, "catalogue", share))
        if handbook:
            path = f"usr/share/doc/debian-handbook/html/{handbook}/*.html"
            found.append(Source("debian-handbook", path, "markup", share))
        if office:
            path = f"usr/share/libreoffice/help/{office.replace('cn', 'CN').replace('br', 'BR')}/text/**/*.html"
            found.append(Source(f"libreoffice-help-{office}", path, "markup", share))
        if manual:
            package, _, folder = manual.partition("/")
            found.append(Source(f"manpages-{package}", f"usr/share/man/{folder or package}/man*/*.gz", "roff", share))
        if fortunes:
            found.append(Source(f"fortunes-{fortunes}", "usr/share/games/fortunes/**/*", "plain", share))
        table[language] = found
    return table


HELDOUT = {
    language: [Source(f"debian-reference-{package}", "usr/share/debian-reference/*.html", "markup", 1)]
    for language, package in {
        "en": "en", "de": "de", "es": "es", "fr": "fr", "it": "it", "ja": "ja", "pt": "pt", "zh": "zh-cn",
    }.items()
} | {
    "ru": [Source("developers-reference-ru", "usr/share/doc/developers-reference-ru/docs/*.html", "markup", 1)],
    "code-python": [Source("python3-networkx", "usr/lib/python3/dist-packages/**/*.py", "plain", 1)],
    "code-c++": [Source("libeigen3-dev", "usr/include/eigen3/Eigen/src/**/*.h", "plain", 1)],
    "code-javascript": [Source("libjs-jquery", "usr/share/javascript/jquery/jquery.js", "plain", 1)],
}  # fmt: skip


def main() -> None:
    """Write both halves of the corpus and print what came from where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of unpacked packages, as fetch_text.sh makes it")
    parser.add_argument("out", type=Path, help="folder to write train/ and heldout/ into")
    arguments = parser.parse_args()
    for half, table in (("train", _languages()), ("heldout", HELDOUT)):
        folder = arguments.out / half
        folder.mkdir(parents=True, exist_ok=True)
        for language, sources in table.items():
            taken = [list(_documents(arguments.data, source)) for source in sources]
            text = "\n\n".join(_without_boilerplate([document for part in taken for document in part])) + "\n"
            (folder / f"{language}.txt").write_text(text, encoding="utf-8", newline="")
            sizes = ", ".join(
                f"{s.package} {sum(len(d.encode()) for d in part) / MB:.1f}"
                for s, part in zip(sources, taken, strict=True)
            )
            print(f"{half:8}{language:16}{len(text.encode()) / MB:6.1f} MB   from {sizes}")


def _documents(data: Path, source: Source) -> Iterator[str]:
    """The texts of one source's files, in the order of their paths' sha256, up to its share."""
    root = data / source.package
    paths = [path for path in root.glob(source.pattern) if path.is_file() and not path.is_symlink()]
    if not paths:
        raise SystemExit(f"{root / source.pattern} matches no file: fetch the packages with fetch_text.sh")
    left = source.megabytes * MB
    for path in sorted(paths, key=lambda path: hashlib.sha256(path.relative_to(data).as_posix().encode()).digest()):
        try:
            text = READERS[source.reader](path.read_bytes()).strip()
        except UnicodeDecodeError:  # an index, or a page in a legacy encoding
            continue
        if not text or "\0" in text:
            continue
        text = text.encode()[: int(left)].decode("utf-8", "ignore")
        yield text
        left -= len(text.encode())
        if left <= 0:
            return


def _without_boilerplate(documents: list[str]) -> list[str]:
    """The documents without the long lines that most pages of a manual share."""
    counts = Counter(line for text in documents for line in text.split("\n") if len(line) >= BOILERPLATE_CHARACTERS)
    return ["\n".join(line for line in text.split("\n") if counts[line] <= BOILERPLATE_REPEATS) for text in documents]


class _Text(HTMLParser):
    """The words of a page: blocks become lines; scripts, styles and navigation go."""

    SKIPPED = frozenset({"script", "style", "nav", "header", "footer", "aside", "info", "head"})
    BLOCKS = frozenset(
        {"p", "div", "li", "dt", "dd", "tr", "td", "th", "pre", "br", "title", "item", "section", "steps"}
    )
    BLOCKS |= {"h1", "h2", "h3", "h4", "h5", "h6"}

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.skipping = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a line at a block, silence at a skipped element."""
        self.skipping += tag in self.SKIPPED
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        """End what `handle_starttag` began."""
        self.skipping = max(0, self.skipping - (tag in self.SKIPPED))
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        """Keep the words."""
        if not self.skipping:
            self.parts.append(data)


def _markup(raw: bytes) -> str:
    parser = _Text()
    parser.feed(raw.decode("utf-8"))
    lines = (re.sub(r"[ \t]+", " ", line).strip() for line in "".join(parser.parts).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def _roff(raw: bytes) -> str:
    """The words of a manual page: font macros keep their arguments, other requests and comments go."""
    lines = []
    for line in gzip.decompress(raw).decode("utf-8").split("\n"):
        if re.match(r"\.\s*(B|I|BR|RB|BI|IB|IR|RI|SH|SS|SM)\b", line):
            line = re.sub(r"^\.\s*\w+\s*", "", line).replace('"', "")
        elif line.startswith((".", "'")):
            continue
        line = re.sub(r"\\f\[?\w{1,2}\]?|\\s[-+]?\d|\\[&|/,)%]|\\\".*", "", line)
        line = re.sub(r"\\\(\w\w|\\\[\w+\]|\\\*\(?\w+", " ", line)
        lines.append(line.replace("\\-", "-").replace("\\e", "\\").replace("\\ ", " "))
    return "\n".join(lines)


def _catalogue(raw: bytes, translated: bool = True) -> str:
    messages = gettext.GNUTranslations(io.BytesIO(raw))._catalog  # type: ignore[attr-defined]
    pairs = {key if isinstance(key, str) else key[0]: value for key, value in messages.items() if key}
    return "\n".join(value if translated else re.sub(r"^[^\x04]*\x04", "", key) for key, value in pairs.items())


READERS: dict[str, Callable[[bytes], str]] = {
    "plain": lambda raw: raw.decode("utf-8"),
    "markup": _markup,
    "roff": _roff,
    "catalogue": _catalogue,
    "catalogue-source": lambda raw: _catalogue(raw, translated=False),
}


if __name__ == "__main__":
    main()
