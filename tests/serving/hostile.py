"""Hand-made requests that a service meets in a hostile world, each with the exact status and code that it must get."""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import tiny_bundles
from image_files import chunk, encode, png_of
from PIL import Image

IMAGES, TEXTS = "/v1/fashion/predict", "/v1/reviews/predict"
EXPLAIN_IMAGE, EXPLAIN_TEXT = "/v1/fashion/explain", "/v1/reviews/explain"
PNG = tiny_bundles.png(200)
JSON = "application/json"
OK = (200, "")
UNDECODABLE, TOO_LARGE = (422, "undecodable_image"), (413, "image_too_large")
BAD_JSON, BAD_REQUEST, BAD_FORM = (400, "malformed_json"), (422, "invalid_request"), (400, "malformed_multipart")
BAD_TYPE, BLANK, BAD_HEAD = (415, "unsupported_media_type"), (422, "blank_text"), (400, "malformed_request")


@dataclass(frozen=True)
class Case:
    """One request and its answer."""

    name: str
    path: str
    body: bytes
    content_type: str
    expected: tuple[int, str]
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = field(default=())


def cases() -> list[Case]:
    """All of them."""
    groups = (good_images, bad_images, cut_images, bombs, forms, good_texts, bad_json, bad_texts, types, paths, heads)
    return [case for group in (*groups, questions) for case in group()]


def saved(form: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    return encode(Image.new(mode, size), form, **options)


def frames(form: str) -> bytes:
    first, *others = [Image.new("RGB", (30, 30), (value, 0, 0)) for value in range(0, 250, 25)]
    return encode(first, form, save_all=True, append_images=others)


def with_chunk(name: bytes, data: bytes) -> bytes:
    """A whole PNG with one more chunk after its head."""
    return PNG[:33] + chunk(name, data) + PNG[33:]


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved("JPEG", size=(60, 20), exif=exif)


def raw(name: str, body: bytes, expected: tuple[int, str], content_type: str = "image/png") -> Case:
    return Case(f"image: {name}", IMAGES, body, content_type, expected)


def text(name: str, body: bytes | str, expected: tuple[int, str], content_type: str = JSON) -> Case:
    return Case(f"text: {name}", TEXTS, body.encode() if isinstance(body, str) else body, content_type, expected)


def good_images() -> Iterator[Case]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield raw(f"PNG of mode {mode}", saved("PNG", mode), OK)
    for mode in ("L", "RGB", "CMYK"):
        yield raw(f"JPEG of mode {mode}", saved("JPEG", mode), OK, "image/jpeg")
    for mode in ("RGB", "RGBA"):
        yield raw(f"WebP of mode {mode}", saved("WEBP", mode), OK, "image/webp")
        yield raw(f"lossless WebP of mode {mode}", saved("WEBP", mode, lossless=True), OK, "image/webp")
    for size in ((1, 1), (1, 500), (500, 1), (2, 2), (3999, 4000), (16_000_000, 1)):
        yield raw(f"PNG of {size[0]} x {size[1]}", saved("PNG", "1", size), OK)
    for orientation in range(10):
        yield raw(f"JPEG with orientation {orientation}", turned(orientation), OK, "image/jpeg")
    yield raw("progressive JPEG", saved("JPEG", progressive=True), OK, "image/jpeg")
    yield raw("JPEG of quality 1", saved("JPEG", quality=1), OK, "image/jpeg")
    yield raw("interlaced PNG", png_of(8, 8, data=bytes(200), interlaced=1), OK)
    yield raw("PNG with a transparent colour", saved("PNG", "P", transparency=0), OK)
    yield raw("animated PNG, its first frame", frames("PNG"), OK)
    yield raw("animated WebP, its first frame", frames("WEBP"), OK, "image/webp")
    yield raw("broken colour profile", saved("PNG", icc_profile=b"not a profile"), OK)
    yield raw("broken EXIF", saved("JPEG", exif=b"Exif\x00\x00broken"), OK, "image/jpeg")
    yield raw("unknown chunk", with_chunk(b"teSt", bytes(1000)), OK)
    yield raw("bytes after the end", PNG + b"<script>alert(1)</script>", OK)
    yield raw("JPEG called PNG", saved("JPEG"), OK)
    yield raw("WebP called JPEG", saved("WEBP"), OK, "image/jpeg")
    # Every pixel is there; what else is wrong with them does not matter.
    yield raw("PNG whose first chunk is another", PNG[:8] + chunk(b"IDAT", b"") + PNG[8:], OK)
    yield raw("PNG with a chunk longer than the file", PNG[:33] + b"\x7f\xff\xff\xffIDAT" + PNG[41:], OK)
    yield raw("image/jpg", saved("JPEG"), OK, "image/jpg")
    yield raw("type in capitals, with a parameter", PNG, OK, "IMAGE/PNG; name=a")
    for query in ("?polarity=light_on_dark", "?polarity=dark_on_light"):
        yield Case(f"image: {query}", IMAGES + query, PNG, "image/png", OK)


def bad_images() -> Iterator[Case]:
    for form in ("GIF", "BMP", "TIFF", "ICO", "PPM", "TGA", "PCX", "SGI", "DDS", "JPEG2000", "EPS", "PDF", "MSP"):
        yield raw(f"{form} called PNG", saved(form, "1" if form == "MSP" else "RGB"), UNDECODABLE)
    yield raw("animated GIF", frames("GIF"), UNDECODABLE)
    others = {
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://127.0.0.1:1/'/></svg>",
        "SVG with an entity": b"<!DOCTYPE svg [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><svg>&a;</svg>",
        "HTML": b"<html><img src=x onerror=alert(1)></html>",
        "HEIC": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100),
        "AVIF": b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1" + bytes(100),
        "FITS": b"SIMPLE  =                    T" + b" " * 2850,
        "PSD": b"8BPS\x00\x01" + bytes(100),
        "ZIP": b"PK\x03\x04" + bytes(100),
        "gzip": b"\x1f\x8b\x08" + bytes(100),
        "pickle": b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "ELF": b"\x7fELF" + bytes(100),
        "URL": b"http://127.0.0.1:1/a.png",
        "file URL": b"file:///etc/passwd",
        "data URL": b"data:image/png;base64,iVBORw0KGgo=",
        "path": b"/etc/passwd",
        "base64": b"iVBORw0KGgoAAAANSUhEUgAA",
        "JSON": b'{"image": [1, 2, 3]}',
        "nothing": b"",
        "one byte": b"\x00",
        "white space": b" \r\n\t ",
        "zeros": bytes(10_000),
        "all bytes": bytes(range(256)) * 10,
        "a PNG after a byte": b"\x00" + PNG,
        "a PNG as text": PNG.hex().encode(),
        "PNG with line ends changed": PNG.replace(b"\r\n", b"\n"),
        "PNG without its last chunk's data": PNG[:-30],
        "PNG signature alone": PNG[:8],
        "JPEG start alone": b"\xff\xd8\xff",
        "JPEG end alone": b"\xff\xd9",
        "RIFF without WEBP": b"RIFF\x10\x00\x00\x00WAVEfmt " + bytes(20),
        "RIFF of a wrong length": b"RIFF\xff\xff\xff\xffWEBPVP8 " + bytes(20),
        "PNG of no width": png_of(0, 7),
        "PNG of no height": png_of(7, 0),
        "PNG without pixels": png_of(8, 8),
        "PNG with too few pixels": png_of(8, 8, data=bytes(20)),
        "PNG of 3 bits": png_of(8, 8, depth=3, data=bytes(200)),
        "PNG of colour type 5": png_of(8, 8, colour=5, data=bytes(200)),
        "PNG with a broken checksum": PNG[:29] + b"\x00\x00\x00\x00" + PNG[33:],
        "PNG whose data is no zlib": PNG[:33] + chunk(b"IDAT", b"not zlib at all") + chunk(b"IEND", b""),
        "JPEG of 101 scans": saved("JPEG")[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 101 + b"\xff\xd9",
    }
    for name, body in others.items():
        yield raw(name, body, UNDECODABLE)


def cut_images() -> Iterator[Case]:
    """Cut at many places: all of them before the last pixels are there."""
    whole = {"png": saved("PNG", "RGB", (64, 64)), "jpeg": saved("JPEG", "L", (64, 64)), "webp": saved("WEBP", "RGB")}
    for form, body in whole.items():
        for share in range(1, 20):
            cut = len(body) * share // 30
            yield raw(f"{form} cut at {cut} of {len(body)}", body[:cut], UNDECODABLE, f"image/{form}")


def bombs() -> Iterator[Case]:
    for width, height in (
        (4001, 4000),
        (13_000, 13_000),
        (65_535, 65_535),
        (100_000, 100_000),
        (1, 16_000_001),
        (16_000_001, 1),
        (2**31 - 1, 1),
        (2**31 - 1, 2**31 - 1),
    ):
        yield raw(f"PNG that claims {width} x {height}", png_of(width, height), TOO_LARGE)
    yield raw("PNG of one bit, 169 million pixels", png_of(13_000, 13_000, depth=1, data=bytes(21_138_000)), TOO_LARGE)
    yield raw("PNG of 2^31 and more", png_of(2**31, 1), TOO_LARGE)
    jpeg = bytearray(saved("JPEG", "L"))
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg[start : start + 4] = struct.pack(">HH", 65_500, 65_500)
    yield raw("JPEG that claims 65500 x 65500", bytes(jpeg), TOO_LARGE, "image/jpeg")
    yield raw(
        "text chunk that unpacks to 64 MB",
        with_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(64_000_000))),
        UNDECODABLE,
    )
    yield raw(
        "profile that unpacks to 64 MB", with_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(64_000_000))), UNDECODABLE
    )
    texts = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000)))
    yield raw("60 texts that unpack to 1 MB each", PNG[:33] + texts * 60 + PNG[33:], OK)
    yield raw("1,000 texts without a name", PNG[:33] + chunk(b"zTXt", b"\0\0a") * 1000 + PNG[33:], UNDECODABLE)
    exif = b"\xff\xe1\x00\x10Exif\0\0II*\0\x08\0\0\0"
    whole = saved("JPEG")
    yield raw("JPEG of 100,000 Exif segments", whole[:2] + exif * 100_000 + whole[2:], UNDECODABLE, "image/jpeg")
    yield raw("10,000 empty chunks", PNG[:33] + chunk(b"teSt", b"") * 10_000 + PNG[33:], OK)


def part(disposition: str, body: bytes, *heads: str) -> bytes:
    lines = [f"Content-Disposition: {disposition}", *heads]
    return b"--edge\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + body + b"\r\n"


FILE = 'form-data; name="image"; filename="a.png"'
END = b"--edge--\r\n"


def form(
    name: str, body: bytes, expected: tuple[int, str], content_type: str = "multipart/form-data; boundary=edge"
) -> Case:
    return Case(f"form: {name}", IMAGES, body, content_type, expected)


def forms() -> Iterator[Case]:
    whole = part(FILE, PNG) + END
    yield form("one", whole, OK)
    yield form("two", part(FILE, PNG) * 2 + END, OK)
    yield form("eight, the most", part(FILE, PNG) * 8 + END, OK)
    yield form("nine", part(FILE, PNG) * 9 + END, (422, "too_many_items"))
    yield form("a thousand", part(FILE, PNG) * 1000 + END, (422, "too_many_items"))
    yield form("ten thousand empty ones", part(FILE, b"") * 10_000 + END, (422, "too_many_items"))
    yield form("with a preamble", b"hello\r\n" + whole, BAD_FORM)
    yield form("with an epilogue", whole + b"bye", OK)
    yield form("boundary in quotes", whole, OK, 'multipart/form-data; boundary="edge"')
    for part_type in ("image/png", "image/jpeg", "image/webp", "application/octet-stream"):
        yield form(f"part of type {part_type}", part(FILE, PNG, f"Content-Type: {part_type}") + END, OK)
    for part_type in ("application/vnd.bentoml+pickle", "text/html", "application/json", "image/svg+xml"):
        yield form(f"part of type {part_type}", part(FILE, PNG, f"Content-Type: {part_type}") + END, BAD_TYPE)
    for content in (
        b"http://127.0.0.1:1/a.png",
        b"file:///etc/passwd",
        b"data:image/png;base64,aa",
        b"/etc/passwd",
        b"",
    ):
        name = f"a field that is {content.decode()!r}, no file"
        yield form(name, part('form-data; name="image"', content) + END, (422, "not_a_file"))
    yield form("a file that is a URL", part(FILE, b"http://127.0.0.1:1/a.png") + END, UNDECODABLE)
    yield form("an empty file", part(FILE, b"") + END, UNDECODABLE)
    yield form(
        "a bad one between good ones", part(FILE, PNG) + part(FILE, b"GIF89a") + part(FILE, PNG) + END, UNDECODABLE
    )
    for name in ("file", "images", "Image", "image[]", "", "image\x00"):
        yield form(
            f"field {name!r}", part(f'form-data; name="{name}"; filename="a"', PNG) + END, (422, "unknown_field")
        )
    yield form("one field too many", part(FILE, PNG) + part('form-data; name="x"', b"1") + END, (422, "unknown_field"))
    yield form("no part", END, (422, "image_missing"))
    for filename in ("../../etc/passwd", "a" * 1000, "<script>", "a\\b", "ä.png"):
        yield form(
            f"file called {filename[:20]!r}", part(f'form-data; name="image"; filename="{filename}"', PNG) + END, OK
        )
    yield form("nothing", b"", BAD_FORM)
    yield form("no boundary", whole, BAD_FORM, "multipart/form-data")
    yield form("empty boundary", whole, BAD_FORM, "multipart/form-data; boundary=")
    yield form("another boundary", whole, BAD_FORM, "multipart/form-data; boundary=other")
    yield form("a boundary of 10,000 characters", whole, BAD_FORM, "multipart/form-data; boundary=" + "a" * 10_000)
    yield form("no end", part(FILE, PNG), BAD_FORM)
    yield form("cut in its head", whole[:20], BAD_FORM)
    yield form("cut in its data", whole[: len(whole) // 2], BAD_FORM)
    yield form("an image without a form", PNG, BAD_FORM)
    yield form("JSON", b'{"image": "a"}', BAD_FORM)
    yield form("a part in a part", part(FILE, whole, "Content-Type: multipart/mixed; boundary=edge") + END, BAD_TYPE)


def texts_of(*texts: object) -> str:
    return json.dumps({"texts": texts})


def good_texts() -> Iterator[Case]:
    for name, content in {
        "one letter": "a",
        "one full stop": ".",
        "unknown words alone": "xyzzy plugh",
        "emoji": "👍🏽👨‍👩‍👧‍👦🏴‍☠️",
        "right to left": "فيلم رائع 🎬 סרט נהדר",
        "Chinese": "这部电影很好看",
        "combining marks by the thousand": "a" + "\u0301" * 10_000,
        "nul characters": "good\x00film",
        "control characters": "good\x01\x1b[31mfilm\x7f",
        "a byte order mark": "\ufeffgood",
        "zero-width spaces": "go\u200bod",
        "direction overrides": "\u202egood\u202c",
        "HTML": "<script>alert('good')</script>",
        "SQL": "'; DROP TABLE films; --",
        "a format string": "%s%s%n {0} ${jndi:ldap://127.0.0.1/a}",
        "a URL": "http://127.0.0.1:1/",
        "a private character": "\ue000\U0010ffff",
        "20,000 characters, the most": "a" * 20_000,
        "10,000 words": "a " * 10_000,
        "one word of 20,000 emoji": "👍" * 20_000,
    }.items():
        yield text(name, texts_of(content), OK)
    yield text("eight, the most", texts_of(*["good"] * 8), OK)
    yield text("white space around the JSON", "\r\n\t " + texts_of("good") + " \n", OK)
    yield text("a surrogate pair, escaped", '{"texts": ["\\ud83d\\udc4d"]}', OK)
    yield text("escaped key", '{"\\u0074exts": ["good"]}', OK)
    yield text("charset named", texts_of("gööd"), OK, 'application/json; charset="UTF-8"')


def bad_json() -> Iterator[Case]:
    bad = {
        "nothing": "",
        "white space": "   ",
        "a brace": "{",
        "no end": '{"texts": ["good"',
        "two documents": '{"texts": ["a"]}{"texts": ["b"]}',
        "something after": '{"texts": ["a"]} x',
        "single quotes": "{'texts': ['a']}",
        "a comma too many": '{"texts": ["a",]}',
        "a comment": '{"texts": ["a"] /* b */}',
        "no quotes": "{texts: [a]}",
        "a tab in a text": '{"texts": ["a\tb"]}',
        "a line end in a text": '{"texts": ["a\nb"]}',
        "a nul in a text": '{"texts": ["a\x00b"]}',
        "a bad escape": '{"texts": ["\\x41"]}',
        "half an escape": '{"texts": ["\\u12"]}',
        "NaN": '{"texts": [NaN]}',
        "Infinity": '{"texts": [Infinity]}',
        "-Infinity": '{"texts": [-Infinity]}',
        "a key twice": '{"texts": ["a"], "texts": ["b"]}',
        "a key twice, once escaped": '{"texts": ["a"], "\\u0074exts": ["b"]}',
        "100,000 brackets": "[" * 100_000,
        "100,000 brackets inside": '{"texts": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "a number of 5,000 digits": '{"texts": [' + "9" * 5000 + "]}",
        "a leading zero": '{"texts": [01]}',
        "hexadecimal": '{"texts": [0x1]}',
        "Python": "{'texts': None}",
        "XML": "<texts><text>good</text></texts>",
        "a form": "texts=good",
        "a byte order mark before the JSON": '\ufeff{"texts": ["good"]}',
    }
    for name, body in bad.items():
        yield text(name, body, BAD_JSON)
    for name, encoded in {
        "UTF-16": texts_of("good").encode("utf-16"),
        "UTF-32": texts_of("good").encode("utf-32"),
        "latin-1": b'{"texts": ["g\xf6\xf6d"]}',
        "an overlong encoding": b'{"texts": ["\xc0\xaf"]}',
        "an encoded surrogate": b'{"texts": ["\xed\xa0\x80"]}',
        "half a character": b'{"texts": ["\xe2\x82"]}',
        "gzip": zlib.compress(texts_of("good").encode(), wbits=31),
        "a PNG": PNG,
    }.items():
        yield text(name, encoded, BAD_JSON)


def bad_texts() -> Iterator[Case]:
    for name, body in {
        "null": "null",
        "true": "true",
        "a number": "1",
        "a string": '"good"',
        "a list": '["good"]',
        "an empty object": "{}",
        "another key": '{"text": ["good"]}',
        "a key in capitals": '{"TEXTS": ["good"]}',
        "one key too many": '{"texts": ["good"], "x": 1}',
        "__proto__": '{"texts": ["good"], "__proto__": {}}',
        "texts of null": '{"texts": null}',
        "texts of a string": '{"texts": "good"}',
        "texts of an object": '{"texts": {"0": "good"}}',
        "texts of a number": '{"texts": 1}',
        "no texts": '{"texts": []}',
        "a hundred thousand numbers": '{"texts": [' + "1," * 100_000 + "1]}",
        "thirty thousand keys": "{" + ",".join(f'"{index}": 1' for index in range(30_000)) + "}",
        "a number among them": texts_of("good", 1),
        "a large float among them": '{"texts": [1e999]}',
        "true among them": texts_of(True),
        "null among them": texts_of("good", None),
        "a list among them": texts_of(["good"]),
        "an object among them": texts_of({"text": "good"}),
    }.items():
        yield text(name, body, BAD_REQUEST)
    for name, blank in {
        "empty": "",
        "spaces": "   ",
        "line ends": "\r\n\n",
        "tabs": "\t\t",
        "a no-break space": "\u00a0",
        "an ideographic space": "\u3000",
    }.items():
        yield text(f"blank: {name}", texts_of(blank), BLANK)
    yield text("a blank one among good ones", texts_of("good", " ", "bad"), BLANK)
    for name, lone in {"high": '"\\ud800"', "low": '"\\udc00"', "swapped": '"\\udc4d\\ud83d"'}.items():
        yield text(f"a lone surrogate, {name}", f'{{"texts": [{lone}]}}', (422, "invalid_text"))
    yield text("20,001 characters", texts_of("a" * 20_001), (413, "text_too_long"))
    yield text("a long one among short ones", texts_of("a", "b" * 20_001), (413, "text_too_long"))
    yield text("nine", texts_of(*["good"] * 9), (422, "too_many_items"))
    yield text("ten thousand", texts_of(*["a"] * 10_000), (422, "too_many_items"))
    yield text("more bytes than the card allows", texts_of("a" * 1_000_000), (413, "body_too_large"))


def types() -> Iterator[Case]:
    for content_type in (
        "",
        "image/gif",
        "image/svg+xml",
        "image/*",
        "*/*",
        "image",
        "image/png, image/jpeg",
        "application/octet-stream",
        "application/vnd.bentoml+pickle",
        "Application/Vnd.BentoML+Pickle; a=b",
        " application/vnd.bentoml+pickle",
        "application/x-www-form-urlencoded",
        "multipart/mixed; boundary=edge",
        "text/plain",
        "text/html",
        JSON,
    ):
        yield raw(f"type {content_type!r}", PNG, BAD_TYPE, content_type)
    for content_type in (
        "",
        "text/json",
        "text/plain",
        "application/json5",
        "application/x-ndjson",
        "application/vnd.api+json",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=edge",
        "application/vnd.bentoml+pickle",
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
        "application/json, text/plain",
        "image/png",
    ):
        yield text(f"type {content_type!r}", texts_of("good"), BAD_TYPE, content_type)
    for encoding in ("gzip", "deflate", "br", "zstd", "compress", "gzip, gzip", "x", ""):
        for path, body, content_type in ((IMAGES, PNG, "image/png"), (TEXTS, texts_of("a").encode(), JSON)):
            name = f"content-encoding {encoding!r} on {path}"
            yield Case(name, path, body, content_type, BAD_TYPE, headers=(("content-encoding", encoding),))


def paths() -> Iterator[Case]:
    for path in (
        "/v1",
        "/v1/",
        "/v2/fashion/predict",
        "/v1/fashion",
        "/v1/fashion/predict/",
        "/v1/fashion/predict/1",
        "/V1/IMAGES/PREDICT",
        "//v1/fashion/predict",
        "/v1//images/predict",
        "/v1/fashion/predict%00",
        "/v1/fashion/predict;a=b",
        "/v1/%2e%2e/v1/fashion/predict",
        "/predict",
        "/classify",
        "/schema.json",
        "/docs",
        "/metrics/",
        "/.env",
        "/.git/config",
        "/etc/passwd",
        "/static_content/",
        "/static_content/..%2f..%2fapp.py",
        "/static_content/%2e%2e/app.py",
        "/api/2.0/mlflow/experiments/search",
        "/v1/models/image",
        "/" + "a" * 5000,
    ):
        yield Case(f"path {path[:60]}", path, PNG, "image/png", (404, "not_found"))
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"):
        for path in (IMAGES, TEXTS):
            yield Case(f"{method} {path}", path, b"", "", (405, "method_not_allowed"), method)
    for path in ("/livez", "/readyz", "/metrics", "/v1/models", "/docs.json", "/"):
        yield Case(f"POST {path}", path, b"{}", JSON, (405, "method_not_allowed"))
    for query in ("?polarity=", "?polarity=any", "?Polarity=dark_on_light", "?x=1", "?polarity", "?%ff=1", "?a=1&a=1"):
        yield Case(f"query {query}", IMAGES + query, PNG, "image/png", (422, "invalid_parameter"))
        yield Case(f"query {query} for texts", TEXTS + query, texts_of("a").encode(), JSON, (422, "invalid_parameter"))


def heads() -> Iterator[Case]:
    def with_headers(name: str, expected: tuple[int, str], *headers: tuple[str, str]) -> Case:
        return Case(f"head: {name}", TEXTS, texts_of("good").encode(), JSON, expected, headers=headers)

    yield with_headers("100 headers", (431, "headers_too_large"), *[(f"x-{index}", "1") for index in range(100)])
    yield with_headers("a header of 20,000 bytes", (431, "headers_too_large"), ("x-long", "a" * 20_000))
    yield with_headers("content-type twice", BAD_HEAD, ("content-type", "text/plain"))
    for host in (
        "evil.example",
        "evil.example:3000",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "a" * 300,
        "@",
        "a b",
    ):
        yield with_headers(f"host {host[:40]}", (403, "forbidden_host"), ("host", host))
    for host in ("localhost", "LOCALHOST:3000", "127.0.0.1", "[::1]:3000", "192.168.0.7:3000"):
        yield with_headers(f"host {host}", OK, ("host", host))
    no_urls = ("http://[", "http://]", "http://[::1")  # urlsplit raises ValueError for each
    for origin in (*no_urls, "http://evil.example", "null", "https://127.0.0.1", "file://", "http://localhost:1", ""):
        yield with_headers(f"origin {origin!r}", (403, "forbidden_origin"), ("origin", origin))
    for sent in ("", "0", "-1", "1.5", "1e3", "0x10", "ten", "9" * 30, "١٢"):
        yield with_headers(f"timeout {sent[:12]!r}", (422, "invalid_parameter"), ("x-request-timeout-ms", sent))
    for sent in ("10000", "999999999"):
        yield with_headers(f"timeout {sent}", OK, ("x-request-timeout-ms", sent))
    for sent in ("", "a b", "x" * 65, "<script>", 'a"b', "a\tb"):
        yield with_headers(f"request id {sent[:12]!r}", OK, ("x-request-id", sent))
    yield with_headers("a key that nobody asked for", OK, ("authorization", "Bearer x"))
    yield with_headers("a range", OK, ("range", "bytes=0-1,1-2,2-3"))
    yield with_headers("a cookie", OK, ("cookie", "a=" + "b" * 4000))
    yield with_headers("another method by header", OK, ("x-http-method-override", "DELETE"))
    yield with_headers("another path by header", OK, ("x-original-url", "/metrics"), ("x-rewrite-url", "/metrics"))


def questions() -> Iterator[Case]:
    """What is asked of the routes that explain: the hardest images and texts, and every way to ask wrongly."""
    bad_question = (422, "invalid_parameter")
    queries = {
        "": OK,
        "?label=dark&method=occlusion&polarity=dark_on_light": OK,
        "?label=DARK": bad_question,
        "?label=dark%00": bad_question,
        "?label=" + "a" * 5000: bad_question,
        "?method=": bad_question,
        "?method=occlusion&method=occlusion": bad_question,
        "?label=dark;method=occlusion": bad_question,
        "?patches=1000": bad_question,
        "?&": bad_question,
    }
    for query, expected in queries.items():
        yield Case(f"explain: image{query[:60]}", EXPLAIN_IMAGE + query, PNG, "image/png", expected)
    for name, body in {"bomb": png_of(100_000, 100_000), "4000 x 4000": saved("PNG", "1", (4000, 4000))}.items():
        expected = OK if name == "4000 x 4000" else TOO_LARGE
        yield Case(f"explain: {name}", f"{EXPLAIN_IMAGE}?method=occlusion", body, "image/png", expected)
    two = part(FILE, PNG) * 2 + END
    form_type = "multipart/form-data; boundary=edge"
    yield Case("explain: two images", EXPLAIN_IMAGE, two, form_type, (422, "too_many_items"))
    yield Case("explain: a form of one", EXPLAIN_IMAGE, part(FILE, PNG) + END, form_type, OK)
    for name, body, expected in (
        ("4,000 words", json.dumps({"text": "good " * 4000}), OK),
        ("20,000 combining marks", json.dumps({"text": "\u0301" * 20_000}), OK),
        ("emoji", json.dumps({"text": "👍🏽👨‍👩‍👧‍👦🏴‍☠️"}, ensure_ascii=False), OK),
        ("texts", texts_of("good"), BAD_REQUEST),
        ("a list", '{"text": ["good"]}', BAD_REQUEST),
        ("a label of another model", '{"text": "good", "label": "dark"}', BAD_REQUEST),
        ("a label that is none", '{"text": "good", "label": 1e999}', BAD_REQUEST),
        ("too long", json.dumps({"text": "a" * 20_001}), (413, "text_too_long")),
        ("nothing", "", BAD_JSON),
        ("white space", '{"text": " \\n"}', BLANK),
    ):
        yield Case(f"explain: text, {name}", EXPLAIN_TEXT, body.encode(), JSON, expected)
