"""The languages of Whisper: their codes, and their English names.

Which of them a model has depends on the model; that the engine knows.
"""

from services.transcription.errors import InvalidRequest

# The order is that of the codes, the first name is the usual one.
LANGUAGES: dict[str, tuple[str, ...]] = {
    "af": ("afrikaans",),
    "am": ("amharic",),
    "ar": ("arabic",),
    "as": ("assamese",),
    "az": ("azerbaijani",),
    "ba": ("bashkir",),
    "be": ("belarusian",),
    "bg": ("bulgarian",),
    "bn": ("bengali",),
    "bo": ("tibetan",),
    "br": ("breton",),
    "bs": ("bosnian",),
    "ca": ("catalan", "valencian"),
    "cs": ("czech",),
    "cy": ("welsh",),
    "da": ("danish",),
    "de": ("german",),
    "el": ("greek",),
    "en": ("english",),
    "es": ("spanish", "castilian"),
    "et": ("estonian",),
    "eu": ("basque",),
    "fa": ("persian", "farsi"),
    "fi": ("finnish",),
    "fo": ("faroese",),
    "fr": ("french",),
    "gl": ("galician",),
    "gu": ("gujarati",),
    "ha": ("hausa",),
    "haw": ("hawaiian",),
    "he": ("hebrew",),
    "hi": ("hindi",),
    "hr": ("croatian",),
    "ht": ("haitian creole", "haitian"),
    "hu": ("hungarian",),
    "hy": ("armenian",),
    "id": ("indonesian",),
    "is": ("icelandic",),
    "it": ("italian",),
    "ja": ("japanese",),
    "jw": ("javanese",),
    "ka": ("georgian",),
    "kk": ("kazakh",),
    "km": ("khmer",),
    "kn": ("kannada",),
    "ko": ("korean",),
    "la": ("latin",),
    "lb": ("luxembourgish", "letzeburgesch"),
    "ln": ("lingala",),
    "lo": ("lao",),
    "lt": ("lithuanian",),
    "lv": ("latvian",),
    "mg": ("malagasy",),
    "mi": ("maori",),
    "mk": ("macedonian",),
    "ml": ("malayalam",),
    "mn": ("mongolian",),
    "mr": ("marathi",),
    "ms": ("malay",),
    "mt": ("maltese",),
    "my": ("myanmar", "burmese"),
    "ne": ("nepali",),
    "nl": ("dutch", "flemish"),
    "nn": ("nynorsk",),
    "no": ("norwegian",),
    "oc": ("occitan",),
    "pa": ("punjabi", "panjabi"),
    "pl": ("polish",),
    "ps": ("pashto", "pushto"),
    "pt": ("portuguese",),
    "ro": ("romanian", "moldavian", "moldovan"),
    "ru": ("russian",),
    "sa": ("sanskrit",),
    "sd": ("sindhi",),
    "si": ("sinhala", "sinhalese"),
    "sk": ("slovak",),
    "sl": ("slovenian",),
    "sn": ("shona",),
    "so": ("somali",),
    "sq": ("albanian",),
    "sr": ("serbian",),
    "su": ("sundanese",),
    "sv": ("swedish",),
    "sw": ("swahili",),
    "ta": ("tamil",),
    "te": ("telugu",),
    "tg": ("tajik",),
    "th": ("thai",),
    "tk": ("turkmen",),
    "tl": ("tagalog",),
    "tr": ("turkish",),
    "tt": ("tatar",),
    "uk": ("ukrainian",),
    "ur": ("urdu",),
    "uz": ("uzbek",),
    "vi": ("vietnamese",),
    "yi": ("yiddish",),
    "yo": ("yoruba",),
    "zh": ("chinese", "mandarin"),
    "yue": ("cantonese",),
}

_CODES = {name: code for code, names in LANGUAGES.items() for name in (code, *names)}


def parse_language(value: str, *, field: str = "language") -> str | None:
    """Give the code of a language given by code or English name; None means "detect it"."""
    wanted = value.strip().lower()
    if wanted in ("", "auto"):
        return None
    if wanted not in _CODES:
        raise unknown_language(value, LANGUAGES, field=field)
    return _CODES[wanted]


def unknown_language(
    value: str, allowed: dict[str, tuple[str, ...]], *, field: str = "language"
) -> InvalidRequest:
    """Give the refusal of a language, with what is allowed instead."""
    listed = ", ".join(f"{code} ({names[0]})" for code, names in allowed.items())
    shown = repr(value[:100])
    return InvalidRequest(
        f"{field}: {shown} is not known; leave it out to detect it, or use one of: {listed}",
        param=field,
        code="invalid_value",
    )
