"""How often characters stand in texts of a language, roughly: enough to tell in which encoding a text makes sense."""

# ruff: noqa: E501, RUF001  (letters of many scripts)

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache

# Letters beyond ASCII, the most frequent first.
_LATIN = {
    "english": "’“”–…é",
    "french": "éàèêçùôîâûœëï",
    "german": "üäöß",
    "spanish": "óíáéñúü¿¡",
    "portuguese": "ãçáéêíóõúàâô",
    "italian": "èàòùìé",
    "nordic": "äöåøæ",
    "icelandic": "íáðéóúþýæö",
    "polish": "łąężóśćńź",
    "czech": "íáéěřčžýšůúťďňó",
    "hungarian": "áéőöóíüúű",
    "romanian": "ăîâşţ",
    "croatian": "šćčžđ",
    "turkish": "ıüşğçöİâ",
    "lithuanian": "ėšįųžūčąę",
    "latvian": "āīēūšņļķģžč",
    "estonian": "äõüöšž",
    "vietnamese": "\u0300\u0301\u0323\u0309\u0303ưđơâêôă",
}
_ALPHABETS = {
    "russian": "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё",
    "ukrainian": "оаниітвреслкдумпзябгьчйцхжшюєїщґ",
    "greek": "αοιετσνηυρπκμλςωδγχάίόέθφβήύώξζψϊ",
    "hebrew": "יוהלארתשמבנםכעדפחקטןגסצזךףץ",
    "arabic": "اليمونترةبعدسفهكقأحجشطصىخإذزثضغءئظآؤ،",
    "persian": "ایرندهمتوسبشکزگفخقجعحپچصطآژغضظذثئ،",
    "thai": "านรอกเง่มย้วลดทสตะปบีัคหแจพชขใไโ์ิุูผซถ็ธภฉศณำษญฟฮฐฝึืฎฏฒฆๆ",
}
_CHINESE = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成"
    "方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工"
    "使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表"
    "化老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结"
    "反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难"
    "且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运爱吃喜欢吗吧呢哈啊图片照张号"
)
_SIMPLIFIED = (
    "这个们来为国说时会对于着过发后里种经么学现当没动还进样开从实军无与长机关点业将两间问并应战头体见产话内给门儿东声员论处义几认条气题"
    "尔别变总电数报结务场计资许统区队决马书则听却达强难权设记类据边张该规万觉术领确传师观让识带导争运爱欢吗图号"
)
_UNSIMPLIFIED = (
    "這個們來為國說時會對於著過發後裡種經麼學現當沒動還進樣開從實軍無與長機關點業將兩間問並應戰頭體見產話內給門兒東聲員論處義幾認條氣題"
    "爾別變總電數報結務場計資許統區隊決馬書則聽卻達強難權設記類據邊張該規萬覺術領確傳師觀讓識帶導爭運愛歡嗎圖號"
)
_TRADITIONAL = _CHINESE.translate(str.maketrans(_SIMPLIFIED, _UNSIMPLIFIED))
_KANJI = (
    "日一国人年大十二本中長出三時行見月後前生五間上東四今金九入学高円子外八六下来気小七山話女北午百書先名川千水半男西電校語"
    "土木聞食車何南万毎白天母火右読友左休父雨会同事自社発者地業方新場員立開手力問代明動京目通言理体田主題意不作用度強公持野"
    "以思家世多正安院心界教文元重近考画海売知集別物使品計死特私始朝運終台広住無真有口少町料工建空急止送切転研足究楽起着店病"
)
_KANA = "いのんなたてしにとうるかはっがこまですもらきをだりょれくあさよどおけそえせみちわつめほやばひねむべふじごゆぶげろずぼぜびへ"
_KATAKANA = "ンースイルトラリクアッドシレロタコジマフテプバメニカサグキオムデパミブナエダウビチハボャョポセノガュモツソケホピゴヤ"
_HANGUL = (
    "이다는의에을가한고지하사기를은로서도자리대나어시인해그들있정아과수일게부보상원으동라전여성제주경관면공만것조장구연선문세"
    "중유우미화실방내분국말안마간소무생당요거니오위러저와네진까했너데었때없던비물신않같더바습남모할절감겠치된개야며좋만년발날"
)
# Marks and signs of Europe, and of East Asia: natural logarithms of their shares.
_EUROPEAN = {"’": -5.8, "…": -6, **dict.fromkeys("“”‘–—•", -6.5), **dict.fromkeys("«»„€£°·™®©\xa0", -8)}
_EAST_ASIAN = {
    **dict.fromkeys("，。、", -4.5),
    **dict.fromkeys("！？：；（）「」『』《》【】～・　…“”", -5.5),
    **dict.fromkeys("’‘—·", -7.5),
}
# Leading bytes of the signs that every writer knows, in the encodings that list these first; nobody knows the rest.
_COMMON = {
    "chinese": ("gb2312", 0xB0, 0xD7),
    "traditional": ("big5", 0xA4, 0xC6),
    "japanese": ("euc_jp", 0xB0, 0xCF),
    "korean": ("euc_kr", 0xB0, 0xC8),
}
ANY = "any"  # language
_COMMON_SIGN = -10.0
_OTHER_BY_KIND = {"L": -12.0, "M": -12.0, "N": -11.0, "P": -11.0, "S": -11.0, "Z": -9.0, "C": -18.0}
_RARE_SIGN = -15.0


@cache
def _shares_of(language: str) -> dict[str, float]:
    """Natural logarithms of the shares of characters beyond ASCII; of others `_share_of_other`."""
    if language == ANY:
        found: dict[str, float] = {}
        for each in (*_LATIN, *_ALPHABETS, *_COMMON):
            found |= {letter: max(share, found.get(letter, share)) for letter, share in _shares_of(each).items()}
        return found
    if language in _LATIN:
        return _EUROPEAN | _ranked(_LATIN[language], 0.02, 6)
    if language in _ALPHABETS:
        return _EUROPEAN | _ranked(_ALPHABETS[language], 0.1, 10)
    frequent = {"chinese": _CHINESE, "traditional": _TRADITIONAL, "japanese": _KANJI, "korean": _HANGUL}[language]
    signs = {sign: math.log(0.17 / (rank + 4)) for rank, sign in enumerate(frequent)}
    shares = dict.fromkeys(_common_signs(language), _COMMON_SIGN) | signs | _EAST_ASIAN
    if language == "japanese":
        shares |= dict.fromkeys(map(chr, range(0xFF66, 0xFFA0)), -9.0)  # of half width
        shares |= _ranked(_KATAKANA, 0.02, 15) | _ranked(_KANA, 0.06, 15)
    return shares


def score_in(language: str, characters: Sequence[str]) -> float:
    """Natural logarithm of how likely characters beyond ASCII are in a text of a language."""
    shares = _shares_of(language)
    return sum(shares[each] if each in shares else _share_of_other(each) for each in characters)


@lru_cache(maxsize=100_000)
def _share_of_other(character: str) -> float:
    """The same of a character that the language doesn't use."""
    kind = unicodedata.category(character)
    return _RARE_SIGN if kind == "Lo" or character == "\ufffd" else _OTHER_BY_KIND[kind[0]]


def _ranked(letters: str, largest: float, fall: float) -> dict[str, float]:
    small = {letter: math.log(largest) - rank / fall for rank, letter in enumerate(letters)}
    capitals = {letter.upper(): share - 3 for letter, share in small.items() if len(letter.upper()) == 1}
    return capitals | small


def _common_signs(language: str) -> str:
    codec, first, last = _COMMON[language]
    pairs = (bytes((lead, trail)) for lead in range(first, last + 1) for trail in range(0x40, 0xFF))
    return "".join(pair.decode(codec, "ignore") for pair in pairs if pair[1] >= 0xA1 or codec == "big5")
