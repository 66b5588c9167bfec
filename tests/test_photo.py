"""Photos of any size, as nets want to see them."""

import numpy as np
import pytest
from PIL import Image

from clnn.data import load_photo
from clnn.errors import DataError


def picture(height, width):
    """Smooth colours that differ from place to place."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return (np.stack([y, x, (x + y) / 2], -1) * 255).round().astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("height, width", [(32, 32), (97, 41), (20, 300), (1, 1), (5, 3)])
def test_any_size(tmp_path, kind, height, width):
    """The square in the middle: the colours of its corners are those of the places where they were cut."""
    path = tmp_path / f"a.{kind.lower()}"
    Image.fromarray(picture(height, width)).save(path, kind, **({"quality": 95} if kind == "JPEG" else {}))
    got = load_photo(path, 32)
    assert got.shape == (3, 32, 32) and got.dtype == np.uint8
    if min(height, width) > 16:
        side = min(height, width)
        top, left = (height - side) / 2 / (height - 1), (width - side) / 2 / (width - 1)
        ends = [(top, top + (side - 1) / (height - 1)), (left, left + (side - 1) / (width - 1))]
        for channel, (low, high) in enumerate(ends):
            values = got[channel].astype(float).mean(1 - channel)
            assert abs(values[0] - 255 * low) < 12 and abs(values[-1] - 255 * high) < 12
            assert (np.diff(values) > -3).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_any_kind_of_colours(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.fromarray(picture(40, 50)).convert("RGB").convert(mode).save(path)
    assert load_photo(path, 32).shape == (3, 32, 32)


def test_sixteen_bits_of_grey(tmp_path):
    """As scanners and microscopes write them: the same greys as in 8 bits."""
    grey = np.linspace(0, 65535, 41 * 50).reshape(41, 50)
    Image.fromarray(grey.astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray((grey / 257).round().astype(np.uint8)).save(tmp_path / "b.png")
    got, want = (load_photo(tmp_path / name, 32).astype(int) for name in ("a.png", "b.png"))
    assert abs(got - want).max() <= 1 and want.max() - want.min() > 200


def test_transparent_parts_are_white(tmp_path):
    Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save(tmp_path / "a.png")
    assert (load_photo(tmp_path / "a.png", 4) == 255).all()


def test_turned_as_the_camera_says(tmp_path):
    image = Image.fromarray(picture(30, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    want = picture(30, 30)[::-1].transpose(2, 1, 0)
    assert abs(load_photo(tmp_path / "a.jpg", 30).astype(int) - want).max() < 20


def test_what_is_no_photo(tmp_path):
    with pytest.raises(DataError, match="is not there"):
        load_photo(tmp_path / "none.png", 32)
    (tmp_path / "a.png").write_bytes(b"no photo")
    with pytest.raises(DataError, match="no PNG or JPEG photo"):
        load_photo(tmp_path / "a.png", 32)
    Image.fromarray(picture(200, 200)).save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:300])
    with pytest.raises(DataError, match="no PNG or JPEG photo"):
        load_photo(tmp_path / "b.png", 32)
