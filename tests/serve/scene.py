"""A clip with a known target: an orange disc on a moving path over a grey, textured table; templates of it."""

import io
import zipfile

import cv2
import numpy as np

SIZE = (240, 320)
COLOUR = (240, 130, 20)


def place(index):
    return int(160 + 90 * np.cos(index / 25)), int(120 + 60 * np.sin(index / 17))


def background():
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(90, 150, SIZE, np.uint8), (0, 0), 3)
    return np.repeat(noise[..., None], 3, axis=2)


BACKGROUND = background()


def frame(index, *, visible=True, colour=COLOUR):
    image = BACKGROUND.copy()
    if visible:
        cv2.circle(image, place(index), 22, colour, -1)
    return image


def truth(index):
    mask = np.zeros(SIZE, np.uint8)
    cv2.circle(mask, place(index), 22, 1, -1)
    return mask.astype(bool)


def jpeg(image, quality=90):
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[
        1
    ].tobytes()


def png(image):
    return cv2.imencode(".png", image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def template(colour=COLOUR, size=64):
    rgb = np.full((size, size, 3), 128, np.uint8)
    mask = np.zeros((size, size), np.uint8)
    cv2.circle(rgb, (size // 2, size // 2), size // 3, colour, -1)
    cv2.circle(mask, (size // 2, size // 2), size // 3, 255, -1)
    return rgb, mask


def archive(colour=COLOUR, views=3, prefix="disc/"):
    return zipped(
        {
            f"{prefix}{part}_{index}.png": png(image)
            for index in range(views)
            for part, image in zip(("rgb", "mask"), template(colour, 60 + 4 * index), strict=True)
        }
    )


def zipped(files, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as out:
        for name, data in files.items():
            out.writestr(name, data)
    return buffer.getvalue()


def mask_of(rle):
    """COCO run lengths back to a mask, by another road than the service's."""
    height, width = rle["size"]
    values = np.arange(len(rle["counts"])) % 2
    return np.repeat(values, rle["counts"]).reshape(width, height).T.astype(bool)
