"""The OpenCL library itself, without pyopencl: for the page that calls it from Python through ctypes."""

import ctypes
import ctypes.util
import sys

import pyopencl._cl

from ..errors import DeviceError


def opencl_library() -> ctypes.CDLL:
    """The OpenCL loader that clnn runs on: its functions are the C functions of the standard, ``clGetPlatformIDs`` ...

    Raises DeviceError where it cannot be found.
    """
    # On Linux and macOS a library gives out the functions of those that it is linked with, too.
    linked = "OpenCL.dll" if sys.platform == "win32" else pyopencl._cl.__file__
    for path in (linked, ctypes.util.find_library("OpenCL")):
        try:
            library = ctypes.CDLL(path or "no library")
            library.clGetPlatformIDs  # noqa: B018 - asks whether it is there
            return library
        except (OSError, AttributeError):
            continue
    raise DeviceError("no OpenCL library was found: `python -m clnn doctor` shows what is missing")
