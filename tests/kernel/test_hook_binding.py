# SPDX-License-Identifier: Apache-2.0
"""A program that is bound to a device runs on no other, whatever is forced."""

from __future__ import annotations

import errno

import pytest

import xdpkit
from tests.kernel.attaching import on_hook, program
from tests.kernel.net import Veth, make_veth, namespace
from xdpkit import Hook, Program
from xdpkit.errors import KernelRefused, RequirementUnmet
from xdpkit.hook.request import is_bound
from xdpkit.kernel import load, load_image
from xdpkit.syscalls import bpf
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.netns import entered


def load_for(veth: Veth) -> Program:
    with entered(veth.netns):
        try:
            return load(program(), ifindex=veth.interface.index)
        except KernelRefused as error:
            if error.errno != errno.EINVAL:
                raise
            pytest.skip("needs programs that are bound to a device, which came with Linux 6.3")


def test_the_kernel_takes_the_wrong_device_on_a_links_update(veth: Veth) -> None:
    # Why all this is needed: if this fails, the kernel has begun to check it.
    other = make_veth(veth.netns)
    with (
        load_for(other) as bound,
        xdpkit.attach(veth.name, program(), netns=veth.netns) as attached,
    ):
        assert attached.link is not None
        bpf.link_update(attached.link.fileno(), bound.fileno())


def test_a_program_of_another_device_is_refused_whatever_is_forced(
    veth: Veth, pin_root: str
) -> None:
    other = make_veth(veth.netns)
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    with load_for(other) as bound, hook.add(program()) as attached:
        with pytest.raises(RequirementUnmet) as caught:
            hook.replace(bound, force=True)
        assert caught.value.cause == (
            f"the program was loaded for interface {other.interface.index}, and must not run on"
            " any other"
        )
        assert caught.value.remedy == (f"load it for {veth.name}: ifindex={veth.interface.index}")
        with pytest.raises(RequirementUnmet):
            attached.replace(bound, force=True)
        present = on_hook(veth, pin_root)
        assert present is not None
        assert present.program.id == attached.program.id
        attached.detach()


def test_a_program_of_unknown_binding_is_refused_if_it_is_bound(veth: Veth, pin_root: str) -> None:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    with load_for(veth) as bound, hook.add(program()) as attached:
        with (
            Program(Fd.duplicate(bound.fileno())) as same,
            pytest.raises(RequirementUnmet, match="an interface that the kernel does not tell"),
        ):
            hook.replace(same, force=True)
        attached.detach()


def test_a_program_that_was_loaded_again_is_as_bound_as_before(veth: Veth, pin_root: str) -> None:
    other = make_veth(veth.netns)
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    with load_for(other) as bound, hook.add(program()) as attached:
        assert bound.image is not None
        with entered(veth.netns):
            again = load_image(bound.image)
        with again, pytest.raises(RequirementUnmet, match="must not run on any other"):
            hook.replace(again, force=True)
        attached.detach()


def test_a_program_of_this_device_is_taken(veth: Veth, pin_root: str) -> None:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    with load_for(veth) as bound, hook.add(program()), hook.replace(bound) as attached:
        present = on_hook(veth, pin_root)
        assert present is not None
        assert present.program.id == bound.id
        attached.detach()


def test_whether_a_program_is_bound_can_be_asked(veth: Veth) -> None:
    with load_for(veth) as bound, load(program()) as free:
        assert is_bound(bound)
        assert not is_bound(free)


def test_the_same_index_in_another_namespace_is_another_device(veth: Veth, pin_root: str) -> None:
    with namespace() as elsewhere:
        twin = make_veth(elsewhere)
        # Namespaces number their interfaces from the same start.
        assert twin.interface.index == veth.interface.index
        hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
        with load_for(twin) as bound, hook.add(program()) as attached:
            with pytest.raises(RequirementUnmet, match="of another network namespace"):
                attached.replace(bound)
            attached.detach()
