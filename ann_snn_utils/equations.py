"""TeX equations as MathML, which browsers draw by themselves: exported pages need no script from elsewhere."""

from __future__ import annotations

import html
import re

# What latex2mathml does not know, in words that it knows.
_REWRITTEN = (
    (r"\\(begin|end)\{(?:aligned|gathered|split)\}", r"\\\1{align*}"),
    (r"\\\\\s*\[[^\]]*\]", r"\\\\"),
    (r"\\arg(?![a-zA-Z])", r"\\operatorname{arg}"),
)


def mathml(latex: str, display: bool = False) -> str:
    """Give an equation in TeX as a MathML element. ValueError quotes an equation that cannot be converted."""
    from latex2mathml.converter import convert

    source = latex.strip()
    for pattern, replacement in _REWRITTEN:
        source = re.sub(pattern, replacement, source)
    try:
        element = convert(source, display="block" if display else "inline")
    except Exception as error:  # its parser raises many kinds, most of them without a message
        name = type(error).__name__
        raise ValueError(f"the equation {latex!r} is not TeX that can be converted ({name}): simplify it") from None
    unknown = re.findall(r">\\(\w+)<", element)
    if unknown:
        raise ValueError(f"the equation {latex!r} holds the unknown command \\{unknown[0]}: use another one")
    # It leaves ampersands, which align columns, unescaped where it meets one out of place.
    if re.search(r"&(?!#?\w+;)", element):
        raise ValueError(f"the equation {latex!r} has an & outside an aligned environment: remove it")
    return element


def readable(latex: str, display: bool = False) -> str:
    """Give an equation as MathML, or its source as code where it cannot be converted."""
    try:
        return mathml(latex, display)
    except ValueError:
        return f"<code>{html.escape(latex)}</code>"
