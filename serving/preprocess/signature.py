"""Names the format of a file by its first bytes.

Must not know: how any format is decoded.
"""

from serving.errors import UnreadablePicture

ACCEPTED = "PNG, JPEG, GIF, BMP, TIFF, WebP"

_ACCEPTED_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)

_OTHER_SIGNATURES = (
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a PSD picture"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"SIMPLE  =", "a FITS picture"),
    (b"%!PS", "an EPS picture"),
    (b"\xc5\xd0\xd3\xc6", "an EPS picture"),
    (b"\0\0\x01\0", "an ICO picture"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"qoif", "a QOI picture"),
    (b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (b"#?RADIANCE", "a Radiance HDR picture"),
    (b"RIFF", "a RIFF file that is not WebP"),
    (b"{", "JSON text"),
    (b"http://", "a URL, which is not fetched"),
    (b"https://", "a URL, which is not fetched"),
    (b"data:", "a data URL"),
    (b"<svg", "an SVG picture"),
    (b"<?xml", "an XML file"),
    (b"<", "HTML or XML text"),
)

# The brands of ISO base media files that hold still pictures.
_BRANDS = {b"avif": "an AVIF picture", b"avis": "an AVIF picture"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "a HEIC picture"
)


def identify(data: bytes) -> str:
    """Return Pillow's name of the format: PNG, JPEG, GIF, BMP, TIFF or WEBP.

    Raises:
        UnreadablePicture: another format; says which was found and which are accepted.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    for signature, name in _ACCEPTED_SIGNATURES:
        if data.startswith(signature):
            return name
    raise UnreadablePicture(f"found {_describe(data)}; accepted pictures: {ACCEPTED}")


def _describe(data: bytes) -> str:
    if not data:
        return "no bytes"
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "an MP4-like file")
    head = data[:64].lstrip()
    for signature, description in _OTHER_SIGNATURES:
        if data.startswith(signature) or head.startswith(signature):
            return description
    return f"an unknown format that begins with {data[:8].hex(' ')}"
