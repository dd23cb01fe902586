# SPDX-License-Identifier: Apache-2.0
"""Random types and relocations of them: the same ones for the same seed.

Names come from few, so that what the object asks for is often there, nearly there, or there twice.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from tests import core_cases as cases
from tests.core_cases import Types
from xdpkit.btf import Btf
from xdpkit.btf import types as t
from xdpkit.errors import XdpkitError
from xdpkit.obj.core.access import SUBJECTS, Subject, Unfit, parse
from xdpkit.obj.core.value import evaluate
from xdpkit.obj.spec import CoreRelocation
from xdpkit.uapi.bpf import CoreReloKind as Kind

_ROOTS = ("s", "s", "s", "s___f", "r")
_MEMBERS = ("a", "b", "c", "d", "e", "a___x")
_INTEGERS = ("u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "bool", "long")
_MAX_DEPTH = 3


@dataclass(frozen=True)
class Question:
    """A relocation of ``code``, with the types on both sides."""

    local: Types
    target: Types
    relocation: CoreRelocation
    code: bytes

    def __repr__(self) -> str:
        lines = [f"{self.relocation} of {self.code.hex()}"]
        for side in (self.local, self.target):
            own = list(enumerate(Btf.parse(side.builder.build())))[len(Types().builder) :]
            lines += ["against" if side is self.target else "", *map(str, own)]
        return "\n".join(lines)


def question(seed: int) -> Question:
    """Return a well-formed relocation; the instruction mostly holds what it should.

    The target's types are what the object's would be, had their author made some decisions
    otherwise.
    """
    random = Random(seed)
    local, target = Types(), Types(pointer_size=random.choice((8, 8, 8, 4)))
    root = _Author(_Decisions(seed, 0)).root(local)
    for number in range(random.choice((0, 1, 1, 1, 2))):
        changed = random.choice((0, 0.02, 0.1))
        _Author(_Decisions(seed, changed, seed + number)).root(target)
    return _Author(random).question(local, target, root)


def corruptions(btf: bytes, seed: int) -> Iterator[bytes]:
    """Yield BTF with a few words of its types changed: ids, counts, kinds, offsets, sizes."""
    random = Random(seed)
    header_length, offset, length = struct.unpack_from("<III", btf, 4)
    start = header_length + offset
    words = range(start, start + length, 4)
    # The types that all have in common are of no interest.
    own = words[len(words) // 4 :]
    for _ in range(20):
        data = bytearray(btf)
        for at in random.sample(own, min(random.choice((1, 2, 4)), len(own))):
            word = random.choice((0, 1, 12, 13, 14, 0xFFFF, 0x84000002, 1 << 31, 0xFFFFFFFF))
            data[at : at + 4] = word.to_bytes(4, "little")
        yield bytes(data)


class _Decisions(Random):
    """The numbers of one seed, but for a share of them, which come from another."""

    def __init__(self, seed: int, changed: float, other: int = 0) -> None:
        self._changed = changed
        self._other = Random(~other)
        super().__init__(seed)

    def random(self) -> float:
        number = super().random()
        return self._other.random() if self._other.random() < self._changed else number


class _Author:
    def __init__(self, random: Random) -> None:
        self._random = random
        self._pick = random.choice

    def question(self, local: Types, target: Types, root: int) -> Question:
        btf = Btf.parse(local.builder.build())
        kinds = [kind for kind in Kind if SUBJECTS[kind] is Subject.TYPE]
        holder = btf[btf.strip(root)]
        if isinstance(holder, t.Struct | t.Union):
            kinds += [kind for kind in Kind if SUBJECTS[kind] is Subject.FIELD] * 3
        if isinstance(holder, t.Enum | t.Enum64):
            kinds += [Kind.ENUMVAL_EXISTS, Kind.ENUMVAL_VALUE] * 6
        kind = self._pick(kinds)
        access = "0" if SUBJECTS[kind] is Subject.TYPE else self._path(btf, root)
        relocation = CoreRelocation(0, root, access, kind)
        return Question(local, target, relocation, self._code(btf, relocation))

    def root(self, types: Types) -> int:
        name = self._pick(_ROOTS)
        form = self._random.random()
        if form < 0.65:
            return self._composite(types, name, 0)
        if form < 0.85:
            return self._enum(types, name)
        return types.typedef(name, self._type(types, 0))

    def _type(self, types: Types, depth: int) -> int:
        form = self._random.random() if depth < _MAX_DEPTH else 0
        if form < 0.4:
            return int(getattr(types, self._pick(_INTEGERS)))
        if form < 0.5:
            return self._enum(types, self._pick(("e", "e___f", "g", "")))
        if form < 0.6:
            return types.ptr(self._type(types, depth + 1))
        if form < 0.7:
            return types.array(self._type(types, depth + 1), self._pick((0, 1, 2, 3)))
        if form < 0.75:
            return types.typedef(self._pick(_MEMBERS), types.const(self._type(types, depth + 1)))
        if form < 0.8:
            params = [self._type(types, depth + 1) for _ in range(self._pick((0, 1, 2)))]
            return types.ptr(types.func(self._type(types, depth + 1), *params))
        if form < 0.85:
            union = self._pick((True, False))
            return types.ptr(types.fwd(self._pick(("in", "in___f", "out")), union=union))
        return self._composite(types, self._pick(("in", "in", "in___f", "out")), depth + 1)

    def _enum(self, types: Types, name: str) -> int:
        labels = self._random.sample(("A", "B", "C", "A___x"), self._pick((1, 2, 3)))
        values = [(label, self._pick((0, 1, 7, 2**31 - 1, -1, -(2**31)))) for label in labels]
        signed = any(value < 0 for _, value in values)
        make = types.enum64 if self._random.random() < 0.3 else types.enum
        return make(name, *values, signed=signed)

    def _composite(
        self, types: Types, name: str, depth: int, labels: tuple[str, ...] = _MEMBERS
    ) -> int:
        members: list[tuple[str, int, int]] = []
        own = self._random.sample(labels, min(self._pick((1, 2, 3)), len(labels)))
        # As in C, no name is twice in a struct, what is embedded in it included.
        free = tuple(label for label in labels if label not in own)
        for label in own:
            form = self._random.random()
            if form < 0.25 and free:
                members.append(("", self._composite(types, "", depth, free), 0))
                free = ()
            elif form < 0.4:
                of = int(getattr(types, self._pick(("u8", "u16", "u32", "u64", "s32"))))
                members.append((label, of, self._random.randint(1, 8)))
            else:
                members.append((label, self._type(types, depth + 1), 0))
        if self._random.random() < 0.3:
            return types.union(name, *[(label, of) for label, of, _ in members])
        return types.struct(name, *members)

    def _path(self, btf: Btf, root: int) -> str:
        at = btf[btf.strip(root)]
        if isinstance(at, t.Enum | t.Enum64):
            return str(self._random.randrange(len(at.values)))
        path = [self._pick((0, 0, 0, 1))]
        while self._random.random() < 0.8:
            if isinstance(at, t.Struct | t.Union):
                path.append(self._random.randrange(len(at.members)))
                at = btf[btf.strip(at.members[path[-1]].type_id)]
            elif isinstance(at, t.Array):
                path.append(self._random.randrange(max(at.count, 1)))
                at = btf[btf.strip(at.element_id)]
            else:
                break
        return ":".join(map(str, path))

    def _code(self, btf: Btf, relocation: CoreRelocation) -> bytes:
        kind = Kind(relocation.kind)
        try:
            access = parse(btf, relocation.type_id, relocation.access, SUBJECTS[kind])
            value = evaluate(kind, access)
        except (XdpkitError, Unfit):
            return cases.mov(0)
        number = value.number - (value.number >> 63 << 64)
        if self._random.random() < 0.05:
            number += 1
        forms: list[Callable[[int], bytes]] = [cases.wide]
        if -(2**31) <= number < 2**31:
            forms += [cases.mov, cases.add]
        size = value.memory_size
        if size in (1, 2, 4, 8) and number < 2**15:
            in_memory = [cases.load, cases.store, cases.store_constant]
            if size < 8:
                in_memory.append(cases.load_signed)
            access_memory = self._pick(in_memory)
            forms += [lambda offset: access_memory(size, offset)] * 4
        return self._pick(forms)(number)
