"""Made-up Jetstream v1 events: invented people writing invented things, in the shapes of the real stream.

For `manage.py play_jetstream --demo`, for tests and for benchmarks. The same seed and start make the same bytes.
One event in five is a profile, because the default subscription is on those; texts hold what breaks careless code:
emoji joined by ZWJ, right-to-left text, combining marks, quotes, backslashes, and now and then a record of 12 KB.
"""

from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from delivery.sources.jetstream.player import tid

PROFILE = "app.bsky.actor.profile"
POST = "app.bsky.feed.post"
LIKE = "app.bsky.feed.like"
REPOST = "app.bsky.feed.repost"
FOLLOW = "app.bsky.graph.follow"
BLOCK = "app.bsky.graph.block"
JOURNAL = "example.quill.journal.entry"  # the one with the 12 KB records

PEOPLE = 2_000
LONG_TEXT_BYTES = 12_000
_REMEMBERED = 5_000  # records that likes, replies, updates and deletes can refer to
_MOST_APART_US = 4_000  # between two events of make(): 2 ms on average, about the real stream's 450 a second

_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"

_OPENINGS = (
    "The kettle is singing again",
    "Third attempt at plum jam",
    "Rain on the tin roof since four",
    'My neighbour calls it "a modest shed"',
    "Lost the map, found the bakery",
    "C:\\temp is not a holiday destination",
    "Ein Igel wohnt jetzt unter der Bank",
    "Les cigales répètent la même note à l'infini",
    "El tren llegó tarde y nadie tenía prisa",
    "Ветер унёс шляпу, но вернул зонтик",
    "今朝は庭に小さな狐がいた",
    "오늘은 종이배를 접어 강에 띄웠다",
    "วันนี้ทะเลเงียบผิดปกติ",
    "आज छत पर तीन कबूतर बैठे थे",
    "القمر فوق الميناء يشبه فانوسًا قديمًا",
    "החתול ישן על המקלדת כל הבוקר",
    "باران که آمد، بوی خاک خانه را پر کرد",
    "Cafe\u0301 versus café: two spellings, one cup",
    "<b>not bold</b> & not sorry",
    "Tabs\tare for columns,\nlines are for poems",
)
_CLOSINGS = (
    "",
    ".",
    " 🫖",
    " 👩‍🌾🌱",
    " 👨‍👩‍👧‍👦",
    " 🏳️‍🌈",
    " 🧑🏽‍🚀✨",
    " 🇺🇳",
    " ❤️‍🔥",
    " #smallthings",
    " — naïve, I know…",
    " (שלום 123 עולם)",
    " Z͑ͫ̓a̷l̶g̸o̴",
    "\u2028and a line separator",
    " \U0001d523\U0001d51e\U0001d52b\U0001d520\U0001d536",
)
_FIRST_NAMES = ("Ottoline", "Bram", "Zéphine", "Tadeo", "Ilse", "Мирон", "葉月", "سلمى", "נועם", "Wren", "Quill", "Jørund")
_LAST_NAMES = ("Harrowgate", "of the Hill", "Pettifer", "🌻", "Vantongeren", "Saltmarsh", "ibn Waraq", "Oakapple", "🧶👵🏼")
_LANGUAGES = ("en", "de", "fr", "es", "ru", "ja", "ko", "th", "hi", "ar", "he", "fa")
_STATUSES = ("deactivated", "takendown", "suspended", "deleted", "throttled")

_encode = msgspec.json.Encoder().encode
_Event = dict[str, Any]


class Storyteller:
    """Makes one event after the other. Reproducible: all chance comes from the seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._chance = self._random.random
        # Content ids and texts are put together from parts made once: an event costs a few µs.
        self._cid_heads: list[str] = ["bafyrei" + self._pick("abcdefgh") + self._letters(12) for _ in range(1_024)]
        self._cid_middles: list[str] = [self._letters(13) for _ in range(1_024)]
        self._cid_tails: list[str] = [self._letters(12) + self._pick("aeimquy4") for _ in range(1_024)]
        self._people = [self._person(number) for number in range(PEOPLE)]
        self._posts: deque[tuple[str, str, str]] = deque([self._first_post()], _REMEMBERED)
        self._records: deque[tuple[str, str, str]] = deque(maxlen=_REMEMBERED)
        self._with_profile: set[str] = set()
        self._sequence = 1_000_000
        self._second = -1
        self._second_text = ""
        self._kinds: list[Callable[[str, int], _Event]] = self._wheel(
            (30, self._like),
            (21, self._profile),
            (18, self._post),
            (10, self._follow),
            (8, self._repost),
            (6, self._delete),
            (2, self._edit),
            (1, self._block),
            (2, self._identity),
            (2, self._account),
        )

    def tell(self, time_us: int) -> bytes:
        """The next event, as its line on the wire, with this time_us. Times must rise."""
        random = self._chance()
        did = self._people[int(self._chance() * PEOPLE)]
        make = self._journal if random > 0.998 else self._kinds[int(random * 100)]
        return _encode({"did": did, "time_us": time_us} | make(did, time_us))

    # --- Commits ---------------------------------------------------------------------------------------------------

    def _like(self, did: str, time_us: int) -> _Event:
        return self._create(did, time_us, LIKE, {"$type": LIKE, "createdAt": self._iso(time_us), "subject": self._a_post()})

    def _repost(self, did: str, time_us: int) -> _Event:
        return self._create(did, time_us, REPOST, {"$type": REPOST, "createdAt": self._iso(time_us), "subject": self._a_post()})

    def _follow(self, did: str, time_us: int) -> _Event:
        return self._create(did, time_us, FOLLOW, {"$type": FOLLOW, "createdAt": self._iso(time_us), "subject": self._pick(self._people)})

    def _block(self, did: str, time_us: int) -> _Event:
        return self._create(did, time_us, BLOCK, {"$type": BLOCK, "createdAt": self._iso(time_us), "subject": self._pick(self._people)})

    def _post(self, did: str, time_us: int) -> _Event:
        event = self._create(did, time_us, POST, self._post_record(time_us))
        self._posts.append((did, event["commit"]["rkey"], event["commit"]["cid"]))
        return event

    def _journal(self, did: str, time_us: int) -> _Event:
        text = self._text()
        while len(text.encode()) < LONG_TEXT_BYTES:
            text = f"{text}\n{self._text()} {text[:2_000]}"
        text = text.encode()[:LONG_TEXT_BYTES].decode(errors="ignore")
        return self._create(did, time_us, JOURNAL, {"$type": JOURNAL, "createdAt": self._iso(time_us), "text": text, "title": self._text()})

    def _profile(self, did: str, time_us: int) -> _Event:
        if did in self._with_profile and self._chance() < 0.05:
            self._with_profile.remove(did)
            return self._commit(did, time_us, "delete", PROFILE, "self")
        operation = "update" if did in self._with_profile else "create"
        self._with_profile.add(did)
        record = {
            "$type": PROFILE,
            "avatar": {"$type": "blob", "ref": {"$link": self._cid().replace("bafyrei", "bafkrei")}, "mimeType": "image/jpeg", "size": time_us % 900_000 + 1},
            "createdAt": self._iso(time_us),
            "description": self._text(),
            "displayName": f"{self._pick(_FIRST_NAMES)} {self._pick(_LAST_NAMES)}",
        }
        return self._commit(did, time_us, operation, PROFILE, "self", record)

    def _edit(self, _: str, time_us: int) -> _Event:
        did, rkey, _cid = self._pick(self._posts)
        return {"did": did} | self._commit(did, time_us, "update", POST, rkey, self._post_record(time_us))

    def _delete(self, did: str, time_us: int) -> _Event:
        if not self._records:
            return self._like(did, time_us)
        did, collection, rkey = self._records.popleft()
        return {"did": did} | self._commit(did, time_us, "delete", collection, rkey)

    def _create(self, did: str, time_us: int, collection: str, record: _Event) -> _Event:
        rkey = tid.encode(time_us - 20_000, int(self._chance() * 1_024))
        if self._chance() < 0.1:
            self._records.append((did, collection, rkey))
        return self._commit(did, time_us, "create", collection, rkey, record)

    def _commit(self, did: str, time_us: int, operation: str, collection: str, rkey: str, record: _Event | None = None) -> _Event:
        commit: _Event = {"rev": tid.encode(time_us, int(self._chance() * 1_024)), "operation": operation, "collection": collection, "rkey": rkey}
        if record is not None:
            commit["record"] = record
            commit["cid"] = self._cid()
        return {"kind": "commit", "commit": commit}

    # --- Identity and account --------------------------------------------------------------------------------------

    def _identity(self, did: str, time_us: int) -> _Event:
        identity = {"did": did, **self._sequenced(time_us)}
        if self._chance() < 0.7:
            identity["handle"] = f"{self._letters(8)}.orchard.example"
        return {"kind": "identity", "identity": identity}

    def _account(self, did: str, time_us: int) -> _Event:
        if self._chance() < 0.6:
            return {"kind": "account", "account": {"active": True, "did": did, **self._sequenced(time_us)}}
        return {"kind": "account", "account": {"active": False, "did": did, **self._sequenced(time_us), "status": self._pick(_STATUSES)}}

    def _sequenced(self, time_us: int) -> _Event:
        self._sequence += 1
        return {"seq": self._sequence, "time": self._iso(time_us)}

    # --- Parts -----------------------------------------------------------------------------------------------------

    def _post_record(self, time_us: int) -> _Event:
        record: _Event = {"$type": POST, "createdAt": self._iso(time_us), "langs": [self._pick(_LANGUAGES)]}
        if self._chance() < 0.3:
            post = self._a_post()
            record["reply"] = {"parent": post, "root": post}
        record["text"] = self._text()
        return record

    def _a_post(self) -> _Event:
        did, rkey, cid = self._pick(self._posts)
        return {"cid": cid, "uri": f"at://{did}/{POST}/{rkey}"}

    def _first_post(self) -> tuple[str, str, str]:
        return self._people[0], tid.encode(1_700_000_000_000_000, 1), self._cid()

    def _text(self) -> str:
        text: str = self._pick(_OPENINGS) + self._pick(_CLOSINGS)
        return text if self._chance() < 0.5 else f"{text} {self._pick(_OPENINGS)}{self._pick(_CLOSINGS)}"

    def _person(self, number: int) -> str:
        return f"did:web:{self._letters(7)}.orchard.example" if number % 50 == 49 else "did:plc:" + self._letters(24)

    def _cid(self) -> str:
        """A CIDv1 of dag-cbor and sha-256 in base32, 59 characters."""
        bits = self._random.getrandbits(40)
        middles: list[str] = self._cid_middles
        return self._cid_heads[bits & 1023] + middles[bits >> 10 & 1023] + middles[bits >> 20 & 1023] + self._cid_tails[bits >> 30]

    def _iso(self, time_us: int) -> str:
        second, rest = divmod(time_us, 1_000_000)
        if second != self._second:
            self._second, self._second_text = second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._second_text}.{rest // 1_000:03d}Z"

    def _letters(self, count: int) -> str:
        return "".join(self._random.choices(_BASE32, k=count))

    def _pick(self, items: Any) -> Any:
        return items[int(self._chance() * len(items))]

    @staticmethod
    def _wheel(*shares: tuple[int, Callable[[str, int], _Event]]) -> list[Callable[[str, int], _Event]]:
        """A list of 100, in which each maker has its share in per cent."""
        return [make for share, make in shares for _ in range(share)]


def make(seed: int, start_us: int) -> Iterator[bytes]:
    """Endless events, one line each without a newline; time_us rises from start_us (Unix µs) by 2 ms on average."""
    storyteller, steps = Storyteller(seed), Random(seed)
    time_us = start_us
    while True:
        yield storyteller.tell(time_us)
        time_us += 1 + int(steps.random() * _MOST_APART_US)


def write(path: Path | str, count: int, seed: int = 1, start_us: int = 1_780_000_000_000_000) -> None:
    """Write an NDJSON file of `count` events; the same arguments make the same file."""
    events = make(seed, start_us)
    with Path(path).open("wb") as file:
        for _ in range(count):
            file.write(next(events) + b"\n")
