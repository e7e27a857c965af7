"""Formats that hold images but are not read, known by their first bytes."""

_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_EXPORT = "export it as JPEG, PNG or TIFF"
_BEGINNINGS = {
    b"\xff\x0a": f"JPEG XL, which is not read; {_EXPORT}",
    b"\0\0\0\x0cJXL ": f"JPEG XL, which is not read; {_EXPORT}",
    b"8BPS": f"a Photoshop document, which is not read; {_EXPORT}",
    b"%PDF": f"a PDF, which is not read; {_EXPORT}",
    b"<svg": f"SVG, which is not read; {_EXPORT}",
    b"SIMPLE  =": f"FITS, which is not read; {_EXPORT}",
    b"\x93NUMPY": f"a NumPy array, which is not read; {_EXPORT}",
    b"FUJIFILMCCD-RAW": f"a raw photo, which is not read; {_EXPORT}",
    b"\0\0\0\x18ftypcrx ": f"a raw photo, which is not read; {_EXPORT}",
    b"\x76\x2f\x31\x01": f"OpenEXR, which is not read; {_EXPORT}",
}


def foreign_format(start: bytes) -> str:
    """What a file is that begins with these 132 bytes, and what to do; empty for an unknown one."""
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC:
        return "HEIC, which needs the package pillow-heif; pip install 'unfreeze[heic]'"
    if start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis"):
        return "AVIF, which needs a newer Pillow; pip install --upgrade pillow"
    if start[128:132] == b"DICM":
        return f"DICOM, which is not read; {_EXPORT} of 16 bits"
    return next((what for beginning, what in _BEGINNINGS.items() if start.startswith(beginning)), "")
