"""English as it is read aloud: numbers, money, dates, times, units, signs and abbreviations as words.

Choice: rules of our own over num2words, because the normalisers at hand read "1,234" as "thousand two hundred", "1990s"
as seconds and leave out what they do not know. Each rule is a pattern and what is said for it; they are tried in order.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

_NUMBER = r"\d+(?:,\d{3})+(?:\.\d+)?|\d*\.\d+|\d+"
_MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_MONTH = "|".join((*_MONTHS, *(month[:3] for month in _MONTHS), "sept"))
_MONEY = {  # sign: (one, many, one hundredth, hundredths)
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₽": ("ruble", "rubles", "kopek", "kopeks"),
    "₩": ("won", "won", "jeon", "jeon"),
}
_UNITS = {  # written: (one, many)
    "m^2": ("square meter", "square meters"), "km^2": ("square kilometer", "square kilometers"),
    "m^3": ("cubic meter", "cubic meters"), "km": ("kilometer", "kilometers"), "m": ("meter", "meters"),
    "cm": ("centimeter", "centimeters"), "mm": ("millimeter", "millimeters"), "nm": ("nanometer", "nanometers"),
    "mi": ("mile", "miles"), "ft": ("foot", "feet"), "yd": ("yard", "yards"), "kg": ("kilogram", "kilograms"),
    "g": ("gram", "grams"), "mg": ("milligram", "milligrams"), "lb": ("pound", "pounds"), "lbs": ("pound", "pounds"),
    "oz": ("ounce", "ounces"), "l": ("liter", "liters"), "ml": ("milliliter", "milliliters"),
    "h": ("hour", "hours"), "hr": ("hour", "hours"), "hrs": ("hour", "hours"), "min": ("minute", "minutes"),
    "s": ("second", "seconds"), "sec": ("second", "seconds"), "ms": ("millisecond", "milliseconds"),
    "hz": ("hertz", "hertz"), "khz": ("kilohertz", "kilohertz"), "mhz": ("megahertz", "megahertz"),
    "ghz": ("gigahertz", "gigahertz"), "kb": ("kilobyte", "kilobytes"), "mb": ("megabyte", "megabytes"),
    "gb": ("gigabyte", "gigabytes"), "tb": ("terabyte", "terabytes"), "w": ("watt", "watts"),
    "kw": ("kilowatt", "kilowatts"), "kwh": ("kilowatt hour", "kilowatt hours"), "v": ("volt", "volts"),
    "mph": ("mile per hour", "miles per hour"), "km/h": ("kilometer per hour", "kilometers per hour"),
    "kmh": ("kilometer per hour", "kilometers per hour"), "m/s": ("meter per second", "meters per second"),
    "fps": ("frame per second", "frames per second"), "db": ("decibel", "decibels"),
    "°c": ("degree celsius", "degrees celsius"), "°f": ("degree fahrenheit", "degrees fahrenheit"),
    "°": ("degree", "degrees"), "%": ("percent", "percent"), "‰": ("per mille", "per mille"),
    "¢": ("cent", "cents"),
}  # fmt: skip
_TIGHT = {"s", "m", "g", "l", "h", "w", "v"}  # single letters: units only behind a space, as in "15 s", not in "15s"
_SCALES = "hundred|thousand|million|billion|trillion"
_SIGNS = {
    "&": "and", "@": "at", "+": "plus", "=": "equals", "×": "times", "÷": "divided by", "±": "plus or minus",
    "≈": "about", "≠": "is not equal to", "≤": "at most", "≥": "at least", "<": "less than", ">": "greater than",
    "√": "square root of", "∞": "infinity", "π": "pi", "µ": "micro", "μ": "micro", "°": "degrees", "%": "percent",
    "‰": "per mille", "#": "number", "$": "dollars", "€": "euros", "£": "pounds", "¥": "yen", "₹": "rupees",
    "¢": "cents", "→": "to", "©": "copyright", "§": "section", "~": "about",
}  # fmt: skip
_ABBREVIATIONS = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "prof": "professor", "jr": "junior", "sr": "senior",
    "vs": "versus", "etc": "et cetera", "inc": "incorporated", "ltd": "limited", "approx": "approximately",
    "dept": "department", "est": "established", "gen": "general", "capt": "captain", "lt": "lieutenant",
    "sgt": "sergeant", "rev": "reverend", "hon": "honorable", "col": "colonel", "fig": "figure", "vol": "volume",
    "ave": "avenue", "blvd": "boulevard", "mt": "mount",
}  # fmt: skip
_FRACTIONS = {"2": ("half", "halves"), "3": ("third", "thirds"), "4": ("quarter", "quarters")}
_VULGAR = dict(
    zip(
        "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞",
        ["1/2", "1/3", "2/3", "1/4", "3/4", "1/5", "2/5", "3/5", "4/5", "1/6", "5/6", "1/8", "3/8", "5/8", "7/8"],
        strict=True,
    )
)

Said = Callable[[re.Match[str]], str]


def separate_signs(text: str) -> str:
    """Fractions (½) as "1/2" and powers (²) as "^2": normal forms of Unicode would write 2½ as 21/2 and m² as m2."""
    text = re.sub("[" + "".join(_VULGAR) + "]", lambda match: f" {_VULGAR[match[0]]} ", text)
    return text.replace("²", "^2").replace("³", "^3")


def _words(value: str | int, kind: str = "cardinal") -> str:
    """A number by num2words, plainly: no commas, hyphens, "and"."""
    from num2words import num2words

    said = num2words(value, to=kind) if isinstance(value, int) else num2words(int(value), to=kind)
    return said.replace(",", "").replace("-", " ").replace(" and ", " ")


def _digits(text: str) -> str:
    return " ".join(_words(int(digit)) for digit in text if digit.isdigit())


def number(text: str) -> str:
    """A number as it is said: commas within, a point, or leading zeros, which are read digit by digit."""
    whole, point, rest = text.replace(",", "").partition(".")
    if len(whole) > 1 and whole[0] == "0" and not point:
        return _digits(whole)
    said = _words(int(whole or 0)) if len(whole) <= 33 else _digits(whole)
    return f"{said} point {_digits(rest)}" if point else said


def _year(text: str) -> str:
    return _words(int(text), "year")


def _plural_year(match: re.Match[str]) -> str:
    """1990s and 90s: decades."""
    said = _year(match[1]) if len(match[1]) == 4 else _words(int(match[1]))
    return said[:-1] + "ies" if said.endswith("y") else said + "s" if not said.endswith("x") else said + "es"


def _money(match: re.Match[str]) -> str:
    one, many, cent, cents = _MONEY[match["sign"]]
    amount, scale = match["amount"].replace(",", ""), match["scale"]
    whole, _, rest = amount.partition(".")
    whole = whole or "0"
    if scale:
        return f"{number(amount)} {scale.lower()} {many}"
    if len(rest) != 2 and rest:
        return f"{number(amount)} {many}"
    said = [f"{number(whole)} {one if int(whole) == 1 else many}"] if int(whole) or not int(rest or 0) else []
    if rest and int(rest):
        said.append(f"{number(str(int(rest)))} {cent if int(rest) == 1 else cents}")
    return " and ".join(said)


def _fraction(match: re.Match[str]) -> str:
    whole, above, below = match["whole"], match["above"], match["below"]
    one, many = _FRACTIONS.get(below, (_words(below, "ordinal"), _words(below, "ordinal") + "s"))
    if whole:
        part = f"{'a' if int(above) == 1 else number(above)} {one if int(above) == 1 else many}"
        return f"{number(whole)} and {part}"
    return f"{number(above)} {one if int(above) == 1 else many}"


def _clock(match: re.Match[str]) -> str:
    hour, minute, half = match[1], match[2], (match[3] or "").lower().replace(".", "")
    said = number(str(int(hour)))
    if int(minute):
        said += f" oh {number(minute[1])}" if minute[0] == "0" else f" {number(minute)}"
    elif not half:
        said += " o'clock" if 0 < int(hour) <= 12 else " hundred hours" if int(hour) else " hours"
    return f"{said} {half}".strip()


def _address(match: re.Match[str]) -> str:
    """A web or mail address: dots, slashes and signs by name."""
    text = re.sub(r"^[a-z]+://", "", match[0], flags=re.I).rstrip("/")
    for sign, word in ((".", " dot "), ("/", " slash "), ("@", " at "), ("-", " dash "), ("_", " underscore ")):
        text = text.replace(sign, word)
    return text


def _date(year: str, month: int, day: int) -> str:
    return f"{_MONTHS[month - 1]} {_words(day, 'ordinal')} {_year(year)}"


@cache
def _rules() -> tuple[tuple[re.Pattern[str], Said], ...]:
    """Patterns and what is said for them, in order."""
    signs, units = "".join(map(re.escape, _MONEY)), sorted(_UNITS, key=len, reverse=True)
    spaced = "|".join(re.escape(unit) for unit in units)
    joined = "|".join(re.escape(unit) for unit in units if unit not in _TIGHT)
    no = r"(?<![\w.])"  # not inside a word or number
    rules: tuple[tuple[str, Said], ...] = (
        (r"\b(?:https?://|www\.)[^\s,;!?]*[\w/]|\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+", _address),
        (r"\b(?:[a-z][\w-]*\.)+(?:com|org|net|edu|gov|io|ai|dev|info|co|uk|de|cn|hk)\b(?:/[\w./-]*\w)?", _address),
        (r"\be\.\s?g\.", lambda m: "for example"),
        (r"\bi\.\s?e\.", lambda m: "that is"),
        (r"\bno\.\s?(?=\d)", lambda m: "number "),
        (r"\bst\.(?=\s+[A-Z])", lambda m: "saint"),
        (r"\bst\.", lambda m: "street"),
        (rf"\b({'|'.join(_ABBREVIATIONS)})\.", lambda m: _ABBREVIATIONS[m[1].lower()]),
        (r"\b([ap])\.m\.", lambda m: f"{m[1]}m"),
        (rf"{no}(\d{{4}})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])\b", lambda m: _date(m[1], int(m[2]), int(m[3]))),
        (r"\b(\d{1,2}):([0-5]\d)(?::[0-5]\d)?(?:\s*([ap]\.?m\b\.?))?", _clock),
        (r"\b(\d{1,2})\s*([ap]m)\b", lambda m: f"{number(m[1])} {m[2]}"),
        (r"(?<![\w-])(?:\+?1[- ])?\(?(\d{3})\)?[- ](\d{3})[- ](\d{4})\b", lambda m: _digits(m[0])),
        (rf"{no}\d{{3}}-\d{{4}}\b", lambda m: _digits(m[0])),
        (r"\b(call|dial|phone)\s+(\d{3,})\b", lambda m: f"{m[1]} {_digits(m[2])}"),
        (
            rf"(?P<sign>[{signs}])\s?(?P<amount>{_NUMBER})(?:\s?(?P<scale>{_SCALES}|bn)\b)?",
            lambda m: _money(m).replace(" bn ", " billion "),
        ),
        (rf"{no}(?P<amount>{_NUMBER})\s?(?P<sign>[€£₹₽])(?P<scale>)", _money),
        (rf"{no}['’]?(\d{{4}}|\d0)s\b", _plural_year),
        (rf"{no}(\d+)(?:st|nd|rd|th)\b", lambda m: _words(m[1], "ordinal")),
        (
            rf"\b({_MONTH})\.?\s+(\d{{1,2}}),?\s+(\d{{4}})\b",
            lambda m: f"{_month(m[1])} {_words(m[2], 'ordinal')} {_year(m[3])}",
        ),
        (rf"\b({_MONTH})\.?\s+(\d{{1,2}})\b(?![:,.]?\d)", lambda m: f"{_month(m[1])} {_words(m[2], 'ordinal')}"),
        (rf"\b(\d{{1,2}})\s+({_MONTH})\.?(?:\s+(\d{{4}}))?\b", _day_first),
        (r"(?<=\d)\s+[-−–]\s+(?=\d)", lambda m: " minus "),
        (r"(?<=\d)\s*[-–—~]\s*(?=\d)", lambda m: " to "),
        (r"(?<![\w)])[-−](?=[$€£]?\d)", lambda m: "minus "),
        (r"(\d+)'(\d+)\"", lambda m: f"{number(m[1])} foot {number(m[2])}"),
        (r"\b24/7\b", lambda m: "twenty four seven"),
        (rf"{no}(?:(?P<whole>\d+)\s+)?(?P<above>\d{{1,2}})/(?P<below>[2-9]|1\d|20|100)(?![\d/])", _fraction),
        (rf"{no}(?P<amount>{_NUMBER})(?:\s(?P<unit>{spaced})|\s?(?P<tight>{joined}))(?![\w/])", _any_unit),
        (r"(?<=\d)\s*[x×]\s*(?=\d)", lambda m: " times "),
        (r"(?<=\d)\s*\*\s*(?=\d)", lambda m: " times "),
        (r"(?<=\d)\s*/\s*(?=\d)", lambda m: " divided by " if " " in m[0] else " slash "),
        (r"\^2\b", lambda m: " squared"),
        (r"\^3\b", lambda m: " cubed"),
        (r"(?<=\d)\s*\^\s*(?=\d)", lambda m: " to the power of "),
        (r"(?<=\d):(?=\d)", lambda m: " to "),
        (r"\b\d+(?:\.\d+){2,}\b", lambda m: " point ".join(number(part) for part in m[0].split("."))),
        (rf"{no}(1[1-9]\d\d|20\d\d)\b(?![,.]\d|\s*[$%€£])", lambda m: _year(m[1])),
        (_NUMBER, lambda m: f" {number(m[0])} "),
        ("[" + re.escape("".join(_SIGNS)) + "]", lambda m: f" {_SIGNS[m[0]]} "),
    )
    return tuple((re.compile(pattern, re.I), said) for pattern, said in rules)


def _month(name: str) -> str:
    return next(month for month in _MONTHS if month.startswith(name.lower()[:3]))


def _day_first(match: re.Match[str]) -> str:
    year = f" {_year(match[3])}" if match[3] else ""
    return f"{_words(match[1], 'ordinal')} of {_month(match[2])}{year}"


def _any_unit(match: re.Match[str]) -> str:
    unit = (match["unit"] or match["tight"]).lower()
    one, many = _UNITS[unit]
    return f"{number(match['amount'])} {one if match['amount'] == '1' else many}"


def read_out(text: str) -> str:
    """English text with everything that is not letters or punctuation read out; case and punctuation stay.

    Args:
        text: In any Unicode form but with fractions apart, see `separate_signs`.
    """
    for pattern, said in _rules():
        text = pattern.sub(lambda match, said=said: said(match), text)
    return text
