"""Sentences as people post them, in many languages, and the encodings that their computers write them in."""

# ruff: noqa: RUF001  (letters of many scripts)
# fmt: off

SENTENCES = {
    "english": [
        "I don’t think we’ve ever seen such a day", "she said “it’s fine” and left…",
        "can’t wait – it’s going to be great", "RT @friend: that’s what I’m talking about",
        "my café isn’t open on Mondays", "what a night! they’re “the best” #music",
    ],
    "french": [
        "il a été très déçu par la soirée", "ça va être génial à la plage",
        "où est passé le garçon ? là-bas, près de l’école", "nous sommes fatigués mais heureux, c’était un bel été",
        "RT @ami: voilà le café préféré de ma mère", "je n’ai pas mangé depuis hier, j’ai l’estomac vide à présent",
    ],
    "german": [
        "schöne Grüße aus München", "das Wetter könnte natürlich besser sein", "wir müssen früh aufstehen, heißt es",
        "so süß, der kleine Bär im Zoo", "Ärger über die Straße vor der Tür",
        "für mich ist das schönste Geschenk die Zeit",
    ],
    "spanish": [
        "¿dónde está el niño pequeño?", "mañana será otro día más", "¡qué ilusión volver a España!",
        "la canción más bonita del año", "mi corazón está contigo también",
        "los jóvenes cantan aquí después de la lección",
    ],
    "portuguese": [
        "não acredito que já é amanhã", "a estação está fechada, que confusão", "você é a melhor mãe do mundo",
    ],
    "polish": [
        "dziękuję za piękny dzień", "nie mogę się doczekać, będzie świetnie", "wszyscy są już w łóżku, cóż za noc",
        "źle się czuję, wróć proszę",
    ],
    "czech": [
        "příští týden přijede můj bratr", "děkuji všem, bylo to krásné", "řekni mi něco hezkého", "už zase prší",
    ],
    "hungarian": [
        "nagyon jó volt a hétvége, köszönöm", "hűvös az idő, de őszintén jó", "tökéletes kép a fiúról",
    ],
    "turkish": [
        "bugün hava çok güzel", "ışıklar söndü, çocuklar uyuyor", "teşekkür ederim, iyi akşamlar", "şimdi değil",
    ],
    "russian": [
        "сегодня отличная погода, идём гулять", "не могу поверить, что уже пятница", "Спасибо всем за поздравления!",
        "RT @друг: какой красивый закат", "очень грустно, что ты уехал", "мама мыла раму",
    ],
    "ukrainian": [
        "сьогодні дуже гарний день", "її немає вдома, їдемо додому", "щиро дякую всім за підтримку",
    ],
    "greek": [
        "σήμερα είναι ωραία μέρα", "ευχαριστώ πολύ για όλα", "δεν μπορώ να το πιστέψω",
    ],
    "hebrew": [
        "היום יום יפה מאוד", "תודה רבה לכולם", "אני לא מאמין שזה קרה",
    ],
    "arabic": [
        "اليوم الجو جميل جدا", "شكرا لكم جميعا على الدعم", "لا أصدق ما حدث هنا",
    ],
    "thai": [
        "วันนี้อากาศดีมาก", "ขอบคุณทุกคนมากครับ", "ไม่อยากเชื่อเลยว่าวันศุกร์แล้ว",
    ],
    "japanese": [
        "今日はとてもいい天気ですね", "明日友達と映画を見に行く。楽しみ！", "電車が遅れて会社に間に合わない…",
        "コーヒーを飲みながら本を読む", "RT @tomo: 新しいゲーム、最高だった", "ありがとうございました",
    ],
    "chinese": [
        "今天天气真好，我们去公园走走吧", "不敢相信已经是星期五了！", "谢谢大家的支持和关心…", "这家餐厅的菜很好吃",
        "RT @朋友: 周末一起看电影", "我好难过，你怎么走了？",
    ],
    "traditional": [
        "今天天氣真好，我們去公園走走吧", "不敢相信已經是星期五了！", "謝謝大家的支持和關心", "這家餐廳的菜很好吃",
        "RT @朋友: 週末一起看電影", "我好難過，你怎麼走了？",
    ],
    "korean": [
        "오늘 날씨가 정말 좋네요", "내일 친구와 영화를 보러 간다", "벌써 금요일이라니 믿을 수 없어",
        "모두 감사합니다 사랑해요", "RT @친구: 이 노래 너무 좋다", "커피 마시면서 책을 읽는다",
    ],
}
# Encoding and the languages that are written in it.
WRITTEN = {
    "cp1252": "english french german spanish portuguese", "latin-1": "german spanish portuguese",
    "mac_roman": "english french german", "cp850": "german spanish", "cp437": "german spanish", "cp863": "french",
    "cp860": "portuguese", "cp737": "greek", "mac_greek": "greek", "cp857": "turkish", "mac_turkish": "turkish",
    "cp862": "hebrew", "mac_latin2": "polish czech", "johab": "korean", "cp1250": "polish czech hungarian",
    "iso8859_2": "polish czech hungarian", "cp1254": "turkish", "cp1251": "russian ukrainian", "koi8_r": "russian",
    "koi8_u": "ukrainian", "iso8859_5": "russian", "cp866": "russian", "cp1253": "greek", "iso8859_7": "greek",
    "cp1255": "hebrew", "cp1256": "arabic", "cp874": "thai", "cp932": "japanese", "shift_jis": "japanese",
    "euc_jp": "japanese", "iso2022_jp": "japanese", "gb18030": "chinese traditional", "gbk": "chinese",
    "big5": "traditional", "big5hkscs": "traditional", "cp949": "korean", "euc_kr": "korean", "iso2022_kr": "korean",
    **{f"utf-{each}": " ".join(SENTENCES) for each in ("16-le", "16-be", "32-le", "32-be")},
}
CASES = [(codec, language) for codec, languages in WRITTEN.items() for language in languages.split()]
