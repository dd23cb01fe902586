# SPDX-License-Identifier: Apache-2.0
"""Which programs a devmap is for: those that take frames in fragments, or those that do not.

Measured on Linux 6.18. The first program that is loaded with a devmap among its maps, or that is
put into an entry of it, decides for good, also when it is gone and the map is empty: all programs
that use the map, and all egress programs in it, have to agree with it on ``xdp.frags``, on being
compiled, and on their type. To load one that does not, or to put it into an entry, is EINVAL,
without a word in the log. Neither the attach type nor the size of the map's values matters, nor
entries without a program, programs that the verifier has refused, and those that a map is merely
bound to (``BPF_PROG_BIND_MAP``).

Source: ``bpf_prog_map_compatible()`` in kernel/bpf/core.c, called for the maps of a program that is
loaded and by ``__dev_map_alloc_node()`` in kernel/bpf/devmap.c; Linux 5.18, "bpf: generalise tail
call map compatibility check". Before, there was no ``xdp.frags``, and nothing to agree on.
"""

from __future__ import annotations

import errno

from xdpkit.errors import KernelRefused
from xdpkit.kernel import Map
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewProgram
from xdpkit.uapi.bpf import AttachType, ProgFlags, ProgType, PseudoSrc, XdpAction


def frags_of(devmap: Map) -> bool | None:
    """Return whether a devmap is for programs with ``xdp.frags``; None while nothing is decided.

    The question decides nothing: it is put to the kernel by loading a program that uses the map,
    and only where /proc says that some program was there before.

    Raises:
        MissingPrivilege: loading a program takes CAP_BPF and CAP_NET_ADMIN.
        KernelRefused: the map is for other programs than those of XDP.
    """
    if not _has_owner(devmap):
        return None
    what = "load a program that uses the ports"
    try:
        bpf.prog_load(_user(devmap, ProgFlags.XDP_HAS_FRAGS), what=what).close()
    except KernelRefused as error:
        if error.errno != errno.EINVAL:
            raise
        bpf.prog_load(_user(devmap, 0), what=what).close()
        return False
    return True


def _has_owner(devmap: Map) -> bool:
    """Whether a program has used the map; bpf_map_show_fdinfo() in kernel/bpf/syscall.c."""
    try:
        with open(f"/proc/self/fdinfo/{devmap.fileno()}", encoding="ascii") as info:
            return any(line.startswith("owner_prog_type:") for line in info)
    except OSError:
        # Without /proc.
        return False


def _user(devmap: Map, flags: int) -> NewProgram:
    from xdpkit.isa import asm
    from xdpkit.isa.opcodes import Register
    from xdpkit.probes.ask import machine_code

    return NewProgram(
        type=ProgType.XDP,
        code=machine_code(
            asm.ld_imm64(Register.R1, devmap.fileno(), source=PseudoSrc.MAP_FD),
            asm.mov(Register.R0, XdpAction.PASS),
            asm.exit(),
        ),
        license="GPL",
        name="ask_for_frags",
        attach_type=AttachType.XDP,
        flags=flags,
    )
