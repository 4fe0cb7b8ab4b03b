"""Small valid inputs of every kind, from which the fuzzers begin."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from serving.grpc.stubs import inference_pb2 as pb

Seeds = list[bytes]


def digit() -> npt.NDArray[np.uint8]:
    """Return a seven, uint8 (28, 28)."""
    image = np.zeros((28, 28), np.uint8)
    cv2.polylines(image, [np.array([[7, 7], [20, 7], [12, 22]])], False, 255, 2, cv2.LINE_AA)
    return image


def _picture(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def pictures() -> Seeds:
    """Return every accepted format in several modes, and a dot, which is enlarged furthest."""
    dot = Image.new("L", (5, 5), 255)
    dot.putpixel((2, 2), 0)
    grey = Image.fromarray(255 - digit())
    colour, deep = grey.resize((40, 36)).convert("RGB"), Image.fromarray(digit().astype(np.uint16) * 257)
    made = [
        _picture(grey, "PNG"),
        _picture(colour.convert("RGBA"), "PNG"),
        _picture(colour.convert("P"), "PNG", transparency=0),
        _picture(deep, "PNG"),
        _picture(grey.convert("1"), "PNG"),
        _picture(grey.convert("LA"), "PNG"),
        _picture(colour, "JPEG", quality=50),
        _picture(grey, "JPEG", progressive=True, exif=_exif(6)),
        _picture(colour.convert("CMYK"), "JPEG"),
        _picture(colour, "MPO", save_all=True, append_images=[colour]),
        _picture(grey, "GIF"),
        _picture(colour.convert("P"), "GIF", save_all=True, append_images=[grey.convert("P")]),
        _picture(grey, "BMP"),
        _picture(colour, "BMP"),
        _picture(colour, "WEBP"),
        _picture(colour.convert("RGBA"), "WEBP", lossless=True),
        _picture(dot, "PNG"),
    ]
    made += [_picture(grey, "TIFF", compression=name) for name in ("raw", "tiff_lzw", "tiff_deflate", "packbits")]
    made += [_picture(grey.convert("1"), "TIFF", compression="group4"), _picture(deep, "TIFF")]
    return [*made, _picture(colour, "TIFF", compression="jpeg"), _picture(colour.convert("CMYK"), "TIFF")]


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _idx(array: npt.NDArray[Any], kind: int) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def idx() -> Seeds:
    """Return IDX of images and of labels, of every type."""
    images = np.stack([digit()] * 2)
    kinds = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
    made = [_idx((images // 2).astype(dtype), kind) for kind, dtype in kinds.items()]
    made.append(_idx(np.array([1, 2], np.uint8), 0x08))
    return [*made, gzip.compress(made[0], mtime=0), bz2.compress(made[0]), lzma.compress(made[0])]


def _npy(array: npt.NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npy() -> Seeds:
    """Return NPY and NPZ of several types, shapes and orders, one of them a pickle."""
    images = np.stack([digit()] * 2)
    arrays = [images, images.reshape(2, 784) / 255, images[:, None].astype(np.int64), images[0], images > 9]
    made = [_npy(array) for array in [*arrays, np.asfortranarray(images), np.array([{}], object), np.array(["a"])]]
    for save in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        save(stream, x=images, y=np.array([7, 7]))
        made.append(stream.getvalue())
    return made


def csv() -> Seeds:
    """Return CSV with and without a header, labels, quotes, floats, errors, compressed."""
    row = ",".join(map(str, digit().ravel().tolist()))
    header = ",".join(f"pixel{place}" for place in range(784))
    texts = [
        f"{row}\n{row}\n",
        f"label,{header}\n7,{row}\nx,{row}\n7,{row[:-2]}\n",
        f"{header}\r\n{row}\r\n".replace(",", ";"),
        "\ufeff" + ",".join(f'"{name}"' for name in header.split(",")) + f"\n{row.replace('255', '0.5')}\n",
        f"{row.replace('255', '1e2')}\n\n{row.replace('255', 'nan')}\n",
    ]
    made = [text.encode() for text in texts]
    return [*made, gzip.compress(made[1], mtime=0), texts[0].encode("utf-16")]


def tables() -> Seeds:
    """Return Parquet and Arrow: columns, lists, encoded pictures."""
    flat = digit().reshape(1, 784).repeat(3, axis=0)
    png = _picture(Image.fromarray(digit()), "PNG")
    made = [
        pa.table({f"pixel{place}": flat[:, place] for place in range(784)}),
        pa.table({"image": flat.tolist(), "label": [7, None, 12]}),
        pa.table({"image": [digit().tolist(), None, [[1]]]}),
        pa.table({"image": [{"bytes": png, "path": None}, {"bytes": None, "path": "x"}], "label": [7, 1]}),
        pa.table({"image": pa.array([flat[0].tobytes(), None], pa.binary(784))}),
    ]
    return [save(table) for table in made for save in (_parquet, _arrow_file, _arrow_stream)]


def _parquet(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def _arrow(table: pa.Table, new: Callable[..., Any]) -> bytes:
    stream = io.BytesIO()
    with new(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def _arrow_file(table: pa.Table) -> bytes:
    return _arrow(table, pa.ipc.new_file)


def _arrow_stream(table: pa.Table) -> bytes:
    return _arrow(table, pa.ipc.new_stream)


def archives() -> Seeds:
    """Return zip and tar with pictures, a table and more."""
    members = {"7/a.png": pictures()[0], "b.csv": csv()[0], "c.idx": idx()[0], "d.npy": npy()[0], "e.txt": b"no,\n"}
    made = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        made.append(stream.getvalue())
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        made.append(stream.getvalue())
    return made


def predict_bodies() -> Seeds:
    """Return bodies of /predict: pictures, forms, JSON."""
    png = pictures()[0]
    part = b'Content-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n' + png
    form = b"--edge\r\n" + part + b"\r\n--edge\r\n" + part + b"\r\n--edge--\r\n"
    return [
        png,
        form,
        json.dumps({"pixels": digit().tolist()}).encode(),
        json.dumps({"pixels": [digit().ravel().tolist()] * 2}).encode(),
        b'{"images": ["iVBORw0KGgo=", "data:image/png;base64,iVBORw0KGgo=", "http://a/b"]}',
        b"http://127.0.0.1/a.png",
    ]


def v2_bodies() -> Seeds:
    """Return bodies of the protocol, each with two bytes before it: how long its JSON is, 0xFFFF = all of it."""
    shape = [1, 28, 28]
    tensor: dict[str, Any] = {"name": "images", "datatype": "UINT8", "shape": shape, "data": digit().tolist()}
    wanted = [{"name": "probabilities", "parameters": {"classification": 3, "binary_data": True}}]
    plain = json.dumps({"id": "a", "inputs": [tensor], "outputs": wanted, "parameters": {"timeout": 9}}).encode()
    floats = json.dumps({"inputs": [tensor | {"datatype": "FP32", "data": (digit() / 255).ravel().tolist()}]}).encode()
    made = [b"\xff\xff" + plain, b"\xff\xff" + floats, b"\0\0" + digit().tobytes()]
    png = pictures()[0]
    for datatype, dims, blob in (
        ("UINT8", shape, digit().tobytes()),
        ("FP16", shape, (digit() / 255).astype("<f2").tobytes()),
        ("BYTES", [1], len(png).to_bytes(4, "little") + png),
    ):
        parameters = {"binary_data_size": len(blob)}
        inputs = [{"name": "images", "datatype": datatype, "shape": dims, "parameters": parameters}]
        head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
        made.append(len(head).to_bytes(2, "little") + head + blob)
    return made


def json_texts() -> Seeds:
    """Return JSON, each with a byte before it: in pieces of how many bytes it is parsed, less one."""
    body = rb'{"a": [1, [2.5, -3e4], {"b": "[\"\\", "c": {}}, []], "d": [[7, 7], [8, 8]], "e": null}'
    return [bytes([size]) + body for size in (0, 5, 20, 63)] + [b"\3" + predict_bodies()[2]]


def messages() -> Seeds:
    """Return protobuf messages of the protocol."""
    tensor = pb.ModelInferRequest.InferInputTensor
    contents = pb.InferTensorContents
    shape, values = (1, 28, 28), digit().ravel()
    wanted = pb.ModelInferRequest.InferRequestedOutputTensor(name="logits")
    wanted.parameters["classification"].int64_param = 3
    raw = tensor(name="images", datatype="UINT8", shape=shape)
    typed = tensor(
        name="images", datatype="FP32", shape=shape, contents=contents(fp32_contents=(values / 255).tolist())
    )
    whole = tensor(name="images", datatype="UINT8", shape=shape, contents=contents(uint_contents=values.tolist()))
    encoded = tensor(name="images", datatype="BYTES", shape=(1,), contents=contents(bytes_contents=[pictures()[0]]))
    requests = [
        pb.ModelInferRequest(
            model_name="tiny", id="a", inputs=[raw], outputs=[wanted], raw_input_contents=[values.tobytes()]
        ),
        pb.ModelInferRequest(model_name="tiny", inputs=[typed]),
        pb.ModelInferRequest(model_name="tiny", inputs=[whole]),
        pb.ModelInferRequest(model_name="tiny", inputs=[encoded]),
    ]
    return [request.SerializeToString() for request in requests]
