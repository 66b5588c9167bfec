"""The package's kernels as a notebook shows them."""

import re

import pytest

import clnn
from clnn import program
from clnn.lab import show
from clnn.lab.show import families, kernel_names, kernel_text


@pytest.mark.parametrize("family", [f for f in families() if not f.endswith(".h")])
def test_every_kernel_can_be_shown(family, device):
    whole = show(family)
    assert whole.text == program.source(family) and repr(whole).startswith(f"// clnn/kernels/{family}.cl\n")
    names = kernel_names(family)
    assert names
    for name in names:
        one = show(family, name)
        assert re.search(rf"\b{name}\b", one.text)
        assert one.text.startswith("//") and len(one.text) <= len(whole.text) + 2
        assert one.text.count("{") == one.text.count("}")
    if family not in ("copy", "local"):  # they have no types of their own
        built = {k.function_name for k in program.build(device, program.source(family)).all_kernels()}
        made = [n for n in built if not any(n in (m, f"{m}_number", f"number_{m}", f"{m}_broadcast") for m in names)]
        assert not made, "kernels that show() does not find"


def test_one_kernel_with_what_is_said_above():
    a = "// says\n// what\n__kernel void a(int x)\n{\n    if (x) { x = 1; }\n}\n"
    text = f"// file\n\nint f() {{ return 1; }}\n\n{a}// b\n"
    assert kernel_text(text, "a") == a
    assert kernel_text(text, "b") == ""


def test_macros_come_with_their_kernels():
    text = show("elementwise", "add").text
    assert text.index("#define BINARY_TO(") < text.index("#define BINARY(") < text.index("BINARY(add, x + y)")
    assert "BINARY(sub" not in text and "#define UNARY" not in text


def test_a_kernels_name_alone():
    assert show("gemm_plain").text == show("gemm", "gemm_plain").text
    assert show("activation.h").text.startswith("//")


def test_colours():
    page = show("gemm", "gemm_groups")._repr_html_()
    plain = re.sub(r"<[^>]*>", "", page)
    assert "get_local_id" in plain and "&lt;" in plain
    coloured = dict(re.findall(r'<span style="color: (#\w+)[^"]*">(__kernel|__global|barrier|int)</span>', page))
    assert len(coloured) >= 2
    assert re.search(r'<span style="color: #\w+[^"]*">__kernel</span>', page)


@pytest.mark.parametrize("arguments, words", [
    (("gem",), r"no file of kernels is named 'gem': did you mean gemm\?; there are activation, "),
    (("gemm", "gemm_plane"), r"gemm.cl holds no kernel 'gemm_plane': did you mean gemm_plain, .* it holds "),
])  # fmt: skip
def test_errors(arguments, words):
    with pytest.raises(clnn.ClnnError, match=words):
        show(*arguments)
