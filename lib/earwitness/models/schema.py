"""What a model's configurations may say, family by family: checked before a library sees them.

A folder is a stranger's. Sizes are whole numbers above 0, numbers are finite, what a library would count up to is
bounded, and quantised weights and adapters are refused. Fields that are not listed are the library's own affair, as are
sizes that the weights do not bear out (``loading.check_sizes``). Published configurations leave out what is a default,
so every field may be absent.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError, create_model

from earwitness.errors import ModelError
from earwitness.models.files import NATIVE, contents, read_json

LARGEST = 2**40  # of any size: what is below is compared with the weights
MOST_COUNTED = 10_000  # layers, labels, extra tokens: what a library makes one by one
MOST_LISTED = 4_096  # entries of a list
MOST_NESTED = 40
COUNTED = re.compile(r"\w*(layers?|labels|classes|codebooks|quantizers|experts)|depths|layers_per_block|extra_ids|n_q")
OWN = "xp.cfg"  # audiocraft's own: its counts are compared with its weights
PEFT = (
    "from peft import PeftModel as P; from transformers import AutoModelForTextToWaveform as A; "
    "P.from_pretrained(A.from_pretrained('BASE'), 'FOLDER').merge_and_unload().save_pretrained('MERGED')"
)
LORA = (
    "from diffusers import DiffusionPipeline as D; p = D.from_pretrained('BASE'); p.load_lora_weights('FOLDER'); "
    "p.fuse_lora(); p.unload_lora_weights(); p.save_pretrained('MERGED')"
)
ADAPTERS = {
    "adapter_config.json": PEFT, "adapter_model.safetensors": PEFT, "adapter_model.bin": PEFT,
    "pytorch_lora_weights.safetensors": LORA, "pytorch_lora_weights.bin": LORA,
}  # fmt: skip
NO_NETWORK = "configuration describes no network"
WORDS = {"preprocessor_config.json": "no feature extractor of CLAP", OWN: "not a MusicGen's, AudioGen's or MAGNeT's"}

Size = Annotated[int, Field(ge=1, le=LARGEST)]
Offset = Annotated[int, Field(ge=0, le=LARGEST)]
Ratio = Annotated[FiniteFloat, Field(ge=-1e15, le=1e15)]
Sizes = Annotated[list[Size], Field(min_length=1, max_length=64)]
Either = Offset | list[Any] | None  # per block, or nested
Rate = Annotated[int, Field(ge=0, le=400_000)]  # Hz; what is too low for sound is refused with the window
Few = Annotated[int, Field(ge=1, le=1_000)]
KINDS: dict[str, Any] = {
    "sizes": Size, "maybe": Size | None, "offsets": Offset | None, "lists": Sizes, "either": Either,
    "numbers": Ratio | None, "rates": Rate, "few": Few | None,
}  # fmt: skip


class _Part(BaseModel):
    """What every configuration of a library's may hold: nothing that changes what comes out of a network."""

    model_config = ConfigDict(strict=True, extra="ignore")

    return_dict: Literal[True] | None = None
    output_hidden_states: Literal[False] | None = None
    output_attentions: Literal[False] | None = None
    torchscript: Literal[False] | None = None


def _part(name: str, parts: dict[str, Any] | None = None, **kinds: str) -> type[BaseModel]:
    """Return the schema of a part: names of fields by kind, and the parts of its own."""
    fields = {field: (KINDS[kind], None) for kind, names in kinds.items() for field in names.split()}
    own = {field: (schema, None) for field, schema in (parts or {}).items()}
    return create_model(name, __base__=_Part, **fields, **own)  # type: ignore[call-overload]


HEADS = "num_hidden_layers num_layers num_attention_heads num_key_value_attention_heads num_key_value_heads head_dim"
WIDTHS = "vocab_size hidden_size intermediate_size max_position_embeddings type_vocab_size projection_dim"
CAUSAL = f"{WIDTHS} {HEADS} n_positions n_ctx n_embd n_layer n_head n_inner rotary_ndims sliding_window"
T5 = _part(
    "T5", maybe="num_decoder_layers", numbers="dropout_rate layer_norm_epsilon", sizes="vocab_size d_model d_kv d_ff "
    "num_layers num_heads relative_attention_num_buckets relative_attention_max_distance",
)  # fmt: skip
ENCODEC = _part(
    "Encodec", rates="sampling_rate", lists="upsampling_ratios", offsets="num_lstm_layers", few="audio_channels",
    sizes="num_filters hidden_size codebook_size kernel_size last_kernel_size residual_kernel_size compress "
    "dilation_growth_rate num_residual_layers", maybe="codebook_dim", numbers="chunk_length_s overlap trim_right_ratio",
)  # fmt: skip
DECODER = _part(
    "Decoder", sizes="vocab_size hidden_size ffn_dim num_hidden_layers num_attention_heads num_codebooks "
    "max_position_embeddings", offsets="pad_token_id bos_token_id", few="audio_channels",
)  # fmt: skip
CLAP_AUDIO = _part(
    "ClapAudio", either="patch_stride", lists="depths num_attention_heads", sizes="hidden_size intermediate_size "
    "num_hidden_layers patch_embeds_hidden_size spec_size window_size num_mel_bins patch_size projection_dim",
)  # fmt: skip
TEXT_ENCODER = _part(  # CLAP, its text half, or T5
    "TextEncoder", {"text_config": _part("ClapText", sizes=f"{WIDTHS} {HEADS}"), "audio_config": CLAP_AUDIO},
    sizes=f"{WIDTHS} {HEADS} d_model d_kv d_ff num_heads", maybe="num_decoder_layers",
)  # fmt: skip
EARS = _part(
    "Ears", rates="sampling_rate", few="feature_size max_length_s", maybe="nb_max_samples hop_length fft_window_size",
    numbers="padding_value frequency_min frequency_max top_db",
)  # fmt: skip
FILES: dict[str, Any] = {  # of pipelines: what a part is called says what it is
    "unet/config.json": _part(
        "Unet", lists="block_out_channels", numbers="norm_eps", sizes="in_channels out_channels",
        maybe="norm_num_groups projection_class_embeddings_input_dim", either="sample_size layers_per_block "
        "cross_attention_dim attention_head_dim num_attention_heads transformer_layers_per_block",
    ),
    "vae/config.json": _part(
        "Vae", rates="sampling_rate", lists="block_out_channels downsampling_ratios channel_multiples",
        few="audio_channels", sizes="in_channels out_channels latent_channels layers_per_block norm_num_groups "
        "encoder_hidden_size decoder_channels decoder_input_channels", either="sample_size", numbers="scaling_factor",
    ),
    "vocoder/config.json": _part(
        "Vocoder", rates="sampling_rate", sizes="model_in_dim upsample_initial_channel", numbers="leaky_relu_slope",
        lists="upsample_rates upsample_kernel_sizes resblock_kernel_sizes", either="resblock_dilation_sizes",
    ),
    "transformer/config.json": _part(
        "Transformer", sizes=f"{HEADS} sample_size in_channels out_channels attention_head_dim cross_attention_dim "
        "time_proj_dim global_states_input_dim cross_attention_input_dim",
    ),
    "projection_model/config.json": _part(
        "Projection", numbers="min_value max_value",
        maybe="text_encoder_dim text_encoder_1_dim langauge_model_dim conditioning_dim max_seq_length",
    ),
    "language_model/config.json": _part("LanguageModel", maybe=CAUSAL, few="max_new_tokens"),
    "scheduler/scheduler_config.json": _part("Scheduler", numbers="beta_start beta_end"),
    "text_encoder/config.json": TEXT_ENCODER, "text_encoder_2/config.json": T5, "clap/config.json": TEXT_ENCODER,
    "feature_extractor/preprocessor_config.json": EARS, "clap/preprocessor_config.json": EARS,
}  # fmt: skip
OWN_CODEC = {
    "encodec": _part("OwnEncodec", rates="sample_rate", few="channels"), "rvq": _part("Rvq", sizes="n_q bins"),
    "seanet": _part(
        "Seanet", lists="ratios", few="channels", sizes="dimension n_filters n_residual_layers kernel_size "
        "residual_kernel_size last_kernel_size dilation_base compress",
    ),
}  # fmt: skip
OWN_LM = _part("TransformerLm", sizes="dim num_heads num_layers n_q card", maybe="past_context", numbers="hidden_scale")
MUSICGEN = {"text_encoder": T5, "audio_encoder": ENCODEC, "decoder": DECODER}
NATIVE_MODEL = _part("NativeModel", {
    "diffusion": _part("NativeDiffusion", {"config": _part(
        "NativeNetwork", few="depth", sizes="io_channels embed_dim num_heads cond_token_dim global_cond_dim")}),
    "pretransform": _part("NativePretransform", {"config": _part("NativeVae", {"encoder": _part("NativeHalf", {
        "config": _part("NativeOobleck", sizes="channels", lists="c_mults strides")})}, sizes="latent_dim")}),
})  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "musicgen": {
        "config.json": _part("Musicgen", MUSICGEN, sizes="num_chroma chroma_length"),
        "generation_config.json": _part("Generation", sizes="max_length"),
    },
    "midi_lm": {"config.json": _part("CausalLM", maybe=CAUSAL)},
    "audiocraft": {OWN: _part("Audiocraft", {"transformer_lm": OWN_LM, "codec": _part("Codec", OWN_CODEC) | str})},
    "part": {"config.json": ENCODEC | T5},  # what an audiocraft checkpoint only names
    "stable_audio_tools": {
        NATIVE: _part(
            "StableAudioTools", {"model": NATIVE_MODEL}, rates="sample_rate", sizes="sample_size", few="audio_channels"
        )
    },
    "figaro": {"config.json": _part("Figaro", sizes="d_model context_size encoder_layers decoder_layers d_latent")},
}


def check(value: Any, schema: Any, where: str) -> None:
    """Compare a configuration with a schema; the error names the first field that does not fit.

    Raises
    ------
    ModelError
        As the schema says; also what ``bound`` refuses.
    """
    bound(value, where)
    try:
        TypeAdapter(schema).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place, found = ".".join(map(str, first["loc"])), f"{first['input']!r:.40}"
        raise ModelError(
            f"{where}: {WORDS.get(where.rpartition('/')[2], NO_NETWORK)} ({place}: {first['msg']}, found {found})"
        ) from None


def refuse_adapters(folder: Path) -> None:
    """Refuse a folder that holds an adapter (LoRA), which stands for a model that is elsewhere.

    Raises
    ------
    ModelError
        An adapter; the message holds the command that merges it.
    """
    for path in contents(folder):
        if path.name in ADAPTERS:
            raise ModelError(
                f"{folder.name}/{path.relative_to(folder).as_posix()}: an adapter, whose model is elsewhere; merge it "
                f'first: python -c "{ADAPTERS[path.name]}"'
            )


def check_folder(folder: Path, family: str) -> None:
    """Compare the configurations in a model's folder with the schemas of its family, ``"part"`` for a part kept alone.

    Raises
    ------
    ModelError
        As ``check``, ``refuse_adapters`` and ``files.contents``.
    """
    refuse_adapters(folder)
    for path in contents(folder):
        if path.name.endswith("config.json"):
            name = path.relative_to(folder).as_posix()
            check(read_json(path), FAMILIES.get(family, FILES).get(name, _Part), f"{folder.name}/{name}")


def bound(value: Any, where: str, name: str = "", depth: int = 0) -> None:
    """Refuse what a library would take as an order: to count without end, to nest, to undo a quantisation."""
    if depth > MOST_NESTED or (isinstance(value, list) and len(value) > MOST_LISTED):
        raise ModelError(f"{where}: {name} is longer or deeper than any network's; fetch the file again")
    if name == "quantization_config" and value:
        raise ModelError(
            f"{where}: its weights are quantised, and rounded weights give other scores; name the originals"
        )
    if isinstance(value, int) and value > MOST_COUNTED and COUNTED.fullmatch(name) and not where.endswith(OWN):
        words = name.removeprefix("num_").replace("hidden_", "").replace("_", " ")
        raise ModelError(
            f"{where}: configuration asks for {str(value)[:40]} {words}; {name} is {str(value)[:40]}, beyond belief; "
            "fetch the folder again"
        )
    pairs = value.items() if isinstance(value, dict) else [(name, v) for v in value] if isinstance(value, list) else ()
    for key, held in pairs:
        bound(held, where, str(key), depth + 1)
