"""Letters beyond ASCII in pictures. OpenCV's font has none, matplotlib's no Chinese, Japanese or
Korean: they are drawn in the first installed font that has them."""

from functools import cache
from typing import Any, NamedTuple

STANDARD = "DejaVu Sans"  # comes with matplotlib: Latin, Greek, Cyrillic and more
REGULAR = 400


class Font(NamedTuple):
    """An installed font: the name of its family, and its file."""

    family: str
    path: str


def special_letters(text: str) -> frozenset[str]:
    """The characters that OpenCV's font does not have."""
    return frozenset(c for c in text if not c.isascii() and c.isprintable())


@cache
def find_font(letters: frozenset[str]) -> Font | None:
    """The first installed font that has all the `letters`, matplotlib's own before all others.
    None where there is none, or no matplotlib, which knows the fonts of a machine: told once."""
    try:
        fonts = installed_fonts()
        from matplotlib.ft2font import FT2Font
    except ModuleNotFoundError:
        _tell_once("need the fonts that matplotlib finds: pip install matplotlib")
        return None
    for font in fonts:
        try:
            file = FT2Font(font.path)
            if all(file.get_char_index(ord(letter)) for letter in letters):
                return font
        except (OSError, RuntimeError):  # removed since matplotlib listed it, or of no known kind
            continue
    _tell_once("no installed font has: install one that does, as Noto Sans CJK")
    return None


def installed_fonts() -> list[Font]:
    """All that matplotlib finds, upright and regular ones first; without those of last resort,
    which have a box for every letter."""
    from matplotlib.font_manager import fontManager

    def rank(entry: Any) -> tuple[bool, bool, bool, str]:
        is_regular = entry.weight in (REGULAR, "normal", "regular")
        return entry.name != STANDARD, entry.style != "normal", not is_regular, entry.fname

    entries = sorted(fontManager.ttflist, key=rank)
    fonts = [Font(entry.name, entry.fname) for entry in entries]
    return [font for font in fonts if "lastresort" not in font.family.replace(" ", "").lower()]


@cache
def _tell_once(reason: str) -> None:
    print(f"pictures have ? in place of letters that {reason}")
