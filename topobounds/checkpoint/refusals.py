"""Formats that are known and not read: each by name, with a way to weights that are."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from topobounds.checkpoint.errors import CheckpointError
from topobounds.checkpoint.location import Location
from topobounds.checkpoint.signatures import format_by_signature


@dataclass(frozen=True)
class Refusal:
    """A format that is not read.

    Attributes
    ----------
    is_one : callable
        ``is_one(path, content)``: whether a file or folder is of this format; `content` is its `format_by_signature`.
    kind : str
        What it is: "... is a KIND".
    way_on : str
        One sentence that says how to get weights from it.
    """

    is_one: Callable[[Location, str | None], bool]
    kind: str
    way_on: str

    def told_of(self, path: Location) -> str:
        """Return the message on a file or folder of this format."""
        article = "an" if self.kind[0] in "AEIOUaeio" else "a"
        return f"{path} is {article} {self.kind}: {self.way_on}."


def refusal(path: Location) -> Refusal | None:
    """Return why a file or folder is of a format that is not read, if it is."""
    return _first_of(_REFUSALS, path)


def refusal_of_unread(path: Location) -> Refusal | None:
    """Return the format of a file or folder that no reader opens, if it is known."""
    return _first_of(_UNREAD, path)


def refuse_by_content(path: Location) -> None:
    """Refuse a file that is not what its name says: a pointer of Git LFS, a web page, an archive that holds code.

    Raises
    ------
    CheckpointError
        It names the format and a way on.
    """
    known = refusal(path)
    if known is not None:
        raise CheckpointError(known.told_of(path))


def _first_of(refusals: "tuple[Refusal, ...]", path: Location) -> Refusal | None:
    content = format_by_signature(path)
    return next((each for each in refusals if each.is_one(path, content)), None)


def _named(*patterns: str) -> Callable[[Location, str | None], bool]:
    return lambda path, content: any(fnmatch(path.name, pattern) for pattern in patterns)


def _shows(*contents: str) -> Callable[[Location, str | None], bool]:
    return lambda path, content: content in contents


def _holds(*patterns: str) -> Callable[[Location, str | None], bool]:
    """Whether a folder, on this machine, holds a file or folder of such a name."""
    return lambda path, content: (
        isinstance(path, Path) and path.is_dir() and any(next(path.glob(pattern), None) for pattern in patterns)
    )


def _is_prefix_of(*suffixes: str) -> Callable[[Location, str | None], bool]:
    """Whether there is no such file, but one, on this machine, whose name goes on."""
    return lambda path, content: (
        isinstance(path, Path)
        and bool(path.name)
        and not path.exists()
        and any(path.with_name(path.name + suffix).is_file() for suffix in suffixes)
    )


def _either(*tests: Callable[[Location, str | None], bool]) -> Callable[[Location, str | None], bool]:
    return lambda path, content: any(test(path, content) for test in tests)


_SAVE_THE_STATE = "save its state_dict where you trust it: torch.save(module.state_dict(), 'weights.pt')"

_REFUSALS = (
    Refusal(_shows("git-lfs"), "pointer of Git LFS, not the file itself", "fetch the file with git lfs pull"),
    Refusal(
        _shows("html"), "web page, not a file of weights", "take the address under which the file itself is served"
    ),
    Refusal(
        _either(_named("*.distcp"), _holds("*.distcp")),
        "distributed checkpoint of torch (.distcp)",
        "join it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER weights.pt",
    ),
    Refusal(
        _either(
            _named("*zero_pp_rank_*", "mp_rank_*", "*_optim_states.pt"),
            _holds("*zero_pp_rank_*", "mp_rank_*", "global_step*/*zero_pp_rank_*", "global_step*/mp_rank_*"),
        ),
        "part of a DeepSpeed (ZeRO) checkpoint",
        "join the parts with the script beside them: python zero_to_fp32.py FOLDER weights",
    ),
    Refusal(
        _either(_named("consolidated.*.pth"), _holds("consolidated.*.pth")),
        "slice of a model that was split over processes (consolidated.*.pth)",
        "join the slices with the model's converter, such as transformers' convert_llama_weights_to_hf.py",
    ),
    Refusal(
        _shows("torchscript"),
        "TorchScript archive, which holds code",
        "save its weights where you trust it: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')",
    ),
    Refusal(
        _either(_shows("torch.export"), _named("*.pt2")),
        "program of torch.export, which holds code",
        "save its weights where you trust it: torch.save(torch.export.load(FILE).state_dict, 'weights.pt')",
    ),
    Refusal(
        _either(_shows("hdf5", "keras"), _named("*.h5", "*.hdf5", "*.keras"), _holds("*.h5", "*.hdf5", "*.keras")),
        "file of Keras (HDF5)",
        "save its weights from Keras: np.savez('weights.npz', **{w.path: w.numpy() for w in model.weights})",
    ),
    Refusal(
        _either(_named("*.msgpack"), _holds("*.msgpack")),
        "file of Flax (msgpack)",
        "save its parameters from Flax: np.savez('weights.npz', **flax.traverse_util.flatten_dict(params, sep='.'))",
    ),
    Refusal(
        _either(
            _named("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt"),
            _holds("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", "*/manifest.ocdbt", "*/*/manifest.ocdbt"),
            _holds("*/_METADATA", "*/*/_METADATA", "*/_CHECKPOINT_METADATA"),
        ),
        "checkpoint of Orbax",
        "restore it with Orbax, and np.savez('weights.npz', **flax.traverse_util.flatten_dict(params, sep='.'))",
    ),
    Refusal(
        _either(_named("*.tflite"), _holds("*.tflite")),
        "model of TensorFlow Lite",
        "read it with tf.lite.Interpreter(FILE), and np.savez('weights.npz', ...) of its get_tensor(number)",
    ),
    Refusal(
        _either(
            _shows("tensorflow"),
            _named("*.ckpt.index", "*.ckpt-*.index", "*.ckpt.meta", "*.ckpt-*.meta", "variables.index"),
            _named("*.data-?????-of-?????", "saved_model.pb"),
            _holds("saved_model.pb", "*.data-?????-of-?????"),
            _is_prefix_of(".index", ".meta"),
        ),
        "checkpoint of TensorFlow",
        "read it with tf.train.load_checkpoint(PATH), and np.savez('weights.npz', ...) of its get_tensor(name)",
    ),
    Refusal(
        _either(_shows("pickle"), _named("*.pkl", "*.pickle", "*.joblib")),
        "pickled object, which can run code and is never unpickled",
        "load it where you trust it, and np.savez('weights.npz', ...) of its arrays; of a torch module, "
        + _SAVE_THE_STATE,
    ),
)
"""Formats that are refused before any reader sees the file: by what they hold, or because they are parts of a whole."""

_UNREAD = (
    Refusal(
        _named("*.ggml"),
        "file of llama.cpp from before GGUF",
        "take the .safetensors files that it was made from, or convert it to .gguf with an old llama.cpp",
    ),
    Refusal(
        _named("*.mlmodel", "*.mlpackage"),
        "model of Core ML",
        "read it with coremltools.models.MLModel(FILE), or save the weights of the model that it was made from",
    ),
    Refusal(
        _named("*.ot"),
        "file of tch (.ot)",
        "save its weights where you trust it: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')",
    ),
    Refusal(
        _named("*.pte", "*.engine", "*.plan", "*.trt"),
        "compiled model",
        "save the weights of the model that it was compiled from",
    ),
    Refusal(
        _named("*.pdparams", "*.pdiparams"),
        "file of Paddle",
        "np.savez('weights.npz', **{name: w.numpy() for name, w in paddle.load(FILE).items()})",
    ),
    Refusal(
        _either(_shows("matlab"), _named("*.mat")),
        "file of MATLAB",
        "np.savez('weights.npz', **{name: w for name, w in scipy.io.loadmat(FILE).items() if name[0] != '_'})",
    ),
    Refusal(
        _named("*.pb"),
        "graph of TensorFlow",
        "np.savez('weights.npz', ...) of tf.make_ndarray(node.attr['value'].tensor) of its nodes of the kind Const",
    ),
    Refusal(
        _either(_shows("compressed"), _named("*.gz", "*.xz", "*.bz2", "*.zst", "*.7z", "*.nemo", "*.mar")),
        "compressed file",
        "unpack it, and give the file of weights in it",
    ),
)
"""Formats that are named when no reader, of this package or another, opens the file."""
