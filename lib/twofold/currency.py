"""Exponents of ISO 4217 currencies: how many decimal digits a minor unit has. Pinned: part of the admission version.

Source: ISO 4217 list one, edition of 2024. Only codes whose exponent is not 2 are listed; an unknown code has 2.
"""

from __future__ import annotations

DEFAULT_CURRENCY = "USD"
DEFAULT_EXPONENT = 2

EXPONENTS: dict[str, int] = {
    **dict.fromkeys(
        ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"), 0
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}


def exponent(currency: str) -> int:
    """Decimal digits of the minor unit of an upper-case ISO 4217 code."""
    return EXPONENTS.get(currency, DEFAULT_EXPONENT)
