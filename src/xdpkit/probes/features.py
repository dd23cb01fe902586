# SPDX-License-Identifier: Apache-2.0
"""The features that can be asked for, and how each is asked.

Each row names the first release with the feature and the subject of the commit that brought it.
Nothing is decided by release: distributions backport.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from xdpkit.errors import MissingPrivilege, XdpkitError
from xdpkit.isa import asm
from xdpkit.isa.opcodes import Register
from xdpkit.probes.ask import (
    ABSENT,
    BYTEORDER,
    RETURN_0,
    TRIVIAL_MAP,
    TRIVIAL_PROGRAM,
    XDP_DROP_PROGRAM,
    Reply,
    ask,
    ask_against,
    ask_map,
    ask_program,
    create,
    load,
    machine_code,
)
from xdpkit.probes.btf import INT_BTF, XDP_FUNCTION_BTF, XDP_FUNCTION_ID, ask_btf
from xdpkit.probes.finding import Answer
from xdpkit.syscalls import bpf, privilege
from xdpkit.syscalls.bpf import NewMap, TestRun
from xdpkit.uapi import attr
from xdpkit.uapi.bpf import (
    AttachType,
    Cmd,
    MapFlags,
    MapType,
    ProgFlags,
    ProgType,
    PseudoSrc,
    TestRunFlags,
    XdpAction,
)
from xdpkit.uapi.capability import Capability

_BROADCAST = 8  # BPF_F_BROADCAST


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that a kernel may lack.

    Attributes:
        name: what it is called here.
        since: the first Linux release with it.
        commit: subject of the commit that brought it.
        ask: puts the question.
    """

    name: str
    since: str
    commit: str
    ask: Callable[[], Reply]


def _ask_global_data() -> Reply:
    with create(TRIVIAL_MAP) as values:
        program = replace(
            TRIVIAL_PROGRAM,
            code=machine_code(
                asm.ld_map_value(Register.R1, values.fileno(), 0),
                asm.store(Register.R1, 0, 42),
                *RETURN_0,
            ),
        )
        return ask_program("BPF_PROG_LOAD with BPF_PSEUDO_MAP_VALUE", program)


def _ask_freeze() -> Reply:
    with create(TRIVIAL_MAP) as values:
        return ask("BPF_MAP_FREEZE", lambda: bpf.map_freeze(values.fileno()))


def _ask_bind() -> Reply:
    with create(TRIVIAL_MAP) as values, load(TRIVIAL_PROGRAM) as program:
        return ask(
            "BPF_PROG_BIND_MAP", lambda: bpf.prog_bind_map(program.fileno(), values.fileno())
        )


def _ask_batch() -> Reply:
    with create(TRIVIAL_MAP) as values:
        return ask(
            "BPF_MAP_LOOKUP_BATCH of an array",
            lambda: bpf.map_lookup_batch(values.fileno(), None, 1, key_size=4, value_size=8),
        )


def _ask_module_btf() -> Reply:
    with bpf.btf_load(INT_BTF) as types:
        return ask(
            "BPF_OBJ_GET_INFO_BY_FD with a place for the BTF's name",
            lambda: bpf.btf_info(types.fileno()),
        )


def _ask_bpf_link_xdp() -> Reply:
    # No program has descriptor -1. A kernel that knows the attach type says so; an older one
    # refuses the type first. Nothing can get attached.
    argument = attr.LinkCreate(prog_fd=0xFFFFFFFF, attach_type=AttachType.XDP)
    result = -bpf.funnel(Cmd.LINK_CREATE, argument)
    question = "BPF_LINK_CREATE for BPF_XDP without a program"
    answers = {errno.EBADF: (Answer.YES, "EBADF"), errno.EINVAL: (Answer.NO, "EINVAL")}
    answer, said = answers.get(result, (Answer.UNKNOWN, str(result)))
    return answer, f"{question}: {said}"


def _ask_test_run(question: str, run: TestRun) -> Reply:
    plain = TestRun(data=bytes(64), repeat=1)
    with load(XDP_DROP_PROGRAM) as program:
        number = program.fileno()
        return ask_against(
            question,
            lambda: bpf.prog_test_run(number, run, what="probe"),
            lambda: bpf.prog_test_run(number, plain, what="probe"),
        )


def _ask_test_run_context() -> Reply:
    run = TestRun(data=bytes(64), context=bytes(attr.XdpMd(data_end=64)), repeat=1)
    return _ask_test_run("BPF_PROG_TEST_RUN with a struct xdp_md", run)


def _ask_live_frames() -> Reply:
    # Older kernels do not look at the flags of XDP programs; the batch size they do not know.
    run = TestRun(data=bytes(64), repeat=1, flags=TestRunFlags.XDP_LIVE_FRAMES, batch_size=1)
    return _ask_test_run("BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES", run)


def _ask_attach_cookie() -> Reply:
    new = replace(
        TRIVIAL_PROGRAM,
        type=ProgType.KPROBE,
        code=machine_code(asm.call("get_attach_cookie"), asm.exit()),
    )
    return ask_program(
        "BPF_PROG_LOAD with bpf_get_attach_cookie()", new, code=machine_code(*RETURN_0)
    )


def _ask_fd_array() -> Reply:
    with create(TRIVIAL_MAP) as values:
        by_index = replace(
            TRIVIAL_PROGRAM,
            code=machine_code(asm.ld_imm64(Register.R1, 0, source=PseudoSrc.MAP_IDX), *RETURN_0),
            fd_array=values.fileno().to_bytes(4, BYTEORDER),
        )
        return ask_program("BPF_PROG_LOAD with fd_array", by_index)


def _ask_freplace() -> Reply:
    with bpf.btf_load(XDP_FUNCTION_BTF) as types:
        described = replace(
            XDP_DROP_PROGRAM,
            btf_fd=types.fileno(),
            func_info=struct.pack("=II", 0, XDP_FUNCTION_ID),
        )
        with load(described) as replaced:
            extension = replace(
                described,
                type=ProgType.EXT,
                attach_btf_id=XDP_FUNCTION_ID,
                attach_btf_fd=replaced.fileno(),
            )
            # A security policy can refuse this type alone; then nobody here has it.
            allowed = not privilege.lacks((Capability.PERFMON,))
            return ask(
                "BPF_PROG_LOAD of BPF_PROG_TYPE_EXT",
                lambda: load(extension).close(),
                absent=ABSENT | {errno.EPERM} if allowed else ABSENT,
            )


def _ask_redirect_broadcast() -> Reply:
    # What it returns tells: older kernels load it, and take the flag for a mistake at run time.
    question = "BPF_PROG_TEST_RUN of bpf_redirect_map() with BPF_F_BROADCAST"
    with create(NewMap(MapType.DEVMAP, 4, 4, 1)) as targets:
        program = replace(
            XDP_DROP_PROGRAM,
            code=machine_code(
                asm.ld_imm64(Register.R1, targets.fileno(), source=PseudoSrc.MAP_FD),
                asm.mov(Register.R2, 0),
                asm.mov(Register.R3, _BROADCAST),
                asm.call("redirect_map"),
                asm.exit(),
            ),
        )
        try:
            with load(program) as loaded:
                run = TestRun(data=bytes(64), repeat=1)
                action = bpf.prog_test_run(loaded.fileno(), run, what="probe").retval
        except MissingPrivilege as error:
            return Answer.UNKNOWN, f"{question}: {error.cause}"
        except XdpkitError as error:
            return Answer.UNKNOWN, f"{question}: {error}"
    answers = {int(XdpAction.REDIRECT): Answer.YES, int(XdpAction.ABORTED): Answer.NO}
    return answers.get(action, Answer.UNKNOWN), f"{question}: it returns {action}"


def _ask_run_stats() -> Reply:
    return ask("BPF_ENABLE_STATS", lambda: bpf.enable_run_stats().close())


def _btf(name: str, since: str, commit: str) -> Feature:
    return Feature(name, since, commit, lambda: ask_btf(name))


def _map_flag(name: str, since: str, commit: str, flag: MapFlags) -> Feature:
    new = replace(TRIVIAL_MAP, flags=flag)
    question = f"BPF_MAP_CREATE with BPF_F_{flag.name}"
    return Feature(name, since, commit, lambda: ask_map(question, new, flags=0))


_ALL = (
    Feature(
        "program-name",
        "4.15",
        "bpf: Add name, load_time, uid and map_ids to bpf_prog_info",
        lambda: ask_program(
            "BPF_PROG_LOAD with prog_name", replace(TRIVIAL_PROGRAM, name="probe"), name=""
        ),
    ),
    Feature(
        "map-name",
        "4.15",
        "bpf: Add map_name to bpf_map_info",
        lambda: ask_map(
            "BPF_MAP_CREATE with map_name", replace(TRIVIAL_MAP, name="probe"), name=""
        ),
    ),
    Feature(
        "map-name-dot",
        "5.2",
        "bpf: allow . char as part of the object name",
        lambda: ask_map(
            "BPF_MAP_CREATE with a dot in map_name", replace(TRIVIAL_MAP, name="a.b"), name=""
        ),
    ),
    Feature(
        "expected-attach-type",
        "4.17",
        "bpf: Check attach type at prog load time",
        lambda: ask_program(
            "BPF_PROG_LOAD with expected_attach_type",
            replace(
                TRIVIAL_PROGRAM,
                type=ProgType.CGROUP_SOCK,
                attach_type=AttachType.CGROUP_INET_SOCK_CREATE,
            ),
            attach_type=0,
        ),
    ),
    _btf("btf", "4.18", "bpf: btf: Introduce BPF Type Format (BTF)"),
    _btf("btf-func", "5.0", "bpf: btf: Add BTF_KIND_FUNC"),
    _btf("btf-datasec", "5.2", "bpf: kernel side support for BTF Var and DataSec"),
    _btf("btf-func-global", "5.6", "bpf: Introduce function-by-function verification"),
    _btf("btf-float", "5.13", "bpf: Add BTF_KIND_FLOAT support"),
    _btf("btf-decl-tag", "5.16", "bpf: Support for new btf kind BTF_KIND_TAG"),
    _btf("btf-type-tag", "5.17", "bpf: Support BTF_KIND_TYPE_TAG for btf_type_tag attributes"),
    _btf("btf-enum64", "6.0", "bpf: Add btf enum64 support"),
    Feature(
        "global-data",
        "5.2",
        "bpf: implement lookup-free direct value access for maps",
        _ask_global_data,
    ),
    _map_flag(
        "map-rdonly-prog",
        "5.2",
        "bpf: add program side {rd, wr}only support for maps",
        MapFlags.RDONLY_PROG,
    ),
    Feature("map-freeze", "5.2", "bpf: add syscall side map freeze support", _ask_freeze),
    _map_flag(
        "map-mmapable", "5.5", "bpf: Add mmap() support for BPF_MAP_TYPE_ARRAY", MapFlags.MMAPABLE
    ),
    Feature("batch", "5.6", "bpf: Add generic support for lookup batch op", _ask_batch),
    Feature("freplace", "5.6", "bpf: Introduce dynamic program extensions", _ask_freplace),
    Feature(
        "ringbuf",
        "5.8",
        "bpf: Implement BPF ring buffer and verifier support for it",
        lambda: ask_map(
            "BPF_MAP_CREATE of a ring buffer",
            replace(
                TRIVIAL_MAP, type=MapType.RINGBUF, key_size=0, value_size=0, max_entries=1 << 16
            ),
            type=MapType.ARRAY,
            key_size=4,
            value_size=8,
            max_entries=1,
        ),
    ),
    Feature(
        "run-stats", "5.8", "bpf: Sharing bpf runtime stats with BPF_ENABLE_STATS", _ask_run_stats
    ),
    Feature(
        "bpf-link-xdp",
        "5.9",
        "bpf, xdp: Add bpf_link-based XDP attachment API",
        _ask_bpf_link_xdp,
    ),
    Feature("prog-bind-map", "5.10", "bpf: Add BPF_PROG_BIND_MAP syscall", _ask_bind),
    Feature(
        "module-btf",
        "5.11",
        "bpf: Assign ID to vmlinux BTF and return extra info for BTF in GET_OBJ_INFO",
        _ask_module_btf,
    ),
    Feature("fd-array", "5.14", "bpf: Introduce fd_idx", _ask_fd_array),
    Feature(
        "redirect-broadcast",
        "5.14",
        "xdp: Extend xdp_redirect_map with broadcast support",
        _ask_redirect_broadcast,
    ),
    Feature(
        "attach-cookie",
        "5.15",
        "bpf: Allow to specify user-provided bpf_cookie for BPF perf links",
        _ask_attach_cookie,
    ),
    Feature(
        "bloom-filter",
        "5.16",
        "bpf: Add bloom filter map implementation",
        lambda: ask_map(
            "BPF_MAP_CREATE of a bloom filter",
            replace(TRIVIAL_MAP, type=MapType.BLOOM_FILTER, key_size=0),
            type=MapType.ARRAY,
            key_size=4,
        ),
    ),
    Feature(
        "test-run-context",
        "5.15",
        "bpf: Support input xdp_md context in BPF_PROG_TEST_RUN",
        _ask_test_run_context,
    ),
    Feature(
        "xdp-frags",
        "5.18",
        "bpf: introduce BPF_F_XDP_HAS_FRAGS flag in prog_flags loading the ebpf program",
        lambda: ask_program(
            "BPF_PROG_LOAD of XDP with BPF_F_XDP_HAS_FRAGS",
            replace(XDP_DROP_PROGRAM, flags=ProgFlags.XDP_HAS_FRAGS),
            flags=0,
        ),
    ),
    Feature(
        "live-frames",
        "5.18",
        'bpf: Add "live packet" mode for XDP in BPF_PROG_RUN',
        _ask_live_frames,
    ),
)

FEATURES = {feature.name: feature for feature in _ALL}
"""All features, by name."""
