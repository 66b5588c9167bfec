"""The OpenCL library as ctypes sees it."""

import ctypes

import pyopencl as cl
import pytest

from clnn.errors import DeviceError
from clnn.lab import raw_opencl


def test_it_sees_the_platforms_that_pyopencl_sees():
    library, count = raw_opencl.opencl_library(), ctypes.c_uint()
    assert library.clGetPlatformIDs(0, None, ctypes.byref(count)) == 0
    assert count.value == len(cl.get_platforms())
    platforms = (ctypes.c_void_p * count.value)()
    assert library.clGetPlatformIDs(count, platforms, None) == 0
    assert set(platforms) == {p.int_ptr for p in cl.get_platforms()}


def test_the_systems_library_takes_its_place(monkeypatch):
    if not raw_opencl.ctypes.util.find_library("OpenCL"):
        pytest.skip("no OpenCL library of the system")
    monkeypatch.setattr(raw_opencl.pyopencl._cl, "__file__", "/nowhere")
    assert raw_opencl.opencl_library().clCreateContext


def test_no_library_at_all(monkeypatch):
    monkeypatch.setattr(raw_opencl.pyopencl._cl, "__file__", "/nowhere")
    monkeypatch.setattr(raw_opencl.ctypes.util, "find_library", lambda name: None)
    with pytest.raises(DeviceError, match="doctor"):
        raw_opencl.opencl_library()
