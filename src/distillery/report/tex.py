"""Plain text for LaTeX: whatever it holds, pdflatex compiles it.

Greek letters and mathematical signs become math symbols, accented letters accent commands, all of them known to every
LaTeX without a package. What is left (Chinese, emoji, ...) pdflatex cannot set. It becomes `\\beyond{character}{name}`:
XeLaTeX and LuaLaTeX set the character, given a font that has it, and pdflatex its name in brackets. The table defines
that command and says so in a comment.
"""

# ruff: noqa: RUF001  (these tables are about characters that look alike)
from __future__ import annotations

import unicodedata

BEYOND = "\\beyond"
PREAMBLE = (
    "% Some labels hold characters that pdflatex cannot set: it prints their names. Compile with XeLaTeX or LuaLaTeX",
    "% and a font that has them (\\usepackage{fontspec} \\setmainfont{...}) to print the characters themselves.",
    f"\\providecommand{{{BEYOND}}}[2]{{\\ifdefined\\Umathchar#1\\else#2\\fi}}",
)

_TEXT = {
    **{c: "\\" + c for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"},
    **{"[": "{[}", "]": "{]}", "*": "{*}"},  # after a line break \\ they would be its arguments
    **{"<": "$<$", ">": "$>$", '"': "''", "`": "{`}", "\u00a0": "~"},
    **{"–": "--", "—": "---", "“": "``", "”": "''", "„": "{,},", "‘": "`", "’": "'", "‚": ",", "…": r"\ldots{}"},
    **{"§": r"\S{}", "¶": r"\P{}", "©": r"\copyright{}", "£": r"\pounds{}", "†": r"\dag{}", "‡": r"\ddag{}"},
    **{"ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}"},
    **{"ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "ȷ": r"\j{}", "¡": "!{`}", "¿": "?{`}"},
}
_SMALL = (
    *("alpha", "beta", "gamma", "delta", "varepsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu"),
    *("xi", "", "pi", "rho", "varsigma", "sigma", "tau", "upsilon", "varphi", "chi", "psi", "omega"),
)
_CAPITAL = {"Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Υ": "Upsilon", "Φ": "Phi"}
_MATH = {
    **{chr(ord("α") + i): f"\\{name}" if name else "o" for i, name in enumerate(_SMALL)},
    **{c: f"\\{name}" for c, name in _CAPITAL.items()},
    **{c: f"\\mathrm{{{latin}}}" for c, latin in zip("ΑΒΕΖΗΙΚΜΝΟΡΤΧ", "ABEZHIKMNOPTX", strict=True)},
    **{"Ψ": r"\Psi", "Ω": r"\Omega"},
    **{"Λ": r"\Lambda", "ϵ": r"\epsilon", "ϑ": r"\vartheta", "ϕ": r"\phi", "ϖ": r"\varpi", "ϱ": r"\varrho"},
    **{"→": r"\to", "←": r"\leftarrow", "↔": r"\leftrightarrow", "⇒": r"\Rightarrow", "⇐": r"\Leftarrow"},
    **{"⇔": r"\Leftrightarrow", "↦": r"\mapsto", "↑": r"\uparrow", "↓": r"\downarrow", "▲": r"\uparrow"},
    **{"▼": r"\downarrow", "±": r"\pm", "∓": r"\mp", "×": r"\times", "÷": r"\div", "·": r"\cdot", "−": "-"},
    **{"⋅": r"\cdot", "∗": r"\ast", "∘": r"\circ", "•": r"\bullet", "⊙": r"\odot", "⊕": r"\oplus", "⊗": r"\otimes"},
    **{"≤": r"\leq", "≥": r"\geq", "≠": r"\neq", "≈": r"\approx", "≡": r"\equiv", "∼": r"\sim", "∝": r"\propto"},
    **{"≪": r"\ll", "≫": r"\gg", "«": r"\ll", "»": r"\gg", "¬": r"\neg", "∧": r"\wedge", "∨": r"\vee"},
    **{"∈": r"\in", "∉": r"\notin", "∪": r"\cup", "∩": r"\cap", "⊂": r"\subset", "⊆": r"\subseteq", "∅": r"\emptyset"},
    **{"∀": r"\forall", "∃": r"\exists", "∂": r"\partial", "∇": r"\nabla", "∑": r"\sum", "∏": r"\prod", "∫": r"\int"},
    **{"√": r"\surd", "∞": r"\infty", "ℓ": r"\ell", "∥": r"\|", "⊥": r"\perp", "⊤": r"\top", "⟨": r"\langle"},
    **{"⟩": r"\rangle", "⋆": r"\star", "★": r"\star", "△": r"\triangle", "∆": r"\Delta", "′": r"\prime"},
    **{"°": r"^\circ", "µ": r"\mu"},
}
_ACCENTS = {
    **{"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": "."},
    **{"\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0331": "b"},
}
_BELOW = "\u0323\u0327\u0331"


def escape(text: str) -> str:
    """Escape plain text for LaTeX."""
    out: list[str] = []
    previous = ""
    for cluster in _clusters(unicodedata.normalize("NFC", text)):
        if cluster == previous and cluster in "-,'":
            out.append("{}")  # or two of them would become one longer sign
        opens = cluster == '"' and (not previous or previous in " (")
        out.append("``" if opens else _set(cluster))
        previous = cluster
    return "".join(out)


def _clusters(text: str) -> list[str]:
    """The characters, each with the accents that follow it; without marks that show nothing (joiners, variants)."""
    found: list[str] = []
    for c in text:
        if unicodedata.category(c) == "Cf" or 0xFE00 <= ord(c) <= 0xFE0F:
            continue
        if found and unicodedata.combining(c):
            found[-1] += c
        else:
            found.append(c)
    return found


def _set(cluster: str) -> str:
    """One character with its accents."""
    c = cluster
    if c in _TEXT:
        return _TEXT[c]
    if c in _MATH:
        return f"${_MATH[c]}$"
    if len(c) == 1 and " " <= c <= "~":
        return c
    if c.isspace() or unicodedata.category(c[0]) == "Cc":
        return " "
    return _accented(c) or _raised(c) or _simpler(c) or _beyond(c)


def _accented(cluster: str) -> str:
    base, *marks = list(unicodedata.normalize("NFD", cluster))
    if not (base.isascii() and base.isalpha() and marks and all(mark in _ACCENTS for mark in marks)):
        return ""
    letter = f"\\{base}" if base in "ij" and not any(mark in _BELOW for mark in marks) else base
    for mark in marks:
        letter = f"\\{_ACCENTS[mark]}{{{letter}}}"
    return letter


def _raised(c: str) -> str:
    kind, _, codes = unicodedata.decomposition(c).partition(" ") if len(c) == 1 else ("", "", "")
    if kind not in ("<super>", "<sub>"):
        return ""
    inner = escape("".join(chr(int(code, 16)) for code in codes.split()))
    return f"\\text{kind[1:-1]}script{{{inner}}}"


def _simpler(c: str) -> str:
    """A variant of plainer characters: a ligature, a fraction, a letter of full width or of a mathematical alphabet."""
    plain = unicodedata.normalize("NFKC", c).replace("\u2044", "/")
    return escape(plain) if plain != c else ""


def _beyond(cluster: str) -> str:
    named = unicodedata.category(cluster[0]).startswith("S")
    name = unicodedata.name(cluster[0], "").lower() if named else ""
    return f"{BEYOND}{{{cluster}}}{{{{[}}{name or f'U+{ord(cluster[0]):04X}'}{{]}}}}"
