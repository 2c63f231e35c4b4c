"""Formats that are known and not read: each by name, with a way to weights that are."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from topobounds.checkpoint.location import Location
from topobounds.checkpoint.signatures import format_of


@dataclass(frozen=True)
class Refusal:
    """A format that is not read.

    Attributes
    ----------
    is_one : callable
        ``is_one(path, content)``: whether a file or folder, whose `content` is `format_of` it, is of this format.
    kind : str
        What it is: "... is a KIND".
    way_on : str
        One sentence that says how to get weights from it.
    """

    is_one: Callable[[Location, str | None], bool]
    kind: str
    way_on: str


def refusal(path: Location) -> Refusal | None:
    """Return why a file or folder is of a format that is not read, if it is."""
    content = format_of(path)
    return next((each for each in REFUSALS if each.is_one(path, content)), None)


def _named(*patterns: str) -> Callable[[Location, str | None], bool]:
    return lambda path, content: any(fnmatch(path.name, pattern) for pattern in patterns)


def _shows(*contents: str) -> Callable[[Location, str | None], bool]:
    return lambda path, content: content in contents


def _holds(*patterns: str) -> Callable[[Location, str | None], bool]:
    """Whether a folder, on this machine, holds a file or folder of such a name."""
    return lambda path, content: (
        isinstance(path, Path) and path.is_dir() and any(next(path.glob(pattern), None) for pattern in patterns)
    )


def _either(*tests: Callable[[Location, str | None], bool]) -> Callable[[Location, str | None], bool]:
    return lambda path, content: any(test(path, content) for test in tests)


_SAVE_THE_STATE = "save its state_dict where you trust it: torch.save(module.state_dict(), 'weights.pt')"

REFUSALS = (
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
        _either(_shows("hdf5", "keras"), _named("*.h5", "*.hdf5", "*.keras")),
        "file of Keras (HDF5)",
        "save its weights from Keras: np.savez('weights.npz', **{w.path: w.numpy() for w in model.weights})",
    ),
    Refusal(
        _named("*.msgpack"),
        "file of Flax (msgpack)",
        "save its parameters from Flax: np.savez('weights.npz', **flax.traverse_util.flatten_dict(params, sep='.'))",
    ),
    Refusal(
        _holds("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", "*/manifest.ocdbt"),
        "checkpoint of Orbax",
        "restore it with Orbax, and np.savez('weights.npz', **flax.traverse_util.flatten_dict(params, sep='.'))",
    ),
    Refusal(
        _either(
            _named("*.ckpt.index", "*.ckpt.meta", "*.data-?????-of-?????", "saved_model.pb", "*.tflite"),
            _holds("saved_model.pb", "*.data-?????-of-?????"),
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
