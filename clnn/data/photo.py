"""A photo of one's own as a net wants to see it."""

from pathlib import Path

import numpy as np

from clnn.errors import DataError


def load_photo(path, side: int) -> np.ndarray:
    """The largest square in the middle of a PNG or JPEG photo, made ``side`` x ``side``: uint8 (3, side, side).

    Any size and any kind of colours; turned as the camera says, transparent parts on white. Wants Pillow, which
    matplotlib brings. Raises DataError where there is no photo at ``path``, or it is damaged.
    """
    from PIL import Image, ImageOps  # late: only who shows photos needs it

    path = Path(path)
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # grey in 16 bits, which Pillow's own conversion would cut off at 255
                image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            square = ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
    except FileNotFoundError:
        raise DataError(f"{path} is not there. Give the path of a PNG or JPEG file.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises
        raise DataError(f"{path} is no PNG or JPEG photo that can be read ({error}). Try another file.") from error
    return np.asarray(square).transpose(2, 0, 1).copy()
