"""Languages as Vespa names them: by the codes of Language.java."""

from __future__ import annotations

import re

ENGLISH = "en"  # of queries that name none, and of texts whose language nothing says
UNKNOWN = "und"

_CODES = frozenset(
    """
    ab aa af sq am ar hy as ay az ba eu bn dz bh bi br bug bg my be km ca chr cop co hr cs da div nl en eo et fo fj
    fi fr fy gl ka de got el kl gn gu ha he hi hu is id ia ie iu ik ga it ja jw kn ks kk rw ky rn ko ku lo la lv ln
    lt mk mg ms ml mt mni mi mr mo mn mun na ne nb nn oc or om ps fa pl pt pa qu rm ro ru sm sg sa gd sr sh st tn sn
    ii sd si ss sk sl so es su sw sv syr fil tg ta tt te th bo ti to ts tr tk tw uga ug uk ur uz vi vo cy wo xh yi
    yo za zh zu
    """.split()  # noqa: SIM905
)
WITHOUT_SPACES = frozenset({"zh", "ja", "ko", "th"})  # isCjk
# Characters by which Vespa takes a text for one of those (SimpleDetector.java).
_THEIR_SCRIPTS = re.compile(
    "[\u0e00-\u0e7f\u1100-\u11ff\u2e80-\u2fdf\u3000-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f"
    "\uffa0-\uffdf\U00020000-\U0002fa1f]"
)
_ALIASES = {"in": "id", "iw": "he", "ji": "yi", "no": "nb"}


def language_of(tag: str | None) -> str:
    """The code of a language tag (`de`, `de-AT`, `pt-BR`), UNKNOWN where Vespa knows none. Raises ValueError for what
    is no tag.

    >>> [language_of(tag) for tag in ("de-AT", "no", "xx", "", None)]
    ['de', 'nb', 'und', 'und', 'und']
    """
    first = (tag or "").split("-")[0].lower()
    if len(first) not in (2, 3):
        return UNKNOWN
    if not re.fullmatch("[a-z]+", first):
        raise ValueError(f"Illegal language tag '{tag}', it must be a language tag corresponding to RFC5646")
    code = _ALIASES.get(first, first)
    return code if code in _CODES else UNKNOWN


def is_without_spaces(language: str | None, text: str) -> bool:
    """Whether a language, or that of a text where none is known, is written without spaces."""
    return bool(_THEIR_SCRIPTS.search(text)) if language is None else language in WITHOUT_SPACES
