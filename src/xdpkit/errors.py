# SPDX-License-Identifier: Apache-2.0
"""Every exception that xdpkit raises, the kernel's errno names, and names that harm nobody.

::

    XdpkitError
    ├── ObjectFormatError (ValueError)       the object file is to blame
    ├── UsageError (ValueError)              the caller is to blame
    ├── RequirementUnmet                     the host or the device cannot do it
    │   └── CompileError                     no compiler, or the source does not compile
    ├── HookBusy                             somebody else's program is on the hook
    ├── MissingPrivilege (PermissionError)   a capability is missing
    └── KernelRefused (OSError)              the kernel said no; carries errno and extack
        └── VerifierError                    BPF_PROG_LOAD was refused; carries the verifier's log

Each error says *what* was tried, the *cause*, and, only when it is sure, a *remedy*.
"""

from __future__ import annotations

import errno as _errno
from typing import ClassVar

# include/linux/errno.h: kernel-internal numbers that reach user space all the same.
_KERNEL_ONLY = {512: "ERESTARTSYS", 517: "EPROBE_DEFER", 524: "ENOTSUPP"}


def errno_name(number: int) -> str:
    """Return the name that kernel people use for an errno.

    ``errno.errorcode`` calls 95 ``ENOTSUP`` and does not know 524 at all.
    """
    if number == _errno.EOPNOTSUPP:
        return "EOPNOTSUPP"
    return _errno.errorcode.get(number) or _KERNEL_ONLY.get(number) or f"errno {number}"


def printable(text: str, *, keep: str = "") -> str:
    """Return a text with everything escaped that a terminal, or another reader, might obey.

    Args:
        text: a name or value that came from an object, an interface or the kernel.
        keep: characters that are left alone all the same.
    """
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable() or char in keep
        else char.encode("unicode_escape", "backslashreplace").decode("ascii")
        for char in text
    )


class XdpkitError(Exception):
    """Base of all xdpkit errors.

    Attributes:
        what: what was tried, as a phrase ("attach xdp_fw to eth0 in native mode").
        cause: why it failed, as far as it is known ("cause unknown" is said plainly).
        remedy: what to do about it; None when no remedy is sure.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, cause: str, remedy: str | None = None) -> None:
        self.what = what
        self.cause = cause
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.what}: {self.cause}"
        return f"{text}\nRemedy: {self.remedy}" if self.remedy else text

    def to_dict(self) -> dict[str, object]:
        """Return the error as plain data, for JSON."""
        return {
            "kind": type(self).__name__,
            "what": self.what,
            "cause": self.cause,
            "remedy": self.remedy,
        }


class ObjectFormatError(XdpkitError, ValueError):
    """An object file (or a blob of BTF or instructions) is malformed or unsupported.

    Attributes:
        file: the file's name, or None when the bytes came without one.
        section: the ELF section, or None when the file as a whole is meant.
        offset: byte offset within the section (within the file when section is None).
    """

    exit_code = 6

    def __init__(
        self,
        cause: str,
        *,
        file: str | None = None,
        section: str | None = None,
        offset: int | None = None,
        remedy: str | None = None,
    ) -> None:
        self.file = file
        self.section = section
        self.offset = offset
        place = [file or "object"]
        if section is not None:
            place.append(f"section {section}")
        if offset is not None:
            place.append(f"offset {offset:#x}")
        super().__init__(f"read {', '.join(place)}", cause=cause, remedy=remedy)

    def to_dict(self) -> dict[str, object]:
        return {
            **XdpkitError.to_dict(self),
            "file": self.file,
            "section": self.section,
            "offset": self.offset,
        }

    def located(self, *, file: str | None = None, section: str | None = None) -> ObjectFormatError:
        """Return the same error with the file and section filled in where they were unknown."""
        return ObjectFormatError(
            self.cause,
            file=self.file or file,
            section=self.section or section,
            offset=self.offset,
            remedy=self.remedy,
        )


class UsageError(XdpkitError, ValueError):
    """The caller asked for something that makes no sense."""

    exit_code = 2


class RequirementUnmet(XdpkitError):
    """The host, the kernel or the device cannot do what the program needs."""

    exit_code = 3


class CompileError(RequirementUnmet):
    """A C source could not be compiled; ``log`` is what the compiler printed."""

    def __init__(self, what: str, *, cause: str, remedy: str | None = None, log: str = "") -> None:
        self.log = log
        super().__init__(what, cause=cause, remedy=remedy)


class HookBusy(XdpkitError):
    """A program that is not ours, or not the expected one, is on the hook."""

    exit_code = 5


class MissingPrivilege(XdpkitError, PermissionError):
    """The process lacks a capability; the remedy names it."""

    exit_code = 7


class KernelRefused(XdpkitError, OSError):
    """The kernel refused.

    Attributes:
        errno: the errno, positive.
        extack: the kernel's own words, or None when it gave none.
    """

    exit_code = 4

    def __init__(
        self,
        what: str,
        *,
        errno: int,
        cause: str | None = None,
        remedy: str | None = None,
        extack: str | None = None,
    ) -> None:
        self.errno = errno
        self.extack = extack
        XdpkitError.__init__(self, what, cause=cause or extack or "cause unknown", remedy=remedy)
        # OSError.__init__ ran with one argument and cleared it.
        self.errno = errno

    def __str__(self) -> str:
        text = f"{self.what}: {self.cause} ({errno_name(self.errno or 0)})"
        return f"{text}\nRemedy: {self.remedy}" if self.remedy else text

    def to_dict(self) -> dict[str, object]:
        return {
            **XdpkitError.to_dict(self),
            "errno": errno_name(self.errno or 0),
            "extack": self.extack,
        }


class VerifierError(KernelRefused):
    """``BPF_PROG_LOAD`` was refused by the verifier.

    EACCES from this command is the verifier's, not a missing permission.

    Attributes:
        log: the verifier's whole log.
    """

    def __init__(
        self, what: str, *, errno: int, cause: str, log: str, remedy: str | None = None
    ) -> None:
        self.log = log
        KernelRefused.__init__(self, what, errno=errno, cause=cause, remedy=remedy)
