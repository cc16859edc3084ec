"""Numbers as people read them: thousands separators, units, a real minus sign. Pure."""

MINUS = "\N{MINUS SIGN}"
NO_BREAK = "\N{NO-BREAK SPACE}"
NOTHING = "\N{EN DASH}"
"""Stands where there is no value."""


def count_text(value: float | None) -> str:
    """A whole number: 1,234,567."""
    return NOTHING if value is None else _signed(f"{round(value):,}")


def decimal_text(value: float | None, digits: int, *, sign: bool = False) -> str:
    """A number with so many decimals; with `sign` also +0.139."""
    if value is None:
        return NOTHING
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        return text.lstrip("-")
    return _signed(f"{value:+,.{digits}f}" if sign else text)


def short_text(value: float | None) -> str:
    """Three significant digits and a scale, for rates: 1.23k, 45.6M, 0.517."""
    if value is None:
        return NOTHING
    for suffix, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale * 0.9995:
            return _signed(f"{_three(value / scale)}{suffix}")
    return _signed(_three(value))


def bytes_text(value: float | None) -> str:
    """A size in decimal units: 178 MB."""
    if value is None:
        return NOTHING
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= scale * 0.9995:
            return _signed(f"{_three(value / scale)} {unit}")
    return _signed(f"{value:,.0f} B")


def duration_text(seconds: float | None) -> str:
    """A time: 0.42 s, 12.3 s, 3 min 05 s, 2 h 04 min."""
    if seconds is None:
        return NOTHING
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def percent_text(fraction: float | None) -> str:
    """A share: 12.3%; what is there but tiny is told as < 0.1%."""
    if fraction is None:
        return NOTHING
    return "< 0.1%" if 0 < fraction < 0.001 else f"{100 * fraction:.1f}%"


def p_text(p: float) -> str:
    """A probability under chance alone: p = 0.034; what is tiny as p < 0.001."""
    told = "< 0.001" if p < 0.001 else f"= {p:.3f}"
    return f"p{NO_BREAK}{told}".replace(" ", NO_BREAK)


def _three(value: float) -> str:
    size = abs(value)
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 or size == 0 else 3
    return f"{value:,.{digits}f}"


def _signed(text: str) -> str:
    return text.replace("-", MINUS)
