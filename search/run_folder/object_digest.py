"""A digest of what a Python object computes: its code, its state, and the user's code and values that it refers to.

The same in every process: no address, no hash value, no order of a set is part of it. It changes with

    functions    byte code with constants and nested code, defaults, closure, attributes (``__wrapped__``), the global
                 values it reads, and the sources of its module (``search.run_folder.sources``), comments among them
    objects      class and state: ``__dict__``, slots, and what pickling would keep; bound methods also their object
    classes      everything in a user's class and its bases
    modules      a user's: its sources, and the values read from it; installed ones: version and file

Refused, because two of them cannot be told apart: what keeps its state outside Python and does not tell it, such as a
socket, an open file, a generator, a session of a runtime.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import logging
import pickle
import sys
import threading
import types
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bitfront.search.run_folder.sources import installed_version, is_user_module, sources

_DEEPEST = 120
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made at run time
_LOCKS = (type(threading.Lock()), type(threading.RLock()))  # they decide nothing
# NumPy's own, seeded by chance in every process, which library objects hold that may never draw from it.
_SHARED_RANDOM_STATE = getattr(np.random.mtrand, "_rand", None)
_DESCRIPTORS = (
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
)
# Of a class's dictionary: made by Python, some of it only once the class is used.
_MADE_BY_PYTHON = frozenset(
    {"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__slotnames__", "_abc_impl"}
    | {"__firstlineno__", "__static_attributes__", "__annotate_func__", "__annotations_cache__"}
)


class UndigestibleError(Exception):
    """An object whose state cannot be told.

    Args:
        where: How it is reached.
        reason: Why not.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where} {reason}")


def object_digest(value: object, name: str) -> str:
    """SHA-256 hex digest of an object.

    Args:
        value: Anything.
        name: What it is called in messages.

    Raises:
        UndigestibleError: If the state of something it consists of cannot be told.
    """
    digester = _Digester()
    try:
        digester.feed(value, name)
    except RecursionError:
        raise UndigestibleError(name, "is nested too deeply") from None
    return digester.state.hexdigest()


class _Digester:
    """A traversal that feeds a hash; an object met before is fed as its number, so cycles end."""

    def __init__(self) -> None:
        self.state = hashlib.sha256()
        self._met: dict[int, int] = {}
        self._alive: list[object] = []  # an object that is freed would give its id to another
        self._depth = 0

    def feed(self, value: Any, path: str) -> None:
        """Feed any object; ``path`` says how it was reached."""
        if self._depth > _DEEPEST:
            raise UndigestibleError(path, "is nested too deeply")
        self._depth += 1
        try:
            if not self._plain(value, path) and not self._known(value):
                self._compound(value, path)
        finally:
            self._depth -= 1

    def _put(self, tag: str, data: bytes = b"") -> None:
        self.state.update(f"{tag}:{len(data)}:".encode() + data)

    def _text(self, tag: str, text: str) -> None:
        self._put(tag, text.encode("utf-8", "surrogatepass"))

    def _plain(self, value: Any, path: str) -> bool:
        """Feed a value without identity (two equal ones may or may not be one object); returns whether it is one."""
        kind = type(value)
        if value is None or value is Ellipsis or value is NotImplemented or kind in (bool, int, float, complex):
            self._text(kind.__name__, repr(value))
        elif kind is str:
            self._text("str", value)
        elif kind in (bytes, bytearray):
            self._put(kind.__name__, bytes(value))
        elif kind is tuple:
            self._items("tuple", value, path)
        elif kind in (set, frozenset):
            self._items(kind.__name__, sorted(object_digest(item, path) for item in value), path)
        elif kind is types.CodeType:
            self._code(value, path)
        elif isinstance(value, np.generic) and not value.dtype.hasobject:
            self._text("scalar", str(value.dtype))
            self._put("data", value.tobytes())
        else:
            return False
        return True

    def _known(self, value: Any) -> bool:
        number = self._met.get(id(value))
        if number is not None:
            self._text("again", str(number))
            return True
        self._met[id(value)] = len(self._met)
        self._alive.append(value)
        return False

    def _compound(self, value: Any, path: str) -> None:
        torch = sys.modules.get("torch")
        if type(value) is list:
            self._items("list", value, path)
        elif type(value) in (dict, types.MappingProxyType):
            self._mapping("dict", value, path)
        elif type(value) in (np.ndarray, np.memmap):
            self._array(value, path)
        elif torch is not None and isinstance(value, torch.Tensor):
            self._tensor(value, path)
        elif isinstance(value, types.ModuleType):
            self._module(value)
        elif isinstance(value, types.FunctionType):
            self._function(value, path)
        elif isinstance(value, type):
            self._class(value, path)
        elif isinstance(value, types.MethodType):
            self._items("method", (value.__func__, value.__self__), path)
        elif isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType):
            self._builtin(value, path)
        elif isinstance(value, _DESCRIPTORS):
            self._text("descriptor", f"{value.__objclass__.__qualname__}.{value.__name__}")
        elif isinstance(value, property):
            self._items("property", (value.fget, value.fset, value.fdel), path)
        elif isinstance(value, classmethod | staticmethod):
            self._items(type(value).__name__, (value.__func__,), path)
        elif isinstance(value, functools.cached_property):
            self._items("cached property", (value.func,), path)
        elif isinstance(value, logging.Logger):
            self._text("logger", value.name)
        elif isinstance(value, weakref.ref):
            self._items("reference", (value(),), path)
        elif isinstance(value, _LOCKS):
            self._text("lock", "")
        elif value is _SHARED_RANDOM_STATE:
            self._text("shared random state", "")
        else:
            self._instance(value, path)

    def _items(self, tag: str, items: Any, path: str) -> None:
        listed = list(items)
        self._text(tag, str(len(listed)))
        for index, item in enumerate(listed):
            self.feed(item, f"{path}[{index}]")

    def _mapping(self, tag: str, mapping: Mapping[Any, Any], path: str) -> None:
        # By the keys' digests: which key was set first may be a matter of chance.
        named = {object_digest(key, path): (key, value) for key, value in list(mapping.items())}
        self._text(tag, str(len(named)))
        for key_digest in sorted(named):
            key, value = named[key_digest]
            self._text("key", key_digest)
            self.feed(value, f"{path}.{key}" if isinstance(key, str) else f"{path}[{key!r}]"[:200])

    def _array(self, array: np.ndarray[Any, Any], path: str) -> None:
        self._text("array", f"{array.dtype.descr if array.dtype.names else array.dtype} {array.shape}")
        if array.dtype.hasobject:
            self._items("objects", array.reshape(-1).tolist(), path)
        else:
            self._put("data", np.ascontiguousarray(array).tobytes())

    def _tensor(self, tensor: Any, path: str) -> None:
        self._text("tensor", f"{tensor.dtype} {tuple(tensor.shape)}")
        try:
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            data = flat.view(sys.modules["torch"].uint8).numpy().tobytes() if flat.numel() else b""
        except (RuntimeError, TypeError, NotImplementedError) as error:
            raise UndigestibleError(path, f"is a tensor that cannot be read ({error})") from error
        self._put("data", data)

    def _module(self, module: types.ModuleType) -> None:
        name = module.__name__
        if is_user_module(name):
            self._sources(name)
        else:
            self._text("installed", installed_version(name))

    def _sources(self, name: str) -> None:
        for module, content in sorted(sources(name).items()):
            self._text("source", f"{module} {content}")

    def _function(self, function: types.FunctionType, path: str) -> None:
        # Not __module__, which functools.wraps copies from the function that is wrapped.
        home = function.__globals__.get("__name__")
        self._text("function", function.__qualname__)
        self._code(function.__code__, path)
        self.feed(function.__defaults__, f"{path}'s defaults")
        self.feed(function.__kwdefaults__, f"{path}'s defaults")
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:
                self._text("empty", name)
                continue
            self.feed(content, f"{path}'s '{name}'")
        self._mapping("attributes", vars(function), path)
        if not is_user_module(home):
            self._text("installed", installed_version(str(home)))
            return
        if home is not None:
            self._sources(home)
        for name in sorted(_globals_read(function.__code__)):
            if name in function.__globals__:
                self._text("global", name)
                self._global(function.__globals__[name], function.__code__, f"global '{name}' of {path}")

    def _global(self, value: Any, code: types.CodeType, path: str) -> None:
        """Feed a global; of a user's module also what the code may read from it."""
        self.feed(value, path)
        if isinstance(value, types.ModuleType) and is_user_module(value.__name__):
            for name in sorted(_attributes_read(code)):
                found = vars(value).get(name)
                if found is not None and (not isinstance(found, types.ModuleType) or is_user_module(found.__name__)):
                    self._text("attribute", name)
                    if isinstance(found, types.ModuleType) and id(found) not in self._met:
                        self._global(found, code, f"{path}.{name}")
                    else:
                        self.feed(found, f"{path}.{name}")

    def _code(self, code: types.CodeType, path: str) -> None:
        self._put("code", code.co_code)
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        self.feed((counts, names, code.co_exceptiontable, code.co_consts), path)

    def _class(self, cls: type, path: str) -> None:
        self._text("class", f"{cls.__module__}.{cls.__qualname__}")
        if not _is_user_class(cls):
            self._text("installed", installed_version(_home(cls)))
            return
        self._sources(_home(cls))
        self._items("bases", (type(cls), *cls.__bases__), path)
        own = {name: value for name, value in vars(cls).items() if name not in _MADE_BY_PYTHON}
        self._mapping("members", own, cls.__qualname__)

    def _builtin(self, function: Any, path: str) -> None:
        owner = function.__self__
        self._text("builtin", f"{getattr(function, '__module__', None)}.{function.__qualname__}")
        if owner is not None:
            self.feed(owner, f"{path}'s object")

    def _instance(self, value: Any, path: str) -> None:
        cls = type(value)
        self.feed(cls, path)
        try:
            reducer = copyreg.dispatch_table.get(cls)
            reduced = reducer(value) if reducer else value.__reduce_ex__(4)
        except Exception as error:
            raise UndigestibleError(path, f"is a {cls.__qualname__}, whose state cannot be told ({error})") from error
        if isinstance(reduced, str):
            self._named(value, reduced, path)
        else:
            for part in reduced:
                self.feed(list(part) if isinstance(part, Iterator) else part, path)
        # A user's class may leave out of its pickles what decides a result; a named object may carry attributes.
        if (_is_user_class(cls) or isinstance(reduced, str)) and hasattr(value, "__dict__"):
            self.feed(vars(value), path)
        if _is_user_class(cls):
            for name in _slots(cls):
                if hasattr(value, name):
                    self._text("slot", name)
                    self.feed(getattr(value, name), f"{path}.{name}")

    def _named(self, value: Any, name: str, path: str) -> None:
        """Feed what pickles would find by its name, if it is found there; what wraps a function, that function."""
        home = pickle.whichmodule(value, name)  # type: ignore[attr-defined]
        found: object = sys.modules.get(home)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is not value and not hasattr(value, "__wrapped__"):
            raise UndigestibleError(path, f"is a {type(value).__qualname__}, whose state cannot be told")
        self._text("named", f"{home}.{name}")


def _is_user_class(cls: type) -> bool:
    """Whether a class is of a user's module, or was made at run time by something installed (``make_dataclass``)."""
    if is_user_module(_home(cls)):
        return True
    found: object = sys.modules.get(_home(cls))
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is not cls and bool(cls.__flags__ & _HEAP_TYPE)


def _home(cls: type) -> str:
    """Name of the module a class is of; compiled metaclasses hold something else there."""
    return cls.__module__ if isinstance(cls.__module__, str) else "builtins"


def _slots(cls: type) -> list[str]:
    found: list[str] = []
    for base in cls.__mro__:
        slots = vars(base).get("__slots__", ())
        names = [slots] if isinstance(slots, str) else list(slots)
        private = base.__name__.lstrip("_")
        found += [f"_{private}{n}" if n.startswith("__") and not n.endswith("__") else n for n in names]
    return [name for name in found if name not in ("__dict__", "__weakref__")]


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def _globals_read(code: types.CodeType) -> set[str]:
    operations = ("LOAD_GLOBAL", "LOAD_NAME")
    return {
        str(step.argval) for part in _nested(code) for step in dis.get_instructions(part) if step.opname in operations
    }


def _attributes_read(code: types.CodeType) -> set[str]:
    return {name for part in _nested(code) for name in part.co_names}
