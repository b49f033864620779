"""What every benchmark is: `measure(say, *, …) -> figures`. Its keyword arguments are its options."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

Say = Callable[[str], None]
# Each key ends in its unit, but for names, counts and `ratio`.
Figures = dict[str, Any]
Measure = Callable[..., Figures]


class Option(NamedTuple):
    """One keyword argument of a `measure`: `rate: Annotated[int, "what it means"] = 5`."""

    name: str
    kind: Callable[[str], Any]
    choices: tuple[str, ...] | None
    default: Any
    help: str


def options_of(measure: Measure) -> list[Option]:
    hints = get_type_hints(measure, include_extras=True)
    only = [each for each in inspect.signature(measure).parameters.values() if each.kind is each.KEYWORD_ONLY]
    return [_option(each.name, hints[each.name], each.default) for each in only]


def summary(measure: Measure) -> str:
    """What it measures: the first paragraph of its module's docstring."""
    words = inspect.getdoc(inspect.getmodule(measure)) or ""
    return " ".join(words.partition("\n\n")[0].split())


def _option(name: str, hint: Any, default: Any) -> Option:
    assert get_origin(hint) is Annotated, f"{name} says nothing about itself"
    kind, help = get_args(hint)
    if get_origin(kind) is Literal:
        return Option(name, str, get_args(kind), default, help)
    return Option(name, kind if kind is str else _positive(kind), None, default, help)


def _positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = kind(text)
        if value <= 0:
            raise ValueError("nothing to measure")
        return value

    # argparse says "invalid positive int value".
    read.__name__ = f"positive {getattr(kind, '__name__', 'number')}"
    return read
