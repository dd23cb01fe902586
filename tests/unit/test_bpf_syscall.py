# SPDX-License-Identifier: Apache-2.0
"""The funnel of bpf(2), with a kernel that answers what a test wants."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from xdpkit.errors import KernelRefused, MissingPrivilege, RequirementUnmet
from xdpkit.syscalls import bpf, privilege
from xdpkit.syscalls.bpf import LogBuffer, NewMap, NewProgram, ObjectKind, TestRun
from xdpkit.uapi import attr
from xdpkit.uapi.bpf import Cmd, MapType, ProgType
from xdpkit.uapi.capability import Capability

ARRAY = NewMap(type=MapType.ARRAY, key_size=4, value_size=8, max_entries=1, name="a" * 20)
PROGRAM = NewProgram(type=ProgType.XDP, code=bytes(16), license="GPL", name="p")


class Kernel:
    """Stands in for the kernel: answers calls from a list, and remembers them."""

    def __init__(self, *answers: int | Callable[[Any], int]) -> None:
        self.answers = iter(answers)
        self.calls: list[tuple[int, bytes]] = []

    def __call__(self, cmd: int, argument: ctypes.Structure) -> int:
        self.calls.append((cmd, bytes(argument)))
        answer = next(self.answers)
        return answer if isinstance(answer, int) else answer(argument)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Kernel]]:
    """Replace the kernel by one that gives these answers, all of which must be asked for."""
    made = []

    def replace(*answers: int | Callable[[Any], int]) -> Kernel:
        made.append(Kernel(*answers))
        monkeypatch.setattr(bpf, "funnel", made[-1])
        return made[-1]

    yield replace
    for each in made:
        assert next(each.answers, None) is None, "the kernel was asked less than expected"


@pytest.fixture
def all_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privilege, "effective_capabilities", lambda: (1 << 64) - 1)
    monkeypatch.setattr(privilege, "in_initial_user_namespace", lambda: True)


def _new_descriptor(_: object) -> int:
    return os.open("/dev/null", os.O_RDONLY)


def test_a_refusal_carries_what_was_tried_and_the_errno(kernel: Callable[..., Kernel]) -> None:
    kernel(-errno.EINVAL)
    with pytest.raises(KernelRefused, match=r"create map a: cause unknown \(EINVAL\)") as refused:
        bpf.map_create(ARRAY, what="create map a")
    assert refused.value.errno == errno.EINVAL


def test_a_name_is_cut_to_what_the_kernel_takes(kernel: Callable[..., Kernel]) -> None:
    calls = kernel(_new_descriptor).calls
    bpf.map_create(ARRAY, what="create").close()
    assert attr.MapCreate.from_buffer_copy(calls[0][1]).map_name == b"a" * 15


@pytest.mark.usefixtures("all_capabilities")
def test_a_load_that_a_signal_interrupts_is_tried_again(kernel: Callable[..., Kernel]) -> None:
    kernel(-errno.EAGAIN, -errno.EINTR, _new_descriptor)
    bpf.prog_load(PROGRAM, what="load").close()


def test_a_load_is_not_tried_for_ever(kernel: Callable[..., Kernel]) -> None:
    kernel(*[-errno.EAGAIN] * 5)
    with pytest.raises(KernelRefused) as refused:
        bpf.prog_load(PROGRAM, what="load")
    assert refused.value.errno == errno.EAGAIN


def test_a_missing_capability_is_named(
    kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privilege, "effective_capabilities", lambda: 1 << Capability.BPF)
    kernel(-errno.EPERM)
    with pytest.raises(MissingPrivilege, match="lacks CAP_NET_ADMIN") as missing:
        bpf.prog_load(PROGRAM, what="load program p")
    assert missing.value.what == "load program p"
    kernel(-errno.EPERM)
    with pytest.raises(MissingPrivilege, match="lacks CAP_SYS_ADMIN"):
        list(bpf.ids(ObjectKind.MAP))


@pytest.mark.parametrize(
    ("type", "lacking"),
    [
        (ProgType.XDP, "CAP_NET_ADMIN"),
        (ProgType.TRACING, "CAP_PERFMON"),
        (ProgType.EXT, "CAP_NET_ADMIN and CAP_PERFMON"),
    ],
)
def test_what_a_load_needs_depends_on_the_type(
    type: ProgType, lacking: str, kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privilege, "effective_capabilities", lambda: 1 << Capability.BPF)
    kernel(-errno.EPERM)
    with pytest.raises(MissingPrivilege, match=f"lacks {lacking}"):
        bpf.prog_load(replace(PROGRAM, type=type), what="load")


@pytest.mark.usefixtures("all_capabilities")
def test_with_all_capabilities_a_policy_is_to_blame(
    kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privilege, "lift_memlock", lambda: None)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    kernel(-errno.EPERM)
    with pytest.raises(KernelRefused, match="security policy"):
        bpf.map_create(ARRAY, what="create")


@pytest.mark.usefixtures("all_capabilities")
def test_in_a_user_namespace_capabilities_do_not_count(
    kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privilege, "in_initial_user_namespace", lambda: False)
    monkeypatch.setattr(privilege, "lift_memlock", lambda: None)
    kernel(-errno.EPERM)
    with pytest.raises(MissingPrivilege, match="user namespace"):
        bpf.map_create(ARRAY, what="create")


@pytest.mark.usefixtures("all_capabilities")
def test_the_memory_limit_of_old_kernels_is_lifted_and_put_back(
    kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [(65536, 65536)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    kernel(-errno.EPERM, _new_descriptor)
    bpf.map_create(ARRAY, what="create").close()
    assert limits == [(65536, 65536), infinite]
    limits[:] = [(65536, 65536)]
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "h", "5.10.0", "v", "m")))
    kernel(-errno.EPERM, -errno.EPERM)
    with pytest.raises(MissingPrivilege, match="limited to 65536 bytes"):
        bpf.map_create(ARRAY, what="create")
    assert limits == [(65536, 65536), infinite, (65536, 65536)]


def test_a_kernel_without_bpf_is_unmet(kernel: Callable[..., Kernel]) -> None:
    kernel(-errno.ENOSYS)
    with pytest.raises(RequirementUnmet, match="CONFIG_BPF_SYSCALL"):
        bpf.map_create(ARRAY, what="create")


def test_absence_is_a_value(kernel: Callable[..., Kernel]) -> None:
    kernel(*[-errno.ENOENT] * 6)
    assert bpf.map_lookup(3, b"key", 8) is None
    assert bpf.map_delete(3, b"key") is False
    assert bpf.map_next_key(3, None, 4) is None
    assert bpf.obj_get("/sys/fs/bpf/x", what="open") is None
    assert bpf.fd_by_id(ObjectKind.LINK, 1) is None
    assert list(bpf.ids(ObjectKind.PROGRAM)) == []


def test_a_batch_that_ends_early_says_how_far_it_came(kernel: Callable[..., Kernel]) -> None:
    def stops(argument: attr.MapBatch) -> int:
        argument.count = 2
        return -errno.E2BIG

    kernel(0, stops, -errno.EINVAL)
    assert bpf.map_update_batch(3, bytes(16), bytes(32), 4) == (4, 0)
    assert bpf.map_update_batch(3, bytes(16), bytes(32), 4) == (2, errno.E2BIG)
    # A kernel without batches leaves the count alone.
    assert bpf.map_update_batch(3, bytes(16), bytes(32), 4) == (0, errno.EINVAL)


def test_the_last_batch_has_no_cursor(kernel: Callable[..., Kernel]) -> None:
    def some(argument: attr.MapBatch) -> int:
        argument.count = 3
        return 0

    def rest(argument: attr.MapBatch) -> int:
        argument.count = 1
        return -errno.ENOENT

    kernel(some, rest)
    first = bpf.map_lookup_batch(3, None, 5, key_size=4, value_size=8)
    assert (first.count, len(first.keys), len(first.values)) == (3, 12, 24)
    assert first.cursor is not None
    last = bpf.map_lookup_batch(3, first.cursor, 5, key_size=4, value_size=8)
    assert (last.count, last.cursor) == (1, None)


def test_a_full_log_is_told_from_one_that_fits(kernel: Callable[..., Kernel]) -> None:
    def writes(text: bytes) -> Callable[[attr.ProgLoad], int]:
        def answer(argument: attr.ProgLoad) -> int:
            ctypes.memmove(argument.log_buf, text, len(text))
            return -errno.EACCES

        return answer

    kernel(writes(b"short"), writes(b"x" * 63))
    for is_full in (False, True):
        log = LogBuffer(64)
        with pytest.raises(KernelRefused):
            bpf.prog_load(PROGRAM, what="load", log=log, log_level=1)
        assert log.is_full is is_full


def test_btf_that_is_refused_is_explained_in_the_kernels_words(
    kernel: Callable[..., Kernel],
) -> None:
    def says(argument: attr.BtfLoad) -> int:
        text = b"magic: 0xeb9f\n[1] FLOAT float Invalid kind\n"
        ctypes.memmove(argument.btf_log_buf, text, len(text))
        return -errno.EINVAL

    kernel(-errno.EINVAL, says)
    with pytest.raises(KernelRefused, match=r"\[1\] FLOAT float Invalid kind"):
        bpf.btf_load(b"types")


def test_a_packet_that_outgrew_its_room_is_reported_with_its_size(
    kernel: Callable[..., Kernel],
) -> None:
    def grows(argument: attr.TestRun) -> int:
        argument.data_size_out = 100
        argument.retval = 2
        return -errno.ENOSPC

    kernel(grows, -errno.ENOSPC)
    outcome = bpf.prog_test_run(3, TestRun(data=bytes(14), data_out_size=50), what="run")
    assert (outcome.data_size, len(outcome.data), outcome.retval) == (100, 50, 2)
    with pytest.raises(KernelRefused):
        bpf.prog_test_run(3, TestRun(data=bytes(14), data_out_size=50), what="run")


def test_ids_are_walked_from_the_last_one_seen(kernel: Callable[..., Kernel]) -> None:
    def following(number: int) -> Callable[[attr.GetId], int]:
        def answer(argument: attr.GetId) -> int:
            argument.next_id = number
            return 0

        return answer

    calls = kernel(following(5), following(9), -errno.ENOENT).calls
    assert list(bpf.ids(ObjectKind.PROGRAM)) == [5, 9]
    assert [attr.GetId.from_buffer_copy(data).start_id for _, data in calls] == [0, 5, 9]
    assert {cmd for cmd, _ in calls} == {Cmd.PROG_GET_NEXT_ID}


@pytest.mark.parametrize("number", [0, 3, 64, 65, 200])
def test_the_ids_of_all_maps_of_a_program_are_read_however_many(
    kernel: Callable[..., Kernel], number: int
) -> None:
    def tell(argument: attr.GetInfo) -> int:
        info = attr.ProgInfo.from_address(argument.info)
        room, info.nr_map_ids = info.nr_map_ids, number
        written = min(room, number)
        (ctypes.c_uint32 * written).from_address(info.map_ids)[:] = range(1, written + 1)
        return 0

    kernel(*[tell] * (1 if number <= 64 else 2))
    info, map_ids = bpf.prog_info(3)
    assert map_ids == tuple(range(1, number + 1))
    assert info.nr_map_ids == number


@pytest.mark.parametrize("number", [0, 1, 3])
def test_the_function_records_of_a_program_are_read(
    kernel: Callable[..., Kernel], number: int
) -> None:
    records = struct.pack(f"={2 * number}I", *range(2 * number))

    def tell(argument: attr.GetInfo) -> int:
        info = attr.ProgInfo.from_address(argument.info)
        if info.nr_func_info:
            assert (info.nr_func_info, info.func_info_rec_size) == (number, 8)
            ctypes.memmove(info.func_info, records, len(records))
        info.nr_func_info = number
        return 0

    kernel(*[tell] * (2 if number else 1))
    assert bpf.prog_func_info(3) == records


@pytest.mark.parametrize(("module", "program", "sent"), [(0, 0, 0), (7, 0, 7), (0, 9, 9)])
def test_a_program_is_loaded_for_a_function_of_the_kernel_a_module_or_a_program(
    kernel: Callable[..., Kernel], module: int, program: int, sent: int
) -> None:
    def check(argument: attr.ProgLoad) -> int:
        assert (argument.attach_btf_id, argument.attach_btf_obj_fd) == (5, sent)
        return -errno.EINVAL

    kernel(check)
    new = replace(
        PROGRAM,
        type=ProgType.TRACING,
        attach_btf_id=5,
        attach_btf_fd=module,
        attach_prog_fd=program,
    )
    with pytest.raises(KernelRefused):
        bpf.prog_load(new, what="load")


@pytest.mark.parametrize(
    ("needed", "effective", "last", "missing"),
    [
        ({Capability.BPF, Capability.NET_ADMIN}, 0, 40, (Capability.NET_ADMIN, Capability.BPF)),
        ({Capability.BPF}, 1 << Capability.BPF, 40, ()),
        ({Capability.BPF, Capability.NET_ADMIN}, 1 << Capability.SYS_ADMIN, 40, ()),
        # Before Linux 5.8 there was no CAP_BPF.
        ({Capability.BPF}, 1 << Capability.NET_ADMIN, 37, (Capability.SYS_ADMIN,)),
    ],
)
def test_what_a_capability_mask_lacks(
    needed: set[Capability], effective: int, last: int, missing: tuple[Capability, ...]
) -> None:
    assert privilege.missing_capabilities(needed, effective=effective, last=last) == missing
