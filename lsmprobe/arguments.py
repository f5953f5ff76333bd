"""One check of arguments, the same in Python as on the command line.

What may be chosen or must lie within a range stands in the type: `Literal["frames", "pooled"]`,
`Annotated[float, Within(0.0, 1.0)]`. Fields of a config are checked when it is built, arguments of
a public function when it is called, before anything is computed.
"""

import difflib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Hashable, Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal, NamedTuple, ParamSpec, TypeVar, get_args, get_origin

from lsmprobe.errors import SettingsError

P = ParamSpec("P")
R = TypeVar("R")


class Within(NamedTuple):
    """The range of a number, both ends allowed; NaN is in no range."""

    low: float
    high: float


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of a public function, as its types say, before it runs.

    A choice in another case is taken as the choice that it spells; a single string where a tuple
    or a list of strings is expected stands for one of them.

    Raises:
        SettingsError: an argument that is none of its choices, or out of its range.

    >>> @checked
    ... def area(shape: Literal["disc", "square"], size: Annotated[float, Within(0, 9)]) -> str:
    ...     return shape
    >>> area("Disc", 1.0)
    'disc'
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        hints = _hints(function)
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            if name not in hints or kind is inspect.Parameter.VAR_KEYWORD:
                continue
            if kind is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(check(name, one, hints[name]) for one in value)
            else:
                bound.arguments[name] = check(name, value, hints[name])
        return function(*bound.args, **bound.kwargs)

    return call


def check_fields(config: Any) -> None:
    """Check every field of a frozen dataclass, as its types say; call it from `__post_init__`.

    Raises:
        SettingsError: a field that is none of its choices, or out of its range.
    """
    hints = _hints(config.__class__)
    for field in fields(config):
        value = getattr(config, field.name)
        right = check(f"--{field.name.replace('_', '-')}", value, hints[field.name])
        if right is not value:
            object.__setattr__(config, field.name, right)


def check(name: str, value: Any, hint: Any) -> Any:
    """The value, spelled as its type spells it.

    Raises:
        SettingsError: it is none of the choices, or out of the range, that the type states.
    """
    for limits in _annotations(hint):
        is_number = isinstance(limits, Within) and isinstance(value, int | float)
        if is_number and not limits.low <= value <= limits.high:
            raise SettingsError(f"{name} is {value}; expected {limits.low} to {limits.high}.")
    plain = _alternatives(hint)
    choices = [choice for one in plain if get_origin(one) is Literal for choice in get_args(one)]
    lists = [one for one in plain if get_origin(one) in (tuple, list, Sequence, _SEQUENCE)]
    if isinstance(value, str) and choices:
        return _spelled(name, value, choices, open_ended=str in plain)
    if isinstance(value, str) and lists and str not in plain:
        value = (value,)
    if isinstance(value, tuple | list) and lists:
        inner = get_args(lists[0])[0] if get_args(lists[0]) else Any
        right = [check(name, one, inner) for one in value]
        unchanged = all(a is b for a, b in zip(right, value, strict=True))
        return value if unchanged else type(value)(right)
    return value


_SEQUENCE = Sequence[int].__origin__  # type: ignore[attr-defined]


def _spelled(name: str, value: str, choices: list[Any], open_ended: bool) -> Any:
    """The choice that a string spells, in whatever case."""
    if value in choices:
        return value
    words = [choice for choice in choices if isinstance(choice, str)]
    folded = {word.casefold(): word for word in words}
    if value.casefold() in folded:
        return folded[value.casefold()]
    if open_ended:
        return value
    close = difflib.get_close_matches(value.casefold(), folded, n=1, cutoff=0.6)
    hint = f" Did you mean {folded[close[0]]!r}?" if close else ""
    expected = ", ".join(repr(choice) for choice in choices)
    raise SettingsError(f"{name} is {value!r}; expected one of {expected}.{hint}")


@functools.cache
def _hints(what: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(inspect.unwrap(what), include_extras=True)  # type: ignore[arg-type]


def _annotations(hint: Any) -> list[Any]:
    """What stands beside the type in `Annotated`, also within a union."""
    if get_origin(hint) is Annotated:
        inner, *extra = get_args(hint)
        return [*extra, *_annotations(inner)]
    if get_origin(hint) in (typing.Union, types.UnionType):
        return [extra for one in get_args(hint) for extra in _annotations(one)]
    return []


def _alternatives(hint: Any) -> list[Any]:
    """The types that a union offers, without what is annotated."""
    if get_origin(hint) is Annotated:
        return _alternatives(get_args(hint)[0])
    if get_origin(hint) in (typing.Union, types.UnionType):
        return [kind for one in get_args(hint) for kind in _alternatives(one)]
    return [hint]
